/// The life of one session with the server, without its I/O: what may be started, and how a deadline or a
/// cancellation is settled with the server.
struct SessionStateMachine: ~Copyable {
    enum Interruption: Equatable {
        case deadline
        case cancellation
    }

    private enum State {
        /// Can transition to: busy, closed.
        case idle
        /// Can transition to: idle, interrupting, closed.
        case busy
        /// A cancel request is on its way. The session may be used again only when both the operation has ended
        /// and the request has been answered: else it could hit the next operation.
        /// Can transition to: idle, closed.
        case interrupting(Interruption, operationEnded: Bool, cancelAnswered: Bool)
        /// Can transition to: nothing.
        case closed
    }

    enum EndAction: Equatable {
        /// Wake the caller: the session is free.
        case resume
        /// Wait for the other of the two.
        case wait
        /// Close the session, then wake the caller.
        case close
    }

    private var state = State.idle
    /// Why the current (or last) operation was interrupted, until the next begins.
    private(set) var interruption: Interruption?

    init() {}

    var isIdle: Bool { if case .idle = state { true } else { false } }
    var isClosed: Bool { if case .closed = state { true } else { false } }
    var isInterrupting: Bool { if case .interrupting = state { true } else { false } }

    enum BeginRefusal: Equatable {
        case closed
        case busy
    }

    /// An operation is about to be sent. Nil when it may.
    mutating func begin() -> BeginRefusal? {
        switch state {
        case .idle:
            state = .busy
            interruption = nil
            return nil
        case .busy, .interrupting: return .busy
        case .closed: return .closed
        }
    }

    /// The deadline has passed or the task was cancelled.
    /// - Returns: whether to ask the server to cancel; false when that is under way or there is nothing to cancel.
    mutating func interrupt(_ reason: Interruption) -> Bool {
        guard case .busy = state else { return false }
        interruption = reason
        state = .interrupting(reason, operationEnded: false, cancelAnswered: false)
        return true
    }

    /// The server is ready for the next operation.
    mutating func operationEnded() -> EndAction {
        switch state {
        case .busy:
            state = .idle
            return .resume
        case .interrupting(let reason, _, let answered):
            guard answered else {
                state = .interrupting(reason, operationEnded: true, cancelAnswered: false)
                return .wait
            }
            state = .idle
            return .resume
        case .idle, .closed:
            return .close
        }
    }

    /// The cancel request was delivered, or could not be.
    mutating func cancelAnswered(delivered: Bool) -> EndAction {
        guard case .interrupting(let reason, let ended, _) = state else { return .wait }
        // Half a request may still arrive, and then hit whatever runs by that time.
        guard delivered else { return .close }
        guard ended else {
            state = .interrupting(reason, operationEnded: false, cancelAnswered: true)
            return .wait
        }
        state = .idle
        return .resume
    }

    /// The connection is gone or is being closed.
    mutating func close() { state = .closed }
}

extension SessionStateMachine.Interruption {
    /// What the caller is told when nothing was committed.
    var kind: PostgresError.Kind {
        switch self {
        case .deadline: .deadlineExceeded
        case .cancellation: .cancelled
        }
    }

    var cause: PostgresError.Interruption {
        switch self {
        case .deadline: .deadline
        case .cancellation: .cancellation
        }
    }
}
