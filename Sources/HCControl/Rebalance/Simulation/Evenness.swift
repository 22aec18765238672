/// How even a fleet was, over a trace.
package struct Evenness: Sendable, Equatable {
    /// The highest use of any shard in any dimension, in each step.
    private var highest: [Double] = []
    /// By how much that is above the mean of its dimension.
    private var skews: [Double] = []
    /// In each dimension, by how much the shard that uses most of it is above the mean.
    private var each: [SIMD8<Double>] = []
    /// What all but one of a hundred shards stay below, in each step.
    private var ninetyNine: [Double] = []
    /// Shards times hours in which one was above 80 % and above all of what it can do.
    package private(set) var hoursAbove80 = 0.0
    package private(set) var hoursAbove100 = 0.0

    /// Of the busier quarter of the steps: at night nothing is short.
    package var busySkew: Double { median(of: busy(skews)) }
    package var busyUse: Double { median(of: busy(highest)) }
    package var busyNinetyNine: Double { median(of: busy(ninetyNine)) }
    package var mostUse: Double { highest.max() ?? 0 }
    /// Of all steps.
    package var medianSkew: Double { median(of: skews) }
    package var mostSkew: Double { skews.max() ?? 0 }

    package func busySkew(_ dimension: LoadDimension) -> Double {
        median(of: busy(each.map { $0[dimension.rawValue] }))
    }

    private func busy(_ values: [Double]) -> [Double] {
        highest.indices.sorted { (highest[$1], $0) < (highest[$0], $1) }
            .prefix(max(1, highest.count / 4)).map { values[$0] }
    }

    private func median(of values: [Double]) -> Double {
        let sorted = values.sorted()
        return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
    }

    mutating func note(_ loads: [SIMD8<Double>], on shards: [RebalanceFleet.Shard], hours: Double) {
        var (total, capacity, most) = (
            SIMD8<Double>.zero, SIMD8<Double>.zero, SIMD8<Double>.zero
        )
        var uses: [Double] = []
        for (shard, load) in zip(shards, loads) {
            let use = load * shard.capacity.inverse
            total += load
            capacity += shard.capacity.lanes
            most = pointwiseMax(most, use)
            uses.append(use.max())
            if use.max() > 0.8 { hoursAbove80 += hours }
            if use.max() > 1 { hoursAbove100 += hours }
        }
        let mean = total * LoadVector(lanes: capacity).inverse
        let worst = most.max()
        guard let lane = most.indices.first(where: { most[$0] == worst }), mean[lane] > 0 else {
            return
        }
        uses.sort()
        ninetyNine.append(uses[(uses.count - 1) * 99 / 100])
        highest.append(worst)
        skews.append(worst / mean[lane] - 1)
        each.append((most - mean) * LoadVector(lanes: mean).inverse)
    }
}
