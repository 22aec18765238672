/// How good the places of a fleet are. Lower is better, `violations` first.
///
/// The potential is the sum over shards and dimensions of `load² / (capacity · mean capacity)`: for equal shards, the
/// sum of the squares of their use. Why squares and not the highest use: two shards that are equally hot make a
/// plateau on which no single move lowers the maximum, and a greedy plan stands still; the square is convex, every
/// move from a hot to a cold shard lowers it, and the hottest counts most (greedy in the L2 norm is within a constant
/// of the best: Awerbuch, Azar, Grove, Kao, Krishnan, Vitter, "Load balancing in the Lp norm", FOCS 1995). Why divided
/// by the capacity once and not twice: `load² / capacity` is least where all shards are *used* alike, the square of
/// the use alone where the larger ones are used more than in proportion. A dimension that nobody uses much weighs
/// little by itself.
package struct RebalanceScore: Sendable, Equatable, Comparable {
    /// Clinics that are where they must not be: on shards that drain, off their pins, beside one of their group.
    package var violations: Int
    package var potential: Double

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

    package var shards: [Shard]
    package var score: RebalanceScore
    /// Of all open shards together, in each dimension: all their load by all their capacity.
    package var mean: LoadVector
    /// The highest use of a shard, in each dimension.
    package var most: LoadVector

    /// How much the shard that is nearest to its end is above the mean in what it runs out of: 0.1 is a tenth.
    package var skew: Double {
        guard
            let worst = LoadDimension.allCases.filter({ mean[$0] > 0 }).max(by: {
                most[$0] < most[$1]
            })
        else { return 0 }
        return most[worst] / mean[worst] - 1
    }

    package init(of fleet: RebalanceFleet) {
        let places = RebalancePlaces(fleet)
        shards = fleet.shards.indices.map { index in
            Shard(
                clinics: places.clinics[index].count, weight: places.weights[index],
                load: LoadVector(lanes: places.loads[index]),
                use: LoadVector(lanes: places.use(of: index)))
        }
        score = RebalanceScore(
            violations: fleet.clinics.indices.count { places.violation(of: $0) != nil },
            potential: places.potential)
        var (load, capacity, most) = (LoadVector(), LoadVector(), LoadVector())
        for (index, shard) in fleet.shards.enumerated() where shard.status != .closed {
            load = load + shards[index].load
            guard shard.status == .open else { continue }
            capacity = capacity + shard.capacity
            for dimension in LoadDimension.allCases {
                most[dimension] = max(most[dimension], shards[index].use[dimension])
            }
        }
        mean = LoadVector(lanes: load.lanes * capacity.inverse)
        self.most = most
    }
}
