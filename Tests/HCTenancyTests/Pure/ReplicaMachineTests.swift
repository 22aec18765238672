import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Which replica answers")
struct ReplicaMachineTests {
    private static let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    private static func at(_ milliseconds: Int) -> MonotonicTime {
        start + .milliseconds(milliseconds)
    }

    private func machine(_ replicas: [(String, Int)] = [("r1", 100)]) -> ReplicaMachine {
        var machine = ReplicaMachine()
        machine.follow(
            replicas.map { ReplicaRecord(name: $0.0, reference: $0.0, weight: $0.1) })
        return machine
    }

    // MARK: The history of the primary

    @Test("a position is as old as the last moment at which the primary had no more than that")
    func freshness() {
        var history = PrimaryHistory()
        #expect(history.freshness(of: LogPosition(5)) == nil)
        history.record(LogPosition(100), askedAt: Self.at(0))
        history.record(LogPosition(200), askedAt: Self.at(100))
        history.record(LogPosition(300), askedAt: Self.at(200))
        #expect(history.freshness(of: LogPosition(99)) == nil, "older than is remembered")
        #expect(history.freshness(of: LogPosition(100)) == Self.at(0))
        #expect(history.freshness(of: LogPosition(299)) == Self.at(100))
        #expect(history.freshness(of: LogPosition(300)) == Self.at(200))
        #expect(history.freshness(of: LogPosition(9999)) == Self.at(200))
    }

    @Test("a primary at rest makes nobody look late, and costs no memory")
    func atRest() {
        var history = PrimaryHistory()
        history.record(LogPosition(100), askedAt: Self.at(0))
        for round in 1...1000 {
            history.record(LogPosition(200), askedAt: Self.at(round * 200))
        }
        #expect(history.entries.count == 2)
        #expect(history.freshness(of: LogPosition(200)) == Self.at(200_000))
        #expect(history.freshness(of: LogPosition(199)) == Self.at(0))
    }

    @Test(
        "answers that overtake each other, and a log that ends earlier after a crash, say nothing wrong"
    )
    func disorder() {
        var history = PrimaryHistory()
        history.record(LogPosition(300), askedAt: Self.at(200))
        history.record(LogPosition(100), askedAt: Self.at(100))
        #expect(history.entries.count == 1)
        history.record(LogPosition(250), askedAt: Self.at(300))
        #expect(history.freshness(of: LogPosition(260)) == Self.at(300))
        #expect(history.freshness(of: LogPosition(249)) == nil)
        for round in 0..<1000 {
            history.record(LogPosition(UInt64(1000 + round)), askedAt: Self.at(400 + round))
        }
        #expect(history.entries.count == PrimaryHistory.entriesMax)
    }

    // MARK: Choices

    @Test(
        "only who is sampled, fresh and far enough is chosen; the reason is that of who came closest"
    )
    func reasons() {
        var nobody = machine([])
        #expect(nobody.choose(after: nil, now: Self.at(0)) == .primary(.none))
        var machine = machine()
        #expect(machine.choose(after: nil, now: Self.at(0)) == .primary(.unsampled))
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(1))
        #expect(machine.choose(after: nil, now: Self.at(1000)) == .replica("r1"))
        #expect(machine.choose(after: LogPosition(100), now: Self.at(5)) == .replica("r1"))
        #expect(machine.choose(after: LogPosition(101), now: Self.at(5)) == .primary(.behind))
        #expect(machine.choose(after: nil, now: Self.at(1001)) == .primary(.lagging))
        #expect(machine.lag(of: "r1", now: Self.at(300)) == .milliseconds(300))
        machine.follow([ReplicaRecord(name: "r1", reference: "r1", state: .closed)])
        #expect(machine.choose(after: nil, now: Self.at(5)) == .primary(.none))
        #expect(machine.samplesWanted(now: Self.at(5)).isEmpty)
    }

    @Test("what is known of a replica stays with its connection string, and no longer")
    func follow() {
        var machine = machine()
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(1))
        machine.follow([
            ReplicaRecord(name: "r1", reference: "r1", weight: 7),
            ReplicaRecord(name: "r0", reference: "r0"),
        ])
        #expect(machine.choose(after: nil, now: Self.at(2)) == .replica("r1"))
        machine.follow([ReplicaRecord(name: "r1", reference: "elsewhere")])
        #expect(machine.choose(after: nil, now: Self.at(2)) == .primary(.unsampled))
    }

    @Test("shares are as the weights, evenly spread")
    func weights() {
        var machine = machine([("a", 50), ("b", 100), ("c", 150)])
        machine.primarySampled(LogPosition(1), askedAt: Self.at(0))
        for name in ["a", "b", "c"] {
            machine.replicaSampled(name, LogPosition(1), now: Self.at(0))
        }
        var order: [String] = []
        for _ in 0..<600 {
            guard case .replica(let name) = machine.choose(after: nil, now: Self.at(1)) else {
                continue
            }
            order.append(name)
        }
        #expect(order.filter { $0 == "a" }.count == 100)
        #expect(order.filter { $0 == "b" }.count == 200)
        #expect(order.filter { $0 == "c" }.count == 300)
        for start in stride(from: 0, to: 600, by: 6) {
            #expect(Set(order[start..<start + 6]).count == 3, "each of them within any six")
        }
    }

    @Test(
        "the answer's own position counts, not the sample: a replica that was restarted is found out"
    )
    func judged() {
        var machine = machine()
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.primarySampled(LogPosition(200), askedAt: Self.at(900))
        machine.replicaSampled("r1", LogPosition(200), now: Self.at(901))
        #expect(machine.choose(after: LogPosition(150), now: Self.at(1500)) == .replica("r1"))
        #expect(
            machine.answered(
                "r1", LogPosition(120), after: LogPosition(150), since: Self.at(950),
                inOutage: false)
                == .reject(.behind))
        #expect(machine.member("r1")?.replayed == LogPosition(120), "whatever was sampled")
        #expect(
            machine.answered(
                "r1", LogPosition(120), after: nil, since: Self.at(1500), inOutage: false)
                == .reject(.lagging))
        #expect(
            machine.answered(
                "r1", LogPosition(200), after: LogPosition(150), since: Self.at(1500),
                inOutage: false)
                == .accept)
        #expect(machine.choose(after: LogPosition(200), now: Self.at(1500)) == .replica("r1"))
    }

    @Test("a replica that turns out to be another server is forgotten until it is sampled again")
    func impostor() {
        var machine = machine()
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(1))
        machine.refused("r1")
        #expect(machine.choose(after: nil, now: Self.at(2)) == .primary(.unsampled))
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(3))
        #expect(machine.choose(after: nil, now: Self.at(4)) == .replica("r1"))
    }

    // MARK: An outage

    @Test(
        "while the primary is lost, who had what it had when it was last heard of answers, for a time"
    )
    func outage() {
        var machine = machine()
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.primarySampled(LogPosition(200), askedAt: Self.at(2000))
        machine.replicaSampled("r1", LogPosition(150), now: Self.at(2001))
        #expect(machine.chooseInOutage(after: nil, now: Self.at(60_000)) == .primary(.lagging))
        machine.replicaSampled("r1", LogPosition(200), now: Self.at(2100))
        #expect(machine.choose(after: nil, now: Self.at(60_000)) == .primary(.lagging))
        #expect(machine.chooseInOutage(after: nil, now: Self.at(60_000)) == .replica("r1"))
        #expect(
            machine.answered(
                "r1", LogPosition(200), after: nil, since: Self.at(60_000), inOutage: true)
                == .accept)
        #expect(
            machine.chooseInOutage(after: LogPosition(201), now: Self.at(60_000))
                == .primary(.behind))
        #expect(
            machine.chooseInOutage(after: nil, now: Self.at(902_001)) == .primary(.unsampled),
            "not for ever")
    }

    @Test("a process that never heard of the primary answers nothing for it")
    func neverHeard() {
        var machine = machine()
        machine.replicaSampled("r1", LogPosition(200), now: Self.at(1))
        #expect(machine.chooseInOutage(after: nil, now: Self.at(2)) == .primary(.unsampled))
    }

    // MARK: The breaker

    @Test("after failures in a row nobody goes there; then a sample, and one read, try")
    func breaker() {
        var random = SeededRandom(seed: 1)
        var machine = machine()
        machine.primarySampled(LogPosition(100), askedAt: Self.at(0))
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(1))
        for _ in 0..<3 {
            #expect(machine.choose(after: nil, now: Self.at(2)) == .replica("r1"))
            machine.failed("r1", now: Self.at(2), using: &random)
        }
        #expect(machine.choose(after: nil, now: Self.at(3)) == .primary(.broken))
        #expect(machine.samplesWanted(now: Self.at(3)).isEmpty)
        #expect(machine.samplesWanted(now: Self.at(260)) == ["r1"])
        #expect(
            machine.choose(after: nil, now: Self.at(260)) == .primary(.broken),
            "not before a sample")
        machine.replicaSampled("r1", LogPosition(100), now: Self.at(261))
        #expect(machine.choose(after: nil, now: Self.at(262)) == .replica("r1"))
        #expect(machine.choose(after: nil, now: Self.at(262)) == .primary(.broken), "one at a time")
        machine.failed("r1", now: Self.at(263), using: &random)
        guard case .open(let until)? = machine.member("r1")?.breaker.state else {
            Issue.record("it must be open again")
            return
        }
        #expect(until > Self.at(263) + .milliseconds(249), "and for longer")
        machine.replicaSampled("r1", LogPosition(100), now: until)
        machine.primarySampled(LogPosition(100), askedAt: until)
        #expect(machine.choose(after: nil, now: until) == .replica("r1"))
        machine.abandoned("r1")
        #expect(machine.choose(after: nil, now: until) == .replica("r1"), "the trial is free again")
        _ = machine.answered("r1", LogPosition(100), after: nil, since: until, inOutage: false)
        #expect(machine.member("r1")?.breaker.state == .closed)
    }

    @Test("the late answer to a read from before the failures closes nothing, and waits grow")
    func lateAnswer() {
        var random = SeededRandom(seed: 3)
        var breaker = ReplicaBreaker()
        for _ in 0..<4 { breaker.take() }
        for _ in 0..<3 { breaker.readFailed(now: Self.at(0), using: &random) }
        var now = Self.at(0)
        var waits: [Duration] = []
        for _ in 0..<10 {
            guard case .open(let until) = breaker.state else {
                Issue.record("it must be open")
                return
            }
            breaker.readSucceeded()
            #expect(breaker.state == .open(until: until))
            #expect(!breaker.maySample(now: until - .milliseconds(1)))
            breaker.sampleSucceeded(now: until - .milliseconds(1))
            #expect(breaker.state == .open(until: until), "nobody was to ask yet")
            waits.append(until - now)
            now = until
            breaker.sampleFailed(now: now, using: &random)
        }
        #expect(waits[0] <= .milliseconds(250))
        #expect(waits[4] >= .seconds(2))
        #expect(waits.allSatisfy { $0 <= .seconds(10) })
        #expect(waits[9] >= .seconds(5))
    }

    @Test("samples that fail open it as well, and an answer in between counts")
    func samplesFail() {
        var random = SeededRandom(seed: 2)
        var machine = machine()
        for round in 0..<10 {
            machine.sampleFailed("r1", now: Self.at(round), using: &random)
            machine.sampleFailed("r1", now: Self.at(round), using: &random)
            #expect(machine.member("r1")?.breaker.state == .closed)
            machine.replicaSampled("r1", LogPosition(1), now: Self.at(round))
        }
        for _ in 0..<3 { machine.sampleFailed("r1", now: Self.at(20), using: &random) }
        guard case .open(let until)? = machine.member("r1")?.breaker.state else {
            Issue.record("three in a row open it")
            return
        }
        machine.sampleFailed("r1", now: until, using: &random)
        guard case .open(let later)? = machine.member("r1")?.breaker.state else {
            Issue.record("the trial failed")
            return
        }
        #expect(later > until)
    }

    // MARK: The promise

    /// A primary that commits at random, replicas that follow it at random, crash and come back behind, samples that
    /// overtake each other and fail: whatever is accepted holds what it must.
    @Test(
        "no accepted answer misses a commit older than the bound, or the reader's own",
        arguments: 1...60)
    func property(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var machine = machine([("a", 100), ("b", 30)])
        var now = 0
        var log: [(position: UInt64, at: Int)] = [(1, 0)]
        var replayed: [String: UInt64] = ["a": 1, "b": 1]
        var flights: [(arrives: Int, deliver: (inout ReplicaMachine) -> Void)] = []
        var accepted = 0
        for _ in 0..<3000 {
            now += Int.random(in: 0...40, using: &random)
            let moment = Self.at(now)
            for flight in flights where flight.arrives <= now { flight.deliver(&machine) }
            flights.removeAll { $0.arrives <= now }
            let end = log[log.count - 1].position
            switch Int.random(in: 0..<20, using: &random) {
            case 0...4: log.append((end + UInt64.random(in: 1...50, using: &random), now))
            case 5...8:
                for name in ["a", "b"] where Bool.random(using: &random) {
                    let gap = end - (replayed[name] ?? 0)
                    replayed[name, default: 0] += UInt64.random(in: 0...gap, using: &random)
                }
            case 9:
                let name = Bool.random(using: &random) ? "a" : "b"
                if Int.random(in: 0..<10, using: &random) == 0 {
                    replayed[name] = UInt64.random(in: 1...(replayed[name] ?? 1), using: &random)
                }
            case 10...12:
                // The answer is of some moment after the question.
                flights.append(
                    (
                        now + Int.random(in: 0...100, using: &random),
                        { $0.primarySampled(LogPosition(end), askedAt: moment) }
                    ))
            case 13...14:
                let name = Bool.random(using: &random) ? "a" : "b"
                let position = LogPosition(replayed[name] ?? 0)
                flights.append(
                    (
                        now + Int.random(in: 0...100, using: &random),
                        { $0.replicaSampled(name, position, now: moment) }
                    ))
            case 15:
                machine.failed(
                    Bool.random(using: &random) ? "a" : "b", now: moment, using: &random)
            default:
                let own = Bool.random(using: &random) ? nil : log.randomElement(using: &random)
                let after = own.map { LogPosition($0.position) }
                guard case .replica(let name) = machine.choose(after: after, now: moment) else {
                    continue
                }
                // It answers from what it has replayed then, whatever was sampled.
                let shown = replayed[name] ?? 0
                guard
                    machine.answered(
                        name, LogPosition(shown), after: after, since: moment, inOutage: false)
                        == .accept
                else { continue }
                accepted += 1
                if let own { #expect(shown >= own.position, "seed \(seed)") }
                for commit in log where commit.at < now - 1000 {
                    #expect(commit.position <= shown, "seed \(seed): \(now - commit.at) ms old")
                }
            }
        }
        #expect(accepted > 0, "seed \(seed)")
    }
}

@Suite("What a reader must not miss")
struct ReadRequirementTests {
    private func position(
        _ bytes: UInt64, shard: String = "s1", timeline: Int = 1, epoch: Int64 = 1
    ) -> CommitPosition {
        CommitPosition(
            shard: ShardID(shard), timeline: timeline, epoch: epoch, position: LogPosition(bytes))
    }

    @Test(
        "of two positions the further one; of two that cannot be compared, none that a replica could reach"
    )
    func joined() {
        #expect(position(5).joined(with: position(7)) == position(7))
        #expect(position(7).joined(with: position(5)) == position(7))
        let moved = position(7).joined(with: position(5, shard: "s2", epoch: 2))
        #expect(moved.position == .unreachable)
        #expect(moved.shard == ShardID("s2"))
        #expect(position(7).joined(with: position(5, timeline: 2)).position == .unreachable)
    }

    @Test("a position counts at its place only: shard, timeline and epoch")
    func place() {
        func found(
            _ requirement: ReadRequirement, _ shard: String = "s1", _ timeline: Int = 1,
            _ epoch: Int64 = 1
        ) -> ReplicaReader.Position? {
            requirement.position(shard: ShardID(shard), timeline: timeline, epoch: epoch)
        }
        let written = ReadRequirement.position(position(5))
        #expect(found(written) == ReplicaReader.Position(value: LogPosition(5)))
        #expect(found(written, "s2") == nil)
        #expect(found(written, "s1", 2) == nil)
        #expect(found(written, "s1", 1, 2) == nil)
        #expect(found(.nothing) == ReplicaReader.Position(value: nil))
        #expect(found(.unknown) == nil)
    }

    @Test("a server is a shard's replica only if everything that it says of itself says so")
    func sights() {
        let shard = Sample.shard("s1").identity
        func refusal(
            _ system: String? = nil, timeline: Int? = nil, database: Int64? = nil,
            isStandby: Bool = true
        ) -> ReplicaSight.Refusal? {
            ReplicaSight(
                identity: ShardIdentity(
                    systemIdentifier: system ?? shard.systemIdentifier,
                    timeline: timeline ?? shard.timeline,
                    databaseOID: database ?? shard.databaseOID),
                isStandby: isStandby, replayed: LogPosition(1)
            ).refusal(asReplicaOf: shard)
        }
        #expect(refusal() == nil)
        #expect(refusal("7000000000000000002") == .otherCluster)
        #expect(refusal(database: shard.databaseOID + 1) == .otherCluster)
        #expect(refusal(isStandby: false) == .notAStandby)
        for timeline in [shard.timeline - 1, shard.timeline + 1] {
            #expect(refusal(timeline: timeline) == .otherTimeline)
        }
    }

    @Test("positions are written and read; everything else is none")
    func text() {
        let one = position(1 << 40, shard: "eu-west", timeline: 3, epoch: 9)
        #expect(CommitPosition(text: Array(one.text.utf8)) == one)
        for text in [
            "", "1 s1 1 1", "2 s1 1 1 5", "1  1 1 5", "1 s1 x 1 5", "1 s1 1 1 -5", "1 s1 1 1 5 6",
            "1 s1 1 1 99999999999999999999",
        ] {
            #expect(CommitPosition(text: Array(text.utf8)) == nil, "\(text)")
        }
    }

    @Test("a token opens for the clinic it was made for, and for nobody else")
    func token() throws {
        let master = try Sample.master()
        func keys(_ tenant: TenantID) throws -> TenantKeys {
            try TenantKeys(
                of: tenant, wrapped: WrappedKey.makeSet(for: tenant, master: master), master: master
            )
        }
        let (one, other) = (Sample.tenant(1), Sample.tenant(2))
        let (ones, others) = (try keys(one), try keys(other))
        let token = try ReadToken.make(position(77), keys: ones, tenant: one)
        #expect(token.utf8.count < ReadToken.bytesMax)
        #expect(ReadToken.read(token, keys: ones, tenant: one) == .position(position(77)))
        #expect(ReadToken.read(token, keys: others, tenant: other) == .unknown)
        #expect(ReadToken.read(token + "A", keys: ones, tenant: one) == .unknown)
        #expect(ReadToken.read("", keys: ones, tenant: one) == .unknown)
        #expect(
            ReadToken.read(String(repeating: "A", count: 10_000), keys: ones, tenant: one)
                == .unknown)
    }
}

@Suite("What one request must not miss", .onLoop)
@LoopActor
struct ReadScopeTests {
    private let log = Sample.shard("s1").identity

    private func entrance(epoch: Int64 = 1) -> Entrance {
        Entrance(Sample.record(epoch: epoch), .least("t"), .shard)
    }

    private func position(_ bytes: UInt64) -> CommitPosition {
        CommitPosition(
            shard: ShardID("s1"), timeline: log.timeline, epoch: 1, position: LogPosition(bytes))
    }

    @Test("the furthest of what was brought, what the session wrote and what this request wrote")
    func furthest() {
        let scope = ReadScope(session: nil, brought: .position(position(7)))
        #expect(scope.requirement(with: .nothing) == .position(position(7)))
        #expect(scope.requirement(with: .position(position(9))) == .position(position(9)))
        scope.wrote(entrance(), log, 20)
        scope.wrote(entrance(), log, 10)
        #expect(scope.written == position(20))
        #expect(scope.requirement(with: .position(position(9))) == .position(position(20)))
        scope.wrote(entrance(epoch: 2), log, 5)
        #expect(scope.written?.position == .unreachable, "nobody knows which is further")
        #expect(ReadScope(session: nil).requirement(with: .nothing) == .nothing)
    }

    @Test("what is not known makes everything unknown")
    func unknown() {
        let scope = ReadScope(session: nil, brought: .unknown)
        #expect(scope.requirement(with: .nothing) == .unknown)
        scope.wrote(position(7))
        #expect(scope.requirement(with: .position(position(9))) == .unknown)
        let other = ReadScope(session: nil, brought: .position(position(7)))
        #expect(other.requirement(with: .unknown) == .unknown)
    }

    @Test("a commit of which nobody can say where it is, or whether, is out of a replica's reach")
    func inDoubt() {
        let scope = ReadScope(session: nil)
        scope.wrote(entrance(), log, nil)
        #expect(scope.written?.position == .unreachable)
        let failed = ReadScope(session: nil)
        failed.failed(PostgresError(.connectionLost), entrance(), log)
        #expect(failed.written == nil)
        failed.failed(PostgresError(.commitUnknown), entrance(), nil)
        #expect(failed.written == nil, "a shard without replicas")
        failed.failed(PostgresError(.commitUnknown), entrance(), log)
        #expect(failed.written?.position == .unreachable)
    }
}
