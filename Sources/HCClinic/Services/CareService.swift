package import HCCore

/// A kind of visit that a clinic offers (FHIR HealthcareService).
package struct CareService: Sendable, Equatable, JSONWritable {
    package let id: ServiceID
    package var name: String
    package var description: String?
    package var durationMinutes: Int
    /// In the smallest unit of the clinic's currency; nil: not said.
    package var priceMinor: Int64?
    /// Who offers it, in the order of their ids.
    package var practitionerIDs: [PractitionerID]
    package var isActive: Bool
    package var version: Int64
    package var createdAt: Timestamp
    package var updatedAt: Timestamp

    package static let practitionersMax = 500

    package var entityTag: String { EntityTag.text(version: version) }

    package func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.member("id", id)
        writer.member("name", name)
        if let description { writer.member("description", description) }
        writer.member("durationMinutes", durationMinutes)
        if let priceMinor { writer.member("priceMinor", priceMinor) }
        writer.member("practitionerIds", practitionerIDs.map(\.description))
        writer.member("active", isActive)
        writer.member("version", version)
        writer.member("createdAt", createdAt)
        writer.member("updatedAt", updatedAt)
        writer.endObject()
    }
}

/// What a new service is made of.
package struct CareServiceDraft: Sendable {
    package var name: String
    package var description: String?
    package var durationMinutes: Int
    package var priceMinor: Int?
    package var practitionerIDs: [PractitionerID] = []

    package init(name: String, durationMinutes: Int) {
        self.name = name
        self.durationMinutes = durationMinutes
    }

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        name = fields.required("name", .line(1...200))
        description = fields.optional("description", .lines(1...2000))
        durationMinutes = fields.required("durationMinutes", .visitMinutes)
        priceMinor = fields.optional("priceMinor", .price)
        practitionerIDs = fields.optional("practitionerIds", .practitioners) ?? []
        try fields.finish()
    }
}

/// A merge patch of a service.
package struct CareServicePatch: Sendable {
    package var name: String?
    package var description = Change<String>.keep
    package var durationMinutes: Int?
    package var priceMinor = Change<Int>.keep
    package var practitionerIDs: [PractitionerID]?
    package var isActive: Bool?

    package init() {}

    package init(json: JSONValue) throws(ClinicError) {
        var fields = try FieldReader(json)
        name = fields.change("name", .line(1...200))
        description = fields.clearable("description", .lines(1...2000))
        durationMinutes = fields.change("durationMinutes", .visitMinutes)
        priceMinor = fields.clearable("priceMinor", .price)
        practitionerIDs = fields.change("practitionerIds", .practitioners)
        isActive = fields.change("active", .flag)
        try fields.finish()
    }

    func applied(to service: CareService, at now: Timestamp) -> CareService {
        var changed = service
        changed.name = name ?? service.name
        changed.description = description.applied(to: service.description)
        changed.durationMinutes = durationMinutes ?? service.durationMinutes
        changed.priceMinor = priceMinor.applied(to: service.priceMinor.map { Int($0) }).map {
            Int64($0)
        }
        changed.practitionerIDs =
            practitionerIDs.map { CareService.ordered($0) } ?? service.practitionerIDs
        changed.isActive = isActive ?? service.isActive
        changed.version += 1
        changed.updatedAt = now
        return changed
    }
}

extension CareService {
    /// Each once.
    static func ordered(_ ids: [PractitionerID]) -> [PractitionerID] {
        Set(ids.map(\.uuid)).sorted().map { PractitionerID($0) }
    }
}

extension FieldRule where Value == Int {
    static var visitMinutes: FieldRule { integer(5...720) }
    static var price: FieldRule { integer(0...100_000_000_000) }
}

extension FieldRule where Value == [PractitionerID] {
    static var practitioners: FieldRule {
        list(of: .id(), count: 0...CareService.practitionersMax)
    }
}
