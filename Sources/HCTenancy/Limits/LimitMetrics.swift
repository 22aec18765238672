package import HCCore

/// What the limits count. Labels are rule classes and kinds, never clinics, accounts or addresses.
package final class LimitMetrics: Sendable {
    /// By `RateDecision.Origin`.
    private let decided: [Counter]
    /// By scope and class.
    private let refused: [[Counter]]
    /// By `Failure`.
    private let failures: [Counter]
    let leased: Histogram
    let refills: Counter
    let expired: Counter
    let givenBack: Counter
    let revocations: Counter
    let buckets: Gauge
    let evictions: Counter
    let graceLeft: Gauge
    let isAway: Gauge

    package enum Failure: Int, CaseIterable, Sendable {
        case unavailable
        case timeout
        case refused
        /// Something answered that is not our script.
        case garbage
        case overloaded

        var name: String {
            switch self {
            case .unavailable: "unavailable"
            case .timeout: "timeout"
            case .refused: "refused"
            case .garbage: "garbage"
            case .overloaded: "overloaded"
            }
        }
    }

    package init(_ registry: MetricsRegistry) {
        decided = RateDecision.Origin.allCases.map {
            registry.counter(
                "hc_limit_decisions_total",
                "Requests decided: with leased units, by Redis, or by this process alone",
                labels: [("by", $0.name)])
        }
        refused = RateScope.allCases.map { scope in
            LimitClass.allCases.map { kind in
                registry.counter(
                    "hc_limit_refused_total", "Requests refused with 429, by the rule that refused",
                    labels: [("class", kind.rawValue), ("scope", scope.rawValue)])
            }
        }
        failures = Failure.allCases.map {
            registry.counter(
                "hc_limit_redis_failures_total", "Questions to Redis that had no usable answer",
                labels: [("reason", $0.name)])
        }
        leased = registry.histogram(
            "hc_limit_lease_units", "Units of a lease taken from Redis", layout: .counts)
        refills = registry.counter(
            "hc_limit_refills_total", "Leases taken before the one before was used up")
        expired = registry.counter(
            "hc_limit_units_expired_total", "Leased units that ran out unused")
        givenBack = registry.counter(
            "hc_limit_units_given_back_total", "Leased units given back to Redis")
        revocations = registry.counter(
            "hc_limit_revocations_total", "Leases made void because their rule changed")
        buckets = registry.gauge(
            "hc_limit_groups", "Clinics, accounts and addresses that this process keeps buckets for"
        )
        evictions = registry.counter(
            "hc_limit_evictions_total", "Of these, forgotten to make room for others")
        graceLeft = registry.gauge(
            "hc_limit_grace_left_seconds",
            "For how long this process would go on as before without Redis")
        isAway = registry.gauge(
            "hc_limit_redis_away", "1 while limits are decided without Redis")
    }

    func decided(_ decision: RateDecision, _ kind: LimitClass) {
        decided[decision.origin.rawValue].increment()
        if !decision.isAllowed {
            refused[(decision.scope ?? .tenant).index][kind.index].increment()
        }
    }

    func failed(_ failure: Failure) { failures[failure.rawValue].increment() }

    package func decisions(_ origin: RateDecision.Origin) -> UInt64 {
        decided[origin.rawValue].value
    }
    package func refusals(_ scope: RateScope, _ kind: LimitClass) -> UInt64 {
        refused[scope.index][kind.index].value
    }
    package func failures(_ failure: Failure) -> UInt64 { failures[failure.rawValue].value }
}
