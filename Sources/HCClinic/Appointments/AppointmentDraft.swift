package import HCCore

/// What a new appointment is made of.
package struct AppointmentDraft: Sendable {
    /// In its own lane beside the taken slot, with permission and a reason.
    package struct Overbooking: Sendable {
        package var reason: String
    }

    package var patientID: PatientID
    package var practitionerID: PractitionerID
    package var startsAt: Timestamp
    package var endsAt: Timestamp
    /// Nil: the clinic's.
    package var zone: String?
    package var reason: String?
    package var notes: String?
    /// `booked`, or `pending` to be confirmed.
    package var status: AppointmentStatus = .booked
    package var overbooking: Overbooking?

    package init(
        patientID: PatientID, practitionerID: PractitionerID, startsAt: Timestamp,
        endsAt: Timestamp, reason: String? = nil
    ) {
        self.patientID = patientID
        self.practitionerID = practitionerID
        self.startsAt = startsAt
        self.endsAt = endsAt
        self.reason = reason
    }

    package init(json: JSONValue, zones: ZoneCatalog = .system) throws(ClinicError) {
        var fields = try FieldReader(json)
        patientID = fields.required("patientId", .id())
        practitionerID = fields.required("practitionerId", .id())
        startsAt = fields.required("startsAt", .instant)
        endsAt = fields.required("endsAt", .instant)
        zone = fields.optional("zone", .timeZone(in: zones))
        reason = fields.optional("reason", .lines(1...1000))
        notes = fields.optional("notes", .lines(1...4000))
        status = fields.optional("status", .choice(of: [.booked, .pending])) ?? .booked
        let isOverbooked = fields.optional("overbook", .flag) ?? false
        let overbookReason = fields.optional("overbookReason", .lines(1...1000))
        if isOverbooked {
            if let overbookReason {
                overbooking = Overbooking(reason: overbookReason)
            } else if fields.isValidSoFar {
                fields.refuse("overbookReason", .missing, "is required with overbook")
            }
        } else if overbookReason != nil {
            fields.refuse("overbookReason", .notAllowed, "needs overbook to be true")
        }
        try fields.finish()
    }
}

/// A new time for an appointment.
package struct AppointmentMove: Sendable {
    package var startsAt: Timestamp
    package var endsAt: Timestamp
    /// Nil: the same.
    package var practitionerID: PractitionerID?

    package init(startsAt: Timestamp, endsAt: Timestamp, practitionerID: PractitionerID? = nil) {
        self.startsAt = startsAt
        self.endsAt = endsAt
        self.practitionerID = practitionerID
    }

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        startsAt = fields.required("startsAt", .instant)
        endsAt = fields.required("endsAt", .instant)
        practitionerID = fields.optional("practitionerId", .id())
        try fields.finish()
    }
}

/// What comes with an action: only a cancellation has something.
package struct AppointmentActionNote: Sendable {
    package var reason: String?

    package init(reason: String? = nil) {
        self.reason = reason
    }

    /// - Parameter json: nil for a request without a body.
    package init(json: JSONValue?) throws(ClinicError) {
        guard let json else { return }
        var fields = try FieldReader(json)
        reason = fields.optional("reason", .lines(1...1000))
        try fields.finish()
    }
}

/// When an appointment may be.
package enum AppointmentTime {
    package static let durationMin = Duration.seconds(5 * 60)
    package static let durationMax = Duration.seconds(12 * 3600)
    /// What a client's clock may be behind.
    package static let pastMax = Duration.seconds(120)

    static func check(
        from start: Timestamp, to end: Timestamp, now: Timestamp
    ) throws(ClinicError) {
        var problems: [InvalidField] = []
        if end <= start {
            problems.append(InvalidField("endsAt", .outOfRange, "must be after startsAt"))
        } else if end - start < durationMin {
            problems.append(
                InvalidField("endsAt", .outOfRange, "must be at least 5 minutes after startsAt"))
        } else if end - start > durationMax {
            problems.append(
                InvalidField("endsAt", .outOfRange, "must be at most 12 hours after startsAt"))
        }
        if start < now - pastMax {
            problems.append(InvalidField("startsAt", .outOfRange, "must not be in the past"))
        }
        if !problems.isEmpty { throw ClinicError(.invalidInput, fields: problems) }
    }
}
