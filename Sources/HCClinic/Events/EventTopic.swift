import HCCore
import HCTenancy

/// What a socket follows: `calendar:{practitionerId}` or `patient:{id}`.
enum EventTopic: Hashable, Sendable, CustomStringConvertible {
    /// Appointments of a practitioner.
    case calendar(PractitionerID)
    /// A patient's record and appointments.
    case patient(PatientID)

    /// - Returns: nil for anything else; ids in their canonical form, of either case.
    init?(_ text: String) {
        guard let colon = text.utf8.firstIndex(of: UInt8(ascii: ":")) else { return nil }
        let name = String(text[text.utf8.index(after: colon)...])
        switch text[..<colon] {
        case "calendar":
            guard let id = PractitionerID(name) else { return nil }
            self = .calendar(id)
        case "patient":
            guard let id = PatientID(name) else { return nil }
            self = .patient(id)
        default: return nil
        }
    }

    /// Lower case: the same topic is the same text.
    var description: String {
        switch self {
        case .calendar(let id): "calendar:\(id)"
        case .patient(let id): "patient:\(id)"
        }
    }

    /// As the audit calls it.
    var entity: StaticString {
        switch self {
        case .calendar: "calendar"
        case .patient: "patient"
        }
    }

    var id: UUID {
        switch self {
        case .calendar(let id): id.uuid
        case .patient(let id): id.uuid
        }
    }

    /// Without this nobody follows the topic.
    var permission: Permission {
        switch self {
        case .calendar: .appointmentsRead
        case .patient: .patientsRead
        }
    }

    /// Whether the actor may follow it. A calendar is everybody's appointments: who may see only the own ones
    /// follows the own record.
    func isOpen(to actor: Actor) -> Bool {
        guard let scope = actor.scope(of: permission) else { return false }
        switch self {
        case .calendar: return scope > .own
        case .patient(let id): return scope > .own || actor.patientID == id
        }
    }

    /// Whether the actor may hear of this event by way of this topic. What is not known is not told.
    func tells(_ event: TenantEvent, to actor: Actor) -> Bool {
        guard isOpen(to: actor), let kind = EventKind(event.name),
            let scope = actor.scope(of: kind.permission)
        else { return false }
        if scope > .own { return true }
        if case .patient(let id) = self { return actor.patientID == id }
        return false
    }
}

/// What an event is about.
private enum EventKind {
    case appointment
    case patient

    init?(_ name: String) {
        switch name.prefix(while: { $0 != "." }) {
        case "appointment": self = .appointment
        case "patient": self = .patient
        default: return nil
        }
    }

    var permission: Permission {
        switch self {
        case .appointment: .appointmentsRead
        case .patient: .patientsRead
        }
    }
}
