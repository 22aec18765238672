import HCCore
import HCCrypto
import HCIO
import HCTesting
import Testing

@testable import HCTenancy

@Suite("The last good map on disk")
struct DirectoryFileTests {
    private let map = Sample.map(
        version: 42, source: "7123/16400",
        [
            Sample.record(
                1, hosts: ["sunrise.localhost", "www.sunrise.example"], state: .readOnly,
                shard: "s2", epoch: 9, placement: .moving,
                keys: [
                    WrappedKey(
                        purpose: .kek, version: 1, state: .active, masterKeyID: "m1",
                        wrappingVersion: nil, wrapped: [1, 2, 3]),
                    WrappedKey(
                        purpose: .data, version: 2, state: .retired, masterKeyID: nil,
                        wrappingVersion: 1, wrapped: [0xff]),
                ]),
            Sample.record(
                2, hosts: [], origins: ["https://portal.example", "http://localhost:3000"]),
        ])

    private func withFile(_ body: (String) throws -> Void) throws {
        let path = try TemporaryFile.path("directory")
        defer {
            TemporaryFile.remove("\(path).lock")
            TemporaryFile.remove(path)
        }
        try body(path)
    }

    /// What one process does when it saves, with a memory of its own.
    private func save(
        _ map: DirectorySnapshot, to path: String, recent: RecentChanges? = nil
    ) throws -> RecentChanges.Saving {
        let state = try DirectoryFile.state(of: path, verified: true)
        let saving = (recent ?? RecentChanges(from: map.version)).saving(map, over: state)
        switch saving {
        case .nothing: break
        case .append(let change):
            let state = try #require(state)
            #expect(try DirectoryFile.append(change, to: path, at: state, verified: true))
        case .replace: #expect(try DirectoryFile.replace(path, with: map))
        }
        return saving
    }

    private func expectSame(
        _ copy: DirectorySnapshot, _ map: DirectorySnapshot, _ comment: Comment? = nil
    ) {
        #expect(copy.version == map.version, comment)
        #expect(copy.source == map.source, comment)
        #expect(copy.differences(from: map) == [], comment)
        for tenant in map.tenants {
            for host in tenant.hosts where map.find(host: host)?.id == tenant.id {
                #expect(copy.find(host: host) == tenant, comment)
            }
        }
        #expect(Set(copy.shardRecords) == Set(map.shardRecords), comment)
        #expect(Set(copy.tierDefinitions) == Set(map.tierDefinitions), comment)
    }

    @Test("what is written is read back")
    func roundTrip() throws {
        try withFile { path in
            #expect(try save(map, to: path) == .replace)
            expectSame(try DirectoryFile.read(path), map)
            #expect(try TemporaryFile.mode(of: path) == 0o600)
        }
    }

    @Test("a map of several parts is read back, and is none if a part is missing")
    func parts() throws {
        let large = Sample.map(version: 3, (1...4500).map { Sample.record($0) })
        try withFile { path in
            #expect(try save(large, to: path) == .replace)
            expectSame(try DirectoryFile.read(path), large)
            var writer = DirectoryFile.Writer(large)
            var blocks: [[UInt8]] = []
            while let block = try writer.next() { blocks.append(block) }
            #expect(blocks.count == 3)
            for missing in 0..<3 {
                var rest = blocks
                rest.remove(at: missing)
                try TemporaryFile.write(rest.flatMap { $0 }, to: path)
                #expect(throws: DirectoryFile.Problem.self) { try DirectoryFile.read(path) }
                #expect(try DirectoryFile.state(of: path, verified: false) == nil)
            }
        }
    }

    @Test(
        "a map that was cut or altered anywhere is refused",
        arguments: 1...5 as ClosedRange<UInt64>)
    func damage(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        try withFile { path in
            _ = try save(map, to: path)
            let bytes = try TemporaryFile.read(path)
            let header = try DirectoryFile.header(of: bytes)
            for _ in 0..<100 {
                var altered = bytes
                if Bool.random(using: &random) {
                    altered.removeLast(Int.random(in: 1...bytes.count, using: &random))
                } else {
                    // The version and the source in the first line are not under the checksum of the rest.
                    let position = Int.random(in: header.lineLength..<bytes.count, using: &random)
                    altered[position] ^= UInt8.random(in: 1...255, using: &random)
                }
                try TemporaryFile.write(altered, to: path)
                #expect(throws: DirectoryFile.Problem.self, "seed \(seed)") {
                    try DirectoryFile.read(path)
                }
                // And whoever looks at the whole of it writes it again.
                #expect(try DirectoryFile.state(of: path, verified: true) == nil, "seed \(seed)")
            }
        }
    }

    @Test(
        "a change that was cut or altered ends the file, and the next one takes its place",
        arguments: 1...5 as ClosedRange<UInt64>)
    func tornChange(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        try withFile { path in
            _ = try save(map, to: path)
            let length = try TemporaryFile.read(path).count
            var newer = map
            newer.apply(
                version: 43, asked: [Sample.tenant(3)], found: [Sample.record(3)], shards: nil,
                tiers: nil)
            var recent = RecentChanges(from: 42)
            recent.note(reading(43, [Sample.tenant(3)]))
            guard case .append = try save(newer, to: path, recent: recent) else {
                Issue.record("not appended")
                return
            }
            expectSame(try DirectoryFile.read(path), newer)
            let whole = try TemporaryFile.read(path)
            for _ in 0..<50 {
                var torn = whole
                if Bool.random(using: &random) {
                    torn.removeLast(Int.random(in: 1...whole.count - length, using: &random))
                } else {
                    torn[Int.random(in: length..<whole.count, using: &random)] ^= 0x80
                }
                try TemporaryFile.write(torn, to: path)
                expectSame(try DirectoryFile.read(path), map, "seed \(seed)")
                guard case .append = try save(newer, to: path, recent: recent) else {
                    Issue.record("not appended, seed \(seed)")
                    return
                }
                #expect(try TemporaryFile.read(path) == whole, "seed \(seed)")
            }
        }
    }

    @Test("records of an older program, without origins and replicas, are read, and then replaced")
    func olderRecords() throws {
        try withFile { path in
            _ = try save(map, to: path)
            let bytes = try TemporaryFile.read(path)
            let header = try DirectoryFile.header(of: bytes)
            var body = String(decoding: bytes[header.lineLength...], as: UTF8.self)
            for member in [
                #""origins":[],"#, #","replicas":[]"#,
                #""origins":["https://portal.example","http://localhost:3000"],"#,
            ] {
                body = body.replacing(member, with: "")
            }
            #expect(!body.contains("origins") && !body.contains("replicas"))
            let checksum = try SHA256.hash(body).hex
            try TemporaryFile.write(
                Array(
                    "HCDIRECTORY 2 0 map 1 42 \(body.utf8.count) \(checksum) 7123/16400\n\(body)"
                        .utf8), to: path)
            let old = try DirectoryFile.read(path)
            #expect(old.find(Sample.tenant(2))?.origins == [])
            #expect(old.find(Sample.tenant(1)) == map.find(Sample.tenant(1)))
            #expect(try save(map, to: path) == .replace)
            expectSame(try DirectoryFile.read(path), map)
        }
    }

    @Test("a newer file of the same database is kept, an older, damaged or foreign one replaced")
    func onlyNewer() throws {
        try withFile { path in
            #expect(try save(Sample.map(version: 5, []), to: path) == .replace)
            #expect(try save(Sample.map(version: 4, []), to: path) == .nothing)
            #expect(try save(Sample.map(version: 5, []), to: path) == .nothing)
            #expect(try save(Sample.map(version: 6, []), to: path) == .replace)
            #expect(try save(Sample.map(version: 1, source: "other", []), to: path) == .replace)
            #expect(try DirectoryFile.read(path).version == 1)
            try TemporaryFile.write(Array("HCDIRECTORY 1 42 aa 7/1\n{}".utf8), to: path)
            #expect(throws: DirectoryFile.Problem.notADirectoryFile) {
                try DirectoryFile.read(path)
            }
            #expect(try save(Sample.map(version: 1, []), to: path) == .replace)
        }
    }

    @Test("one process writes at a time, and one that was overtaken writes nothing")
    func oneWriter() throws {
        try withFile { path in
            _ = try save(map, to: path)
            let state = try #require(try DirectoryFile.state(of: path, verified: false))
            let change = DirectoryChange(
                source: map.source, after: 42, version: 43, tenants: [Sample.record(3)], gone: [])
            do {
                guard let lock = try FileLock("\(path).lock") else {
                    Issue.record("nobody holds it")
                    return
                }
                #expect(try !DirectoryFile.append(change, to: path, at: state, verified: true))
                #expect(try !DirectoryFile.replace(path, with: map))
                _ = consume lock
            }
            #expect(try DirectoryFile.append(change, to: path, at: state, verified: true))
            #expect(
                try !DirectoryFile.append(change, to: path, at: state, verified: true),
                "it is not as it was")
            #expect(try DirectoryFile.read(path).version == 43)
        }
    }

    private func reading(
        _ version: Int64, _ tenants: [TenantID], shards: Bool = false, tiers: Bool = false
    ) -> FollowerMachine.Reading {
        FollowerMachine.Reading(
            version: version, tenants: tenants, shards: shards, tiers: tiers, isPartial: false)
    }

    @Test(
        "workers that follow and save in any order leave a file that is one of their maps",
        arguments: 1...12 as ClosedRange<UInt64>)
    func manyWorkers(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        try withFile { path in
            // The truth, all of its versions, and what each version changed.
            var truth = [Sample.map(version: 1, (1...20).map { Sample.record($0) })]
            var readings: [FollowerMachine.Reading] = []
            var workers = [(map: DirectorySnapshot, recent: RecentChanges)](
                repeating: (truth[0], RecentChanges(from: 1, tenantsMax: 30)), count: 3)
            var kinds: Set<String> = []
            for step in 0..<200 {
                if Bool.random(using: &random) {
                    var next = truth[truth.count - 1]
                    let number = UInt64.random(in: 1...40, using: &random)
                    let tenant = Sample.tenant(number)
                    let isGone = Int.random(in: 0..<4, using: &random) == 0
                    let tiers = Int.random(in: 0..<5, using: &random) == 0
                    let record = Sample.record(
                        number, hosts: ["h\(number).localhost", "s\(step).localhost"],
                        epoch: Int64(step) + 2)
                    next.apply(
                        version: next.version + 1, asked: [tenant], found: isGone ? [] : [record],
                        shards: nil,
                        tiers: tiers
                            ? [TierDefinition(name: "t\(step)", unitsPerSecond: 1, burstUnits: 500)]
                            : nil)
                    readings.append(reading(next.version, [tenant], tiers: tiers))
                    truth.append(next)
                }
                let worker = Int.random(in: 0..<workers.count, using: &random)
                let target = Int.random(
                    in: Int(workers[worker].map.version)...truth.count, using: &random)
                while workers[worker].map.version < target {
                    let reading = readings[Int(workers[worker].map.version) - 1]
                    let now = truth[Int(reading.version) - 1]
                    workers[worker].map.apply(
                        version: reading.version, asked: reading.tenants,
                        found: reading.tenants.compactMap { now.find($0) }, shards: nil,
                        tiers: reading.tiers ? Array(now.tierDefinitions) : nil)
                    workers[worker].recent.note(reading)
                }
                if Bool.random(using: &random) {
                    let map = workers[worker].map
                    switch try save(map, to: path, recent: workers[worker].recent) {
                    case .nothing: kinds.insert("nothing")
                    case .append: kinds.insert("append")
                    case .replace: kinds.insert("replace")
                    }
                    workers[worker].recent.forget(through: map.version)
                    let copy = try DirectoryFile.read(path)
                    #expect(copy.version >= map.version, "seed \(seed), step \(step)")
                    expectSame(
                        copy, truth[Int(copy.version) - 1], "seed \(seed), step \(step)")
                }
            }
            #expect(kinds == ["nothing", "append", "replace"], "seed \(seed)")
        }
    }

    @Test(
        "changes that outgrow the map are put together, and too many to remember are not remembered"
    )
    func compaction() throws {
        var recent = RecentChanges(from: 42, tenantsMax: 2)
        recent.note(reading(43, [Sample.tenant(1), Sample.tenant(2)]))
        var newer = map
        newer.apply(
            version: 43, asked: [Sample.tenant(9)], found: [], shards: nil, tiers: nil)
        func state(changes: Int, version: Int64 = 42) -> DirectoryFile.State {
            DirectoryFile.State(
                source: map.source, revision: DirectoryFile.revision, version: version,
                mapLength: 100, end: 100 + changes)
        }
        guard case .append = recent.saving(newer, over: state(changes: 1 << 20)) else {
            Issue.record("not appended")
            return
        }
        #expect(recent.saving(newer, over: state(changes: 1 + (1 << 20))) == .replace)
        #expect(recent.saving(newer, over: state(changes: 0, version: 41)) == .replace)
        recent.note(reading(44, [Sample.tenant(3)]))
        #expect(recent.floor == 44)
    }
}
