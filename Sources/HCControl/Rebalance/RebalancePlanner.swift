/// Decides which clinics move where. Pure and deterministic: the same fleet and rules give the same plan.
///
/// Greedy, as Citus does it (src/backend/distributed/README.md, "Rebalancing algorithm": the most used node, its
/// costliest shard, the least used node, only if it helps), with these differences: all dimensions at once instead
/// of one cost; what a move gains is weighed against what it costs, so that a clinic that is small and hot goes before
/// one that is large and hot (citus#4927: tiny gains moved terabytes); and first what must not stay where it is.
package struct RebalancePlanner: Sendable {
    private let rules: RebalanceRules
    private var places: RebalancePlaces
    private var moves: [RebalancePlan.Move] = []
    private var unplaced: [(clinic: Int, cause: RebalancePlan.Cause)] = []
    /// Clinics that this plan has moved: none is moved twice.
    private var moved: Set<Int> = []
    /// Shards that may take clinics; nil: every one that is open.
    private var targets: Set<Int>?

    /// The shards that a hot one's clinics are tried on. The best of them is close to the best of all: they are those
    /// with most room in what the hot one has too little of.
    private static let targetsMax = 8

    /// - Precondition: `fleet.problems` and `rules.problems` are empty.
    package static func plan(_ fleet: RebalanceFleet, rules: RebalanceRules) -> RebalancePlan {
        var planner = RebalancePlanner(fleet, rules)
        planner.place(Array(fleet.clinics.indices))
        planner.balance()
        return RebalancePlan(moves: planner.moves, unplaced: planner.unplaced)
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

    private init(_ fleet: RebalanceFleet, _ rules: RebalanceRules) {
        self.rules = rules
        places = RebalancePlaces(fleet)
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
                // Others only fill up: what found no place before finds none later.
                exhausted[source] = true
                continue
            }
            move(best.clinic, to: best.target, .balance, gain: best.gain)
        }
    }

    /// The open shard with the highest use of anything in which it is above what its pool has to bear.
    private func hottest(_ exhausted: [Bool]) -> Int? {
        var best: (shard: Int, use: Double)?
        for shard in exhausted.indices
        where !exhausted[shard] && places.fleet.shards[shard].status == .open {
            let use = places.use(of: shard)
            let bearable = (places.means[places.pools[shard]] * (1 + rules.tolerance))
                .clamped(
                    lowerBound: SIMD8(repeating: rules.floor),
                    upperBound: SIMD8(repeating: .infinity))
            let hot = use.replacing(with: 0, where: use .<= bearable).max()
            if hot > 0, best.map({ hot > $0.use }) ?? true { best = (shard, hot) }
        }
        return best?.shard
    }

    private func bestMove(from source: Int) -> (clinic: Int, target: Int, gain: Double)? {
        let targets = coldest(for: source)
        let useMax = places.use(of: source).max()
        var best: (clinic: Int, target: Int, gain: Double, score: Double)?
        for index in places.clinics[source] {
            let clinic = places.fleet.clinics[index]
            guard !clinic.isResting, !clinic.isFixed, clinic.pin == nil, !moved.contains(index)
            else { continue }
            let load = clinic.load.lanes
            let relief = places.relief(of: source, without: load)
            let cost = cost(of: clinic, on: source)
            for target in targets {
                let gain = relief - places.burden(of: target, with: load)
                let score = gain / cost
                guard score >= 1, score > best?.score ?? 0 else { continue }
                // It must not become as hot as the one that is relieved, in whatever dimension.
                guard ((places.loads[target] + load) * places.inverses[target]).max() < useMax,
                    places.takes(target, index, fillMax: rules.fillMax)
                else { continue }
                best = (index, target, gain, score)
            }
        }
        return best.map { ($0.clinic, $0.target, $0.gain) }
    }

    /// What a move has to gain.
    private func cost(of clinic: RebalanceFleet.Clinic, on shard: Int) -> Double {
        let disk = places.inverses[shard][LoadDimension.disk.rawValue]
        return rules.moveCost * Double(max(1, clinic.weight))
            + rules.copyCost * clinic.bytes * disk
    }

    /// The shards with most room in what `source` has too much of, the best first.
    private func coldest(for source: Int) -> [Int] {
        let pool = places.pools[source]
        let above = (places.use(of: source) - places.means[pool])
            .clamped(lowerBound: .zero, upperBound: SIMD8(repeating: .infinity))
        var best: [(shard: Int, use: Double)] = []
        for shard in places.pools.indices
        where places.pools[shard] == pool && shard != source
            && places.fleet.shards[shard].status == .open
        {
            let use = (above * places.use(of: shard)).sum()
            if best.count == RebalancePlanner.targetsMax, let last = best.last, use >= last.use {
                continue
            }
            let place = best.firstIndex { use < $0.use } ?? best.endIndex
            best.insert((shard, use), at: place)
            if best.count > RebalancePlanner.targetsMax { best.removeLast() }
        }
        return best.map(\.shard)
    }
}
