import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// Every cell of the matrix against the services: who is not granted is refused, who is granted is not. Where
/// a grant is for one's own only, somebody else's is tried as well.
@Suite(.onLoop) @LoopActor
struct PermissionLiveTests {
    /// Somebody of each role in one clinic, with what they are related to.
    @LoopActor
    struct Cast {
        let clinic: LiveClinic
        let actors: [Role: Actor]
        let ownPatient: PatientID
        let otherPatient: PatientID
        let doctorsPractice: PractitionerID
        let otherPractice: PractitionerID

        static func make() async throws -> Cast {
            let clinic = try await LiveClinic.make()
            var actors: [Role: Actor] = [:]
            for role in Role.allCases where role.isStaff {
                actors[role] = try await clinic.staff(role, email: "\(role)@cast.example")
            }
            let own = try await clinic.register()
            actors[.patient] = try await clinic.patientActor(own, email: "patient@cast.example")
            let doctor = actors[.doctor]?.accountID
            return Cast(
                clinic: clinic, actors: actors, ownPatient: own,
                otherPatient: try await clinic.register(),
                doctorsPractice: try await clinic.practitioner { $0.accountID = doctor },
                otherPractice: try await clinic.practitioner { $0.capacity = 100 })
        }
    }

    /// Does what a permission is for; on one's own, or on somebody else's.
    private func attempt(
        _ permission: Permission, as role: Role, own: Bool, _ cast: Cast, _ number: Int
    ) async throws {
        let clinic = cast.clinic
        let (context, services, deadline) = (clinic.context, clinic.services, clinic.deadline)
        let actor = try #require(cast.actors[role])
        let patient = own ? cast.ownPatient : cast.otherPatient
        let practice = own ? cast.doctorsPractice : cast.otherPractice
        switch permission {
        case .clinicRead:
            _ = try await services.settings.read(actor, in: context, deadline: deadline)
        case .clinicWrite:
            _ = try await services.settings.update(
                ClinicSettingsPatch(), .any, actor, in: context, deadline: deadline)
        case .staffRead:
            _ = try await services.staff.list(PageRequest(), actor, in: context, deadline: deadline)
        case .staffWrite:
            // "Own" is what except-owners allows, the other is an owner.
            _ = try await services.staff.create(
                AccountDraft(
                    person: AccountPerson(email: "made\(number)@cast.example", name: "Made"),
                    roles: RoleSet(own ? .nurse : .owner), password: LiveClinic.password), actor,
                in: context, deadline: deadline)
        case .patientAccountsWrite:
            let patient = try await clinic.register()
            _ = try await services.staff.createForPatient(
                AccountDraft(
                    person: AccountPerson(email: "made\(number)@cast.example", name: "Made"),
                    roles: RoleSet(.patient), password: LiveClinic.password, patientID: patient),
                actor, in: context, deadline: deadline)
        case .sessionsOwn:
            _ = try await services.auth.sessions(actor, in: context, deadline: deadline)
        case .practitionersRead:
            _ = try await services.practitioners.list(
                PageRequest(), isActive: nil, actor, in: context, deadline: deadline)
        case .practitionersWrite:
            _ = try await services.practitioners.create(
                PractitionerDraft(name: "Made"), actor, in: context, deadline: deadline)
        case .servicesRead:
            _ = try await services.directory.services(
                PageRequest(), isActive: nil, actor, in: context, deadline: deadline)
        case .servicesWrite:
            _ = try await services.catalog.create(
                CareServiceDraft(name: "Made", durationMinutes: 30), actor, in: context,
                deadline: deadline)
        case .patientsRead:
            _ = try await services.patients.read(patient, actor, in: context, deadline: deadline)
        case .patientsSearch:
            _ = try await services.patients.list(
                PatientSearch(), PageRequest(), actor, in: context, deadline: deadline)
        case .patientsCreate:
            _ = try await services.patients.create(
                Patient(givenName: "Made", familyName: "Made", birthDate: .first, sex: .other), nil,
                actor, in: context, deadline: deadline)
        case .patientsWrite:
            var patch = PatientPatch()
            patch.phone = .set("+1415555\(1000 + number)")
            _ = try await services.patients.update(
                patient, patch, .any, actor, in: context, deadline: deadline)
        case .patientsDelete:
            try await services.patients.delete(
                try await clinic.register(), .any, actor, in: context, deadline: deadline)
        case .appointmentsRead:
            let id = try await clinic.book(
                clinic.draft(patient, cast.otherPractice, inHours: 50 + number))
            _ = try await services.appointments.read(id, actor, in: context, deadline: deadline)
        case .appointmentsWrite:
            try await clinic.book(
                clinic.draft(patient, cast.otherPractice, inHours: 50 + number), as: actor)
        case .appointmentsOperate:
            let id = try await clinic.book(clinic.draft(patient, practice, inHours: 50 + number))
            _ = try await clinic.perform(.checkIn, id, as: actor)
        case .appointmentsOverbook:
            var draft = clinic.draft(patient, practice, inHours: 50 + number)
            draft.overbooking = AppointmentDraft.Overbooking(reason: "test")
            try await clinic.book(draft, as: actor)
        }
    }

    @Test(
        "each role can do what its cell says and is refused the rest",
        arguments: Permission.allCases)
    func cells(_ permission: Permission) async throws {
        let cast = try await Cast.shared()
        for (index, role) in Role.allCases.enumerated() {
            let number =
                (Permission.allCases.firstIndex(of: permission) ?? 0) * 20 + index * 2
            let scope = PermissionMatrix.embedded.scope(of: permission, for: RoleSet(role))
            let own = try await code {
                try await attempt(permission, as: role, own: true, cast, number)
            }
            let others = try await code {
                try await attempt(permission, as: role, own: false, cast, number + 1)
            }
            let name = "\(role.rawValue) \(permission.rawValue)"
            switch scope {
            case nil:
                #expect(own == .forbidden, "\(name)")
                // A patient who books for another is told that there is no such patient.
                #expect(others == .forbidden || role == .patient && others != nil, "\(name)")
            case .all:
                #expect(own == nil, "\(name)")
                #expect(others == nil, "\(name)")
            case .exceptOwners:
                #expect(own == nil, "\(name)")
                #expect(others == .forbidden, "\(name)")
            case .own, .ownContact:
                #expect(own == nil, "\(name)")
                // Sessions have no other: what is asked for is always one's own.
                if permission != .sessionsOwn { #expect(others != nil, "\(name)") }
            }
        }
    }
}

extension PermissionLiveTests.Cast {
    private static var making: Task<PermissionLiveTests.Cast, any Error>?

    static func shared() async throws -> PermissionLiveTests.Cast {
        if let making { return try await making.value }
        let task = Loop.shared.makeTask { try await make() }
        making = task
        return try await task.value
    }
}

extension LiveClinic {
    private static var making: Task<LiveClinic, any Error>?

    /// A clinic for tests that do not mind each other's rows.
    static func shared() async throws -> LiveClinic {
        if let making { return try await making.value }
        let task = Loop.shared.makeTask { try await make() }
        making = task
        return try await task.value
    }
}

@Suite(.onLoop) @LoopActor
struct DemoDataLiveTests {
    @Test("demo data is made once: a second run adds nothing")
    func idempotent() async throws {
        let clinic = try await LiveClinic.make()
        func seed() async throws -> DemoData.Progress {
            try await DemoData.seed(
                in: clinic.context, services: clinic.services, patientCount: 40, dayCount: 8)
        }
        let first = try await seed()
        #expect(first.practitioners == 6)
        #expect(first.patients == 40)
        #expect(first.appointments > 6 * 5 * 6)
        #expect(first.created == first.practitioners + first.patients + first.appointments)
        let second = try await seed()
        #expect(second.created == 0)
        #expect(second.patients == 40)
        #expect(second.appointments == first.appointments)
    }
}
