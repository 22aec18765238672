package import HCCore

/// Someone with whom appointments are made.
package struct Practitioner: Sendable, Equatable, JSONWritable {
    package let id: PractitionerID
    /// With which the practitioner logs in, if any.
    package var accountID: AccountID?
    package var name: String
    package var specialities: [String]
    /// Nil: the clinic's.
    package var bufferBeforeMinutes: Int?
    package var bufferAfterMinutes: Int?
    /// Appointments that may run at once.
    package var capacity: Int
    /// Takes new appointments.
    package var isActive: Bool
    package var version: Int64
    package var createdAt: Timestamp
    package var updatedAt: Timestamp

    package var entityTag: String { EntityTag.text(version: version) }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("id", id)
        if let accountID { writer.member("accountId", accountID) }
        writer.member("name", name)
        writer.member("specialities", specialities)
        if let bufferBeforeMinutes { writer.member("bufferBeforeMinutes", bufferBeforeMinutes) }
        if let bufferAfterMinutes { writer.member("bufferAfterMinutes", bufferAfterMinutes) }
        writer.member("capacity", capacity)
        writer.member("active", isActive)
        writer.member("version", version)
        writer.member("createdAt", createdAt)
        writer.member("updatedAt", updatedAt)
        writer.endObject()
    }
}

/// What a new practitioner is made of.
package struct PractitionerDraft: Sendable {
    package var accountID: AccountID?
    package var name: String
    package var specialities: [String] = []
    package var bufferBeforeMinutes: Int?
    package var bufferAfterMinutes: Int?
    package var capacity = 1

    package init(name: String) {
        self.name = name
    }

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        accountID = fields.optional("accountId", .id())
        name = fields.required("name", .line(1...200))
        specialities = fields.optional("specialities", .specialities) ?? []
        bufferBeforeMinutes = fields.optional("bufferBeforeMinutes", .integer(0...240))
        bufferAfterMinutes = fields.optional("bufferAfterMinutes", .integer(0...240))
        capacity = fields.optional("capacity", .integer(1...100)) ?? 1
        try fields.finish()
    }
}

/// A merge patch of a practitioner.
package struct PractitionerPatch: Sendable {
    package var accountID = Change<AccountID>.keep
    package var name: String?
    package var specialities: [String]?
    package var bufferBeforeMinutes = Change<Int>.keep
    package var bufferAfterMinutes = Change<Int>.keep
    package var capacity: Int?
    package var isActive: Bool?

    package init() {}

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        accountID = fields.clearable("accountId", .id())
        name = fields.change("name", .line(1...200))
        specialities = fields.change("specialities", .specialities)
        bufferBeforeMinutes = fields.clearable("bufferBeforeMinutes", .integer(0...240))
        bufferAfterMinutes = fields.clearable("bufferAfterMinutes", .integer(0...240))
        capacity = fields.change("capacity", .integer(1...100))
        isActive = fields.change("active", .flag)
        try fields.finish()
    }

    /// The practitioner as it was, version and all, if nothing changes.
    func applied(to practitioner: Practitioner, at now: Timestamp) -> Practitioner {
        var changed = practitioner
        changed.accountID = accountID.applied(to: practitioner.accountID)
        changed.name = name ?? practitioner.name
        changed.specialities = specialities ?? practitioner.specialities
        changed.bufferBeforeMinutes = bufferBeforeMinutes.applied(
            to: practitioner.bufferBeforeMinutes)
        changed.bufferAfterMinutes = bufferAfterMinutes.applied(to: practitioner.bufferAfterMinutes)
        changed.capacity = capacity ?? practitioner.capacity
        changed.isActive = isActive ?? practitioner.isActive
        guard changed != practitioner else { return practitioner }
        changed.version += 1
        changed.updatedAt = now
        return changed
    }
}

extension FieldRule where Value == [String] {
    static var specialities: FieldRule { list(of: .line(1...100), count: 0...32) }
}
