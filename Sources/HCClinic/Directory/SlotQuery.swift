package import HCCore

/// Which free slots are asked for: of one practitioner, for one service or for a number of minutes.
package struct SlotQuery: Sendable, Equatable {
    package enum Length: Sendable, Hashable {
        case service(ServiceID)
        case minutes(Int)
    }

    package static let parameters = [
        "practitionerId", "serviceId", "durationMinutes", "from", "to",
    ]
    /// As far as one question reaches.
    package static let spanMax = Duration.seconds(7 * 86_400)

    package var practitionerID: PractitionerID
    package var length: Length
    package var from: Timestamp
    package var to: Timestamp

    package init(
        practitionerID: PractitionerID, length: Length, from: Timestamp, to: Timestamp
    ) {
        self.practitionerID = practitionerID
        self.length = length
        self.from = from
        self.to = to
    }

    /// - Parameter value: gives a query parameter, nil when it is missing.
    package init(query value: (String) -> String?) throws(ClinicError) {
        var object = JSONObject()
        for name in SlotQuery.parameters {
            guard let text = value(name) else { continue }
            let number = name == "durationMinutes" ? Int64(text) : nil
            object.insert(number.map { .integer($0) } ?? .string(text), for: name)
        }
        var fields = try FieldReader(.object(object))
        practitionerID = fields.required("practitionerId", .id())
        let service: ServiceID? = fields.optional("serviceId", .id())
        let minutes = fields.optional("durationMinutes", .visitMinutes)
        from = fields.required("from", .instant)
        to = fields.required("to", .instant)
        length = service.map { .service($0) } ?? .minutes(minutes ?? 0)
        if fields.isValidSoFar {
            if (service == nil) == (minutes == nil) {
                fields.refuse(
                    "serviceId", service == nil ? .missing : .notAllowed,
                    "give either serviceId or durationMinutes")
            }
            if to <= from {
                fields.refuse("to", .outOfRange, "must be after from")
            } else if to - from > SlotQuery.spanMax {
                fields.refuse("to", .outOfRange, "must be at most 7 days after from")
            }
        }
        try fields.finish()
    }

    /// Names the answer among the clinic's.
    var name: String {
        let length =
            switch length {
            case .service(let id): "service:\(id)"
            case .minutes(let minutes): "minutes:\(minutes)"
            }
        return "slots:\(practitionerID):\(length):\(from.microseconds):\(to.microseconds)"
    }
}
