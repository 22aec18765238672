package import HCCore

/// A patient, a practitioner and a span of time. Times are instants; `zone` says on whose wall clock they
/// were agreed.
package struct Appointment: Sendable, Equatable {
    package let id: AppointmentID
    package var patientID: PatientID
    package var practitionerID: PractitionerID
    package var startsAt: Timestamp
    package var endsAt: Timestamp
    package var zone: String
    package var state: AppointmentState
    /// When the practitioner began; only in the states started and fulfilled.
    package var startedAt: Timestamp?
    /// Sealed in the row: what it is about.
    package var notes: AppointmentNotes
    package var createdBy: AccountID?
    package var version: Int64
    package var createdAt: Timestamp
    package var updatedAt: Timestamp

    package var entityTag: String { EntityTag.text(version: version) }
    package var status: AppointmentStatus { state.status }
}

/// The texts of an appointment: patient data.
package struct AppointmentNotes: Sendable, Equatable {
    package var reason: String?
    package var notes: String?
    package var cancellationReason: String?
    /// Why it was booked into a taken slot; there exactly when it was.
    package var overbookReason: String?

    package init(
        reason: String? = nil, notes: String? = nil, cancellationReason: String? = nil,
        overbookReason: String? = nil
    ) {
        self.reason = reason
        self.notes = notes
        self.cancellationReason = cancellationReason
        self.overbookReason = overbookReason
    }
}

extension AppointmentNotes: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}

extension AppointmentNotes {
    /// The JSON text that is sealed.
    var document: [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writeMembers(to: &writer)
        writer.endObject()
        return writer.finish().bytes
    }

    init(document: [UInt8]) throws {
        let json = try JSONReader.parse(document)
        self.init(
            reason: json["reason"]?.asString, notes: json["notes"]?.asString,
            cancellationReason: json["cancellationReason"]?.asString,
            overbookReason: json["overbookReason"]?.asString)
    }

    func writeMembers(to writer: inout JSONWriter) {
        if let reason { writer.member("reason", reason) }
        if let notes { writer.member("notes", notes) }
        if let cancellationReason { writer.member("cancellationReason", cancellationReason) }
        if let overbookReason { writer.member("overbookReason", overbookReason) }
    }
}

/// An appointment with the rules of its zone: instants are written with the zone's offset at that instant.
package struct AppointmentView: Sendable, JSONWritable {
    package let appointment: Appointment
    let rules: TimeZoneRules?

    /// - Parameter zones: a zone that this machine does not know is written in UTC.
    package init(_ appointment: Appointment, zones: ZoneCatalog) {
        self.appointment = appointment
        rules = zones.rules(named: appointment.zone)
    }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("id", appointment.id)
        writer.member("patientId", appointment.patientID)
        writer.member("practitionerId", appointment.practitionerID)
        member("startsAt", appointment.startsAt, to: &writer)
        member("endsAt", appointment.endsAt, to: &writer)
        writer.member("zone", appointment.zone)
        writer.member("status", appointment.status.rawValue)
        if let startedAt = appointment.startedAt { member("startedAt", startedAt, to: &writer) }
        appointment.notes.writeMembers(to: &writer)
        writer.member("overbooked", appointment.notes.overbookReason != nil)
        writer.member("version", appointment.version)
        member("createdAt", appointment.createdAt, to: &writer)
        member("updatedAt", appointment.updatedAt, to: &writer)
        writer.endObject()
    }

    private func member(_ name: StaticString, _ instant: Timestamp, to writer: inout JSONWriter) {
        writer.key(name)
        writer.string(ZonedTime.text(instant, rules))
    }
}

enum ZonedTime {
    /// RFC 3339 with the offset that the zone has at the instant; `Z` without rules.
    static func text(_ instant: Timestamp, _ rules: TimeZoneRules?) -> String {
        guard let rules else { return instant.rfc3339 }
        return instant.rfc3339(offsetSeconds: rules.offsetSeconds(at: instant))
    }
}
