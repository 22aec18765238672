import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("Who leaves a shard that is too busy, and what no plan can do better")
struct RebalanceReliefTests {
    private static func shard(_ id: String, weightMax: Int = 1000) -> RebalanceFleet.Shard {
        RebalanceFleet.Shard(
            id: id, capacity: RandomFleet.even(100), weightMax: weightMax)
    }

    private static func clinic(
        _ number: Int, on shard: Int, load: Double, bytes: Double = 1, weight: Int = 1,
        pin: Int? = nil, dedicatedTo: String? = nil
    ) -> RebalanceFleet.Clinic {
        RebalanceFleet.Clinic(
            id: RandomFleet.clinic(number), shard: shard, load: RandomFleet.even(load),
            bytes: bytes, weight: weight, pin: pin, dedicatedTo: dedicatedTo)
    }

    private static func rules() -> RebalanceRules {
        var rules = RebalanceRules()
        rules.tolerance = 0.1
        return rules
    }

    // MARK: Relief

    @Test("what another clinic makes unnecessary stays")
    func minimal() {
        // Of ten too many the first takes four at the best price, the second ten: the first need not go.
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: [
                Self.clinic(0, on: 0, load: 4, bytes: 1),
                Self.clinic(1, on: 0, load: 10, bytes: 20),
                Self.clinic(2, on: 0, load: 46, bytes: 900),
                Self.clinic(3, on: 1, load: 30),
            ])
        func relief(by clinics: [Int]) -> RebalanceRelief {
            var rules = Self.rules()
            rules.floor = 0.5
            rules.tolerance = 0.01
            return RebalanceRelief(
                of: 0, by: clinics, at: RebalancePlaces(fleet, rules), rules)
        }
        #expect(relief(by: [0, 1, 2]).ranked(first: 3) == [0, 1, 2])
        #expect(relief(by: [0, 1, 2]).ranked(first: 1) == [0])
        #expect(relief(by: [0, 1, 2]).cover() == [1])
        #expect(relief(by: [0]).cover() == [0])
        #expect(relief(by: []).cover().isEmpty)
    }

    @Test("of clinics that are alike the one leaves whose tier weighs less")
    func tiers() {
        let clinics = [4, 1, 2].enumerated().map { Self.clinic($0, on: 0, load: 20, weight: $1) }
        let fleet = RebalanceFleet(shards: [Self.shard("s0"), Self.shard("s1")], clinics: clinics)
        #expect(RebalancePlanner.plan(fleet, rules: Self.rules()).moves.map(\.clinic) == [1])
    }

    @Test("of a shard with very many clinics those are weighed that relieve it most for their cost")
    func many() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<5000).map {
                Self.clinic($0, on: 0, load: 0.02, bytes: Double((7 * $0) % 5000))
            })
        let relief = RebalanceRelief(
            of: 0, by: Array(0..<5000), at: RebalancePlaces(fleet, Self.rules()), Self.rules())
        let cheapest = (0..<5000).sorted { fleet.clinics[$0].bytes < fleet.clinics[$1].bytes }
        let ranked = relief.ranked(first: 5000)
        #expect(ranked == Array(cheapest.prefix(256)))
        #expect(Set(relief.cover()) == Set(ranked))
    }

    @Test(
        "where no clinic fits without making its target too busy, that one is relieved in its turn")
    func chain() {
        // The clinics of s0 weigh too much for s2, which alone has room; those of s1 do not.
        let heavy = (0..<7).map { Self.clinic($0, on: 0, load: 8, weight: 4) }
        let pinned = [Self.clinic(7, on: 0, load: 4, pin: 0)]
        let light = (8..<18).map { Self.clinic($0, on: 1, load: 5) }
        let others = (18..<26).map { Self.clinic($0, on: 2, load: 5) }
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1"), Self.shard("s2", weightMax: 10)],
            clinics: heavy + pinned + light + others)
        let plan = RebalancePlanner.plan(fleet, rules: Self.rules())
        #expect(plan.moves.map { [$0.source, $0.target] } == [[0, 1], [1, 2]])
        #expect(plan.moves.allSatisfy { $0.gain > 0 })
        #expect(RebalanceUse(of: plan.applied(to: fleet)).skew <= 0.1)
    }

    @Test("what there is plenty of need not be even")
    func plenty() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<20).map { Self.clinic($0, on: $0 % 2, load: 6) }
                + [Self.clinic(20, on: 0, load: 0.5)])
        for index in fleet.clinics.indices {
            fleet.clinics[index].load[.disk] = fleet.clinics[index].shard == 0 ? 5 : 1
        }
        let rules = Self.rules()
        #expect(RebalanceUse(of: fleet).skew(in: .disk) > 0.6)
        #expect(RebalancePlanner.plan(fleet, rules: rules).moves.isEmpty)
        // Now it is what the shard runs out of.
        fleet.clinics[20].load[.disk] = 30
        let plan = RebalancePlanner.plan(fleet, rules: rules)
        #expect(plan.moves.map(\.clinic) == [20])
        #expect(RebalanceUse(of: plan.applied(to: fleet)).skew <= 0.1)
    }

    @Test("who is on a shard of others and finds no home is not passed on among them")
    func homeless() {
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<10).map {
                Self.clinic($0, on: 0, load: 6, dedicatedTo: "chain")
            })
        let plan = RebalancePlanner.plan(fleet, rules: Self.rules())
        #expect(plan.moves.isEmpty)
        #expect(plan.unplaced.count == 10)
    }

    // MARK: Bounds

    @Test("how uneven a fleet is, is asked of shards among which clinics may be moved")
    func pools() {
        var fleet = RebalanceFleet(
            shards: (0..<4).map { Self.shard("s\($0)") },
            clinics: (0..<4).map { Self.clinic($0, on: $0, load: $0 < 2 ? 60 : 20) })
        #expect(abs(RebalanceUse(of: fleet).skew - 0.5) < 1e-12)
        for index in [2, 3] { fleet.shards[index].region = "south" }
        #expect(RebalanceUse(of: fleet).skew < 1e-12)
        #expect(RebalanceBound(of: fleet, rules: Self.rules()).skew < 1e-12)
        fleet.clinics[3].load = RandomFleet.even(30)
        #expect(RebalanceUse(of: fleet).skew < 1e-12)
        fleet.clinics[0].load = RandomFleet.even(90)
        #expect(abs(RebalanceUse(of: fleet).skew - 0.2) < 1e-12)
    }

    @Test("the least use is the mean of what is scarce, or the largest clinic")
    func leastUse() {
        var fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")],
            clinics: (0..<10).map { Self.clinic($0, on: 0, load: 6) })
        var bound = RebalanceBound(of: fleet, rules: Self.rules())
        #expect(abs(bound.use - 0.3) < 1e-12 && abs(bound.skew) < 1e-12)
        fleet.clinics[0].load = RandomFleet.even(66)
        bound = RebalanceBound(of: fleet, rules: Self.rules())
        #expect(abs(bound.use - 0.66) < 1e-12)
        #expect(abs(bound.skew - 0.1) < 1e-12)
    }

    @Test("the fewest bytes are those of the clinics that are hot for their size, the last in part")
    func leastBytes() {
        // 60 of 100 on the one, 40 on the other: 5 too many for a level of 55.
        let clinics = [
            Self.clinic(0, on: 0, load: 4, bytes: 8), Self.clinic(1, on: 0, load: 10, bytes: 40),
            Self.clinic(2, on: 0, load: 46, bytes: 900), Self.clinic(3, on: 1, load: 40, bytes: 7),
        ]
        let fleet = RebalanceFleet(
            shards: [Self.shard("s0"), Self.shard("s1")], clinics: clinics)
        let bound = RebalanceBound(of: fleet, rules: Self.rules())
        #expect(abs(bound.bytes - (8 + 40 * 0.1)) < 1e-6)
    }

    @Test("no plan is better than the bounds", arguments: 0..<40)
    func bounds(seed: UInt64) {
        var random = RandomFleet(seed: seed)
        var fleet = random.make(shards: 3 + Int(seed) / 4, clinics: 60 + 10 * Int(seed))
        // Only what moves for balance: the bounds know nothing of the rest.
        for index in fleet.clinics.indices {
            fleet.clinics[index].pin = nil
            fleet.clinics[index].group = nil
            fleet.clinics[index].region = nil
            fleet.clinics[index].dedicatedTo =
                fleet.shards[fleet.clinics[index].shard].dedicatedTo
        }
        for index in fleet.shards.indices { fleet.shards[index].status = .open }
        var rules = Self.rules()
        (rules.movesMax, rules.fillMax) = (10_000, 1)
        let bound = RebalanceBound(of: fleet, rules: rules)
        for plan in [
            RebalancePlanner.plan(fleet, rules: rules), SizeGreedy.plan(fleet, rules: rules),
        ] {
            let after = plan.applied(to: fleet)
            #expect(RebalanceUse(of: after).shards.map(\.highest).max() ?? 0 >= bound.use - 1e-9)
            let copied = plan.moves.reduce(0) { $0 + fleet.clinics[$1.clinic].bytes }
            guard RebalanceBound(of: after, rules: rules).bytes == 0 else { continue }
            #expect(copied >= bound.bytes - 1e-6, "seed \(seed)")
        }
    }
}
