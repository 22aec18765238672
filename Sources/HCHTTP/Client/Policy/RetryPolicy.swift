package import HCCore

/// When a request is sent again: the rules of one request, without a clock, a connection or a wait.
///
/// A request that was not sent is safe to send. One that was, or may have been, is sent again only if it is
/// repeatable: its method is idempotent (RFC 9110 9.2.2) or it carries an Idempotency-Key.
package struct RetryPolicy: Sendable {
    package struct Limits: Sendable {
        /// The first one counts.
        package var attemptsMax: Int
        /// The bounds of the wait between attempts, see `Backoff`.
        package var backoffInitial: Duration
        package var backoffMax: Duration
        /// A `Retry-After` beyond it is not waited for.
        package var retryAfterMax: Duration

        package init(
            attemptsMax: Int = 3, backoffInitial: Duration = .milliseconds(100),
            backoffMax: Duration = .seconds(2), retryAfterMax: Duration = .seconds(10)
        ) {
            self.attemptsMax = attemptsMax
            self.backoffInitial = backoffInitial
            self.backoffMax = backoffMax
            self.retryAfterMax = retryAfterMax
        }

        package static let never = Limits(attemptsMax: 1)
    }

    /// What became of an attempt that did not give what was hoped for.
    package enum Outcome: Sendable, Equatable {
        /// Nothing of the request had left: no address, no connection, no handshake.
        case notSent
        /// The connection broke, or the answer was cut short: the server may have done its work.
        case broken
        case status(HTTPStatus, retryAfter: Duration?)
        /// Trying again changes nothing: a refused address, an answer that is too large.
        case final
    }

    package enum Decision: Sendable, Equatable {
        case retry(at: Deadline)
        case giveUp(Reason)
    }

    package enum Reason: String, Sendable, CaseIterable {
        case final
        case notRepeatable = "not-repeatable"
        case attempts
        case budget
        /// The wait would end after the deadline, or is longer than is waited for.
        case deadline
    }

    private let limits: Limits
    private let isRepeatable: Bool
    private var backoff: Backoff
    private var attempts = 0

    /// - Parameter isRepeatable: sending it twice has the effect of sending it once, and its content can be had
    ///   again.
    package init(_ limits: Limits, isRepeatable: Bool) {
        self.limits = limits
        self.isRepeatable = isRepeatable
        backoff = Backoff(initial: limits.backoffInitial, maximum: limits.backoffMax)
    }

    /// Statuses that ask for another try: too many requests, bad gateway, unavailable, gateway timeout.
    package static func isTransient(_ status: HTTPStatus) -> Bool {
        switch status.code {
        case 429, 502, 503, 504: true
        default: false
        }
    }

    /// To be called once after each attempt. A retry has taken its token from `budget`.
    package mutating func decide(
        after outcome: Outcome, at now: MonotonicTime, deadline: Deadline,
        budget: inout RetryBudget, using random: inout some RandomNumberGenerator
    ) -> Decision {
        attempts += 1
        var asked = Duration.zero
        switch outcome {
        case .final: return .giveUp(.final)
        case .notSent: break
        case .broken:
            guard isRepeatable else { return .giveUp(.notRepeatable) }
        case .status(let status, let retryAfter):
            guard RetryPolicy.isTransient(status) else { return .giveUp(.final) }
            guard isRepeatable else { return .giveUp(.notRepeatable) }
            asked = retryAfter ?? .zero
        }
        guard attempts < limits.attemptsMax else { return .giveUp(.attempts) }
        guard asked <= limits.retryAfterMax else { return .giveUp(.deadline) }
        // Everybody was told the same number: the jitter comes on top.
        let wait = max(.zero, asked) + backoff.next(using: &random)
        let time = Deadline.after(wait, from: now)
        guard time < deadline else { return .giveUp(.deadline) }
        guard budget.takeRetry() else { return .giveUp(.budget) }
        return .retry(at: time)
    }
}

/// How many retries are allowed in proportion to requests: when everything fails, the load on who fails grows by
/// `percent` and no more.
package struct RetryBudget: Sendable {
    private let percent: Int
    private let capacity: Int
    /// In hundredths of a retry.
    private var tokens: Int

    /// - Parameters:
    ///   - percent: retries per hundred requests, in the long run.
    ///   - burst: retries that may be saved up; there at the beginning.
    package init(percent: Int = 10, burst: Int = 10) {
        precondition(
            (0...100).contains(percent) && burst >= 0, "a budget is a share of the requests")
        self.percent = percent
        capacity = burst * 100
        tokens = capacity
    }

    /// A request was made (not a retry of one).
    package mutating func noteRequest() {
        tokens = min(capacity, tokens + percent)
    }

    fileprivate mutating func takeRetry() -> Bool {
        guard tokens >= 100 else { return false }
        tokens -= 100
        return true
    }

    /// Whole retries that could be made now.
    package var remaining: Int { tokens / 100 }
}
