package import HCCore

/// Whether an origin is worth a try: after failures in a row it is left alone for a while, then one request
/// finds out. The pool's breaker (HCIO) guards the opening of resources; here curl opens them, so requests count.
package struct OriginBreaker: Sendable {
    package struct Limits: Sendable {
        package var failuresMax: Int
        package var restInitial: Duration
        package var restMax: Duration

        package init(
            failuresMax: Int = 5, restInitial: Duration = .seconds(1),
            restMax: Duration = .seconds(30)
        ) {
            self.failuresMax = failuresMax
            self.restInitial = restInitial
            self.restMax = restMax
        }
    }

    private enum State: Sendable {
        /// Can transition to: open.
        case closed(failures: Int)
        /// Can transition to: probing.
        case open(until: MonotonicTime)
        /// One request is under way since then; the others are refused.
        /// Can transition to: closed, open.
        case probing(since: MonotonicTime)
    }

    package enum Answer: Equatable, Sendable {
        case allowed
        case refused(retryAfter: Duration)
    }

    private let limits: Limits
    private var state = State.closed(failures: 0)
    private var backoff: Backoff

    package init(_ limits: Limits) {
        precondition(limits.failuresMax > 0, "a breaker bears something")
        self.limits = limits
        backoff = Backoff(initial: limits.restInitial, maximum: limits.restMax)
    }

    package var isClosed: Bool {
        if case .closed = state { true } else { false }
    }

    /// Asks for one request. Who is allowed tells with `succeeded`, `failed` or `abandoned` how it went.
    package mutating func ask(at now: MonotonicTime) -> Answer {
        switch state {
        case .closed: return .allowed
        case .open(let until):
            guard now >= until else { return .refused(retryAfter: until - now) }
            state = .probing(since: now)
            return .allowed
        case .probing(let since):
            // A probe that takes this long has told enough; the next may try as well.
            guard now >= since + limits.restMax else {
                return .refused(retryAfter: limits.restInitial)
            }
            state = .probing(since: now)
            return .allowed
        }
    }

    /// The origin answered, whatever the status.
    package mutating func succeeded() {
        state = .closed(failures: 0)
        backoff.reset()
    }

    /// No connection, or no answer.
    package mutating func failed(
        at now: MonotonicTime, using random: inout some RandomNumberGenerator
    ) {
        switch state {
        case .closed(let failures) where failures + 1 < limits.failuresMax:
            state = .closed(failures: failures + 1)
        case .closed, .probing:
            state = .open(until: now + backoff.next(using: &random))
        case .open: break  // Begun before the others failed.
        }
    }

    /// It ended in a way that tells nothing: it was cancelled, or never begun.
    package mutating func abandoned(at now: MonotonicTime) {
        if case .probing = state { state = .open(until: now) }
    }
}
