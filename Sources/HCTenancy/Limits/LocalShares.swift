import HCCore

/// The limits while Redis is away: each process admits its share of a clinic's rate, never all of it and never
/// nothing.
///
/// With n processes each share gains 1/n of the clinic's units. A share holds at least one export, or that
/// request would never pass; so the bound on what all processes admit together in t seconds is
/// `rate × t + n × max(burst / n, 500)`. Shares outlive an outage: one that follows at once finds them as they
/// were left, and does not begin with full ones.
struct LocalShares {
    private struct Share {
        var tier: TierDefinition
        var bucket: TokenBucket
    }

    private let processes: Int
    private var shares: LRUCache<TenantID, Share>

    init(processes: Int, tenantsMax: Int) {
        precondition(processes > 0, "this process is one")
        self.processes = processes
        shares = LRUCache(capacityMax: tenantsMax)
    }

    mutating func take(
        _ units: Int, of tenant: TenantID, tier: TierDefinition, at now: MonotonicTime
    ) -> RateDecision {
        let capacity = max(tier.bucketBurst / processes, RequestCost.largest)
        var share: Share
        if let known = shares.find(tenant), known.tier == tier {
            share = known
        } else {
            share = Share(
                tier: tier,
                bucket: TokenBucket(
                    capacity: Int64(capacity), refill: Int64(tier.bucketUnitsPerSecond),
                    per: .seconds(processes), at: now))
        }
        let decision = share.bucket.take(Int64(units), at: now)
        let reset = share.bucket.timeUntilFull(at: now)
        let remaining = share.bucket.remaining(at: now)
        shares.insert(share, for: tenant)
        var retryAfter: Duration?
        if case .refused(let wait) = decision { retryAfter = wait }
        return RateDecision(
            isAllowed: retryAfter == nil, capacity: capacity,
            windowSeconds: max(
                1, (capacity * processes + tier.bucketUnitsPerSecond - 1) / tier.bucketUnitsPerSecond),
            remaining: Int(remaining), retryAfter: retryAfter, resetAfter: reset, isLocal: true)
    }
}
