import HCClinic
import HCHTTP
import HCTenancy

extension Routes {
    private static let documentBytesMax = 64 << 10

    /// What patients choose from. All reads are answered from copies, and with 304 to who has the answer already.
    static func addDirectory(to table: inout RouteTable, _ services: ClinicServices) {
        let (catalog, directory) = (services.catalog, services.directory)
        table.add(
            .get, "/v1/directory", "readDirectory", permission: .practitionersRead, class: .read,
            compresses: true, "All active practitioners and services."
        ) { request in
            request.answer(
                try await directory.directory(
                    request.actor, in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .get, "/v1/slots", "listSlots", permission: .practitionersRead, class: .read,
            compresses: true, "Free slots of a practitioner, for a service or a number of minutes."
        ) { request in
            request.answer(
                try await directory.slots(
                    try SlotQuery(query: try request.parameters(SlotQuery.parameters)),
                    request.actor, in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .get, "/v1/services", "listServices", permission: .servicesRead, class: .read,
            compresses: true, "What the clinic offers."
        ) { request in
            let (page, parameter) = try request.page(allowing: ["active"])
            return request.answer(
                try await directory.services(
                    page, isActive: try flag("active", parameter("active")), request.actor,
                    in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .post, "/v1/services", "createService", permission: .servicesWrite, class: .write,
            audit: "create", bodyBytesMax: documentBytesMax, "Makes a service."
        ) { request in
            let made = try await catalog.create(
                CareServiceDraft(json: try await request.json()), request.actor,
                in: request.tenant, deadline: request.deadline)
            return .made(made, at: "/v1/services/\(made.id)", entityTag: made.entityTag)
        }
        table.add(
            .get, "/v1/services/{id}", "readService", permission: .servicesRead, class: .read,
            compresses: true, "One service."
        ) { request in
            request.answer(
                try await directory.service(
                    try request.id(), request.actor, in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .patch, "/v1/services/{id}", "changeService", permission: .servicesWrite,
            class: .write, audit: "update", needsVersion: true, bodyBytesMax: documentBytesMax,
            "Changes or withdraws a service."
        ) { request in
            let changed = try await catalog.update(
                try request.id(), CareServicePatch(json: try await request.json()),
                try request.ifMatch, request.actor, in: request.tenant,
                deadline: request.deadline)
            return .value(changed, entityTag: changed.entityTag)
        }
    }
}
