import HCCore
import HCCrypto
import HCIO

/// The map on disk: what a restarted process serves from while the control database is down.
///
/// A sequence of blocks. The first `n` are the whole map in parts; each further one is a change, which is so small
/// that a map of a hundred thousand clinics is kept up to date without being written again. A block is a line
/// `HCDIRECTORY 2 <revision> <kind> <number> <version> <length> <SHA-256 of the content, hex> <source>` and `length`
/// bytes of JSON lines:
///
/// | kind | number | content |
/// |---|---|---|
/// | `map` | how many parts the map has | `{"shards":[…]}`, `{"tiers":[…]}`, clinics |
/// | `part` | which it is, from 2 | clinics |
/// | `change` | the version that it follows | clinics that changed, `{"gone":[…]}`, shards or tiers if they did |
///
/// The parts of the map are written whole or not at all (a rename), changes are appended: one that was cut off or
/// damaged ends the file for its readers, who are then late, which is harmless. Members may be added to records: who
/// does not know them passes them over, and who misses them takes what is safe; `revision` counts that, so that a
/// newer program replaces what an older one wrote. The file holds wrapped keys and no open ones; its mode is 0600.
enum DirectoryFile {
    static let name = "directory.last-good"
    static let revision = 1
    /// Of one block; a damaged length must not make us reserve the memory of the machine.
    static let blockBytesMax = 64 << 20
    private static let magic = "HCDIRECTORY 2"
    private static let headerBytesMax = 512
    private static let tenantsPerBlock = 2000

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
        enum Kind: String {
            case map
            case part
            case change
        }

        var revision: Int
        var kind: Kind
        var number: Int64
        var version: Int64
        var length: Int
        var checksum: String
        var source: String
        /// Of the line itself.
        var lineLength: Int
    }

    // MARK: Writing

    /// The whole map, block by block.
    struct Writer {
        private let map: DirectorySnapshot
        private let parts: Int
        private var tenants: Array<TenantRecord>.SubSequence
        private var number = 0

        init(_ map: DirectorySnapshot) {
            self.map = map
            tenants = Array(map.tenants)[...]
            parts = max(1, (tenants.count + tenantsPerBlock - 1) / tenantsPerBlock)
        }

        /// - Returns: nil after the last one.
        mutating func next() throws(CryptoError) -> [UInt8]? {
            guard number < parts else { return nil }
            number += 1
            var lines = Lines()
            if number == 1 {
                lines.add(shards: map.shardRecords)
                lines.add(tiers: map.tierDefinitions)
            }
            for tenant in tenants.prefix(tenantsPerBlock) { lines.add(tenant) }
            tenants = tenants.dropFirst(tenantsPerBlock)
            return try lines.block(
                number == 1 ? .map : .part, Int64(number == 1 ? parts : number), map.version,
                map.source)
        }
    }

    static func encode(_ change: DirectoryChange) throws(CryptoError) -> [UInt8] {
        var lines = Lines()
        if let shards = change.shards { lines.add(shards: shards) }
        if let tiers = change.tiers { lines.add(tiers: tiers) }
        if !change.gone.isEmpty { lines.add(gone: change.gone) }
        for tenant in change.tenants { lines.add(tenant) }
        return try lines.block(.change, change.after, change.version, change.source)
    }

    /// The content of one block.
    private struct Lines {
        private var bytes: [UInt8] = []

        mutating func add(_ write: (inout JSONWriter) -> Void) {
            var writer = JSONWriter(appendingTo: ByteBuffer(reserving: 2048))
            write(&writer)
            bytes += writer.finish().bytes
            bytes.append(UInt8(ascii: "\n"))
        }

        mutating func add(shards: some Collection<ShardRecord>) {
            add { writer in
                writer.beginObject()
                writer.key("shards")
                writer.beginArray()
                for shard in shards { writer.shard(shard) }
                writer.endArray()
                writer.endObject()
            }
        }

        mutating func add(tiers: some Collection<TierDefinition>) {
            add { $0.value(["tiers": .array(tiers.map(\.json))]) }
        }

        mutating func add(gone: [TenantID]) {
            add { $0.value(["gone": .array(gone.map { .string("\($0)") })]) }
        }

        mutating func add(_ tenant: TenantRecord) { add { $0.tenant(tenant) } }

        func block(
            _ kind: Header.Kind, _ number: Int64, _ version: Int64, _ source: String
        ) throws(CryptoError) -> [UInt8] {
            let checksum = try SHA256.hash(bytes).hex
            let line =
                "\(magic) \(revision) \(kind.rawValue) \(number) \(version) \(bytes.count) \(checksum)"
                + " \(source)\n"
            return Array(line.utf8) + bytes
        }
    }

    // MARK: Reading

    static func header(of bytes: [UInt8]) throws(Problem) -> Header {
        guard let end = bytes.prefix(headerBytesMax).firstIndex(of: UInt8(ascii: "\n")),
            let line = String(validating: bytes[..<end], as: UTF8.self)
        else { throw .notADirectoryFile }
        let words = line.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 9, words[0] + " " + words[1] == magic, let revision = Int(words[2]),
            let kind = Header.Kind(rawValue: String(words[3])), let number = Int64(words[4]),
            let version = Int64(words[5]), let length = Int(words[6]),
            (0...blockBytesMax).contains(length)
        else { throw .notADirectoryFile }
        return Header(
            revision: revision, kind: kind, number: number, version: version, length: length,
            checksum: String(words[7]), source: String(words[8]), lineLength: end + 1)
    }

    /// Goes through a file block by block. Holds one block at a time.
    private struct Walk: ~Copyable {
        let reader: FileReader
        private(set) var offset = 0

        init(_ path: String) throws(Files.FileError) {
            reader = try FileReader(path)
        }

        /// - Parameter withContent: false: the content is only known to be there in its length.
        /// - Returns: nil at the end of the file.
        mutating func next(
            withContent: Bool
        ) throws -> (header: Header, content: [UInt8])? {
            let head = try reader.read(headerBytesMax, at: offset)
            if head.isEmpty { return nil }
            let header = try DirectoryFile.header(of: head)
            let start = offset + header.lineLength
            guard withContent else {
                let last = try reader.read(
                    header.length == 0 ? 0 : 1, at: start + header.length - 1)
                guard header.length == 0 || last.count == 1 else { throw Problem.checksum }
                offset = start + header.length
                return (header, [])
            }
            let content = try reader.read(header.length, at: start)
            guard content.count == header.length, try SHA256.hash(content).hex == header.checksum
            else { throw Problem.checksum }
            offset = start + header.length
            return (header, content)
        }
    }

    /// What is on disk, by its block's first lines.
    struct State: Equatable {
        var source: String
        /// The lowest of all blocks.
        var revision: Int
        var version: Int64
        /// Bytes of the map, and where the next change goes: behind the last whole block.
        var mapLength: Int
        var end: Int
    }

    /// - Parameter verified: whether contents are compared with their checksums: once in a process' life.
    /// - Returns: nil when there is no file, or none of ours.
    static func state(of path: String, verified: Bool) throws -> State? {
        do {
            var walk = try Walk(path)
            guard let first = try walk.next(withContent: verified), first.header.kind == .map
            else { return nil }
            var state = State(
                source: first.header.source, revision: first.header.revision,
                version: first.header.version, mapLength: walk.offset, end: walk.offset)
            var parts = first.header.number
            while parts > 1 {
                guard let part = try walk.next(withContent: verified), part.header.kind == .part
                else { return nil }
                parts -= 1
            }
            (state.mapLength, state.end) = (walk.offset, walk.offset)
            do {
                while let change = try walk.next(withContent: verified) {
                    guard change.header.kind == .change, change.header.number == state.version,
                        change.header.source == state.source
                    else { break }
                    state.version = change.header.version
                    state.revision = min(state.revision, change.header.revision)
                    state.end = walk.offset
                }
            } catch is Problem {
                // The file ends before it.
            }
            return state
        } catch is Problem {
            return nil
        } catch let error as Files.FileError where error.isMissing {
            return nil
        }
    }

    /// - Throws: `Problem` when the map cannot be read; a change that cannot be read ends the file.
    static func read(_ path: String) throws -> DirectorySnapshot {
        var walk = try Walk(path)
        guard let first = try walk.next(withContent: true), first.header.kind == .map else {
            throw Problem.notADirectoryFile
        }
        var content = Content()
        try content.add(first.content)
        var names = Interner()
        var map = DirectorySnapshot(
            source: first.header.source, version: first.header.version,
            shards: content.shards ?? [], tiers: content.tiers ?? [])
        map.add(try content.tenants(&names))
        var number: Int64 = 1
        while number < first.header.number {
            number += 1
            guard let part = try walk.next(withContent: true), part.header.kind == .part,
                part.header.number == number
            else { throw Problem.content("a part is missing") }
            var content = Content()
            try content.add(part.content)
            map.add(try content.tenants(&names))
        }
        do {
            while let change = try walk.next(withContent: true), change.header.kind == .change,
                change.header.number == map.version, change.header.source == map.source,
                change.header.version > map.version
            {
                var content = Content()
                try content.add(change.content)
                let tenants = try content.tenants(&names)
                map.apply(
                    version: change.header.version, asked: tenants.map(\.id) + content.gone,
                    found: tenants, shards: content.shards, tiers: content.tiers)
            }
        } catch is Problem {
            return map
        }
        return map
    }

    /// The lines of one block, read.
    private struct Content {
        var shards: [ShardRecord]?
        var tiers: [TierDefinition]?
        var gone: [TenantID] = []
        private var entries: [JSONValue] = []

        mutating func add(_ content: [UInt8]) throws(Problem) {
            for line in content.split(separator: UInt8(ascii: "\n")) {
                let value: JSONValue
                do {
                    value = try JSONReader.parse(line)
                } catch {
                    throw .content("\(error)")
                }
                if let records = value["shards"]?.asArray {
                    var shards: [ShardRecord] = []
                    for record in records { shards.append(try DirectoryFile.shard(record)) }
                    self.shards = shards
                } else if let definitions = value["tiers"]?.asArray {
                    var tiers: [TierDefinition] = []
                    for definition in definitions {
                        do {
                            tiers.append(try TierDefinition(json: definition))
                        } catch {
                            throw .content("tier: \(error)")
                        }
                    }
                    self.tiers = tiers
                } else if let ids = value["gone"]?.asArray {
                    for id in ids {
                        guard let id = id.asString.flatMap({ TenantID($0) }) else {
                            throw .content("a clinic that is gone")
                        }
                        gone.append(id)
                    }
                } else {
                    entries.append(value)
                }
            }
        }

        func tenants(_ names: inout Interner) throws(Problem) -> [TenantRecord] {
            var tenants: [TenantRecord] = []
            tenants.reserveCapacity(entries.count)
            for entry in entries { tenants.append(try DirectoryFile.tenant(entry, &names)) }
            return tenants
        }
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
        // A file of an older program has none: then reads go to the primary.
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

    private static func tenant(
        _ value: JSONValue, _ names: inout Interner
    ) throws(Problem) -> TenantRecord {
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
            guard let key = WrappedKey(directoryJSON: key, &names) else { throw .content("a key") }
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
            id: id, slug: slug, name: name, hosts: hosts, tierName: names.one(tier), state: state,
            timeZone: names.one(timeZone), locale: names.one(locale), origins: origins,
            shard: ShardID(names.one(shard)), epoch: epoch, placement: placement, keys: keys)
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
    init?(directoryJSON value: JSONValue, _ names: inout Interner) {
        guard let purpose = value["purpose"]?.asString.flatMap(Purpose.init(rawValue:)),
            let version = value["version"]?.asInteger.flatMap(UInt32.init(exactly:)),
            let state = value["state"]?.asString.flatMap(State.init(rawValue:)),
            let wrapped = value["wrapped"]?.asString.flatMap({ Hex.decode($0) })
        else { return nil }
        self.init(
            purpose: purpose, version: version, state: state,
            masterKeyID: value["masterKeyId"]?.asString.map { names.one($0) },
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
    /// Replaces the file by the whole map. Blocks.
    ///
    /// - Returns: false if another process is writing: then it does.
    static func replace(_ path: String, with map: DirectorySnapshot) throws -> Bool {
        guard let lock = try FileLock("\(path).lock") else { return false }
        var writer = Writer(map)
        try Files.replace(path, mode: 0o600) { () throws(Files.FileError) in
            do throws(CryptoError) {
                return try writer.next()
            } catch {
                // Whatever was written is thrown away.
                throw Files.FileError(
                    path: path, operation: "compute a checksum for", reason: .system(errno: 5))
            }
        }
        _ = consume lock
        return true
    }

    /// Adds a change to the file as it was seen. Blocks.
    ///
    /// - Parameter verified: as it was when the state was read.
    /// - Returns: false if another process is writing, or has written meanwhile.
    static func append(
        _ change: DirectoryChange, to path: String, at state: State, verified: Bool
    ) throws -> Bool {
        guard let lock = try FileLock("\(path).lock") else { return false }
        guard try DirectoryFile.state(of: path, verified: verified) == state else { return false }
        try Files.append(try encode(change), to: path, at: state.end)
        _ = consume lock
        return true
    }
}
