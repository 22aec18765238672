import HCCore

/// Whose requests a rule counts together.
package enum RateScope: String, CaseIterable, Sendable {
    /// All of the clinic.
    case tenant
    /// Those of one account.
    case user
    /// Those from one network address.
    case address
}

/// How a rule counts.
package enum RateAlgorithm: String, CaseIterable, Sendable {
    /// Holds up to `burst` units and gains `units` per `window`, evenly.
    case tokenBucket = "token-bucket"
    /// `units` in any stretch of `window`: the part of the window before that is still in it counts pro rata.
    case slidingWindow = "sliding-window"
    /// `units` from one multiple of `window` to the next.
    case fixedWindow = "fixed-window"
}

/// One limit of a tier: a request passes if every rule that speaks of it lets it pass.
package struct RateRule: Hashable, Sendable {
    /// Unique in its tier; also the name of the policy in `RateLimit-Policy`.
    package var name: String
    package var scope: RateScope
    /// The classes of requests that it counts, together; nil: all.
    package var classes: Set<LimitClass>?
    package var algorithm: RateAlgorithm
    /// Units per window.
    package var units: Int
    package var window: Duration
    /// Units that a bucket holds when full; nil for windows.
    package var burst: Int?

    package static let countMax = 16
    package static let burstMax = 1_000_000
    package static let unitsPerSecondMax = 1_000_000
    package static let unitsMax = 1_000_000_000
    package static let windows: ClosedRange<Duration> = .seconds(1)...(.seconds(86_400))
    /// A bucket of more than an hour is a window; and what it holds times its window is counted exactly.
    package static let bucketWindows: ClosedRange<Duration> = .seconds(1)...(.seconds(3600))

    package init(
        name: String, scope: RateScope, classes: Set<LimitClass>? = nil,
        algorithm: RateAlgorithm, units: Int, per window: Duration, burst: Int? = nil
    ) {
        self.name = name
        self.scope = scope
        self.classes = classes
        self.algorithm = algorithm
        self.units = units
        self.window = window
        self.burst = burst
    }

    /// The rule that most tiers have: everything that a clinic does, with bursts.
    package static func bucket(
        _ name: String = "tenant", units: Int, per window: Duration = .seconds(1), burst: Int
    ) -> RateRule {
        RateRule(
            name: name, scope: .tenant, algorithm: .tokenBucket, units: units, per: window,
            burst: burst)
    }

    package func covers(_ kind: LimitClass) -> Bool { classes?.contains(kind) ?? true }

    /// Most units that the rule lets pass at one moment, if nothing was used before.
    package var capacity: Int { burst ?? units }

    /// Whole units that are gained in a second, at least 1.
    package var unitsPerSecond: Int {
        max(1, Int(Int64(units) * 1000 / max(1, window.inMilliseconds)))
    }

    /// What the rule must allow at once, or some request would never pass.
    package var largestCost: Int {
        (classes ?? Set(LimitClass.allCases)).map(\.largestCost.units).max() ?? 0
    }
}
