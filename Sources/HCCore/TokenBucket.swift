/// A bucket that holds up to `capacity` tokens and gains `refill` tokens per `period`, evenly. Exact
/// integer arithmetic, time is passed in.
package struct TokenBucket: Sendable {
    package let capacity: Int64
    package let refill: Int64
    private let periodNanoseconds: Int64

    // One token is `periodNanoseconds` units, so one nanosecond brings `refill` units: nothing is rounded.
    private var units: Int64
    private var updatedAt: MonotonicTime

    package enum Decision: Equatable, Sendable {
        /// The tokens were taken; so many whole ones are left.
        case allowed(remaining: Int64)
        /// Nothing was taken; asking again is useful after this long.
        case refused(retryAfter: Duration)
    }

    /// A full bucket.
    ///
    /// - Parameters: all above zero; `capacity` x `period` in nanoseconds must fit in an Int64.
    package init(capacity: Int64, refill: Int64, per period: Duration, at now: MonotonicTime) {
        let nanoseconds = period.inNanoseconds
        precondition(capacity > 0 && refill > 0 && nanoseconds > 0, "a bucket fills")
        let (full, overflow) = capacity.multipliedReportingOverflow(by: nanoseconds)
        precondition(!overflow, "the bucket's capacity and period are too large")
        self.capacity = capacity
        self.refill = refill
        self.periodNanoseconds = nanoseconds
        self.units = full
        self.updatedAt = now
    }

    /// Takes `count` tokens (at least 0), or none. More than `capacity` is never allowed; the wait given
    /// is then the one until the bucket is full.
    package mutating func take(_ count: Int64 = 1, at now: MonotonicTime) -> Decision {
        precondition(count >= 0, "tokens are not given back by taking")
        refillTokens(at: now)
        let full = capacity * periodNanoseconds
        let (needed, overflow) = count.multipliedReportingOverflow(by: periodNanoseconds)
        if !overflow, needed <= units {
            units -= needed
            return .allowed(remaining: units / periodNanoseconds)
        }
        let missing = (overflow ? full : min(needed, full)) - units
        let (quotient, remainder) = missing.quotientAndRemainder(dividingBy: refill)
        return .refused(retryAfter: .nanoseconds(max(1, quotient + (remainder > 0 ? 1 : 0))))
    }

    /// Puts back tokens of work that did not happen.
    package mutating func giveBack(_ count: Int64, at now: MonotonicTime) {
        precondition(count >= 0, "tokens are not taken by giving back")
        refillTokens(at: now)
        let full = capacity * periodNanoseconds
        let (gained, overflow) = count.multipliedReportingOverflow(by: periodNanoseconds)
        units = overflow || gained >= full - units ? full : units + gained
    }

    /// Whole tokens there at `now`.
    package func remaining(at now: MonotonicTime) -> Int64 {
        var copy = self
        copy.refillTokens(at: now)
        return copy.units / periodNanoseconds
    }

    /// The time until the bucket is full again, if nothing is taken.
    package func timeUntilFull(at now: MonotonicTime) -> Duration {
        var copy = self
        copy.refillTokens(at: now)
        let missing = capacity * periodNanoseconds - copy.units
        let (quotient, remainder) = missing.quotientAndRemainder(dividingBy: refill)
        return .nanoseconds(quotient + (remainder > 0 ? 1 : 0))
    }

    private mutating func refillTokens(at now: MonotonicTime) {
        // A reading from before the last one adds nothing and takes nothing.
        guard now > updatedAt else { return }
        let elapsed = (now - updatedAt).inNanoseconds
        updatedAt = now
        let full = capacity * periodNanoseconds
        let (gained, overflow) = elapsed.multipliedReportingOverflow(by: refill)
        units = overflow || gained >= full - units ? full : units + gained
    }
}
