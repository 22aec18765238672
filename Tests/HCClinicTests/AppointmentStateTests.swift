import HCCore
import Testing

@testable import HCClinic

struct AppointmentStateTests {
    @Test("what is final stays as it is", arguments: AppointmentState.allCases.filter(\.isFinal))
    func finalStates(_ state: AppointmentState) {
        #expect(state.allowedActions.isEmpty)
    }

    @Test(
        "what is not final can be ended",
        arguments: AppointmentState.allCases.filter { !$0.isFinal })
    func everyOtherStateCanEnd(_ state: AppointmentState) {
        var reached: Set<AppointmentState> = [state]
        var frontier = [state]
        while let next = frontier.popLast() {
            for action in next.allowedActions {
                guard let after = next.next(action), reached.insert(after).inserted else {
                    continue
                }
                frontier.append(after)
            }
        }
        #expect(reached.contains { $0.isFinal })
    }

    @Test(
        "the day of an appointment",
        arguments: [
            (.pending, .confirm, .booked), (.booked, .checkIn, .checkedIn),
            (.checkedIn, .start, .started), (.started, .complete, .fulfilled),
            (.checkedIn, .complete, .fulfilled), (.booked, .noShow, .noshow),
            (.booked, .cancel, .cancelled), (.booked, .reschedule, .booked),
            (.booked, .complete, nil), (.booked, .start, nil), (.booked, .confirm, nil),
            (.started, .cancel, nil), (.started, .reschedule, nil), (.checkedIn, .reschedule, nil),
            (.cancelled, .confirm, nil), (.fulfilled, .cancel, nil), (.noshow, .checkIn, nil),
        ] as [(AppointmentState, AppointmentAction, AppointmentState?)])
    func steps(
        _ state: AppointmentState, _ action: AppointmentAction, _ after: AppointmentState?
    ) {
        #expect(state.next(action) == after)
    }

    @Test("a state is the same after it was stored", arguments: AppointmentState.allCases)
    func roundTrip(_ state: AppointmentState) {
        #expect(AppointmentState(status: state.status, isStarted: state == .started) == state)
    }

    @Test("time is given back exactly by what does not take place")
    func blocking() {
        let free = AppointmentState.allCases.filter { !$0.isBlocking }
        #expect(Set(free) == [.proposed, .waitlist, .cancelled, .noshow, .enteredInError])
    }

    @Test("an illegal step says what is allowed instead")
    func illegalStepNamesTheLegalOnes() {
        let appointment = Appointment(
            id: AppointmentID(.zero), patientID: PatientID(.zero),
            practitionerID: PractitionerID(.zero), startsAt: .epoch, endsAt: .epoch + .seconds(600),
            zone: "UTC", state: .checkedIn, startedAt: nil, notes: AppointmentNotes(),
            createdBy: nil, version: 3, createdAt: .epoch, updatedAt: .epoch)
        do {
            _ = try appointment.after(.confirm, AppointmentActionNote(), at: .epoch)
            Issue.record("it was confirmed")
        } catch {
            #expect(error.code == .illegalTransition)
            #expect(error.data["status"] == "checked-in")
            #expect(error.data["allowed"] == ["cancel", "start", "complete", "no-show"])
        }
    }
}
