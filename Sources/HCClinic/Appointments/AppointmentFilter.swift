package import HCCore

/// Which appointments a list has. In order of time.
package struct AppointmentFilter: Sendable, Equatable {
    /// An end of the span that is looked at.
    package enum Bound: Sendable, Equatable {
        case instant(Timestamp)
        /// A day on the clinic's wall clock.
        case day(CalendarDate)

        var text: String {
            switch self {
            case .instant(let instant): instant.rfc3339
            case .day(let date): date.iso8601
            }
        }
    }

    /// The first instant, or the first day.
    package var from: Bound?
    /// The instant before which appointments begin, or the last day.
    package var to: Bound?
    package var practitionerID: PractitionerID?
    package var patientID: PatientID?
    package var status: AppointmentStatus?

    package init() {}

    package static let parameters = ["from", "to", "practitionerId", "patientId", "status"]

    /// - Parameter value: gives a query parameter, nil when it is missing.
    package init(query value: (String) -> String?) throws(ClinicError) {
        var object = JSONObject()
        for name in AppointmentFilter.parameters {
            if let text = value(name) { object.insert(.string(text), for: name) }
        }
        var fields = try FieldReader(.object(object))
        from = fields.optional("from", .bound)
        to = fields.optional("to", .bound)
        practitionerID = fields.optional("practitionerId", .id())
        patientID = fields.optional("patientId", .id())
        status = fields.optional("status", .choice(of: AppointmentStatus.allCases))
        try fields.finish()
    }

    var identity: QueryIdentity {
        var identity = QueryIdentity("appointments by time")
        identity.add("from", from?.text)
        identity.add("to", to?.text)
        identity.add("practitionerId", practitionerID?.description)
        identity.add("patientId", patientID?.description)
        identity.add("status", status?.rawValue)
        return identity
    }

    /// The span as instants, half open, on the clinic's wall clock.
    func span(_ rules: TimeZoneRules) -> Range<Timestamp> {
        let lower: Timestamp =
            switch from {
            case nil: TextRules.firstInstant
            case .instant(let instant): instant
            case .day(let date): rules.startOfDay(date)
            }
        let upper: Timestamp =
            switch to {
            case nil: TextRules.lastInstant
            case .instant(let instant): instant
            case .day(let date): rules.startOfDay(date.adding(days: 1) ?? .last)
            }
        return lower..<max(lower, upper)
    }
}

extension FieldRule where Value == AppointmentFilter.Bound {
    static var bound: FieldRule {
        FieldRule(placeholder: .instant(.epoch)) { (json) throws(Refusal) in
            if let date = json.asString.flatMap({ CalendarDate(iso8601: $0) }) { return .day(date) }
            do throws(FieldRule<Timestamp>.Refusal) {
                return .instant(try FieldRule<Timestamp>.instant.read(json))
            } catch {
                throw Refusal(error.code, "must be a date or an RFC 3339 instant with offset")
            }
        }
    }
}
