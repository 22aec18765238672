package import HCCore

/// Decides which requests a worker takes on when there are more than it can answer in time. No I/O; time and the
/// measure of queueing come in.
///
/// How many it takes at once follows the queueing of the worker itself: the least delay of an interval, for a
/// burst that passes shortens to nothing and a standing queue does not (CoDel, RFC 8289 4.1). Above the target the
/// limit is cut to a share of what was in flight, below it grows by a part of itself. A slow shard is not queueing:
/// its requests wait elsewhere and have limits of their own, and it must not make the worker refuse others.
///
/// Lanes share the limit in the order of their importance: each is refused from a fill level on, `bulk` from the
/// lowest. Whoever is refused, a more important lane would have been let in; and care has slots that nobody else
/// can take.
package struct AdmissionControl: Sendable {
    package struct Limits: Sendable {
        /// Requests in flight that are never exceeded.
        package var inFlightMax = 2048
        /// The limit is not cut below this: so few requests are no overload.
        package var inFlightMin = 64
        /// Queueing above this is a standing queue, if nothing in the interval was below.
        package var queueTarget: Duration = .milliseconds(100)
        package var interval: Duration = .milliseconds(300)
        /// The fill level, in percent of the limit, from which a lane is refused; by `RequestLane.index`.
        package var fillPercent = [50, 65, 80, 100]

        package init() {}

        package func problems() -> [String] {
            var found: [String] = []
            // With one place there is none to keep for care.
            if inFlightMax < 2 { found.append("inFlightMax: must be at least 2") }
            if inFlightMin < 1 || inFlightMin > inFlightMax {
                found.append("inFlightMin: must be from 1 to inFlightMax")
            }
            if queueTarget <= .zero { found.append("queueTarget: must be above 0") }
            if interval <= .zero { found.append("interval: must be above 0") }
            if fillPercent.count != RequestLane.allCases.count
                || fillPercent != fillPercent.sorted()
                || fillPercent.contains(where: { !(1...100).contains($0) })
            {
                found.append("fillPercent: one from 1 to 100 for each lane, rising")
            }
            return found
        }
    }

    package enum Refusal: String, Sendable, CaseIterable {
        /// The worker has as many requests of that lane as it may have at any time.
        case full
        /// It has fewer, and they queue already.
        case queueing
    }

    package enum Decision: Sendable, Equatable {
        /// `finish` is owed.
        case admitted
        case refused(Refusal, retryAfter: Duration)
    }

    package let limits: Limits
    /// Requests that are let in at once, now.
    package private(set) var limit: Int
    package private(set) var inFlight = 0
    private var inFlightByLane = [0, 0, 0, 0]

    private var intervalEnd: MonotonicTime
    private var leastDelay: Duration?
    private var peak = 0
    /// Intervals of overload in a row.
    private var overloadedCount = 0
    /// The least queueing of the last interval.
    package private(set) var queueing: Duration = .zero

    /// - Precondition: `limits.problems()` is empty.
    package init(limits: Limits, now: MonotonicTime) {
        let problems = limits.problems()
        precondition(problems.isEmpty, "\(problems)")
        self.limits = limits
        limit = limits.inFlightMax
        intervalEnd = now + limits.interval
    }

    package func inFlight(_ lane: RequestLane) -> Int { inFlightByLane[lane.index] }

    /// - Parameters:
    ///   - delay: how long the request may have waited before anybody looked at it.
    ///   - random: spreads the times at which the refused come again.
    package mutating func admit(
        _ lane: RequestLane, delay: Duration, now: MonotonicTime,
        using random: inout some RandomNumberGenerator
    ) -> Decision {
        if now >= intervalEnd { endInterval(now) }
        leastDelay = min(leastDelay ?? delay, delay)
        let isAdmitted =
            inFlight < level(limit, lane)
            // Nobody else can fill the hard limit so far, so this does not exceed it.
            || lane == .safety && inFlight(.safety) < reserve
        guard isAdmitted else {
            let isFull = inFlight >= level(limits.inFlightMax, lane)
            return .refused(
                isFull ? .full : .queueing, retryAfter: retryAfter(lane, using: &random))
        }
        inFlight += 1
        inFlightByLane[lane.index] += 1
        peak = max(peak, inFlight)
        return .admitted
    }

    /// An admitted request has its answer.
    package mutating func finish(_ lane: RequestLane) {
        precondition(inFlightByLane[lane.index] > 0, "more requests ended than began")
        inFlight -= 1
        inFlightByLane[lane.index] -= 1
    }

    private func level(_ limit: Int, _ lane: RequestLane) -> Int {
        max(1, limit * limits.fillPercent[lane.index] / 100)
    }

    /// What care may have in flight however low the limit is and whoever filled it before it fell: of the hard
    /// limit the part that nobody else can take.
    private var reserve: Int {
        max(1, limits.inFlightMax - level(limits.inFlightMax, .interactive))
    }

    private mutating func endInterval(_ now: MonotonicTime) {
        queueing = leastDelay ?? .zero
        if queueing > limits.queueTarget {
            overloadedCount += 1
            limit = max(limits.inFlightMin, min(limit, peak) * 3 / 4)
        } else {
            overloadedCount = 0
            grow()
        }
        // Intervals in which nothing came were no overload.
        var missed = (now - intervalEnd) / limits.interval
        while missed >= 1, limit < limits.inFlightMax {
            overloadedCount = 0
            grow()
            missed -= 1
        }
        leastDelay = nil
        peak = inFlight
        intervalEnd = now + limits.interval
    }

    private mutating func grow() {
        limit = min(limits.inFlightMax, limit + max(1, limit / 8))
    }

    /// One second and a part of a span that is longer for what can wait, and the longer the overload lasts.
    private func retryAfter(
        _ lane: RequestLane, using random: inout some RandomNumberGenerator
    ) -> Duration {
        let spans = [8000, 4000, 2000, 1000]
        let span = spans[lane.index] * (1 + min(3, overloadedCount / 16))
        return .milliseconds(1000 + Int.random(in: 0...span, using: &random))
    }
}
