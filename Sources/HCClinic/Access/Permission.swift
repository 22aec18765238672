/// Something a service allows or refuses. The names are those of `permissions.json`, which says to whom.
package enum Permission: String, CaseIterable, Sendable {
    case clinicRead = "clinic.read"
    case clinicWrite = "clinic.write"
    case staffRead = "staff.read"
    case staffWrite = "staff.write"
    case patientAccountsWrite = "patient-accounts.write"
    case sessionsOwn = "sessions.own"
    case practitionersRead = "practitioners.read"
    case practitionersWrite = "practitioners.write"
    case servicesRead = "services.read"
    case servicesWrite = "services.write"
    case patientsRead = "patients.read"
    case patientsSearch = "patients.search"
    case patientsCreate = "patients.create"
    case patientsWrite = "patients.write"
    case patientsDelete = "patients.delete"
    case appointmentsRead = "appointments.read"
    case appointmentsWrite = "appointments.write"
    case appointmentsOperate = "appointments.operate"
    case appointmentsOverbook = "appointments.overbook"

    /// Position among all cases.
    var position: Int { Permission.positions[self] ?? 0 }

    private static let positions = Dictionary(
        uniqueKeysWithValues: allCases.enumerated().map { ($0.element, $0.offset) })
}

/// How far a grant reaches, from narrow to wide.
package enum Scope: String, CaseIterable, Comparable, Sendable {
    /// The own patient record, and of it what says how to reach the patient.
    case ownContact = "own-contact"
    /// The own patient record, appointments, practitioner or account.
    case own
    /// Everything but accounts that have, or would get, the role owner.
    case exceptOwners = "except-owners"
    case all

    private var width: Int {
        switch self {
        case .ownContact: 0
        case .own: 1
        case .exceptOwners: 2
        case .all: 3
        }
    }

    package static func < (left: Scope, right: Scope) -> Bool {
        left.width < right.width
    }
}
