/// What no plan can do better than, whoever makes it: how near a plan is to what is possible.
///
/// Both are relaxations, so the best plan may be worse than they say, and never better: clinics may be cut into
/// pieces, but the largest one, which has to be somewhere; every target takes what is sent there; pins, groups, tier
/// weights and clinics that rest are let go of.
package struct RebalanceBound: Sendable, Equatable {
    /// The least that the highest use of a shard can be: in the pool where that is highest, what everything uses of
    /// all shards together, in the dimension of which it uses most, or the largest clinic on the largest shard.
    package private(set) var use = 0.0
    /// How much the busiest shard has to be above the mean because of the largest clinic: 0 unless that alone is.
    package private(set) var skew = 0.0
    /// What has to be copied at least so that no shard is above the level of its pool (`RebalanceRules.level`).
    ///
    /// What a shard has too much of has to leave it. In each dimension alone, the fewest bytes that take it along are
    /// those of the clinics with most use for their bytes, the last one in part (Dantzig, "Discrete-variable extremum
    /// problems", Operations Research 5, 1957); the dimension that asks for most counts.
    package private(set) var bytes = 0.0

    package init(of fleet: RebalanceFleet, rules: RebalanceRules) {
        let places = RebalancePlaces(fleet, rules)
        for pool in places.members.indices where !places.members[pool].isEmpty {
            use = max(use, places.means[pool].max())
            let largest = places.members[pool].reduce(SIMD8<Double>.zero) {
                pointwiseMax($0, fleet.shards[$1].capacity.lanes)
            }
            let inverse = LoadVector(lanes: largest).inverse
            let level = places.levels[pool]
            for shard in places.members[pool] {
                for index in places.clinics[shard] {
                    use = max(use, (fleet.clinics[index].load.lanes * inverse).max())
                }
                bytes += RebalanceBound.bytes(leaving: shard, places, level: level)
            }
        }
        let mean = places.means.map { $0.max() }.max() ?? 0
        if mean > 0 { skew = use / mean - 1 }
    }

    private static func bytes(
        leaving shard: Int, _ places: RebalancePlaces, level: SIMD8<Double>
    ) -> Double {
        let excess = places.use(of: shard) - level
        let inverse = places.inverses[shard]
        var most = 0.0
        for lane in excess.indices where excess[lane] > 0 {
            var parts: [Part] = []
            for index in places.clinics[shard] {
                let clinic = places.fleet.clinics[index]
                let use: Double = clinic.load.lanes[lane] * inverse[lane]
                if use > 0 { parts.append(Part(use: use, bytes: clinic.bytes)) }
            }
            most = max(most, bytes(relieving: excess[lane], parts))
        }
        return most
    }

    private static func bytes(relieving excess: Double, _ parts: [Part]) -> Double {
        var (rest, bytes) = (excess, 0.0)
        for part in parts.sorted(by: { $0.use * $1.bytes > $1.use * $0.bytes }) where rest > 0 {
            bytes += part.bytes * min(1, rest / part.use)
            rest -= part.use
        }
        return bytes
    }

    /// What a clinic uses of one thing, and what would have to be copied for it.
    private struct Part {
        var use: Double
        var bytes: Double
    }
}
