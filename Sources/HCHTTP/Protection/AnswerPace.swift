import HCCore

/// Whether a client takes its answers fast enough. Only time in which output waits for the client counts, and what
/// it takes pays for time that has passed, never for time to come: a client that took a megabyte into its buffers
/// may not then take a byte a minute.
struct AnswerPace: Sendable {
    private var debt: Duration = .zero
    private var waitingSince: MonotonicTime?

    /// Output waits for the client.
    /// - Returns: when the client will have been too slow.
    mutating func wait(at now: MonotonicTime, grace: Duration) -> MonotonicTime {
        settle(at: now)
        waitingSince = now
        return now + max(.zero, grace - debt)
    }

    /// The client took some bytes.
    /// - Parameter isAll: nothing waits any more.
    mutating func take(_ count: Int, isAll: Bool, at now: MonotonicTime, bytesPerSecond: Int) {
        settle(at: now)
        let paid = Duration.nanoseconds(Int64(count) * 1_000_000_000 / Int64(bytesPerSecond))
        debt = max(.zero, debt - paid)
        if isAll { waitingSince = nil }
    }

    private mutating func settle(at now: MonotonicTime) {
        guard let since = waitingSince else { return }
        debt += now - since
        waitingSince = now
    }
}
