package import HCCore

/// Something worth keeping open: a connection to a server.
@LoopActor package protocol PoolResource: AnyObject, Sendable {
    /// False once it must not be lent again: it broke, or its state is not known any more. Asked at the
    /// end of every lease.
    var isUsable: Bool { get }

    /// Called, at most once, when the resource closes by itself. Set by the pool.
    var onClose: (@LoopActor () -> Void)? { get set }

    /// Asks the other side for a sign of life. Throwing means that it is dead.
    func check(deadline: Deadline) async throws

    /// Ends it, at once. Not followed by `onClose`.
    func close()
}

/// Why a pool did not lend. The body of `withLease` was not begun, so nothing has happened yet.
package struct PoolError: Error, CustomStringConvertible {
    package enum Code: Hashable, Sendable {
        /// All is lent, and the deadline passed before something came back.
        case deadlineExceeded
        /// Too many wait already.
        case queueFull
        /// Nothing can be opened at present; `retryAfter` says when it is tried next.
        case circuitOpen
        case shutDown
    }

    package let pool: String
    package let code: Code
    package let retryAfter: Duration?
    /// What the last try to open one ran into.
    package let cause: (any Error)?

    package init(pool: String, code: Code, retryAfter: Duration?, cause: (any Error)?) {
        self.pool = pool
        self.code = code
        self.retryAfter = retryAfter
        self.cause = cause
    }

    package var description: String {
        let words =
            switch code {
            case .deadlineExceeded: "the deadline passed while waiting"
            case .queueFull: "too many wait already"
            case .circuitOpen: "nothing can be opened"
            case .shutDown: "it is shut down"
            }
        guard let cause else { return "pool \(pool): \(words)" }
        return "pool \(pool): \(words) (\(cause))"
    }
}
