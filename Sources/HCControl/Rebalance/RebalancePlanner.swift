/// Decides which clinics move where. Pure and deterministic: the same fleet and rules give the same plan.
///
/// First what must not stay where it is. Then, as long as a shard is above the level of its pool
/// (`RebalanceRules.level`), the one that is furthest above it: of its clinics those go that relieve it for the fewest
/// bytes, and just as many as it takes (`RebalanceRelief`); each goes where it weighs least, and lifts its target to
/// the level at most. Only where no clinic has such a target may one lift its target above it, though never as high as
/// the source was: then that one is relieved in its turn. So a chain of moves, or two clinics that change places, does
/// what no single move can, and still each move makes the whole better.
///
/// Greedy, and each move improves, as Citus does it (src/backend/distributed/README.md, "Rebalancing algorithm": the
/// most used node, its costliest shard, the least used node). Load for bytes in place of the costliest first is the
/// weight of Slicer's moves (Adya et al., OSDI 2016: the gain of a move by its key churn) and E-Store's hot tuples
/// before cold blocks (Taft et al., VLDB 2015); a level to be kept with the least data moved, in place of a fleet as
/// even as can be, is the problem as Accordion puts it (Serafini et al., VLDB 2014). Tiny gains must not move
/// terabytes (citus#4927).
package struct RebalancePlanner: Sendable {
    private let rules: RebalanceRules
    private var places: RebalancePlaces
    private var moves: [RebalancePlan.Move] = []
    private var unplaced: [(clinic: Int, cause: RebalancePlan.Cause)] = []
    /// Clinics that this plan has moved: none is moved twice.
    private var moved: Set<Int> = []
    /// Shards that may take clinics; nil: every one that is open.
    private var targets: Set<Int>?

    /// Clinics of a hot shard that are tried when those that would relieve it best find no place.
    private static let lookAhead = 64

    /// - Precondition: `fleet.problems` and `rules.problems` are empty.
    package static func plan(_ fleet: RebalanceFleet, rules: RebalanceRules) -> RebalancePlan {
        var planner = RebalancePlanner(fleet, rules)
        planner.place(Array(fleet.clinics.indices))
        planner.balance()
        // Who was beside one of its group may be rid of it by now.
        let unplaced = planner.unplaced.filter { planner.places.violation(of: $0.clinic) != nil }
        return RebalancePlan(moves: planner.moves, unplaced: unplaced)
    }

    /// Only those moves by which clinics leave their shard, which is to be empty: each to where a plan would put it, and
    /// if that is the same, to where most room is left for tier weight.
    ///
    /// - Parameters:
    ///   - clinics: indexes of clinics of shards that drain, of equal ones the first first; what cannot go is `unplaced`.
    ///   - targets: indexes of the shards that may take them.
    package static func evacuation(
        of clinics: [Int], to targets: Set<Int>, _ fleet: RebalanceFleet, rules: RebalanceRules
    ) -> RebalancePlan {
        var rules = rules
        rules.movesMax = .max
        var planner = RebalancePlanner(fleet, rules)
        planner.targets = targets
        planner.place(clinics)
        return RebalancePlan(moves: planner.moves, unplaced: planner.unplaced)
    }

    /// The moves of what must not stay, and no others.
    static func repairs(_ fleet: RebalanceFleet, rules: RebalanceRules) -> RebalancePlan {
        var planner = RebalancePlanner(fleet, rules)
        planner.place(Array(fleet.clinics.indices))
        return RebalancePlan(moves: planner.moves, unplaced: planner.unplaced)
    }

    private init(_ fleet: RebalanceFleet, _ rules: RebalanceRules) {
        self.rules = rules
        places = RebalancePlaces(fleet, rules)
    }

    private mutating func move(
        _ clinic: Int, to target: Int, _ cause: RebalancePlan.Cause, gain: Double
    ) {
        moves.append(
            RebalancePlan.Move(
                clinic: clinic, source: places.fleet.clinics[clinic].shard, target: target,
                cause: cause, gain: gain))
        places.move(clinic, to: target)
        moved.insert(clinic)
    }

    // MARK: What must not stay

    /// Large ones first: they find room least easily (first fit decreasing).
    private mutating func place(_ clinics: [Int]) {
        let wanted = clinics.enumerated().compactMap { rank, index in
            places.violation(of: index).map { _ in (clinic: index, rank: rank, size: size(index)) }
        }.sorted { ($1.size, $0.rank) < ($0.size, $1.rank) }
        for (clinic, _, _) in wanted {
            guard moves.count < rules.movesMax else { return }
            // A neighbour of its group may have left meanwhile.
            guard let cause = places.violation(of: clinic) else { continue }
            guard !places.fleet.clinics[clinic].isFixed, let target = home(for: clinic) else {
                unplaced.append((clinic, cause))
                continue
            }
            let load = places.fleet.clinics[clinic].load.lanes
            let source = places.fleet.clinics[clinic].shard
            move(
                clinic, to: target, cause,
                gain: places.relief(of: source, without: load)
                    - places.burden(of: target, with: load))
        }
    }

    private func size(_ index: Int) -> Double {
        let clinic = places.fleet.clinics[index]
        let weight =
            Double(clinic.weight) / Double(max(1, places.fleet.shards[clinic.shard].weightMax))
        return max(weight, (clinic.load.lanes * places.inverses[clinic.shard]).max())
    }

    /// The shard on which a clinic weighs least, of equal ones the one with most room; nil if none takes it.
    private func home(for index: Int) -> Int? {
        let clinic = places.fleet.clinics[index]
        guard let pool = places.poolIndexes[places.fleet.pool(of: clinic)] else { return nil }
        var best: (shard: Int, burden: Double, share: Double)?
        for shard in places.pools.indices
        where places.pools[shard] == pool && shard != clinic.shard {
            guard targets?.contains(shard) ?? true,
                places.takes(shard, index, fillMax: rules.fillMax)
            else { continue }
            let burden = places.burden(of: shard, with: clinic.load.lanes)
            let share = places.weightShare(of: shard, with: index)
            if best.map({ (burden, share) < ($0.burden, $0.share) }) ?? true {
                best = (shard, burden, share)
            }
        }
        return best?.shard
    }

    // MARK: Balance

    private mutating func balance() {
        var exhausted = Array(repeating: false, count: places.pools.count)
        while moves.count < rules.movesMax, let source = hottest(exhausted) {
            guard let best = bestMove(from: source) else {
                // Nobody can help it, and from now on others are relieved to the level at most.
                exhausted[source] = true
                continue
            }
            move(best.clinic, to: best.target, .balance, gain: best.gain)
            // It has a clinic more, which may go on.
            exhausted[best.target] = false
        }
    }

    /// The open shard that is furthest above its pool's level.
    private func hottest(_ exhausted: [Bool]) -> Int? {
        var best: (shard: Int, excess: Double)?
        for (pool, level) in places.levels.enumerated() {
            for shard in places.members[pool] where !exhausted[shard] {
                let excess = (places.use(of: shard) - level).max()
                if excess > best?.excess ?? 0 { best = (shard, excess) }
            }
        }
        return best?.shard
    }

    private typealias Candidate = (clinic: Int, target: Int, gain: Double)

    /// Of the clinics that relieve a shard at the least cost the first that another one takes without coming above
    /// the level itself; if there is none, the first that makes the whole better although its target has to be
    /// relieved in its turn: a chain, and where that one's clinic comes back, a swap.
    private func bestMove(from source: Int) -> Candidate? {
        let level = places.levels[places.pools[source]]
        let movable = places.clinics[source].filter { places.isMovable($0) && !moved.contains($0) }
        let relief = RebalanceRelief(of: source, by: movable, at: places, rules)
        let chosen = relief.cover()
        let others = relief.ranked(first: RebalancePlanner.lookAhead)
        let candidates = chosen + others.filter { !chosen.contains($0) }
        let shards = places.members[places.pools[source]].filter { $0 != source }
        let cool = shards.filter { all(places.use(of: $0) .< level) }
        for index in candidates {
            if let found = target(for: index, among: cool, level: level) { return found }
        }
        for index in candidates {
            if let found = target(for: index, among: shards) { return found }
        }
        return nil
    }

    /// Where a clinic weighs least; nil if nobody takes it, or the gain is not worth the cost.
    private func target(
        for index: Int, among shards: [Int], level: SIMD8<Double>? = nil
    ) -> Candidate? {
        let clinic = places.fleet.clinics[index]
        let load = clinic.load.lanes
        let gain = places.relief(of: clinic.shard, without: load)
        let burdenMax = gain - rules.cost(of: clinic, disk: places.inverses[clinic.shard])
        // It must not become as hot as the one that is relieved, in whatever dimension.
        let hot = places.use(of: clinic.shard).max()
        var best: (shard: Int, burden: Double)?
        for shard in shards {
            let use = (places.loads[shard] + load) * places.inverses[shard]
            guard use.max() < hot, level.map({ all(use .<= $0) }) ?? true else { continue }
            let burden = places.burden(of: shard, with: load)
            guard burden <= burdenMax, burden < best?.burden ?? .infinity,
                places.takes(shard, index, fillMax: rules.fillMax)
            else { continue }
            best = (shard, burden)
        }
        return best.map { (index, $0.shard, gain - $0.burden) }
    }
}
