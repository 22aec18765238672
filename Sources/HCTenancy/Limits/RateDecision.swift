import HCCore

/// Whether a request is within its clinic's limit, and what to tell the client about it.
package struct RateDecision: Hashable, Sendable {
    package let isAllowed: Bool
    /// Units that the bucket holds when full.
    package let capacity: Int
    /// Seconds in which an empty bucket fills.
    package let windowSeconds: Int
    package let remaining: Int
    /// Refused: the same request is admitted after this long, if nobody else takes the units.
    package let retryAfter: Duration?
    /// Until the bucket is full, if nothing is taken.
    package let resetAfter: Duration
    /// Decided by this process alone, as Redis did not answer.
    package let isLocal: Bool

    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, 3): quota and window.
    package var policyField: String { "\"tenant\";q=\(capacity);w=\(windowSeconds)" }

    /// `RateLimit` (4 of the same): what is left, and seconds until all is there again.
    package var limitField: String {
        "\"tenant\";r=\(remaining);t=\(RateDecision.seconds(resetAfter))"
    }

    /// `Retry-After` (RFC 9110 10.2.3): whole seconds, rounded up, so that coming back then is not too early.
    package var retryAfterField: String? {
        retryAfter.map { String(max(1, RateDecision.seconds($0))) }
    }

    static func seconds(_ duration: Duration) -> Int64 {
        let (seconds, attoseconds) = duration.components
        return seconds + (attoseconds > 0 ? 1 : 0)
    }
}
