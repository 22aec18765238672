import HCCore
import HCTesting
import Testing

@testable import HCControl

/// What a rebalance has to reach: the shard that is nearest to its end at most a tenth above the mean of what it runs
/// out of, for at least 30 % fewer bytes than a plan by size alone copies.
@Suite("The target of a rebalance")
struct RebalanceTargetTests {
    /// A generated trace with as many clinics on a shard as the one of 1,000 shards has.
    private static func play(
        seed: UInt64, weeks: Int, _ settings: RebalanceSimulation.Settings
    ) -> RebalanceSimulation.Outcome {
        var shape = GeneratedTrace.Shape()
        (shape.shards, shape.clinics, shape.weeks, shape.seed) = (40, 4000, weeks, seed)
        var trace = GeneratedTrace(shape)
        return RebalanceSimulation.run(
            &trace, settings, now: { MonotonicTime(nanoseconds: 0) })
    }

    private static var settings: RebalanceSimulation.Settings {
        var settings = RebalanceSimulation.Settings()
        settings.step = 2 * 3600
        return settings
    }

    @Test("one plan for a fleet that was never rebalanced reaches it", arguments: [1, 2, 3])
    func onePlan(seed: UInt64) throws {
        let outcome = Self.play(seed: seed, weeks: 2, Self.settings)
        let comparison = try #require(outcome.comparison)
        let (after, sized) = (comparison.after, comparison.bySize)
        #expect(comparison.before.skew > 0.4, "seed \(seed)")
        #expect(after.use.skew <= 0.1 + 1e-9, "seed \(seed)")
        #expect(after.bytes <= 0.7 * sized.bytes, "seed \(seed)")
        // How near it is to what is possible.
        #expect(comparison.bound.skew <= 1e-9, "seed \(seed)")
        #expect(after.bytes >= comparison.bound.bytes, "seed \(seed)")
        #expect(after.bytes <= 2 * comparison.bound.bytes, "seed \(seed)")
        // By size alone the disks become even, and nothing else.
        #expect(sized.use.skew(in: .disk) <= 0.1 + 1e-9, "seed \(seed)")
        #expect(sized.use.skew > 0.2, "seed \(seed)")
    }
}
