import HCClinic
import HCCore
import HCHTTP
import HCTenancy

extension Routes {
    private static let appointmentBytesMax = 64 << 10

    static func addAppointments(to table: inout RouteTable, _ services: ClinicServices) {
        let appointments = services.appointments
        table.add(
            .get, "/v1/appointments", "listAppointments", permission: .appointmentsRead,
            class: .search, lane: .interactive, audit: "search", compresses: true,
            "Appointments by time, practitioner, patient and status."
        ) { request in
            let (page, parameter) = try request.page(allowing: AppointmentFilter.parameters)
            return .value(
                try await appointments.list(
                    try AppointmentFilter(query: parameter), page, request.actor,
                    in: request.tenant,
                    deadline: request.deadline))
        }
        table.add(
            .post, "/v1/appointments", "book", permission: .appointmentsWrite, class: .booking,
            audit: "create", takesKey: true, bodyBytesMax: appointmentBytesMax,
            "Books; of any number of requests for one time exactly one succeeds."
        ) { request in
            let body = try await request.content()
            return .created(
                try await appointments.create(
                    AppointmentDraft(json: try JSONContent.parse(body)),
                    try request.idempotency(body),
                    request.actor, in: request.tenant, deadline: request.deadline))
        }
        table.add(
            .get, "/v1/appointments/{id}", "readAppointment", permission: .appointmentsRead,
            class: .read, lane: .safety, audit: "read", compresses: true, "One appointment."
        ) { request in
            let found = try await appointments.read(
                try request.id(), request.actor, in: request.tenant, deadline: request.deadline)
            return .value(found, entityTag: found.appointment.entityTag)
        }
        table.add(
            .post, "/v1/appointments/{id}/reschedule", "reschedule", permission: .appointmentsWrite,
            class: .booking, audit: "update", needsVersion: true,
            bodyBytesMax: appointmentBytesMax,
            "Moves an appointment to another time or practitioner, or leaves it where it is."
        ) { request in
            let moved = try await appointments.reschedule(
                try request.id(), AppointmentMove(json: try await request.json()),
                try request.ifMatch,
                request.actor, in: request.tenant, deadline: request.deadline)
            return .value(moved, entityTag: moved.appointment.entityTag)
        }
        for action in AppointmentAction.allCases where action != .reschedule {
            let isAtTheDoor = action == .checkIn || action == .start
            let isOwn = action == .cancel || action == .confirm
            table.add(
                .post, "/v1/appointments/{id}/\(action.rawValue)", "\(action.rawValue)Appointment",
                permission: isOwn ? .appointmentsWrite : .appointmentsOperate, class: .write,
                lane: isAtTheDoor ? .safety : .interactive, audit: "update",
                bodyBytesMax: appointmentBytesMax,
                "Changes an appointment's status: \(action.rawValue)."
            ) { request in
                let changed = try await appointments.perform(
                    action, on: try request.id(), try await note(request), try request.ifMatch,
                    request.actor, in: request.tenant, deadline: request.deadline)
                return .value(changed, entityTag: changed.appointment.entityTag)
            }
        }
    }

    /// An action may come without content.
    private static func note(_ request: ClinicRequest) async throws -> AppointmentActionNote {
        let isEmpty =
            request.http.body.announcedCount == 0 && !request.http.headers.contains(.contentType)
        return try AppointmentActionNote(json: isEmpty ? nil : try await request.json())
    }
}
