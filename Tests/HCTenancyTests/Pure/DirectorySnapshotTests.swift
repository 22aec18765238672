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
