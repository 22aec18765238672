import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("The plan of a rebalance")
struct RebalancePlannerTests {
    private static func shard(
        _ id: String, _ status: RebalanceFleet.Shard.Status = .open, capacity: Double = 100,
        weightMax: Int = 1000, region: String = "", dedicatedTo: String? = nil
    ) -> RebalanceFleet.Shard {
        RebalanceFleet.Shard(
            id: id, status: status, capacity: RandomFleet.even(capacity), weightMax: weightMax,
            region: region, dedicatedTo: dedicatedTo)
    }

    private static func clinic(
        _ number: Int, on shard: Int, load: Double, bytes: Double = 0, pin: Int? = nil,
        group: Int? = nil, region: String? = nil, dedicatedTo: String? = nil,
        isResting: Bool = false
    ) -> RebalanceFleet.Clinic {
        RebalanceFleet.Clinic(
            id: RandomFleet.clinic(number), shard: shard, load: RandomFleet.even(load),
            bytes: bytes, pin: pin, group: group, region: region, dedicatedTo: dedicatedTo,
            isResting: isResting)
    }

    private static func plan(
        _ fleet: RebalanceFleet, _ change: (inout RebalanceRules) -> Void = { _ in }
    ) -> RebalancePlan {
        var rules = RebalanceRules()
        change(&rules)
        return RebalancePlanner.plan(fleet, rules: rules)
    }

    // MARK: Properties

    @Test("one may stop after any move: each makes the whole better", arguments: 0..<60)
    func prefixes(seed: UInt64) {
        var random = RandomFleet(seed: seed)
        let fleet = random.make(shards: 3 + Int(seed) / 4, clinics: 40 + 10 * Int(seed))
        #expect(fleet.problems.isEmpty)
        let rules = RebalanceRules()
        let plan = RebalancePlanner.plan(fleet, rules: rules)
        var (use, score) = (RebalanceUse(of: fleet), RebalanceScore(of: fleet, rules: rules))
        for (index, move) in plan.moves.enumerated() {
            let after = plan.applied(to: fleet, first: index + 1)
            let (next, lower) = (
                RebalanceUse(of: after), RebalanceScore(of: after, rules: rules)
            )
            #expect(lower < score, "seed \(seed), move \(index)")
            #expect(
                abs(score.potential - lower.potential - move.gain) < 1e-9,
                "seed \(seed), move \(index): it gains what it says")
            if move.cause == .balance {
                #expect(lower.violations == score.violations)
                #expect(move.gain >= rules.moveCost)
                // The one that takes is not hotter than the one that was relieved.
                #expect(
                    next.shards[move.target].highest < use.shards[move.source].highest,
                    "seed \(seed), move \(index)")
            }
            (use, score) = (next, lower)
        }
    }

    @Test("no move breaks a rule, and none is made twice", arguments: 0..<60)
    func rules(seed: UInt64) {
        var random = RandomFleet(seed: seed)
        let fleet = random.make(shards: 3 + Int(seed) / 4, clinics: 40 + 10 * Int(seed))
        let plan = Self.plan(fleet)
        #expect(Set(plan.moves.map(\.clinic)).count == plan.moves.count)
        for (index, move) in plan.moves.enumerated() {
            let clinic = fleet.clinics[move.clinic]
            let (source, target) = (fleet.shards[move.source], fleet.shards[move.target])
            #expect(clinic.shard == move.source && move.source != move.target)
            #expect(target.status == .open)
            #expect(target.region == clinic.region ?? source.region)
            #expect(target.dedicatedTo == clinic.dedicatedTo)
            #expect(clinic.pin == nil || clinic.pin == move.target)
            #expect(!clinic.isFixed)
            #expect(move.cause != .balance || !clinic.isResting)
            let after = plan.applied(to: fleet, first: index + 1)
            let use = RebalanceUse(of: after).shards[move.target]
            #expect(use.highest <= RebalanceRules().fillMax)
            #expect(use.weight <= target.weightMax)
            if let group = clinic.group {
                let others = after.clinics.count { $0.group == group && $0.shard == move.target }
                #expect(others == 1, "seed \(seed), move \(index)")
            }
        }
        // What is not where it may be and did not move is said.
        let end = RebalancePlaces(plan.applied(to: fleet), RebalanceRules())
        let left = Set(fleet.clinics.indices.filter { end.violation(of: $0) != nil })
        #expect(left == Set(plan.unplaced.map(\.clinic)), "seed \(seed)")
    }

    @Test("the same fleet gives the same plan", arguments: 0..<10)
    func determinism(seed: UInt64) {
        var (one, other) = (RandomFleet(seed: seed), RandomFleet(seed: seed))
        let plan = Self.plan(one.make(shards: 12, clinics: 400))
        #expect(plan == Self.plan(other.make(shards: 12, clinics: 400)))
        #expect(!plan.moves.isEmpty)
    }

    @Test("what a plan made even, the next plan lets be", arguments: 0..<20)
    func fixedPoint(seed: UInt64) {
        var random = RandomFleet(seed: seed)
        let fleet = random.make(shards: 10, clinics: 500)
        let first = Self.plan(fleet) { $0.movesMax = 100_000 }
        let second = Self.plan(first.applied(to: fleet)) { $0.movesMax = 100_000 }
        // Clinics may move once in a plan, so the second may find some more, but not many.
        #expect(second.moves.count * 5 <= first.moves.count, "seed \(seed)")
    }

    // MARK: Stories

    @Test("an even fleet gives an empty plan")
    func even() {
        let fleet = RebalanceFleet(
            shards: (0..<4).map { Self.shard("s\($0)") },
            clinics: (0..<40).map { Self.clinic($0, on: $0 % 4, load: 6) })
        #expect(Self.plan(fleet).moves.isEmpty)
        #expect(RebalanceUse(of: fleet).skew < 1e-9)
    }

    @Test("shards that hardly work are let be, however uneven")
    func idle() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<10).map { Self.clinic($0, on: 0, load: 1) })
        #expect(Self.plan(fleet).moves.isEmpty)
        #expect(!Self.plan(fleet) { $0.floor = 0.05 }.moves.isEmpty)
    }

    @Test("a full shard is made even with an empty one")
    func halves() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<40).map { Self.clinic($0, on: 0, load: 2) })
        let plan = Self.plan(fleet)
        let after = RebalanceUse(of: plan.applied(to: fleet))
        #expect(after.skew <= 0.1)
        #expect(plan.moves.count <= 20)
    }

    @Test("larger shards get more, in proportion")
    func capacities() {
        let fleet = RebalanceFleet(
            shards: [
                Self.shard("s0", capacity: 100), Self.shard("s1", capacity: 300),
                Self.shard("s2", capacity: 200),
            ], clinics: (0..<90).map { Self.clinic($0, on: 0, load: 4) })
        let plan = Self.plan(fleet)
        let after = RebalanceUse(of: plan.applied(to: fleet))
        #expect(after.skew <= 0.1)
        #expect(after.shards[1].clinics > after.shards[2].clinics)
        #expect(after.shards[2].clinics > after.shards[0].clinics)
    }

    @Test("of two that are equally hot, the one with less to copy moves")
    func smallFirst() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: [
                Self.clinic(0, on: 0, load: 20, bytes: 60),
                Self.clinic(1, on: 0, load: 20, bytes: 2),
                Self.clinic(2, on: 0, load: 20, bytes: 60),
            ])
        #expect(Self.plan(fleet).moves.map(\.clinic) == [1])
    }

    @Test("a gain that is smaller than its cost is no reason to move")
    func costs() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<10).map { Self.clinic($0, on: $0 < 6 ? 0 : 1, load: 5, bytes: 50) })
        #expect(Self.plan(fleet).moves.count == 1)
        #expect(Self.plan(fleet) { $0.copyCost = 0.5 }.moves.isEmpty)
    }

    @Test("one that is too large to move without making the other as hot stays")
    func tooLarge() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: [Self.clinic(0, on: 0, load: 60), Self.clinic(1, on: 1, load: 10)])
        #expect(Self.plan(fleet).moves.isEmpty)
    }

    @Test("a shard that drains ends empty if there is room, and what finds none is said")
    func draining() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0", .draining), Self.shard("s1"), Self.shard("s2")],
            clinics: (0..<30).map { Self.clinic($0, on: $0 % 3, load: 3) })
        let plan = Self.plan(fleet)
        #expect(plan.moves.count == 10)
        #expect(plan.moves.allSatisfy { $0.cause == .drain })
        #expect(plan.unplaced.isEmpty)
        let after = RebalanceUse(of: plan.applied(to: fleet))
        #expect(after.shards.map(\.clinics) == [0, 15, 15])

        fleet.shards[2].weightMax = 12
        fleet.shards[1].weightMax = 13
        let tight = Self.plan(fleet)
        #expect(tight.moves.count == 5)
        #expect(tight.unplaced.count == 5)
        #expect(tight.unplaced.allSatisfy { $0.cause == .drain })
    }

    @Test("resting does not keep a clinic on a shard that drains; a move under way does")
    func restingDrains() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0", .draining), Self.shard("s1")],
            clinics: [Self.clinic(0, on: 0, load: 1, isResting: true)])
        #expect(Self.plan(fleet).moves.count == 1)
        fleet.clinics[0].isFixed = true
        #expect(Self.plan(fleet).moves.isEmpty)
        #expect(Self.plan(fleet).unplaced.map(\.clinic) == [0])
    }

    @Test("pins, regions, dedications and groups move those that are not where they should be")
    func repairs() {
        let fleet = RebalanceFleet(
            shards: [
                Self.shard("s0", region: "north"), Self.shard("s1", region: "north"),
                Self.shard("s2", region: "south"),
                Self.shard("s3", region: "north", dedicatedTo: "chain"),
            ],
            clinics: [
                Self.clinic(0, on: 0, load: 1, pin: 1),
                Self.clinic(1, on: 0, load: 1, region: "south"),
                Self.clinic(2, on: 0, load: 1, dedicatedTo: "chain"),
                Self.clinic(3, on: 3, load: 1),
                Self.clinic(4, on: 0, load: 1, bytes: 5, group: 9),
                Self.clinic(5, on: 0, load: 1, bytes: 1, group: 9),
            ])
        let plan = Self.plan(fleet)
        let found = plan.moves.sorted { $0.clinic < $1.clinic }
            .map { "\($0.clinic) \($0.cause) \($0.target)" }
        #expect(
            found == ["0 pin 1", "1 region 2", "2 dedication 3", "3 dedication 1", "5 group 1"])
    }

    @Test("what contradicts itself is refused in words")
    func problems() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0", region: "north"), Self.shard("s1", region: "south")],
            clinics: [
                Self.clinic(0, on: 0, load: 1, pin: 1), Self.clinic(1, on: 5, load: 1),
                Self.clinic(2, on: 0, load: .nan),
            ])
        #expect(fleet.problems.count == 3)
        fleet.clinics = []
        #expect(fleet.problems.isEmpty)
        var rules = RebalanceRules()
        (rules.movesMax, rules.fillMax, rules.tolerance) = (0, 2, .nan)
        #expect(rules.problems.count == 3)
    }

    @Test("a dimension whose capacity nobody has told does not count")
    func untold() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<10).map { Self.clinic($0, on: 0, load: 5) })
        for index in fleet.shards.indices { fleet.shards[index].capacity = LoadVector() }
        #expect(Self.plan(fleet).moves.isEmpty)
        fleet.shards[0].capacity[.wal] = 100
        fleet.shards[1].capacity[.wal] = 100
        #expect(!Self.plan(fleet).moves.isEmpty)
    }
}
