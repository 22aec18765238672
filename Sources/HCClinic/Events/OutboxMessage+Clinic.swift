import HCCore
import HCTenancy

extension OutboxMessage {
    /// Something happened to an appointment: its patient's followers hear of it, and those of its practitioner's
    /// calendar; both practitioners' when it went from one to the other.
    static func appointment(
        _ name: StaticString, _ appointment: Appointment, before: Appointment? = nil
    ) -> OutboxMessage {
        var topics = [
            EventTopic.calendar(appointment.practitionerID), .patient(appointment.patientID),
        ]
        if let before, before.practitionerID != appointment.practitionerID {
            topics.append(.calendar(before.practitionerID))
        }
        return entity(name, appointment.id.uuid, version: appointment.version, topics)
    }

    static func patient(_ name: StaticString, _ id: PatientID, version: Int64) -> OutboxMessage {
        entity(name, id.uuid, version: version, [.patient(id)])
    }

    /// Ids and versions only.
    private static func entity(
        _ name: StaticString, _ id: UUID, version: Int64, _ topics: [EventTopic]
    ) -> OutboxMessage {
        OutboxMessage(
            topic: name,
            payload: JSONObject(
                ("id", .string(id.description)), ("version", .integer(version)),
                ("topics", .array(topics.map { .string($0.description) }))))
    }
}
