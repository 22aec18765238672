import HCCore
import HCCrypto
import HCIO

/// The map on disk: what a restarted process serves from while the control database is down.
///
/// The first line is `HCDIRECTORY 1 <version> <SHA-256 of the rest, hex> <source>`, the rest is JSON. Members may be
/// added: who does not know them passes them over, and who misses them takes what is safe. The file
/// holds wrapped keys and no open ones; it is written with mode 0600, whole or not at all.
enum DirectoryFile {
    static let name = "directory.last-good"
    static let bytesMax = 256 << 20
    private static let magic = "HCDIRECTORY 1"

    enum Problem: Error, Equatable, CustomStringConvertible {
        case notADirectoryFile
        case checksum
        case content(String)

        var description: String {
            switch self {
            case .notADirectoryFile: "not a directory file, or one of another version"
            case .checksum: "the checksum does not fit: the file was damaged"
            case .content(let what): "the content is not a directory: \(what)"
            }
        }
    }

    struct Header: Equatable {
        var version: Int64
        var checksum: String
        var source: String
        /// Where the JSON begins.
        var length: Int
    }

    // MARK: Writing

    static func encode(_ snapshot: DirectorySnapshot) throws(CryptoError) -> [UInt8] {
        var writer = JSONWriter(
            appendingTo: ByteBuffer(reserving: 1024 * (snapshot.tenantCount + 4)))
        writer.beginObject()
        writer.key("shards")
        writer.beginArray()
        for shard in snapshot.shardRecords { writer.shard(shard) }
        writer.endArray()
        writer.key("tiers")
        writer.beginArray()
        for tier in snapshot.tierDefinitions { writer.value(tier.json) }
        writer.endArray()
        writer.key("tenants")
        writer.beginArray()
        for tenant in snapshot.tenants { writer.tenant(tenant) }
        writer.endArray()
        writer.endObject()
        let body = writer.finish().bytes
        let checksum = try SHA256.hash(body).hex
        return Array("\(magic) \(snapshot.version) \(checksum) \(snapshot.source)\n".utf8) + body
    }

    // MARK: Reading

    static func header(of bytes: [UInt8]) throws(Problem) -> Header {
        guard let end = bytes.prefix(512).firstIndex(of: UInt8(ascii: "\n")),
            let line = String(validating: bytes[..<end], as: UTF8.self)
        else { throw .notADirectoryFile }
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 5, words[0] + " " + words[1] == magic, let version = Int64(words[2])
        else { throw .notADirectoryFile }
        return Header(
            version: version, checksum: String(words[3]), source: String(words[4]), length: end + 1)
    }

    static func decode(_ bytes: [UInt8]) throws(Problem) -> DirectorySnapshot {
        let header = try header(of: bytes)
        let body = bytes[header.length...]
        do {
            let checksum = try body.withUnsafeBytes { (bytes) throws(CryptoError) in
                try SHA256.hash(bytes)
            }
            guard checksum.hex == header.checksum else { throw Problem.checksum }
        } catch {
            throw .checksum
        }
        let value: JSONValue
        do {
            value = try JSONReader.parse(
                body, limits: JSONLimits(bytesMax: bytesMax, depthMax: 8, elementsMax: 50_000_000))
        } catch {
            throw .content("\(error)")
        }
        var shards: [ShardRecord] = []
        for entry in try array(value, "shards") { shards.append(try shard(entry)) }
        var tiers: [TierDefinition] = []
        for entry in try array(value, "tiers") {
            do {
                tiers.append(try TierDefinition(json: entry))
            } catch {
                throw .content("tier: \(error)")
            }
        }
        var tenants: [TenantRecord] = []
        for entry in try array(value, "tenants") { tenants.append(try tenant(entry)) }
        return DirectorySnapshot(
            source: header.source, version: header.version, tenants: tenants, shards: shards,
            tiers: tiers)
    }

    private static func array(_ value: JSONValue, _ name: String) throws(Problem) -> [JSONValue] {
        guard let array = value[name]?.asArray else { throw .content(name) }
        return array
    }

    private static func shard(_ value: JSONValue) throws(Problem) -> ShardRecord {
        guard let id = value["id"]?.asString, let reference = value["reference"]?.asString,
            let state = value["state"]?.asString.flatMap(ShardRecord.State.init(rawValue:)),
            let system = value["systemIdentifier"]?.asString,
            let timeline = value["timeline"]?.asInteger, let oid = value["databaseOID"]?.asInteger,
            let limit = value["connectionLimit"]?.asInteger
        else { throw .content("a shard") }
        // A file of an older program has none: then only primaries are read from.
        var replicas: [ReplicaRecord] = []
        if value["replicas"] != nil {
            for entry in try array(value, "replicas") {
                guard let replica = ReplicaRecord(directoryJSON: entry) else {
                    throw .content("a replica")
                }
                replicas.append(replica)
            }
        }
        return ShardRecord(
            id: ShardID(id), reference: reference, state: state,
            identity: ShardIdentity(
                systemIdentifier: system, timeline: Int(timeline), databaseOID: oid),
            connectionLimit: Int(limit), replicas: replicas)
    }

    private static func tenant(_ value: JSONValue) throws(Problem) -> TenantRecord {
        guard let id = value["id"]?.asString.flatMap({ TenantID($0) }),
            let slug = value["slug"]?.asString, let name = value["name"]?.asString,
            let tier = value["tier"]?.asString,
            let state = value["state"]?.asString.flatMap(TenantRecord.State.init(rawValue:)),
            let timeZone = value["timeZone"]?.asString, let locale = value["locale"]?.asString,
            let shard = value["shard"]?.asString, let epoch = value["epoch"]?.asInteger,
            let placement = value["placement"]?.asString
                .flatMap(TenantRecord.PlacementState.init(rawValue:))
        else { throw .content("a clinic") }
        var hosts: [String] = []
        for host in try array(value, "hosts") {
            guard let host = host.asString else { throw .content("a host") }
            hosts.append(host)
        }
        var keys: [WrappedKey] = []
        for key in try array(value, "keys") {
            guard let key = WrappedKey(directoryJSON: key) else { throw .content("a key") }
            keys.append(key)
        }
        // A file of an older program has none: then no page of another origin is let in.
        var origins: [String] = []
        if value["origins"] != nil {
            for origin in try array(value, "origins") {
                guard let origin = origin.asString else { throw .content("an origin") }
                origins.append(origin)
            }
        }
        return TenantRecord(
            id: id, slug: slug, name: name, hosts: hosts, tierName: tier, state: state,
            timeZone: timeZone, locale: locale, origins: origins, shard: ShardID(shard),
            epoch: epoch, placement: placement, keys: keys)
    }
}

extension JSONWriter {
    fileprivate mutating func shard(_ shard: ShardRecord) {
        beginObject()
        member("id", shard.id.text)
        member("reference", shard.reference)
        member("state", shard.state.rawValue)
        member("systemIdentifier", shard.identity.systemIdentifier)
        member("timeline", shard.identity.timeline)
        member("databaseOID", shard.identity.databaseOID)
        member("connectionLimit", shard.connectionLimit)
        key("replicas")
        beginArray()
        for replica in shard.replicas { value(replica.directoryJSON) }
        endArray()
        endObject()
    }

    fileprivate mutating func tenant(_ tenant: TenantRecord) {
        beginObject()
        member("id", tenant.id)
        member("slug", tenant.slug)
        member("name", tenant.name)
        member("hosts", tenant.hosts)
        member("origins", tenant.origins)
        member("tier", tenant.tierName)
        member("state", tenant.state.rawValue)
        member("timeZone", tenant.timeZone)
        member("locale", tenant.locale)
        member("shard", tenant.shard.text)
        member("epoch", tenant.epoch)
        member("placement", tenant.placement.rawValue)
        key("keys")
        beginArray()
        for key in tenant.keys { value(key.directoryJSON) }
        endArray()
        endObject()
    }
}

extension ReplicaRecord {
    /// As the control database and the file give it.
    init?(directoryJSON value: JSONValue) {
        guard let name = value["name"]?.asString, let reference = value["reference"]?.asString,
            let state = value["state"]?.asString.flatMap(State.init(rawValue:)),
            let weight = value["weight"]?.asInteger.flatMap(Int.init(exactly:)), weight > 0
        else { return nil }
        self.init(name: name, reference: reference, state: state, weight: weight)
    }

    fileprivate var directoryJSON: JSONValue {
        [
            "name": .string(name), "reference": .string(reference),
            "state": .string(state.rawValue), "weight": .integer(Int64(weight)),
        ]
    }
}

extension WrappedKey {
    /// As `directory_entry` gives it.
    init?(directoryJSON value: JSONValue) {
        guard let purpose = value["purpose"]?.asString.flatMap(Purpose.init(rawValue:)),
            let version = value["version"]?.asInteger.flatMap(UInt32.init(exactly:)),
            let state = value["state"]?.asString.flatMap(State.init(rawValue:)),
            let wrapped = value["wrapped"]?.asString.flatMap({ Hex.decode($0) })
        else { return nil }
        self.init(
            purpose: purpose, version: version, state: state,
            masterKeyID: value["masterKeyId"]?.asString,
            wrappingVersion: value["wrappingVersion"]?.asInteger.flatMap(UInt32.init(exactly:)),
            wrapped: wrapped)
    }

    fileprivate var directoryJSON: JSONValue {
        [
            "purpose": .string(purpose.rawValue),
            "version": .integer(Int64(version)),
            "state": .string(state.rawValue),
            "masterKeyId": masterKeyID.map { .string($0) } ?? .null,
            "wrappingVersion": wrappingVersion.map { .integer(Int64($0)) } ?? .null,
            "wrapped": .string(Hex.encode(wrapped)),
        ]
    }
}

// MARK: - On disk

extension DirectoryFile {
    /// Replaces the file unless it holds the same or a newer map of the same control database: the workers of a
    /// machine share one. Blocks.
    static func save(_ snapshot: DirectorySnapshot, to path: String) throws {
        do throws(Files.FileError) {
            let present = try Files.read(path, bytesMax: bytesMax)
            if let header = try? header(of: present), header.source == snapshot.source,
                header.version >= snapshot.version, let saved = try? decode(present),
                // Of the same version and yet another: an older program wrote it, who does not know all members.
                header.version > snapshot.version || saved.hasSamePlaces(as: snapshot)
            {
                return
            }
        } catch {
            guard error.isMissing || error.reason == .tooLarge(bytesMax: bytesMax) else {
                throw error
            }
        }
        try Files.replace(path, with: try encode(snapshot), mode: 0o600)
    }
}
