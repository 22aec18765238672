import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Limits without Redis")
struct LocalSharesTests {
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    @Test("a share is never nothing and never all")
    func share() {
        let tier = TierDefinition(name: "t", unitsPerSecond: 100, burstUnits: 4000)
        var shares = LocalShares(processes: 4, tenantsMax: 10)
        let first = shares.take(1000, of: Sample.tenant(1), tier: tier, at: start)
        #expect(first.isAllowed)
        #expect(first.isLocal)
        #expect(first.remaining == 0)
        let second = shares.take(25, of: Sample.tenant(1), tier: tier, at: start)
        #expect(!second.isAllowed)
        // A quarter of 100 per second: 25 units take a second.
        #expect(second.retryAfter == .seconds(1))
        let later = shares.take(25, of: Sample.tenant(1), tier: tier, at: start + .seconds(1))
        #expect(later.isAllowed)
        let other = shares.take(1000, of: Sample.tenant(2), tier: tier, at: start)
        #expect(other.isAllowed)
    }

    @Test("an export passes sooner or later, however many processes share")
    func exports() {
        let tier = TierDefinition(name: "t", unitsPerSecond: 1, burstUnits: 500)
        var shares = LocalShares(processes: 200, tenantsMax: 10)
        expectEqual(shares.take(500, of: Sample.tenant(1), tier: tier, at: start).isAllowed, true)
        let refused = shares.take(500, of: Sample.tenant(1), tier: tier, at: start)
        guard let wait = refused.retryAfter else {
            Issue.record("not refused")
            return
        }
        expectEqual(
            shares.take(500, of: Sample.tenant(1), tier: tier, at: start + wait).isAllowed, true)
    }

    @Test("a changed tier applies to the next request")
    func changedTier() {
        let small = TierDefinition(name: "t", unitsPerSecond: 1, burstUnits: 500)
        let large = TierDefinition(name: "t", unitsPerSecond: 100, burstUnits: 5000)
        var shares = LocalShares(processes: 1, tenantsMax: 10)
        expectEqual(shares.take(500, of: Sample.tenant(1), tier: small, at: start).isAllowed, true)
        expectEqual(shares.take(1, of: Sample.tenant(1), tier: small, at: start).isAllowed, false)
        expectEqual(shares.take(1, of: Sample.tenant(1), tier: large, at: start).isAllowed, true)
    }

    @Test(
        "all processes together stay within the stated bound",
        arguments: 1...20 as ClosedRange<UInt64>)
    func bound(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let processes = Int.random(in: 1...16, using: &random)
        let tier = TierDefinition(
            name: "t", unitsPerSecond: Int.random(in: 1...500, using: &random),
            burstUnits: Int.random(in: 500...5000, using: &random))
        var shares = (0..<processes).map { _ in LocalShares(processes: processes, tenantsMax: 4) }
        var now = start
        var admitted = 0
        for _ in 0..<3000 {
            now += .microseconds(Int64.random(in: 0...20_000, using: &random))
            let cost = RequestCost.allCases.randomElement(using: &random)?.units ?? 1
            let process = Int.random(in: 0..<processes, using: &random)
            if shares[process].take(cost, of: Sample.tenant(1), tier: tier, at: now).isAllowed {
                admitted += cost
            }
        }
        let elapsed = Double((now - start).inMicroseconds) / 1_000_000
        let most =
            Double(tier.bucketUnitsPerSecond) * elapsed
            + Double(processes * max(tier.bucketBurst / processes, 500))
        #expect(Double(admitted) <= most + 1, "seed \(seed)")
    }
}

@Suite("Limit header fields")
struct RateDecisionTests {
    @Test("fields are as the draft writes them, and times are rounded up")
    func fields() {
        let decision = RateDecision(
            isAllowed: false, capacity: 1000, windowSeconds: 20, remaining: 3,
            retryAfter: .milliseconds(1001), resetAfter: .milliseconds(19_940), isLocal: false)
        #expect(decision.policyField == #""tenant";q=1000;w=20"#)
        #expect(decision.limitField == #""tenant";r=3;t=20"#)
        #expect(decision.retryAfterField == "2")
    }

    @Test("a wait of less than a second is one second")
    func shortWaits() {
        let decision = RateDecision(
            isAllowed: false, capacity: 1, windowSeconds: 1, remaining: 0,
            retryAfter: .microseconds(1),
            resetAfter: .zero, isLocal: true)
        #expect(decision.retryAfterField == "1")
        #expect(decision.limitField == #""tenant";r=0;t=0"#)
    }
}
