import HCClinic
import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    private static let patientBytesMax = 64 << 10

    static func addPatients(
        to table: inout RouteTable, _ services: ClinicServices, _ clocks: Clocks
    ) {
        let patients = services.patients
        table.add(
            .get, "/v1/patients", "searchPatients", permission: .patientsSearch, class: .search,
            audit: "search", compresses: true,
            "Lists patients, or finds them by names' beginnings and exact values."
        ) { request in
            let (page, parameter) = try request.page(allowing: PatientSearch.parameters)
            return .value(
                try await patients.list(
                    try PatientSearch(query: parameter), page, request.actor, in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .post, "/v1/patients", "createPatient", permission: .patientsCreate, class: .write,
            audit: "create", takesKey: true, bodyBytesMax: patientBytesMax, "Registers a patient."
        ) { request in
            let body = try await request.content()
            return .created(
                try await patients.create(
                    Patient(json: try JSONContent.parse(body), today: today(clocks)),
                    try request.idempotency(body), request.actor, in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .get, "/v1/patients/{id}", "readPatient", permission: .patientsRead, class: .read,
            lane: .safety, audit: "read", compresses: true,
            "One patient; the access is recorded before the answer."
        ) { request in
            let record = try await patients.read(
                try request.id(), request.actor, in: request.tenant, deadline: request.deadline)
            return .value(record, entityTag: record.entityTag)
        }
        table.add(
            .patch, "/v1/patients/{id}", "changePatient", permission: .patientsWrite, class: .write,
            audit: "update", needsVersion: true, bodyBytesMax: patientBytesMax,
            "Changes a patient's demographics; null clears what is optional."
        ) { request in
            let record = try await patients.update(
                try request.id(),
                PatientPatch(json: try await request.json(), today: today(clocks)),
                try request.ifMatch, request.actor, in: request.tenant, deadline: request.deadline)
            return .value(record, entityTag: record.entityTag)
        }
        table.add(
            .delete, "/v1/patients/{id}", "deletePatient", permission: .patientsDelete,
            class: .write,
            audit: "delete", needsVersion: true,
            "Takes a patient out of the lists; the record is kept."
        ) { request in
            try await patients.delete(
                try request.id(), try request.ifMatch, request.actor, in: request.tenant,
                deadline: request.deadline)
            return .nothing
        }
    }

    /// The latest date that it is anywhere on earth: nobody is born after it.
    private static func today(_ clocks: Clocks) -> CalendarDate {
        let ahead = clocks.now() + .seconds(14 * 3600)
        return TimeZoneRules.utc.local(at: ahead).date
    }
}
