import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// What keeps an appointment from who may not have it, from a time at which it cannot be, and from going unrecorded.
@Suite("What guards appointments", .onLoop) @LoopActor
struct AppointmentGuardTests {
    private func move(
        _ id: AppointmentID, to draft: AppointmentDraft, practitioner: PractitionerID? = nil,
        as actor: Actor? = nil, _ clinic: LiveClinic
    ) async throws -> Appointment {
        try await clinic.services.appointments.reschedule(
            id,
            AppointmentMove(
                startsAt: draft.startsAt, endsAt: draft.endsAt, practitionerID: practitioner),
            .any, actor ?? clinic.system, in: clinic.context, deadline: clinic.deadline
        ).appointment
    }

    /// What the audit says of appointments, in order.
    private func recorded(_ clinic: LiveClinic) async throws -> [String] {
        try await clinic.psql(
            """
            SELECT action || ' ' || entity || ' ' || outcome FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)'
                AND entity IN ('appointment', 'patient', 'practitioner')
                AND action NOT IN ('login') ORDER BY id
            """
        ).split(separator: "\n").map(String.init)
    }

    @Test("every booking, move, step, look and list is recorded, once")
    func audit() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let id = try await clinic.book(clinic.draft(patient, practitioner))
        _ = try await move(id, to: clinic.draft(patient, practitioner, inHours: 60), clinic)
        _ = try await clinic.perform(.checkIn, id)
        _ = try await clinic.perform(.cancel, id)
        _ = try await clinic.services.appointments.read(
            id, clinic.system, in: clinic.context, deadline: clinic.deadline)
        _ = try await clinic.services.appointments.list(
            AppointmentFilter(), PageRequest(), clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        #expect(
            try await recorded(clinic).filter { $0.contains(" appointment ") }.sorted()
                == [
                    "cancel appointment success", "check-in appointment success",
                    "create appointment success", "list appointment success",
                    "read appointment success", "reschedule appointment success",
                ])
    }

    @Test("who reaches for what is another's is refused, and the attempt is recorded")
    func denials() async throws {
        let clinic = try await LiveClinic.make()
        let (own, other) = (try await clinic.register(), try await clinic.register())
        let doctor = try await clinic.staff(.doctor, email: "doctor@clinic.example")
        let practitioner = try await clinic.practitioner()
        let patient = try await clinic.patientActor(own, email: "testa@example.org")
        let foreign = try await clinic.book(clinic.draft(other, practitioner, inHours: 72))
        func refused(
            _ wanted: String, _ body: @LoopActor () async throws -> some Sendable
        ) async throws {
            let before = try await recorded(clinic).filter { $0.hasPrefix("deny") }
            #expect(try await code(body) != nil)
            let after = try await recorded(clinic).filter { $0.hasPrefix("deny") }
            #expect(after.count == before.count + 1)
            #expect(after.last == wanted)
        }
        try await refused("deny patient denied") {
            try await clinic.book(clinic.draft(other, practitioner, inHours: 80), as: patient)
        }
        try await refused("deny appointment denied") {
            try await clinic.services.appointments.read(
                foreign, patient, in: clinic.context, deadline: clinic.deadline)
        }
        try await refused("deny appointment denied") {
            try await clinic.perform(.cancel, foreign, as: patient)
        }
        try await refused("deny appointment denied") {
            try await self.move(
                foreign, to: clinic.draft(other, practitioner, inHours: 90), as: patient, clinic)
        }
        try await refused("deny practitioner denied") {
            var draft = clinic.draft(other, practitioner, inHours: 72)
            draft.overbooking = AppointmentDraft.Overbooking(reason: "urgent")
            return try await clinic.book(draft, as: doctor)
        }
        let id = try await clinic.book(clinic.draft(own, practitioner, inHours: 40), as: patient)
        try await refused("deny appointment denied") {
            try await clinic.perform(.checkIn, id, as: patient)
        }
        // Of another's appointments the list is empty, and not the own ones in their place.
        var filter = AppointmentFilter()
        filter.patientID = other
        let listed = try await clinic.services.appointments.list(
            filter, PageRequest(), patient, in: clinic.context, deadline: clinic.deadline)
        #expect(listed.items.isEmpty)
    }

    @Test("patients do not confirm what waits to be confirmed")
    func confirming() async throws {
        let clinic = try await LiveClinic.make()
        let own = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let patient = try await clinic.patientActor(own, email: "testa@example.org")
        var draft = clinic.draft(own, practitioner)
        draft.status = .pending
        let id = try await clinic.book(draft, as: patient)
        #expect(
            try await code { try await clinic.perform(.confirm, id, as: patient) } == .forbidden)
        #expect(try await clinic.perform(.confirm, id).status == .booked)
    }

    @Test("nothing is booked for, or moved to, a time that has gone or a span that is none")
    func times() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let id = try await clinic.book(clinic.draft(patient, practitioner))
        let wrong = [
            clinic.draft(patient, practitioner, inHours: -2),
            clinic.draft(patient, practitioner, minutes: 0),
            clinic.draft(patient, practitioner, minutes: 4),
            clinic.draft(patient, practitioner, minutes: 12 * 60 + 1),
        ]
        for draft in wrong {
            #expect(try await code { try await clinic.book(draft) } == .invalidInput)
            #expect(
                try await code { try await self.move(id, to: draft, clinic) } == .invalidInput)
        }
    }

    @Test("what is cancelled, done or missed is not moved")
    func movesOfTheFinal() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        for (hours, steps) in [
            (48, [AppointmentAction.cancel]), (50, [.noShow]), (52, [.checkIn, .complete]),
            (54, [.checkIn]),
        ] {
            let id = try await clinic.book(
                clinic.draft(patient, practitioner, inHours: hours))
            for step in steps { _ = try await clinic.perform(step, id) }
            #expect(
                try await code {
                    try await self.move(
                        id, to: clinic.draft(patient, practitioner, inHours: 100), clinic)
                } == .illegalTransition)
        }
    }

    @Test("nothing is moved to a practitioner who is gone or takes no appointments")
    func movesToNobody() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let id = try await clinic.book(clinic.draft(patient, try await clinic.practitioner()))
        let (gone, inactive) = (
            try await clinic.practitioner(), try await clinic.practitioner()
        )
        _ = try await clinic.psql(
            """
            UPDATE practitioner SET deleted_at = now() WHERE id = '\(gone)';
            UPDATE practitioner SET active = false WHERE id = '\(inactive)';
            """)
        for (practitioner, wanted) in [
            (gone, ClinicError.Code.invalidInput), (PractitionerID(.zero), .invalidInput),
            (inactive, .practitionerInactive),
        ] {
            #expect(
                try await code {
                    try await self.move(
                        id, to: clinic.draft(patient, practitioner, inHours: 60),
                        practitioner: practitioner, clinic)
                } == wanted)
        }
    }

    @Test("an appointment that moves is offered the time that it gives up")
    func ownTime() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        // Noon, so that there is a rest of the day.
        let hours = 48 + 12 - Int(clinic.clock.now.seconds / 3600 % 24)
        let taken = clinic.draft(patient, practitioner, inHours: hours)
        let own = clinic.draft(patient, practitioner, inHours: hours, minute: 30)
        try await clinic.book(taken)
        let id = try await clinic.book(own)
        do {
            _ = try await move(id, to: taken, clinic)
            Issue.record("it was booked twice")
        } catch let error as ClinicError {
            let first = error.data["alternatives"]?.asArray?.first?["startsAt"]?.asString
            #expect(first.flatMap { Timestamp(rfc3339: $0) } == own.startsAt)
        }
    }

    @Test("a reason is given for a cancellation and for nothing else")
    func reasons() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, practitioner) = (try await clinic.register(), try await clinic.practitioner())
        let id = try await clinic.book(clinic.draft(patient, practitioner))
        for action in [AppointmentAction.confirm, .checkIn, .noShow, .start, .complete] {
            #expect(
                try await code { try await clinic.perform(action, id, reason: "why") }
                    == .invalidInput)
        }
        #expect(try await clinic.perform(.cancel, id, reason: "why").status == .cancelled)
    }

    @Test("a practitioner's time is not taken by others' lanes")
    func lanesOfOthers() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        for _ in 0..<2 {
            let practitioner = try await clinic.practitioner { $0.capacity = 2 }
            for _ in 0..<2 { try await clinic.book(clinic.draft(patient, practitioner)) }
        }
    }

    @Test("who moves what was booked beside others keeps its place there at home only")
    func overbookedAtHome() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let doctor = try await clinic.staff(.doctor, email: "doctor@clinic.example")
        let own = try await clinic.practitioner { $0.accountID = doctor.accountID }
        let others = try await clinic.practitioner()
        for (practitioner, reason) in [(own, "urgent"), (others, nil)] {
            var draft = clinic.draft(patient, practitioner)
            try await clinic.book(draft)
            draft.overbooking = AppointmentDraft.Overbooking(reason: "urgent")
            let id = try await clinic.book(draft)
            let moved = try await move(
                id, to: clinic.draft(patient, practitioner, inHours: 60), as: doctor, clinic)
            #expect(moved.notes.overbookReason == reason)
        }
    }

    @Test("a booking waits for who is just being taken out, and is then refused")
    func beingTakenOut() async throws {
        for table in ["patient", "practitioner"] {
            let clinic = try await LiveClinic.make()
            let draft = clinic.draft(try await clinic.register(), try await clinic.practitioner())
            let (services, shard) = (clinic.ground.services, clinic.ground.shard)
            let (session, watcher) = try await offLoop {
                (try services.session(shard.superuser), try services.session(shard.superuser))
            }
            let tenant = clinic.context.id
            let holder = try await offLoop {
                _ = try watcher.run("SELECT 1")
                return try session.run(
                    """
                    BEGIN; SELECT pg_backend_pid();
                    SELECT 1 FROM \(table) WHERE tenant_id = '\(tenant)' FOR UPDATE;
                    UPDATE \(table) SET deleted_at = now() WHERE tenant_id = '\(tenant)'
                    """
                ).lines.first ?? "0"
            }
            let booking = Loop.shared.makeTask { try await code { try await clinic.book(draft) } }
            // Nothing tells when a backend begins to wait but PostgreSQL itself.
            let waits =
                "SELECT count(*) FROM pg_stat_activity WHERE \(holder) = ANY (pg_blocking_pids(pid))"
            let limit = Deadline.after(.seconds(60), from: Loop.now)
            while try await offLoop({ try watcher.run(waits).lines.first }) == "0" {
                try #require(!limit.isExpired(at: Loop.now))
            }
            try await offLoop { _ = try session.run("COMMIT") }
            #expect(try await booking.value == .invalidInput, "\(table)")
        }
    }
}
