package import HCCore

extension Loop {
    /// Starts a task on the loop: the only way to start one that nobody awaits.
    ///
    /// Called on the loop, the body runs at once up to its first suspension. Called from another thread,
    /// it is enqueued.
    @discardableResult
    package func spawn(_ body: @escaping @LoopActor () async -> Void) -> Task<Void, Never> {
        if isOnThread {
            return LoopActor.assumeIsolated {
                runAtOnce { makeTask(body) }
            }
        }
        return makeTask(body)
    }

    /// Waits for a point in time, by a timer of the loop.
    ///
    /// - Throws: CancellationError if the task is cancelled before.
    @LoopActor package func sleep(until deadline: Deadline) async throws(CancellationError) {
        let waiter = Waiter<Void>()
        do {
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            return
        } catch {
            throw CancellationError()
        }
    }

    /// As `sleep(until:)`, from the beginning of this tick.
    @LoopActor package func sleep(for duration: Duration) async throws(CancellationError) {
        try await sleep(until: .after(duration, from: Loop.now))
    }
}

/// The time to wait for an answer was over before there was one.
package struct DeadlineExceeded: Error, Equatable, CustomStringConvertible {
    package init() {}
    package var description: String { "the deadline passed" }
}

/// Runs `body` as a child that is cancelled at `deadline`, and waits for it to end.
///
/// - Returns: what `body` returned, even if it came to its end only after the deadline.
/// - Throws: DeadlineExceeded if the deadline has passed already (then `body` is not begun) or if `body`,
///   being cancelled by it, throws CancellationError; any other error of `body` as it is.
@LoopActor package func withDeadline<Value: Sendable>(
    _ deadline: Deadline, _ body: @escaping @LoopActor () async throws -> Value
) async throws -> Value {
    if deadline == .never { return try await body() }
    guard !deadline.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
    let task = Loop.shared.runAtOnce { Loop.shared.makeTask(body) }
    var isOver = false
    let timer = Loop.shared.schedule(at: deadline) {
        isOver = true
        task.cancel()
    }
    defer { timer.cancel() }
    do {
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    } catch is CancellationError where isOver {
        throw DeadlineExceeded()
    }
}
