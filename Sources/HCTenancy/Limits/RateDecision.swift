import HCCore

/// Whether a request is within the limits of its clinic, and what to tell the client about it.
///
/// Numbers and one reference, for it is handed from stage to stage.
package struct RateDecision: Sendable {
    /// Who has decided.
    package enum Origin: Int, CaseIterable, Sendable {
        /// This process, with units that it has from Redis.
        case lease
        /// Redis, asked for this request.
        case redis
        /// This process alone, going on as before: Redis is away for a short time.
        case grace
        /// This process alone, with its fixed share: Redis is away.
        case share

        package var name: String {
            switch self {
            case .lease: "lease"
            case .redis: "redis"
            case .grace: "grace"
            case .share: "share"
            }
        }
    }

    package let isAllowed: Bool
    package private(set) var origin: Origin
    /// What is told of stands there.
    private let plan: LimitPlan
    /// In `policies` of the plan: of all rules that speak of the request.
    private let policy: Int
    /// In `rules` of the plan: the one that refuses, or of which least is left; nil if no rule speaks of the request.
    private let rule: Int?
    package let remaining: Int
    /// Milliseconds until nothing of that rule counts as used, if nothing is taken.
    private let resetMilliseconds: Int64
    /// Refused: the same request is admitted after this long, if nobody else takes the units.
    package let retryAfter: Duration?

    init(
        isAllowed: Bool, origin: Origin, plan: LimitPlan, policy: Int, rule: Int?, remaining: Int,
        resetMilliseconds: Int64, retryAfter: Duration?
    ) {
        self.isAllowed = isAllowed
        self.origin = origin
        self.plan = plan
        self.policy = policy
        self.rule = rule
        self.remaining = remaining
        self.resetMilliseconds = resetMilliseconds
        self.retryAfter = retryAfter
    }

    func decided(by origin: Origin) -> RateDecision {
        var copy = self
        copy.origin = origin
        return copy
    }

    /// Until nothing of the rule counts as used, if nothing is taken.
    package var resetAfter: Duration { .milliseconds(resetMilliseconds) }

    /// Decided by this process alone, as Redis did not answer.
    package var isLocal: Bool { origin == .grace || origin == .share }

    /// The name of the rule that `withLimitField` speaks of.
    package var ruleName: String? { rule.map { plan.rules[$0].rule.name } }
    package var scope: RateScope? { rule.map { plan.rules[$0].rule.scope } }

    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, 3): all rules that speak of the request.
    package func withPolicyField(_ body: (UnsafeRawBufferPointer) -> Void) {
        plan.policies.withText(policy, body)
    }

    /// `RateLimit` (4 of the draft): what is left of the rule of which least is left, and seconds until all is there
    /// again.
    package func withLimitField(_ body: (UnsafeRawBufferPointer) -> Void) {
        guard let rule else { return }
        FixedText.with(
            { field in
                plan.fieldStarts.withText(rule) { field.append($0) }
                field.append(decimal: Int64(remaining))
                field.append(";t=")
                field.append(decimal: (resetMilliseconds + 999) / 1000)
            }, body)
    }

    /// `Retry-After` (RFC 9110 10.2.3): whole seconds, rounded up, so that coming back then is not too early.
    package var retryAfterField: String? {
        retryAfter.map { String(max(1, $0.inSecondsRoundedUp)) }
    }
}
