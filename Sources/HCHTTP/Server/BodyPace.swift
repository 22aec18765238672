import HCCore

/// Whether a client sends its content fast enough. Only time in which somebody waits for content counts: a slow
/// handler is not the client's fault, and a client that sends one byte a second is.
struct BodyPace: Sendable {
    private var waited: Duration = .zero
    private var receivedCount = 0
    private var waitingSince: MonotonicTime?

    /// Somebody begins to wait.
    /// - Returns: when the client will have been too slow.
    mutating func wait(at now: MonotonicTime, grace: Duration, bytesPerSecond: Int) -> MonotonicTime
    {
        settle(at: now)
        waitingSince = now
        let earned = Duration.milliseconds(Int64(receivedCount) * 1000 / Int64(bytesPerSecond))
        let left = grace + earned - waited
        return now + max(.zero, left)
    }

    mutating func receive(_ count: Int, at now: MonotonicTime) {
        settle(at: now)
        waitingSince = nil
        receivedCount += count
    }

    private mutating func settle(at now: MonotonicTime) {
        if let waitingSince { waited += now - waitingSince }
    }
}
