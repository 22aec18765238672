/// When a plan moves a clinic, and when it lets it be.
package struct RebalanceRules: Sendable, Equatable {
    /// Moves of one plan at most.
    package var movesMax = 200
    /// How much busier than the mean of its pool a shard is before it is relieved (`level`): 0.1 is a tenth.
    package var tolerance = 0.1
    /// Use of a shard below which nothing is gained by relieving it, as a share of its capacity.
    package var floor = 0.2
    /// No move fills a shard above this share of its capacity, in any dimension.
    package var fillMax = 0.85
    /// What a move of a clinic of weight 1 has to gain at least, in units of `RebalanceScore.potential`: its pause,
    /// its cold caches, its share of the operator's attention. A clinic of weight 4 costs four times as much.
    package var moveCost = 0.000_02
    /// What has to be gained for copying as much as a shard's disk holds.
    package var copyCost = 0.005
    /// How much of the weekly peak above the average is planned for. The average of a day swings with the hour at
    /// which a plan is made, and differently in each time zone; the peak does not. Not all of it, for peaks do not
    /// fall together.
    package var peakShare = 0.8
    /// A clinic that moved is let be for as long. A peak is planned for until it is forgotten, after one to two weeks
    /// (`LoadHistory.peak`): whoever moves again sooner follows the same peak twice, and comes back.
    package var cooldown = Duration.seconds(14 * 86_400)
    /// Bytes that even an empty clinic counts as, or a hundred new ones would be nothing
    /// (citus#7035: they all landed on one node).
    package var baseBytes = 8_000_000.0

    /// The most that `movesMax` may be.
    static let movesMaxMost = 100_000

    package init() {}

    /// What the shards of a pool should be used at most, in each dimension: so much above its mean, and at least the
    /// mean of the dimension of which most is used. What there is plenty of need not be even, only no shard may run
    /// out of it before the others run out of what is scarce.
    func level(mean: SIMD8<Double>) -> SIMD8<Double> {
        pointwiseMax(mean * (1 + tolerance), SIMD8(repeating: max(floor, mean.max())))
    }

    /// What a move has to gain.
    ///
    /// - Parameter inverse: 1 / capacity of the shard that the clinic is on.
    func cost(of clinic: RebalanceFleet.Clinic, disk inverse: SIMD8<Double>) -> Double {
        moveCost * Double(max(1, clinic.weight))
            + copyCost * clinic.bytes * inverse[LoadDimension.disk.rawValue]
    }

    /// Everything that cannot be meant.
    package var problems: [String] {
        var problems: [String] = []
        func require(_ isSo: Bool, _ problem: String) {
            if !isSo { problems.append(problem) }
        }
        require(
            (1...RebalanceRules.movesMaxMost).contains(movesMax),
            "movesMax is 1 to \(RebalanceRules.movesMaxMost)")
        require((0.01...10).contains(tolerance), "tolerance is 0.01 to 10")
        require((0...1).contains(floor), "floor is 0 to 1")
        require((0.05...1).contains(fillMax), "fillMax is 0.05 to 1")
        require((0...1).contains(moveCost) && moveCost > 0, "moveCost is above 0 and at most 1")
        require((0...1).contains(copyCost), "copyCost is 0 to 1")
        require((0...1).contains(peakShare), "peakShare is 0 to 1")
        require(
            cooldown >= .zero && cooldown <= .seconds(365 * 86_400), "cooldown is at most a year")
        require((0...1e12).contains(baseBytes), "baseBytes is 0 to 1000000000000")
        return problems
    }
}
