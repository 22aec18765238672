package import HCCore
internal import Synchronization

/// A few threads for what cannot be done without waiting or takes long: password hashes, name lookups,
/// file digests.
///
/// Threads are started when there is work and none is free, and stay. Results come back to the loop by
/// `Loop.post`, so that the awaiting task never leaves it.
@LoopActor package final class BlockingPool {
    package struct Limits: Sendable {
        package var threadsMax: Int
        /// Work that waits for a thread; more is refused.
        package var queuedMax: Int
        package var stackBytes: Int

        package init(threadsMax: Int = 2, queuedMax: Int = 256, stackBytes: Int = 1 << 20) {
            precondition(threadsMax > 0 && queuedMax > 0, "a pool has a thread and a queue")
            self.threadsMax = threadsMax
            self.queuedMax = queuedMax
            self.stackBytes = stackBytes
        }
    }

    package struct Statistics: Sendable {
        package var threads = 0
        package var busy = 0
        package var queued = 0
        package var completed = 0
        package var refused = 0
        /// Work whose caller had gone before it began.
        package var abandoned = 0
    }

    package nonisolated let limits: Limits
    private let shared = Shared()
    private var refusedCount = 0

    package nonisolated init(limits: Limits = Limits()) {
        self.limits = limits
    }

    deinit {
        shared.finish()
    }

    /// Does `work` on a thread of the pool.
    ///
    /// When the deadline passes or the task is cancelled, work that is queued is dropped; work that has
    /// begun goes on to its end and its result is thrown away.
    ///
    /// - Throws: what `work` throws; BlockingPoolError.queueFull, DeadlineExceeded, CancellationError.
    package func run<Value: Sendable>(
        deadline: Deadline, _ work: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        let waiter = Waiter<Value>()
        let admission = shared.admit(limits) {
            let result = Result { try work() }
            Loop.shared.post {
                switch result {
                case .success(let value): waiter.succeed(value)
                case .failure(let error): waiter.fail(error)
                }
            }
        }
        switch admission {
        case .refused:
            refusedCount += 1
            throw BlockingPoolError.queueFull(limits.queuedMax)
        case .admitted(let ticket, let needsThread):
            if needsThread { startThread() }
            do {
                return try await waiter.wait(until: deadline)
            } catch {
                shared.abandon(ticket)
                throw error
            }
        }
    }

    package var statistics: Statistics {
        var statistics = shared.statistics
        statistics.refused = refusedCount
        return statistics
    }

    private func startThread() {
        let shared = shared
        startDetachedThread(stackBytes: limits.stackBytes) { shared.work() }
    }
}

/// Work that a pool did not take.
package enum BlockingPoolError: Error, Equatable, CustomStringConvertible {
    case queueFull(Int)

    package var description: String {
        switch self {
        case .queueFull(let bound): "the blocking pool's queue is full (\(bound))"
        }
    }
}

/// What the threads and the loop have in common. The semaphore counts what was put into the queue.
private final class Shared: Sendable {
    enum Admission {
        case admitted(ticket: UInt64, needsThread: Bool)
        case refused
    }

    private struct Item {
        let ticket: UInt64
        let work: @Sendable () -> Void
    }

    private struct State {
        var queue: RingBuffer<Item>?
        var tickets: UInt64 = 0
        var statistics = BlockingPool.Statistics()
        var isFinished = false
    }

    private let state = Mutex(State())
    private let available = ThreadSemaphore()

    var statistics: BlockingPool.Statistics {
        state.withLock { state in
            var statistics = state.statistics
            statistics.queued = state.queue?.count ?? 0
            return statistics
        }
    }

    func admit(_ limits: BlockingPool.Limits, _ work: @escaping @Sendable () -> Void) -> Admission {
        let admission: Admission = state.withLock { state in
            var queue = state.queue ?? RingBuffer(capacityMax: limits.queuedMax)
            state.queue = nil
            defer { state.queue = queue }
            guard !queue.isFull else { return .refused }
            state.tickets += 1
            queue.append(Item(ticket: state.tickets, work: work))
            let idle = state.statistics.threads - state.statistics.busy
            let needsThread = idle < queue.count && state.statistics.threads < limits.threadsMax
            if needsThread { state.statistics.threads += 1 }
            return .admitted(ticket: state.tickets, needsThread: needsThread)
        }
        if case .admitted = admission { available.signal() }
        return admission
    }

    /// Drops the work if it has not begun. The semaphore then counts one too many: a thread wakes up and
    /// finds nothing.
    func abandon(_ ticket: UInt64) {
        let dropped: Item? = state.withLock { state in
            var dropped: Item?
            state.queue?.removeAll { item in
                guard item.ticket == ticket else { return false }
                dropped = item
                return true
            }
            if dropped != nil { state.statistics.abandoned += 1 }
            return dropped
        }
        // What the work captured ends here, outside the lock.
        withExtendedLifetime(dropped) {}
    }

    /// The pool is gone: threads end when the queue is empty.
    func finish() {
        let threads = state.withLock { state in
            state.isFinished = true
            return state.statistics.threads
        }
        for _ in 0..<threads { available.signal() }
    }

    /// A thread's life.
    func work() {
        while true {
            available.wait()
            let (item, isFinished) = state.withLock { state in
                let item = state.queue?.popFirst()
                if item != nil { state.statistics.busy += 1 }
                return (item, state.isFinished)
            }
            guard let item else {
                if isFinished { return }
                continue
            }
            item.work()
            state.withLock { state in
                state.statistics.busy -= 1
                state.statistics.completed += 1
            }
        }
    }
}
