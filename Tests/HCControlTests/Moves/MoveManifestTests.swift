import HCCore
import HCCrypto
import HCTenancy
import Testing

@testable import HCControl

@Suite("A move's manifest")
struct MoveManifestTests {
    private static func master(_ names: String...) throws -> MasterKey {
        try MasterKey(
            keys: names.map { name in
                (name, SecretBytes(try SHA256.hash("key \(name)").bytes))
            })
    }

    private static func signer(_ names: String...) throws -> PlatformSigner {
        try MoveManifest.makeSigner(
            MasterKey(
                keys: names.map { ($0, SecretBytes(try SHA256.hash("key \($0)").bytes)) }))
    }

    private static func time(_ microseconds: Int64) -> Timestamp {
        Timestamp(microseconds: 1_772_978_400_000_000 + microseconds)
    }

    private static let manifest = MoveManifest(
        move: UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_0001),
        tenant: TenantID(UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000a)),
        slug: "sunrise",
        source: .init(
            shard: "s1",
            identity: ShardIdentity(
                systemIdentifier: "7388113266017591317", timeline: 2, databaseOID: 16_402)),
        target: .init(
            shard: "s2",
            identity: ShardIdentity(
                systemIdentifier: "7388113266017591318", timeline: 1, databaseOID: 16_403)),
        epochBefore: 4, epochAfter: 5, fencePosition: LogPosition(0x3_0A00_00F8),
        confirmedPosition: LogPosition(0x3_0A00_0130),
        times: .init(
            started: time(0), gate: time(61_000_000), fence: time(61_004_000),
            committed: time(61_011_000), opened: time(61_013_500)),
        pause: .microseconds(12_345),
        tables: [
            .init(name: "patient", digest: RowDigest(rows: 3, first: 7, second: .max)),
            .init(name: "account", digest: RowDigest(rows: 1, first: 5, second: 6)),
        ],
        verification: .init(
            mode: .dirtyChunks, rowsPerChunk: 10_000, chunks: 21, chunksInPause: 2,
            rowsInPause: 17, rounds: 3),
        attempts: 2, toolVersion: "hc-admin 0.5.0")

    private static func signed() throws -> JSONValue { try manifest.signed(by: signer("k1")) }

    private func refusal(
        _ document: JSONValue, by signer: PlatformSigner? = nil
    ) throws -> MoveManifestError? {
        let signer = try signer ?? Self.signer("k1")
        do throws(MoveManifestError) {
            _ = try MoveManifest.verified(document.serialized, by: signer)
            return nil
        } catch {
            return error
        }
    }

    @Test("a signed manifest is read as what it was")
    func roundTrip() throws {
        let bytes = try Self.signed().serialized
        let read = try MoveManifest.verified(bytes, by: Self.signer("k1"))
        #expect(read == Self.manifest)
        #expect(read.rows == 4)
        #expect(read.tables.map(\.name) == ["account", "patient"])
    }

    @Test("the signed text is canonical: names in order, no white space, the same at each signing")
    func canonical() throws {
        let text = try Self.signed().text
        #expect(
            text.hasPrefix(
                #"{"attempts":2,"confirmedPosition":"3/A000130","epochAfter":5,"epochBefore":4,"#))
        #expect(text.contains(#""pauseMicroseconds":12345,"rows":4,"signature":{"algorithm":"#))
        #expect(try Self.signed().text == text)
    }

    @Test("another order of members or white space, as jsonb makes them, is the same manifest")
    func reformed() throws {
        func turned(_ value: JSONValue) -> JSONValue {
            guard let object = value.asObject else { return value }
            var result = JSONObject()
            for member in object.members.reversed() {
                result.insert(turned(member.value), for: member.name)
            }
            return .object(result)
        }
        let document = turned(try Self.signed())
        #expect(try refusal(document) == nil)
        let spaced = document.text.replacing(#"":"#, with: "\" : ").replacing(",", with: ",\n  ")
        #expect(
            try MoveManifest.verified(Array(spaced.utf8), by: Self.signer("k1")) == Self.manifest)
    }

    /// Every place of a document that holds a value that is no object or array, and every member to leave out.
    private enum Path {
        case member(String)
        case element(Int)
    }

    private func leaves(_ value: JSONValue, _ path: [Path] = []) -> [[Path]] {
        switch value {
        case .object(let object):
            object.members.flatMap { leaves($0.value, path + [.member($0.name)]) }
        case .array(let values):
            values.enumerated().flatMap { leaves($1, path + [.element($0)]) }
        default: [path]
        }
    }

    private func changed(
        _ value: JSONValue, at path: ArraySlice<Path>, _ change: (JSONValue) -> JSONValue?
    ) -> JSONValue? {
        guard let step = path.first else { return change(value) }
        switch (step, value) {
        case (.member(let name), .object(var object)):
            guard let member = object[name] else { return value }
            if let new = changed(member, at: path.dropFirst(), change) {
                object.set(new, for: name)
            } else {
                object.remove(name)
            }
            return .object(object)
        case (.element(let index), .array(var values)):
            if let new = changed(values[index], at: path.dropFirst(), change) {
                values[index] = new
            } else {
                values.remove(at: index)
            }
            return .array(values)
        default: return value
        }
    }

    /// Another value that could stand in the same place.
    private func other(_ value: JSONValue) -> JSONValue {
        switch value {
        case .integer(let number): return .integer(number + 1)
        case .string(let text):
            var bytes = Array(text.utf8)
            let last = bytes.count - 1
            // Of a time the last digit of the seconds, so that it stays one.
            let place = text.hasSuffix("Z") ? text.utf8.count - 2 : last
            bytes[place] = bytes[place] == UInt8(ascii: "1") ? UInt8(ascii: "2") : UInt8(ascii: "1")
            return .string(String(decoding: bytes, as: UTF8.self))
        default: return .null
        }
    }

    @Test("a value that was changed, taken out or replaced by one of another kind is refused")
    func tampered() throws {
        let document = try Self.signed()
        let paths = leaves(document)
        #expect(paths.count == 40)
        for path in paths {
            for change in [other, { _ in nil }, { _ in .bool(true) }, { _ in .null }]
                as [(JSONValue) -> JSONValue?]
            {
                let altered = try #require(changed(document, at: path[...], change))
                #expect(try refusal(altered) != nil, "\(path)")
            }
        }
    }

    @Test("what is wrong is said, and where")
    func messages() throws {
        let document = try Self.signed()
        func refusal(_ members: KeyValuePairs<String, JSONValue>) throws -> String? {
            try self.refusal(document.adding(members))?.description
        }
        #expect(
            try refusal(["rows": 5]) == "key \(Self.signer("k1").active) did not sign this:"
                + " it was changed since, or was never signed")
        #expect(
            try refusal(["format": "hc.move-manifest.2"])
                == "it is a 'hc.move-manifest.2', this program reads 'hc.move-manifest.1'")
        #expect(try refusal(["rows": 1.5]) == "rows is not an integer")
        #expect(
            try refusal(["rows": 9_007_199_254_740_992]) == "rows is not an integer below 2^53")
        #expect(
            try refusal(["slug": "sun\u{7}rise"])
                == "slug is not a text of printable ASCII characters")
        #expect(try refusal(["signature": [:]]) == "signature.algorithm is missing")
        #expect(
            try refusal([
                "signature": ["algorithm": "none", "key": "x", "value": ""]
            ]) == "it is signed with 'none', this program knows HMAC-SHA256")
        #expect(
            try refusal([
                "signature": ["algorithm": "HMAC-SHA256", "key": "x", "value": "00"]
            ]) == "signature.value is not 64 lower-case hex digits")
        #expect(try self.refusal(.string("x"))?.description == "the text is not an object")
        #expect(
            throws: MoveManifestError.malformed(JSONError(offset: 1, reason: .unexpectedEnd))
        ) {
            try MoveManifest.verified(Array("{".utf8), by: Self.signer("k1"))
        }
    }

    /// What the platform would never sign, signed all the same: the reading checks its form by itself.
    @Test(
        "a signature does not excuse a manifest that cannot be true",
        arguments: [
            ("epochAfter", .integer(6), "epochAfter is not the epoch behind epochBefore"),
            ("epochAfter", .integer(-5), "epochAfter is not an integer from 0"),
            ("rows", .integer(5), "rows is not the sum of the tables'"),
            (
                "confirmedPosition", .string("3/A0000F7"),
                "confirmedPosition is not at or behind fencePosition"
            ),
            (
                "fencePosition", .string("3/0A0000F8"),
                "fencePosition is not a place in a log, as 1/2A"
            ),
            ("move", .string("018F"), "move is not a UUID in lower case"),
            ("more", .null, "more is no member of a manifest"),
            ("tables", .array([.null]), "tables[0] is not an object"),
            (
                "tables", .array([["name": "a", "rows": 4, "digest": "00"]]),
                "tables[0].digest is not 32 lower-case hex digits"
            ),
            ("tenant", ["slug": "x"], "tenant.id is missing"),
            ("toolVersion", .string(""), "toolVersion is not a text of 1 to 200 bytes"),
        ] as [(String, JSONValue, String)])
    func untrue(_ name: String, _ value: JSONValue, _ message: String) throws {
        let signer = try Self.signer("k1")
        let document = Self.manifest.json.adding([name: value])
        #expect(
            try refusal(MoveManifest.signed(document, by: signer))?.description == message)
    }

    @Test("names of tables come once each, in order")
    func tableOrder() throws {
        let signer = try Self.signer("k1")
        let table: JSONValue = [
            "name": "a", "rows": 2, "digest": .string(RowDigest.zero.hex),
        ]
        let document = Self.manifest.json.adding(["tables": .array([table, table])])
        #expect(
            try refusal(MoveManifest.signed(document, by: signer))?.description
                == "tables[1].name is not behind the name before it")
    }

    @Test("after a rotation of the master key old manifests are checked with the key that is kept")
    func rotation() throws {
        let document = try Self.signed()
        #expect(try refusal(document, by: Self.signer("k2", "k1")) == nil)
        let new = try Self.signer("k2")
        #expect(
            try refusal(document, by: new)
                == .unknownKey("\(Self.signer("k1").active)", known: ["\(new.active)"]))
        // A signature of the new key under the old one's name.
        let old = try Self.signer("k1").active.description
        let claimed = try changed(
            Self.manifest.signed(by: new), at: [.member("signature"), .member("key")]
        ) { _ in .string(old) }
        #expect(try claimed.flatMap { try refusal($0) } != nil)
    }

    @Test("a signature for another purpose is none")
    func purpose() throws {
        let other = try PlatformSigner(master: Self.master("k1"), purpose: "hc.other.1")
        #expect(try refusal(Self.manifest.signed(by: other)) == .changed(key: "\(other.active)"))
    }

    @Test("a text that is too large is not read")
    func large() throws {
        let bytes = Array(repeating: UInt8(ascii: " "), count: 256 * 1024 + 1)
        #expect(
            throws: MoveManifestError.malformed(
                JSONError(offset: 256 * 1024, reason: .tooLarge))
        ) {
            try MoveManifest.verified(bytes, by: Self.signer("k1"))
        }
    }
}
