package import HCCore

/// One task that waits for one value: what stands between a callback of the loop and an `await`.
///
/// The value, an error, the deadline or the cancellation of the task ends the wait, whichever comes first;
/// the others are then ignored. The outcome may be there before the wait begins.
@LoopActor package final class Waiter<Value: Sendable> {
    private enum State {
        case fresh
        case waiting(UnsafeContinuation<Value, any Error>)
        case settled(Result<Value, any Error>)
        case finished
    }

    private var state = State.fresh

    package nonisolated init() {}

    /// Whether an outcome can still be given.
    package var isPending: Bool {
        switch state {
        case .fresh, .waiting: true
        case .settled, .finished: false
        }
    }

    /// Waits for the outcome. To be called once.
    ///
    /// - Throws: the error given to `fail`, DeadlineExceeded, or CancellationError.
    package func wait(until deadline: Deadline) async throws -> Value {
        if case .settled(let result) = state {
            state = .finished
            return try result.get()
        }
        guard !deadline.isExpired(at: Loop.shared.now) else {
            settle(.failure(DeadlineExceeded()))
            state = .finished
            throw DeadlineExceeded()
        }
        let timer = Loop.shared.schedule(at: deadline) { self.fail(DeadlineExceeded()) }
        defer { timer.cancel() }
        return try await withTaskCancellationHandler {
            try await withUnsafeThrowingContinuation { continuation in
                switch state {
                case .fresh:
                    state = .waiting(continuation)
                case .settled(let result):
                    // The task was cancelled already: the handler ran before this did.
                    state = .finished
                    continuation.resume(with: result)
                case .waiting, .finished:
                    preconditionFailure("a waiter waits once")
                }
            }
        } onCancel: {
            // On the loop, where all cancelling of a worker is done, this happens at once.
            Loop.shared.runOrPost { self.fail(CancellationError()) }
        }
    }

    /// - Returns: false if the wait had ended already: the value was not taken.
    @discardableResult
    package func succeed(_ value: Value) -> Bool { settle(.success(value)) }

    /// - Returns: false if the wait had ended already.
    @discardableResult
    package func fail(_ error: any Error) -> Bool { settle(.failure(error)) }

    @discardableResult
    private func settle(_ result: Result<Value, any Error>) -> Bool {
        switch state {
        case .fresh:
            state = .settled(result)
            return true
        case .waiting(let continuation):
            state = .finished
            continuation.resume(with: result)
            return true
        case .settled, .finished:
            return false
        }
    }
}
