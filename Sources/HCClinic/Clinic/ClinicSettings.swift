package import HCCore

/// What a clinic says of itself.
package struct ClinicSettings: Sendable, Equatable, JSONWritable {
    package var name: String
    /// IANA name of the zone of the clinic's wall clock.
    package var timeZone: String
    package var locale: String
    package var currency: String
    /// Kept free around appointments where the practitioner says nothing else.
    package var bufferBeforeMinutes: Int
    package var bufferAfterMinutes: Int
    package var version: Int64
    package var createdAt: Timestamp
    package var updatedAt: Timestamp

    package var entityTag: String { EntityTag.text(version: version) }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("name", name)
        writer.member("timeZone", timeZone)
        writer.member("locale", locale)
        writer.member("currency", currency)
        writer.member("bufferBeforeMinutes", bufferBeforeMinutes)
        writer.member("bufferAfterMinutes", bufferAfterMinutes)
        writer.member("version", version)
        writer.member("createdAt", createdAt)
        writer.member("updatedAt", updatedAt)
        writer.endObject()
    }
}

/// A merge patch of the settings.
package struct ClinicSettingsPatch: Sendable {
    package var name: String?
    package var timeZone: String?
    package var locale: String?
    package var currency: String?
    package var bufferBeforeMinutes: Int?
    package var bufferAfterMinutes: Int?

    package init() {}

    package init(json: JSONValue, zones: ZoneCatalog = .system) throws(ClinicError) {
        var fields = try FieldReader(json)
        name = fields.change("name", .line(1...200))
        timeZone = fields.change("timeZone", .timeZone(in: zones))
        locale = fields.change("locale", .languageTag)
        currency = fields.change("currency", .currency)
        bufferBeforeMinutes = fields.change("bufferBeforeMinutes", .integer(0...240))
        bufferAfterMinutes = fields.change("bufferAfterMinutes", .integer(0...240))
        try fields.finish()
    }

    /// The settings as they were, version and all, if nothing changes.
    func applied(to settings: ClinicSettings, at now: Timestamp) -> ClinicSettings {
        var changed = settings
        changed.name = name ?? settings.name
        changed.timeZone = timeZone ?? settings.timeZone
        changed.locale = locale ?? settings.locale
        changed.currency = currency ?? settings.currency
        changed.bufferBeforeMinutes = bufferBeforeMinutes ?? settings.bufferBeforeMinutes
        changed.bufferAfterMinutes = bufferAfterMinutes ?? settings.bufferAfterMinutes
        guard changed != settings else { return settings }
        changed.version += 1
        changed.updatedAt = now
        return changed
    }
}
