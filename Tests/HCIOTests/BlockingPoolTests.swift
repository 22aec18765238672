import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite(.onLoop) @LoopActor struct BlockingPoolTests {
    private struct Failure: Error, Equatable {}

    @Test("work is done off the loop, and its caller goes on on the loop without a foreign job")
    func placement() async throws {
        let pool = BlockingPool()
        let wasOnLoop = try await pool.run(deadline: .soon) { Loop.shared.isOnThread }
        #expect(!wasOnLoop)
        #expect(Loop.shared.isOnThread)
        await #expect(throws: Failure()) {
            try await pool.run(deadline: .soon) { throw Failure() }
        }
    }

    @Test("threads are started when there is work for them, up to the bound")
    func threads() async throws {
        let pool = BlockingPool(limits: .init(threadsMax: 2, queuedMax: 10))
        #expect(pool.statistics.threads == 0)
        let isHeld = ThreadSemaphore()
        let tasks = (0..<4).map { _ in
            Loop.shared.spawn {
                await #expect(throws: Never.self) {
                    try await pool.run(deadline: .soon) { isHeld.wait() }
                }
            }
        }
        #expect(pool.statistics.threads == 2)
        for _ in tasks { isHeld.signal() }
        for task in tasks { await task.value }
        #expect(pool.statistics.threads == 2)
        try await pool.run(deadline: .soon) {}
        #expect(pool.statistics.threads == 2)
    }

    @Test("work above the bound of the queue is refused at once, and counted")
    func refusal() async throws {
        let pool = BlockingPool(limits: .init(threadsMax: 1, queuedMax: 1))
        let (isHeld, hasBegun) = (ThreadSemaphore(), Waiter<Void>())
        let first = Loop.shared.spawn {
            await #expect(throws: Never.self) {
                try await pool.run(deadline: .soon) {
                    Loop.shared.post { hasBegun.succeed(()) }
                    isHeld.wait()
                }
            }
        }
        try await hasBegun.wait(until: .soon)
        let second = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await pool.run(deadline: .soon) {} }
        }
        #expect(pool.statistics.queued == 1)
        await #expect(throws: BlockingPoolError.queueFull(1)) {
            try await pool.run(deadline: .soon) {}
        }
        #expect(pool.statistics.refused == 1)
        isHeld.signal()
        await first.value
        await second.value
    }

    @Test("who gives up frees the place in the queue, and the work is not begun")
    func abandoned() async throws {
        let pool = BlockingPool(limits: .init(threadsMax: 1, queuedMax: 1))
        let (isHeld, hasBegun) = (ThreadSemaphore(), Waiter<Void>())
        let first = Loop.shared.spawn {
            await #expect(throws: CancellationError.self) {
                try await pool.run(deadline: .soon) {
                    Loop.shared.post { hasBegun.succeed(()) }
                    isHeld.wait()
                }
            }
        }
        try await hasBegun.wait(until: .soon)
        await #expect(throws: DeadlineExceeded()) {
            try await pool.run(deadline: .after(.milliseconds(1), from: Loop.now)) {
                Issue.record("work of a caller who has gone was begun")
            }
        }
        #expect(pool.statistics.queued == 0)
        #expect(pool.statistics.abandoned == 1)
        let third = Loop.shared.spawn {
            await #expect(throws: Never.self) { try await pool.run(deadline: .soon) {} }
        }
        // The first caller has gone though its work goes on: the thread is still held.
        first.cancel()
        await first.value
        isHeld.signal()
        await third.value
    }
}
