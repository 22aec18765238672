/// FHIR AppointmentStatus (R4), as it stands in `appointment.status`.
package enum AppointmentStatus: String, CaseIterable, Sendable {
    case proposed
    case pending
    case booked
    case arrived
    case checkedIn = "checked-in"
    case fulfilled
    case cancelled
    case noshow
    case waitlist
    case enteredInError = "entered-in-error"
}

/// What can be done to an appointment. The names are those of the routes.
package enum AppointmentAction: String, CaseIterable, Sendable {
    case confirm
    case reschedule
    case cancel
    case checkIn = "check-in"
    case start
    case complete
    case noShow = "no-show"
}

/// Where an appointment stands. FHIR has no status for "the doctor is seeing the patient", which is the
/// encounter's; here it is `checked-in` with a time of start.
package enum AppointmentState: CaseIterable, Sendable {
    /// Can become: booked, cancelled; may be rescheduled.
    case proposed
    /// Waits to be confirmed; holds its time. Can become: booked, cancelled; may be rescheduled.
    case pending
    /// Can become: booked, cancelled.
    case waitlist
    /// Can become: checkedIn, cancelled, noshow; may be rescheduled.
    case booked
    /// In the house. Can become: checkedIn, cancelled.
    case arrived
    /// Can become: started, fulfilled, cancelled, noshow (gone before the call).
    case checkedIn
    /// Can become: fulfilled.
    case started
    /// The rest are final: nothing changes them.
    case fulfilled
    case cancelled
    case noshow
    case enteredInError

    package init(status: AppointmentStatus, isStarted: Bool) {
        switch status {
        case .proposed: self = .proposed
        case .pending: self = .pending
        case .waitlist: self = .waitlist
        case .booked: self = .booked
        case .arrived: self = .arrived
        case .checkedIn: self = isStarted ? .started : .checkedIn
        case .fulfilled: self = .fulfilled
        case .cancelled: self = .cancelled
        case .noshow: self = .noshow
        case .enteredInError: self = .enteredInError
        }
    }

    package var status: AppointmentStatus {
        switch self {
        case .proposed: .proposed
        case .pending: .pending
        case .waitlist: .waitlist
        case .booked: .booked
        case .arrived: .arrived
        case .checkedIn, .started: .checkedIn
        case .fulfilled: .fulfilled
        case .cancelled: .cancelled
        case .noshow: .noshow
        case .enteredInError: .enteredInError
        }
    }

    /// - Returns: the state after an action, nil if it is not allowed here.
    package func next(_ action: AppointmentAction) -> AppointmentState? {
        switch (self, action) {
        case (.proposed, .confirm), (.pending, .confirm), (.waitlist, .confirm): .booked
        case (.proposed, .reschedule), (.pending, .reschedule), (.booked, .reschedule): self
        case (.proposed, .cancel), (.pending, .cancel), (.waitlist, .cancel), (.booked, .cancel),
            (.arrived, .cancel), (.checkedIn, .cancel):
            .cancelled
        case (.booked, .checkIn), (.arrived, .checkIn): .checkedIn
        case (.checkedIn, .start): .started
        case (.checkedIn, .complete), (.started, .complete): .fulfilled
        case (.booked, .noShow), (.checkedIn, .noShow): .noshow
        default: nil
        }
    }

    package var allowedActions: [AppointmentAction] {
        AppointmentAction.allCases.filter { next($0) != nil }
    }

    package var isFinal: Bool {
        switch self {
        case .fulfilled, .cancelled, .noshow, .enteredInError: true
        default: false
        }
    }

    /// Whether the practitioner's time is taken by it.
    package var isBlocking: Bool {
        switch self {
        case .pending, .booked, .arrived, .checkedIn, .started, .fulfilled: true
        case .proposed, .waitlist, .cancelled, .noshow, .enteredInError: false
        }
    }
}
