package import HCCore

/// One task that waits for one value: what stands between a callback of the loop and an `await`.
///
/// The value, an error, the deadline or the cancellation of the task ends the wait, whichever comes first;
/// the others are then ignored. The outcome may be there before the wait begins.
///
/// Where it is used its code is that for values of any type, which costs: so as little as possible knows of the value.
@LoopActor package final class Waiter<Value: Sendable>: WaiterState {
    private var value: Value?

    package nonisolated override init() {
        super.init()
    }

    /// Waits for the outcome. To be called once.
    ///
    /// - Throws: the error given to `fail`, DeadlineExceeded, or CancellationError.
    package func wait(until deadline: Deadline) async throws -> Value {
        try await waitForEnd(until: deadline)
        guard let value else { preconditionFailure("a wait that succeeds has a value") }
        self.value = nil
        return value
    }

    /// - Returns: false if the wait had ended already: the value was not taken.
    @discardableResult
    package func succeed(_ value: Value) -> Bool {
        guard isPending else { return false }
        self.value = value
        return settle(nil)
    }

    /// - Returns: false if the wait had ended already.
    @discardableResult
    package func fail(_ error: any Error) -> Bool { settle(error) }
}

/// A wait without its value.
@LoopActor package class WaiterState {
    private enum State {
        case fresh
        case waiting(UnsafeContinuation<Void, any Error>)
        case settled((any Error)?)
        case finished
    }

    private var state = State.fresh

    fileprivate nonisolated init() {}

    /// Whether an outcome can still be given.
    package final var isPending: Bool {
        switch state {
        case .fresh, .waiting: true
        case .settled, .finished: false
        }
    }

    fileprivate final func waitForEnd(until deadline: Deadline) async throws {
        if case .settled(let error) = state {
            state = .finished
            if let error { throw error }
            return
        }
        guard !deadline.isExpired(at: Loop.now) else {
            settle(DeadlineExceeded())
            state = .finished
            throw DeadlineExceeded()
        }
        let timer =
            deadline == .never
            ? nil : Loop.shared.schedule(at: deadline) { self.settle(DeadlineExceeded()) }
        defer { timer?.cancel() }
        try await withTaskCancellationHandler {
            try await withUnsafeThrowingContinuation { continuation in
                switch state {
                case .fresh:
                    state = .waiting(continuation)
                case .settled(let error):
                    // The task was cancelled already: the handler ran before this did.
                    state = .finished
                    WaiterState.resume(continuation, error)
                case .waiting, .finished:
                    preconditionFailure("a waiter waits once")
                }
            }
        } onCancel: {
            // On the loop, where all cancelling of a worker is done, this happens at once.
            Loop.shared.runOrPost { self.settle(CancellationError()) }
        }
    }

    /// - Parameter error: nil for success.
    /// - Returns: false if the wait had ended already.
    @discardableResult
    fileprivate final func settle(_ error: (any Error)?) -> Bool {
        switch state {
        case .fresh:
            state = .settled(error)
            return true
        case .waiting(let continuation):
            state = .finished
            WaiterState.resume(continuation, error)
            return true
        case .settled, .finished:
            return false
        }
    }

    private static func resume(
        _ continuation: UnsafeContinuation<Void, any Error>, _ error: (any Error)?
    ) {
        if let error { continuation.resume(throwing: error) } else { continuation.resume() }
    }
}
