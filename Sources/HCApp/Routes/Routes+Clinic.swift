import HCClinic
import HCHTTP
import HCTenancy

extension Routes {
    private static let documentBytesMax = 64 << 10

    static func addClinic(to table: inout RouteTable, _ services: ClinicServices) {
        let settings = services.settings
        table.add(
            .get, "/v1/clinic", "readClinic", permission: .clinicRead, class: .read,
            compresses: true,
            "The clinic's name, time zone, locale and currency."
        ) { request in
            let clinic = try await settings.read(
                request.actor, in: request.tenant, deadline: request.deadline)
            return .value(clinic, entityTag: clinic.entityTag)
        }
        table.add(
            .patch, "/v1/clinic", "changeClinic", permission: .clinicWrite, class: .write,
            audit: "update", needsVersion: true, bodyBytesMax: documentBytesMax,
            "Changes the clinic's settings."
        ) { request in
            let clinic = try await settings.update(
                ClinicSettingsPatch(json: try await request.json()), try request.ifMatch,
                request.actor,
                in: request.tenant, deadline: request.deadline)
            return .value(clinic, entityTag: clinic.entityTag)
        }
    }

    static func addStaff(to table: inout RouteTable, _ services: ClinicServices) {
        let staff = services.staff
        table.add(
            .get, "/v1/staff", "listStaff", permission: .staffRead, class: .read, compresses: true,
            "The accounts of the staff."
        ) { request in
            .value(
                try await staff.list(
                    try request.page().page, request.actor, in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .post, "/v1/staff", "createStaff", permission: .staffWrite, class: .write,
            audit: "create", bodyBytesMax: documentBytesMax,
            "Makes an account for a member of the staff."
        ) { request in
            let account = try await staff.create(
                AccountDraft(staff: try await request.json()), request.actor, in: request.tenant,
                deadline: request.deadline)
            return .made(account, at: "/v1/staff/\(account.id)", entityTag: account.entityTag)
        }
        table.add(
            .get, "/v1/staff/{id}", "readStaff", permission: .staffRead, class: .read,
            compresses: true, "One account of the staff."
        ) { request in
            let account = try await staff.read(
                try request.id(), request.actor, in: request.tenant, deadline: request.deadline)
            return .value(account, entityTag: account.entityTag)
        }
        table.add(
            .patch, "/v1/staff/{id}", "changeStaff", permission: .staffWrite, class: .write,
            audit: "update", needsVersion: true, bodyBytesMax: documentBytesMax,
            "Changes name, phone, roles or status of an account."
        ) { request in
            let account = try await staff.update(
                try request.id(), AccountPatch(json: try await request.json()), try request.ifMatch,
                request.actor, in: request.tenant, deadline: request.deadline)
            return .value(account, entityTag: account.entityTag)
        }
        table.add(
            .post, "/v1/patient-accounts", "createPatientAccount",
            permission: .patientAccountsWrite,
            class: .write, audit: "create", bodyBytesMax: documentBytesMax,
            "Gives a patient an account of her own."
        ) { request in
            let account = try await staff.createForPatient(
                AccountDraft(patient: try await request.json()), request.actor, in: request.tenant,
                deadline: request.deadline)
            return .made(
                account, at: "/v1/patient-accounts/\(account.id)", entityTag: account.entityTag)
        }
        table.add(
            .delete, "/v1/patients/{id}/account", "disablePatientAccount",
            permission: .patientAccountsWrite, class: .write, audit: "update",
            "Disables a patient's account."
        ) { request in
            try await staff.disablePatientAccount(
                of: try request.id(), request.actor, in: request.tenant, deadline: request.deadline)
            return .nothing
        }
    }

    static func addPractitioners(to table: inout RouteTable, _ services: ClinicServices) {
        let (practitioners, directory) = (services.practitioners, services.directory)
        table.add(
            .get, "/v1/practitioners", "listPractitioners", permission: .practitionersRead,
            class: .read, compresses: true, "With whom appointments can be made."
        ) { request in
            let (page, parameter) = try request.page(allowing: ["active"])
            return request.answer(
                try await directory.practitioners(
                    page, isActive: try flag("active", parameter("active")), request.actor,
                    in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .post, "/v1/practitioners", "createPractitioner", permission: .practitionersWrite,
            class: .write, audit: "create", bodyBytesMax: documentBytesMax, "Makes a practitioner."
        ) { request in
            let made = try await practitioners.create(
                PractitionerDraft(json: try await request.json()), request.actor,
                in: request.tenant,
                deadline: request.deadline)
            return .made(made, at: "/v1/practitioners/\(made.id)", entityTag: made.entityTag)
        }
        table.add(
            .get, "/v1/practitioners/{id}", "readPractitioner", permission: .practitionersRead,
            class: .read, compresses: true, "One practitioner."
        ) { request in
            request.answer(
                try await directory.practitioner(
                    try request.id(), request.actor, in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .patch, "/v1/practitioners/{id}", "changePractitioner", permission: .practitionersWrite,
            class: .write, audit: "update", needsVersion: true, bodyBytesMax: documentBytesMax,
            "Changes or deactivates a practitioner."
        ) { request in
            let changed = try await practitioners.update(
                try request.id(), PractitionerPatch(json: try await request.json()),
                try request.ifMatch, request.actor, in: request.tenant, deadline: request.deadline)
            return .value(changed, entityTag: changed.entityTag)
        }
    }

    static func flag(_ name: String, _ text: String?) throws(Problem) -> Bool? {
        switch text {
        case nil: nil
        case "true": true
        case "false": false
        default:
            throw .invalid([FieldProblem(name, code: "invalid-format", "must be true or false")])
        }
    }
}
