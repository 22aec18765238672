/// How good the places of a fleet are. Lower is better, `violations` first.
///
/// The potential is the sum over shards and dimensions of `capacity / mean capacity · (use⁴ + weight · excess)`, the
/// excess being what the use is above the level of the pool (`RebalanceRules.level`). Why not the highest use: two
/// shards that are equally hot make a plateau on which no single move lowers the maximum, and a greedy plan stands
/// still; a power is convex, every move from a hot to a cold shard lowers it (greedy in an Lp norm is within a constant
/// of the best: Awerbuch, Azar, Grove, Kao, Krishnan, Vitter, "Load balancing in the Lp norm", FOCS 1995). Why the
/// fourth and not the square: a shard is as busy as what it is nearest to running out of, and the higher the power, the
/// less do the other dimensions speak against relieving that one. Why the excess: of a shard that has too much of one
/// thing and little of five, the five speak against any power. Why the capacity as a weight: then the sum is least
/// where all shards are *used* alike, without it where the larger ones are used more than in proportion.
package struct RebalanceScore: Sendable, Equatable, Comparable {
    /// Clinics that are where they must not be: on shards that drain, off their pins, beside one of their group.
    package var violations: Int
    package var potential: Double

    /// What a share of the capacity above the level weighs. It is steeper by this than the fourth power is where shards
    /// are used to 72 %.
    private static let excessWeight = 1.5

    /// What a shard of mean capacity adds to the potential, in each dimension.
    static func cost(_ use: SIMD8<Double>, level: SIMD8<Double>) -> SIMD8<Double> {
        let square = use * use
        return square * square + excessWeight * pointwiseMax(use - level, .zero)
    }

    init(of fleet: RebalanceFleet, rules: RebalanceRules) {
        let places = RebalancePlaces(fleet, rules)
        violations = fleet.clinics.indices.count { places.violation(of: $0) != nil }
        potential = places.potential
    }

    package static func < (left: RebalanceScore, right: RebalanceScore) -> Bool {
        left.violations != right.violations
            ? left.violations < right.violations : left.potential < right.potential
    }
}

/// Use of the shards: what a plan shows before and after.
package struct RebalanceUse: Sendable, Equatable {
    package struct Shard: Sendable, Equatable {
        package var clinics = 0
        package var weight = 0
        package var load = LoadVector()
        /// Share of the capacity.
        package var use = LoadVector()

        /// Use of what is nearest to running out.
        package var highest: Double { use.lanes.max() }
    }

    /// Shards among which a clinic may be moved.
    private struct Pool: Sendable, Equatable {
        /// Use of its open shards if they were used alike, and the highest.
        var mean: LoadVector
        var most: LoadVector
    }

    package var shards: [Shard]
    /// Of all open shards together, in each dimension: all their load by all their capacity.
    package var mean: LoadVector
    /// The highest use of a shard, in each dimension.
    package var most: LoadVector

    private let pools: [Pool]

    /// How much the shard that is nearest to its end is above the mean of its pool in what it runs out of: 0.1 is a
    /// tenth.
    package var skew: Double {
        LoadDimension.allCases.max { most[$0] < most[$1] }.map { skew(in: $0) } ?? 0
    }

    /// How much the shard that uses most of one thing is above the mean of its pool.
    package func skew(in dimension: LoadDimension) -> Double {
        guard let pool = pools.max(by: { $0.most[dimension] < $1.most[dimension] }),
            pool.mean[dimension] > 0
        else { return 0 }
        return pool.most[dimension] / pool.mean[dimension] - 1
    }

    package init(of fleet: RebalanceFleet) {
        // What the rules say is not asked for.
        let places = RebalancePlaces(fleet, RebalanceRules())
        shards = fleet.shards.indices.map { index in
            Shard(
                clinics: places.clinics[index].count, weight: places.weights[index],
                load: LoadVector(lanes: places.loads[index]),
                use: LoadVector(lanes: places.use(of: index)))
        }
        pools = zip(places.means, places.members).map { mean, members in
            Pool(
                mean: LoadVector(lanes: mean),
                most: LoadVector(
                    lanes: members.reduce(.zero) { pointwiseMax($0, places.use(of: $1)) }))
        }
        var (load, capacity) = (LoadVector(), LoadVector())
        for (index, shard) in fleet.shards.enumerated() where shard.status != .closed {
            load = load + shards[index].load
            guard shard.status == .open else { continue }
            capacity = capacity + shard.capacity
        }
        mean = LoadVector(lanes: load.lanes * capacity.inverse)
        most = LoadVector(lanes: pools.reduce(.zero) { pointwiseMax($0, $1.most.lanes) })
    }
}
