import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Buckets")
struct BucketTests {
    private func shape(
        _ algorithm: RateAlgorithm, capacity: Int64 = 100, reserve: Int64 = 0, rate: Int64 = 100,
        window: Int64 = 1000
    ) -> BucketShape {
        BucketShape(
            algorithm: algorithm, capacity: capacity, reserve: reserve, rate: rate, window: window)
    }

    /// A shape that a rule could have, small enough that histories meet its edges.
    static func random(_ random: inout SeededRandom) -> BucketShape {
        let algorithm = RateAlgorithm.allCases.randomElement(using: &random) ?? .tokenBucket
        let rate = Int64.random(in: 1...200, using: &random)
        let capacity =
            algorithm == .tokenBucket ? Int64.random(in: 1...400, using: &random) : rate
        return BucketShape(
            algorithm: algorithm, capacity: capacity,
            reserve: capacity * Int64.random(in: 0...50, using: &random) / 100, rate: rate,
            window: Int64.random(in: 1...5000, using: &random),
            tick: Bool.random(using: &random) ? 1 : 1000,
            floor: Int64.random(in: 0...capacity / 2, using: &random))
    }

    @Test("a token bucket gains evenly and holds no more than its capacity")
    func tokenBucket() {
        let shape = shape(.tokenBucket)
        var state = BucketState(full: shape, at: 0)
        state.take(100, shape)
        expectEqual(state.available(shape, .ordinary, at: 0), 0)
        expectEqual(state.wait(for: 1, shape, .ordinary, at: 0), 10)
        state.advance(shape, to: 9)
        expectEqual(state.available(shape, .ordinary, at: 9), 0)
        state.advance(shape, to: 10)
        expectEqual(state.available(shape, .ordinary, at: 10), 1)
        state.advance(shape, to: 1_000_000_000)
        expectEqual(state.available(shape, .ordinary, at: 1_000_000_000), 100)
    }

    @Test("a fixed window begins anew at each multiple of its length")
    func fixedWindow() {
        let shape = shape(.fixedWindow)
        var state = BucketState(full: shape, at: 5999)
        state.take(100, shape)
        expectEqual(state.wait(for: 1, shape, .ordinary, at: 5999), 1)
        state.advance(shape, to: 6000)
        expectEqual(state.available(shape, .ordinary, at: 6000), 100)
    }

    @Test("a sliding window counts what is left of the window before")
    func slidingWindow() {
        let shape = shape(.slidingWindow)
        var state = BucketState(full: shape, at: 5000)
        state.take(100, shape)
        state.advance(shape, to: 6000)
        expectEqual(state.available(shape, .ordinary, at: 6000), 0)
        state.advance(shape, to: 6500)
        expectEqual(state.available(shape, .ordinary, at: 6500), 50)
        state.advance(shape, to: 8000)
        expectEqual(state.available(shape, .ordinary, at: 8000), 100)
    }

    @Test("the reserve is there for the safety lane only", arguments: RateAlgorithm.allCases)
    func reserve(algorithm: RateAlgorithm) {
        let shape = shape(algorithm, reserve: 10)
        var state = BucketState(full: shape, at: 5000)
        #expect(state.available(shape, .ordinary, at: 5000) == 90)
        state.take(90, shape)
        #expect(state.available(shape, .ordinary, at: 5000) == 0)
        #expect(state.available(shape, .safety, at: 5000) == 10)
        state.take(10, shape)
        #expect(state.available(shape, .safety, at: 5000) == 0, "and has an end too")
    }

    @Test("a clock that goes back gives nothing", arguments: RateAlgorithm.allCases)
    func clockGoesBack(algorithm: RateAlgorithm) {
        let shape = shape(algorithm)
        var state = BucketState(full: shape, at: 5_000_000)
        state.take(100, shape)
        state.advance(shape, to: 1_000_000)
        expectEqual(state.available(shape, .ordinary, at: 1_000_000), 0)
        // And starves nobody: from there it goes on.
        state.advance(shape, to: 1_003_000)
        expectEqual(state.available(shape, .ordinary, at: 1_003_000), 100)
    }

    @Test(
        "whoever comes back when told to finds the units, and not a tick earlier",
        arguments: 1...30 as ClosedRange<UInt64>)
    func waits(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<200 {
            let shape = BucketTests.random(&random)
            var now = Int64.random(in: 0...100_000, using: &random)
            var state = BucketState(full: shape, at: now)
            for _ in 0..<40 {
                now += Int64.random(in: 0...shape.window, using: &random)
                state.advance(shape, to: now)
                let lane = LimitLane.allCases.randomElement(using: &random) ?? .ordinary
                let units = Int64.random(in: 0...shape.usable(lane), using: &random)
                let wait = state.wait(for: units, shape, lane, at: now)
                if wait == 0 {
                    state.take(units, shape)
                    continue
                }
                var later = state
                later.advance(shape, to: now + wait)
                #expect(
                    later.available(shape, lane, at: now + wait) >= units, "seed \(seed) \(shape)")
                later = state
                later.advance(shape, to: now + wait - 1)
                #expect(
                    later.available(shape, lane, at: now + wait - 1) < units,
                    "seed \(seed) \(shape)")
                let full = state.untilFull(shape, at: now)
                later = state
                later.advance(shape, to: now + full)
                #expect(
                    later.available(shape, .safety, at: now + full) == shape.capacity,
                    "seed \(seed) \(shape)")
            }
        }
    }

    @Test(
        "no stretch of time sees more than the capacity and what came in it",
        arguments: 1...10 as ClosedRange<UInt64>)
    func bound(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let shape = BucketShape(
            algorithm: .tokenBucket, capacity: Int64.random(in: 10...500, using: &random),
            reserve: 0, rate: Int64.random(in: 1...500, using: &random), window: 1000)
        var now: Int64 = 0
        var state = BucketState(full: shape, at: 0)
        var taken: Int64 = 0
        // Of all times before: the least that was taken beyond what had come.
        var least = Int64.max
        for _ in 0..<3000 {
            now += Int64.random(in: 0...20, using: &random)
            state.advance(shape, to: now)
            least = min(least, taken * shape.window - now * shape.rate)
            let units = min(shape.capacity, Int64.random(in: 1...20, using: &random))
            guard state.available(shape, .ordinary, at: now) >= units else { continue }
            state.take(units, shape)
            taken += units
            let beyond = taken * shape.window - now * shape.rate - least
            #expect(beyond <= shape.capacity * shape.window, "seed \(seed)")
        }
    }

    @Test("a changed rule gives nothing for free, whatever it was before and is now")
    func converted() {
        var random = SeededRandom(seed: 7)
        for _ in 0..<2000 {
            let (old, new) = (BucketTests.random(&random), BucketTests.random(&random))
            let now = Int64.random(in: 10_000_000...20_000_000, using: &random)
            var state = BucketState(full: old, at: old.ticks(now))
            let used = Int64.random(in: 0...old.capacity, using: &random)
            state.take(used, old)
            var changed = state.converted(from: old, to: new, at: now)
            changed.advance(new, to: new.ticks(now))
            let left = changed.available(new, .safety, at: new.ticks(now))
            let isSame =
                old.algorithm == new.algorithm && old.window == new.window && old.tick == new.tick
            if !isSame || new.algorithm == .tokenBucket {
                #expect(left <= min(new.capacity, old.capacity - used), "\(old) \(new)")
            }
        }
    }

    @Test("every number stays below what Lua counts exactly, at the bounds of a rule")
    func exactNumbers() {
        for (algorithm, window) in [
            (RateAlgorithm.slidingWindow, Duration.seconds(3600)),
            (.slidingWindow, .seconds(86_400)), (.fixedWindow, .seconds(86_400)),
            (.tokenBucket, .seconds(3600)),
        ] {
            let isBucket = algorithm == .tokenBucket
            let shape = BucketShape(
                RateRule(
                    name: "r", scope: .tenant, algorithm: algorithm, units: RateRule.unitsMax,
                    per: window, burst: isBucket ? RateRule.burstMax : nil), reservePercent: 90)
            let product = shape.capacity.multipliedFullWidth(by: shape.window)
            #expect(product.high == 0 && product.low < 1 << 53)
            #expect(shape.milliseconds(shape.window) == window.inMilliseconds)
        }
    }
}
