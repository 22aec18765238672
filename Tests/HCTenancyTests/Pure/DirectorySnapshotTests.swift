import HCCore
import HCCrypto
import HCTesting
import Testing

@testable import HCTenancy

@Suite("The map of clinics")
struct DirectorySnapshotTests {
    @Test("a host leads to its clinic, and an unknown one nowhere")
    func hostsResolve() {
        let map = Sample.map([
            Sample.record(1, hosts: ["sunrise.localhost", "www.sunrise.example"]),
            Sample.record(2),
        ])
        #expect(map.find(host: "sunrise.localhost")?.id == Sample.tenant(1))
        #expect(map.find(host: "www.sunrise.example")?.id == Sample.tenant(1))
        #expect(map.find(host: "sunrise.localhost.") == nil)
        #expect(map.find(host: "") == nil)
        #expect(map.find(Sample.tenant(3)) == nil)
    }

    @Test("a clinic that was asked for and not found is gone, with its hosts")
    func missingIsGone() {
        var map = Sample.map([Sample.record(1), Sample.record(2)])
        let changed = map.apply(
            version: 2, asked: [Sample.tenant(1)], found: [], shards: nil, tiers: nil)
        #expect(changed == [Sample.tenant(1)])
        #expect(map.find(Sample.tenant(1)) == nil)
        #expect(map.find(host: "clinic1.localhost") == nil)
        #expect(map.find(host: "clinic2.localhost") != nil)
        #expect(map.tenantCount == 1)
    }

    @Test(
        "a host that goes from one clinic to another leads to the new one, whichever is read first")
    func hostsChangeHands() {
        let before = [
            Sample.record(1, hosts: ["a.example", "b.example"]), Sample.record(2, hosts: []),
        ]
        let after = [
            Sample.record(1, hosts: ["a.example"]), Sample.record(2, hosts: ["b.example"]),
        ]
        for found in [after, after.reversed()] {
            var map = Sample.map(before)
            map.apply(
                version: 2, asked: [Sample.tenant(1), Sample.tenant(2)], found: found, shards: nil,
                tiers: nil)
            #expect(map.find(host: "a.example")?.id == Sample.tenant(1))
            #expect(map.find(host: "b.example")?.id == Sample.tenant(2))
        }
    }

    @Test("a record of a lower epoch changes nothing")
    func epochsNeverFall() {
        var map = Sample.map([Sample.record(1, shard: "s2", epoch: 5)])
        let changed = map.apply(
            version: 2, asked: [Sample.tenant(1)], found: [Sample.record(1, shard: "s1", epoch: 4)],
            shards: nil, tiers: nil)
        #expect(changed.isEmpty)
        #expect(map.find(Sample.tenant(1))?.epoch == 5)
    }

    @Test("after a move the former place is remembered")
    func formerPlace() {
        var map = Sample.map([Sample.record(1, shard: "s1", epoch: 1)])
        map.apply(
            version: 2, asked: [Sample.tenant(1)], found: [Sample.record(1, shard: "s2", epoch: 2)],
            shards: nil, tiers: nil)
        #expect(map.formerRecord(of: Sample.tenant(1))?.epoch == 1)
        #expect(map.formerRecord(of: Sample.tenant(1))?.shard == ShardID("s1"))
    }

    @Test("only served clinics are served")
    func servedStates() {
        #expect(Sample.record(state: .active).isServed)
        #expect(Sample.record(state: .active, placement: .moving).isServed)
        #expect(Sample.record(state: .readOnly).isServed)
        #expect(!Sample.record(state: .provisioning).isServed)
        #expect(!Sample.record(state: .deleting).isServed)
        #expect(!Sample.record(placement: .opening).isServed)
        #expect(!Sample.record(placement: .closed).isServed)
    }

    /// Whatever comes in whatever order, the tables agree with each other and with the last reading.
    @Test("the tables by id and by host never disagree", arguments: 1...20 as ClosedRange<UInt64>)
    func tablesAgree(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var map = Sample.map(version: 0, [])
        var truth: [TenantID: TenantRecord] = [:]
        for version in 1...200 as ClosedRange<Int64> {
            let numbers = Set(
                (0..<Int.random(in: 1...4, using: &random)).map { _ in
                    UInt64.random(in: 1...12, using: &random)
                })
            var found: [TenantRecord] = []
            for number in numbers {
                let id = Sample.tenant(number)
                if Bool.random(using: &random) {
                    truth[id] = nil
                    continue
                }
                // Hosts are unique in the control database: nobody else has them at this moment.
                let taken = Set(truth.filter { $0.key != id }.values.flatMap(\.hosts))
                let hosts = (0..<6).map { "h\($0).example" }
                    .filter { !taken.contains($0) && Bool.random(using: &random) }
                let record = Sample.record(
                    number, hosts: hosts, epoch: (truth[id]?.epoch ?? 0) + 1)
                truth[id] = record
                found.append(record)
            }
            map.apply(
                version: version, asked: numbers.map(Sample.tenant),
                found: found.shuffled(using: &random),
                shards: nil, tiers: nil)
            #expect(map.tenantCount == truth.count, "seed \(seed)")
            for number in 0..<6 {
                let host = "h\(number).example"
                let owner = truth.values.first { $0.hosts.contains(host) }
                #expect(map.find(host: host)?.id == owner?.id, "seed \(seed), version \(version)")
            }
        }
    }
}

@Suite("Following the log")
struct FollowerMachineTests {
    typealias Machine = FollowerMachine

    private func feed(
        _ version: Int64, _ lines: [(Int64, Machine.Line.Subject?)], source: String = "db"
    )
        -> Machine.Feed
    {
        Machine.Feed(
            source: source, version: version,
            lines: lines.map { Machine.Line(version: $0.0, subject: $0.1) })
    }

    @Test("nothing new is nothing to do")
    func quiet() {
        #expect(Machine.next(after: 7, source: "db", feed: feed(7, [])) == .nothing)
    }

    @Test("lines name what to read again, each once")
    func lines() {
        let one = Machine.Line.Subject.tenant(Sample.tenant(1))
        let two = Machine.Line.Subject.tenant(Sample.tenant(2))
        let action = Machine.next(
            after: 7, source: "db",
            feed: feed(11, [(8, one), (9, .tier), (10, two), (11, one)]))
        #expect(
            action
                == .read(
                    Machine.Reading(
                        version: 11, tenants: [Sample.tenant(1), Sample.tenant(2)], shards: false,
                        tiers: true, isPartial: false)))
    }

    @Test("lines beyond the counter that was read first are taken as well")
    func newerThanCounter() {
        let action = Machine.next(after: 7, source: "db", feed: feed(7, [(8, .shard)]))
        #expect(
            action
                == .read(
                    Machine.Reading(
                        version: 8, tenants: [], shards: true, tiers: false, isPartial: false)))
    }

    @Test("a gap, lost lines, another log and unknown kinds mean reading everything")
    func reload() {
        let tier = Machine.Line.Subject.tier
        func reason(_ action: Machine.Action) -> Machine.Reason? {
            if case .readEverything(let reason) = action { reason } else { nil }
        }
        #expect(reason(Machine.next(after: 7, source: "db", feed: feed(9, [(9, tier)]))) == .gap)
        #expect(
            reason(Machine.next(after: 7, source: "db", feed: feed(10, [(8, tier), (10, tier)])))
                == .gap)
        #expect(reason(Machine.next(after: 7, source: "db", feed: feed(9, []))) == .gap)
        #expect(reason(Machine.next(after: 7, source: "db", feed: feed(6, []))) == .otherLog)
        #expect(
            reason(Machine.next(after: 7, source: "db", feed: feed(9, [(8, tier)], source: "new")))
                == .otherLog)
        #expect(
            reason(Machine.next(after: 7, source: "db", feed: feed(8, [(8, nil)]))) == .unknownKind)
        #expect(
            reason(Machine.next(after: 7, source: "db", feed: feed(1_000_000, [(8, tier)])))
                == .farBehind)
    }
}

@Suite("The last good map on disk")
struct DirectoryFileTests {
    private let map = Sample.map(
        version: 42, source: "7123/16400",
        [
            Sample.record(
                1, hosts: ["sunrise.localhost", "www.sunrise.example"], state: .readOnly,
                shard: "s2",
                epoch: 9, placement: .moving,
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

    @Test("what is written is read back")
    func roundTrip() throws {
        let copy = try DirectoryFile.decode(try DirectoryFile.encode(map))
        #expect(copy.version == 42)
        #expect(copy.source == "7123/16400")
        #expect(copy.tenantCount == 2)
        #expect(copy.find(Sample.tenant(1)) == map.find(Sample.tenant(1)))
        #expect(copy.find(Sample.tenant(2)) == map.find(Sample.tenant(2)))
        #expect(copy.find(host: "www.sunrise.example")?.id == Sample.tenant(1))
        #expect(copy.find(ShardID("s2")) == map.find(ShardID("s2")))
        #expect(copy.findTier("basic") == Sample.basic)
    }

    @Test(
        "a file that was cut or altered anywhere is refused",
        arguments: 1...5 as ClosedRange<UInt64>)
    func damage(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let bytes = try DirectoryFile.encode(map)
        let header = try DirectoryFile.header(of: bytes)
        for _ in 0..<300 {
            var altered = bytes
            if Bool.random(using: &random) {
                altered.removeLast(Int.random(in: 1...bytes.count, using: &random))
            } else {
                // The version and the source in the first line are not under the checksum of the rest.
                let position = Int.random(in: header.length..<bytes.count, using: &random)
                altered[position] ^= UInt8.random(in: 1...255, using: &random)
            }
            #expect(throws: DirectoryFile.Problem.self, "seed \(seed)") {
                try DirectoryFile.decode(altered)
            }
        }
    }

    @Test("a file of an older program, without origins, is read, and replaced by one that has them")
    func withoutOrigins() throws {
        let path = try TemporaryFile.path("directory")
        defer { TemporaryFile.remove(path) }
        // Its bytes: as they are now, without the member, under their own checksum.
        let encoded = try DirectoryFile.encode(map)
        let header = try DirectoryFile.header(of: encoded)
        var body = String(decoding: encoded[header.length...], as: UTF8.self)
        body = body.replacing(#""origins":[],"#, with: "")
        body = body.replacing(
            #""origins":["https://portal.example","http://localhost:3000"],"#, with: "")
        #expect(!body.contains("origins"))
        let checksum = try SHA256.hash(body).hex
        try TemporaryFile.write(
            Array("HCDIRECTORY 1 42 \(checksum) 7123/16400\n\(body)".utf8), to: path)
        let old = try DirectoryFile.decode(try TemporaryFile.read(path))
        #expect(old.find(Sample.tenant(2))?.origins == [])
        #expect(old.find(Sample.tenant(1)) == map.find(Sample.tenant(1)))
        try DirectoryFile.save(map, to: path)
        let replaced = try DirectoryFile.decode(try TemporaryFile.read(path))
        #expect(replaced.find(Sample.tenant(2)) == map.find(Sample.tenant(2)))
    }

    @Test("a newer file of the same database is kept, an older, damaged or foreign one replaced")
    func onlyNewer() throws {
        let path = try TemporaryFile.path("directory")
        defer { TemporaryFile.remove(path) }
        func versionOnDisk() throws -> Int64 {
            try DirectoryFile.decode(try TemporaryFile.read(path)).version
        }
        try DirectoryFile.save(Sample.map(version: 5, []), to: path)
        #expect(try versionOnDisk() == 5)
        try DirectoryFile.save(Sample.map(version: 4, []), to: path)
        #expect(try versionOnDisk() == 5)
        try DirectoryFile.save(Sample.map(version: 6, []), to: path)
        #expect(try versionOnDisk() == 6)
        try DirectoryFile.save(Sample.map(version: 1, source: "other", []), to: path)
        #expect(try versionOnDisk() == 1)
        var damaged = try TemporaryFile.read(path)
        damaged[damaged.count - 1] ^= 1
        try TemporaryFile.write(damaged, to: path)
        try DirectoryFile.save(Sample.map(version: 1, source: "other", []), to: path)
        #expect(try versionOnDisk() == 1)
        #expect(try TemporaryFile.mode(of: path) == 0o600)
    }
}
