import HCCore
package import HCTenancy

extension MoveManifest {
    var json: JSONValue {
        [
            "format": .string(Self.format),
            "move": .string("\(move)"),
            "tenant": ["id": .string("\(tenant.uuid)"), "slug": .string(slug)],
            "source": source.json,
            "target": target.json,
            "epochBefore": .integer(epochBefore),
            "epochAfter": .integer(epochAfter),
            "fencePosition": .string(fencePosition.text),
            "confirmedPosition": .string(confirmedPosition.text),
            "times": [
                "started": .string(times.started.rfc3339),
                "gate": .string(times.gate.rfc3339),
                "fence": .string(times.fence.rfc3339),
                "committed": .string(times.committed.rfc3339),
                "opened": .string(times.opened.rfc3339),
            ],
            "pauseMicroseconds": .integer(pause.microseconds),
            "rows": .integer(Int64(rows)),
            "tables": .array(
                tables.map { table in
                    [
                        "name": .string(table.name), "rows": .integer(Int64(table.digest.rows)),
                        "digest": .string(table.digest.hex),
                    ]
                }),
            "verification": [
                "mode": .string(verification.mode.rawValue),
                "rowsPerChunk": .integer(Int64(verification.rowsPerChunk)),
                "chunks": .integer(Int64(verification.chunks)),
                "chunksInPause": .integer(Int64(verification.chunksInPause)),
                "rowsInPause": .integer(Int64(verification.rowsInPause)),
                "rounds": .integer(Int64(verification.rounds)),
            ],
            "attempts": .integer(attempts),
            "toolVersion": .string(toolVersion),
        ]
    }

    /// - Parameter reader: at the document, from which format and signature were taken.
    init(_ reader: inout ManifestReader) throws(MoveManifestError) {
        var tenant = try reader.object("tenant")
        var times = try reader.object("times")
        var verification = try reader.object("verification")
        let (rows, tables) = (try reader.count("rows"), try reader.tables("tables"))
        self.init(
            move: try reader.uuid("move"), tenant: TenantID(try tenant.uuid("id")),
            slug: try tenant.text("slug"), source: try reader.side("source"),
            target: try reader.side("target"),
            epochBefore: Int64(try reader.count("epochBefore")),
            epochAfter: Int64(try reader.count("epochAfter")),
            fencePosition: try reader.position("fencePosition"),
            confirmedPosition: try reader.position("confirmedPosition"),
            times: Times(
                started: try times.time("started"), gate: try times.time("gate"),
                fence: try times.time("fence"), committed: try times.time("committed"),
                opened: try times.time("opened")),
            pause: .microseconds(try reader.count("pauseMicroseconds")),
            tables: tables,
            verification: Verification(
                mode: try verification.mode("mode"),
                rowsPerChunk: try verification.count("rowsPerChunk"),
                chunks: try verification.count("chunks"),
                chunksInPause: try verification.count("chunksInPause"),
                rowsInPause: try verification.countIfPresent("rowsInPause") ?? 0,
                rounds: try verification.count("rounds")),
            attempts: Int64(try reader.count("attempts")),
            toolVersion: try reader.text("toolVersion"))
        try tenant.finish()
        try times.finish()
        try verification.finish()
        try reader.finish()
        guard rows == self.rows else { throw .invalid("rows", expected: "the sum of the tables'") }
        guard epochAfter == epochBefore + 1 else {
            throw .invalid("epochAfter", expected: "the epoch behind epochBefore")
        }
        guard confirmedPosition >= fencePosition else {
            throw .invalid("confirmedPosition", expected: "at or behind fencePosition")
        }
        guard source.shard != target.shard else {
            throw .invalid("target.shard", expected: "another shard than the source")
        }
    }
}

extension MoveManifest.Side {
    fileprivate var json: JSONValue {
        [
            "shard": .string(shard),
            "systemIdentifier": .string(identity.systemIdentifier),
            "timeline": .integer(Int64(identity.timeline)),
            "databaseOid": .integer(identity.databaseOID),
        ]
    }
}

/// Takes an object apart, member by member, and complains about what is left over.
struct ManifestReader {
    private let path: String
    private var object: JSONObject

    init(_ value: JSONValue, at path: String) throws(MoveManifestError) {
        guard let object = value.asObject else {
            throw .invalid(path.isEmpty ? "the text" : path, expected: "an object")
        }
        self.path = path
        self.object = object
    }

    private func place(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

    private mutating func take(_ name: String) throws(MoveManifestError) -> JSONValue {
        guard let value = object.remove(name) else { throw .missing(place(name)) }
        return value
    }

    private mutating func take<Value>(
        _ name: String, _ expected: String, _ convert: (JSONValue) -> Value?
    ) throws(MoveManifestError) -> Value {
        guard let value = convert(try take(name)) else {
            throw .invalid(place(name), expected: expected)
        }
        return value
    }

    func finish() throws(MoveManifestError) {
        if let name = object.names.first { throw .unknownMember(place(name)) }
    }

    mutating func object(_ name: String) throws(MoveManifestError) -> ManifestReader {
        try ManifestReader(try take(name), at: place(name))
    }

    mutating func text(_ name: String) throws(MoveManifestError) -> String {
        try take(name, "a text of 1 to \(MoveManifest.Limits.textBytesMax) bytes") {
            $0.asString.flatMap {
                (1...MoveManifest.Limits.textBytesMax).contains($0.utf8.count) ? $0 : nil
            }
        }
    }

    mutating func count(_ name: String) throws(MoveManifestError) -> Int {
        try take(name, "an integer from 0") { $0.asInteger.flatMap { $0 >= 0 ? Int($0) : nil } }
    }

    /// Of what older programs did not write.
    mutating func countIfPresent(_ name: String) throws(MoveManifestError) -> Int? {
        object.names.contains(name) ? try count(name) : nil
    }

    mutating func uuid(_ name: String) throws(MoveManifestError) -> UUID {
        try take(name, "a UUID in lower case") { value in
            value.asString.flatMap { text in UUID(text).flatMap { "\($0)" == text ? $0 : nil } }
        }
    }

    mutating func time(_ name: String) throws(MoveManifestError) -> Timestamp {
        try take(name, "a time in UTC (RFC 3339)") { value in
            value.asString.flatMap { text in
                Timestamp(rfc3339: text).flatMap { $0.rfc3339 == text ? $0 : nil }
            }
        }
    }

    mutating func position(_ name: String) throws(MoveManifestError) -> LogPosition {
        try take(name, "a place in a log, as 1/2A") { value in
            value.asString.flatMap { text in
                LogPosition(text: text).flatMap { $0.text == text ? $0 : nil }
            }
        }
    }

    mutating func mode(
        _ name: String
    ) throws(MoveManifestError) -> MoveManifest.Verification.Mode {
        typealias Mode = MoveManifest.Verification.Mode
        return try take(name, Mode.allCases.map(\.rawValue).joined(separator: " or ")) {
            $0.asString.flatMap { Mode(rawValue: $0) }
        }
    }

    mutating func side(_ name: String) throws(MoveManifestError) -> MoveManifest.Side {
        var side = try object(name)
        let result = MoveManifest.Side(
            shard: try side.text("shard"),
            identity: ShardIdentity(
                systemIdentifier: try side.text("systemIdentifier"),
                timeline: try side.count("timeline"),
                databaseOID: Int64(try side.count("databaseOid"))))
        try side.finish()
        return result
    }

    /// In order of their names, each once.
    mutating func tables(_ name: String) throws(MoveManifestError) -> [MoveManifest.Table] {
        let most = MoveManifest.Limits.tablesMax
        let values = try take(name, "an array of at most \(most) tables") { value in
            value.asArray.flatMap { $0.count <= most ? $0 : nil }
        }
        var tables: [MoveManifest.Table] = []
        for (index, value) in values.enumerated() {
            let place = "\(place(name))[\(index)]"
            var table = try ManifestReader(value, at: place)
            let (name, rows) = (try table.text("name"), try table.count("rows"))
            let digest = try table.take("digest", "32 lower-case hex digits") {
                $0.asString.flatMap { RowDigest(rows: rows, hex: $0) }
            }
            try table.finish()
            if let last = tables.last, last.name >= name {
                throw .invalid("\(place).name", expected: "behind the name before it")
            }
            tables.append(MoveManifest.Table(name: name, digest: digest))
        }
        return tables
    }
}

extension RowDigest {
    init?(rows: Int, hex: String) {
        let digits = Array(hex.utf8)
        guard digits.count == 32,
            let first = UInt64(String(decoding: digits[..<16], as: UTF8.self), radix: 16),
            let second = UInt64(String(decoding: digits[16...], as: UTF8.self), radix: 16)
        else { return nil }
        self.init(rows: rows, first: first, second: second)
        guard self.hex == hex else { return nil }
    }
}

extension LogPosition {
    /// As PostgreSQL prints it: the two halves in hex.
    package var text: String {
        String(bytes >> 32, radix: 16, uppercase: true) + "/"
            + String(bytes & 0xFFFF_FFFF, radix: 16, uppercase: true)
    }

    package init?(text: String) {
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count == 2, let high = UInt32(halves[0], radix: 16),
            let low = UInt32(halves[1], radix: 16)
        else { return nil }
        self.init(UInt64(high) << 32 | UInt64(low))
    }
}

extension Duration {
    fileprivate var microseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds * 1_000_000 + attoseconds / 1_000_000_000_000
    }
}
