import HCCore

/// How much of a `Rate` is left. One number: when all of it would be there again (the "virtual scheduling" form of
/// a leaky bucket, ITU-T I.371).
struct HTTP2Budget: Sendable {
    private var fullAt = Int64.min / 2

    /// - Returns: false if there is nothing left to spend.
    mutating func spend(_ rate: HTTP2Limits.Rate, at now: MonotonicTime) -> Bool {
        let interval = 1_000_000_000 / Int64(rate.perSecond)
        let next = max(fullAt, now.nanoseconds) + interval
        guard next - now.nanoseconds <= interval * Int64(rate.burst) else { return false }
        fullAt = next
        return true
    }

    /// Gives back what something useful has paid for.
    mutating func earn(_ count: Int, _ rate: HTTP2Limits.Rate) {
        fullAt -= 1_000_000_000 / Int64(rate.perSecond) * Int64(count)
    }
}
