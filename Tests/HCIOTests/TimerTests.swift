import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite(.onLoop) @LoopActor struct TimerTests {
    @Test("timers run by deadline, and in order of scheduling where deadlines are equal")
    func order() async throws {
        var steps: [Int] = []
        let done = Waiter<Void>()
        let now = Loop.now
        let later = Deadline.after(.milliseconds(3), from: now)
        let sooner = Deadline.after(.milliseconds(1), from: now)
        Loop.shared.schedule(at: later) { steps.append(3) }
        Loop.shared.schedule(at: later) {
            steps.append(4)
            done.succeed(())
        }
        Loop.shared.schedule(at: sooner) { steps.append(1) }
        Loop.shared.schedule(at: sooner) { steps.append(2) }
        try await done.wait(until: .soon)
        #expect(steps == [1, 2, 3, 4])
        #expect(Loop.now >= later.time)
    }

    @Test("a cancelled timer does not run, even when it is cancelled by one of the same moment")
    func cancel() async throws {
        var hasRun = false
        let done = Waiter<Void>()
        let deadline = Deadline.after(.milliseconds(1), from: Loop.now)
        var victim: HCIO.Timer?
        Loop.shared.schedule(at: deadline) { victim?.cancel() }
        victim = Loop.shared.schedule(at: deadline) { hasRun = true }
        Loop.shared.schedule(at: deadline) { done.succeed(()) }
        try await done.wait(until: .soon)
        #expect(!hasRun)
        #expect(victim?.isPending == false)
        victim?.cancel()
    }

    @Test("a timer that schedules another for a time gone by does not keep the tick from ending")
    func rescheduling() async throws {
        let ticks = Loop.shared.statistics.ticks
        var left = 3
        let done = Waiter<Void>()
        @LoopActor func again() {
            left -= 1
            if left == 0 {
                done.succeed(())
            } else {
                Loop.shared.schedule(at: Deadline(.zero)) { again() }
            }
        }
        Loop.shared.schedule(at: Deadline(.zero)) { again() }
        try await done.wait(until: .soon)
        #expect(Loop.shared.statistics.ticks >= ticks + 3)
    }

    @Test("a timer that is set anew for a time gone by keeps no other from running")
    func anewForThePast() async throws {
        var rounds = 0
        let first = Deadline.after(.seconds(-2), from: Loop.now)
        @LoopActor func again() {
            Loop.shared.schedule(at: first) {
                rounds += 1
                if rounds < 100 { again() }
            }
        }
        again()
        let seen = Waiter<Int>()
        Loop.shared.schedule(at: .after(.seconds(-1), from: Loop.now)) {
            _ = seen.succeed(rounds)
        }
        #expect(try await seen.wait(until: .soon) == 1)
        try await Loop.shared.wait { rounds == 100 }
    }

    @Test("a timer that has run is not pending, and cancelling it counts for nothing")
    func hasRun() async throws {
        let done = Waiter<Void>()
        let timer = Loop.shared.schedule(after: .zero) { done.succeed(()) }
        #expect(timer.isPending)
        try await done.wait(until: .soon)
        #expect(!timer.isPending)
        let before = Loop.shared.timers.count
        timer.cancel()
        #expect(Loop.shared.timers.count == before)
    }

    @Test("what a cancelled timer captured is let go at once")
    func release() {
        weak var captured: Flag?
        let timer: HCIO.Timer
        do {
            let flag = Flag()
            captured = flag
            timer = Loop.shared.schedule(after: .seconds(1000)) { flag.raise() }
        }
        #expect(captured != nil)
        timer.cancel()
        #expect(captured == nil)
    }

    @Test("cancelled timers leave the heap when they are the greater part of it")
    func compaction() {
        let before = Loop.shared.timers.heapCount
        for _ in 0..<10_000 {
            Loop.shared.schedule(after: .seconds(1000)) {}.cancel()
        }
        #expect(Loop.shared.timers.heapCount <= 2 * before + 200)
    }

    @Test("a timer for never is not kept, and cancelling it is allowed")
    func never() {
        let before = Loop.shared.statistics.timers
        let timer = Loop.shared.schedule(at: .never) {}
        #expect(Loop.shared.statistics.timers == before)
        timer.cancel()
        #expect(Loop.shared.statistics.timers == before)
    }

    @Test("sleeping ends with the time, or with the task")
    func sleep() async throws {
        let before = Loop.now
        try await Loop.shared.sleep(for: .milliseconds(2))
        #expect(Loop.now - before >= .milliseconds(2))
        let outcome = Waiter<String>()
        let task = Loop.shared.spawn {
            do {
                try await Loop.shared.sleep(until: .never)
                outcome.succeed("slept")
            } catch {
                outcome.succeed("cancelled")
            }
        }
        task.cancel()
        #expect(try await outcome.wait(until: .soon) == "cancelled")
    }
}

@Suite(.onLoop) @LoopActor struct DeadlineTests {
    private struct Failure: Error, Equatable {}

    @Test("a deadline cancels the body and is told as DeadlineExceeded")
    func expires() async throws {
        var wasCancelled = false
        await #expect(throws: DeadlineExceeded()) {
            try await withDeadline(.after(.milliseconds(1), from: Loop.now)) {
                do {
                    try await Loop.shared.sleep(until: .never)
                } catch {
                    wasCancelled = true
                    throw error
                }
            }
        }
        #expect(wasCancelled)
    }

    @Test("a body in time returns its value or its error, and leaves no timer behind")
    func inTime() async throws {
        let deadline = Deadline.after(.seconds(1234), from: Loop.now)
        #expect(try await withDeadline(deadline) { 7 } == 7)
        await #expect(throws: Failure()) {
            try await withDeadline(deadline) { throw Failure() }
        }
        #expect(try await withDeadline(.never) { 8 } == 8)
        // Of so many that what other tests have does not count.
        let before = Loop.shared.statistics.timers
        for _ in 0..<500 {
            try await withDeadline(deadline) {}
            let waiter = Waiter<Void>()
            Loop.shared.atEndOfTick { waiter.succeed(()) }
            try await waiter.wait(until: deadline)
        }
        #expect(Loop.shared.statistics.timers < before + 250)
    }

    @Test("a body is not begun when the deadline has passed")
    func expiredBefore() async throws {
        var hasBegun = false
        await #expect(throws: DeadlineExceeded()) {
            try await withDeadline(Deadline(.zero)) { hasBegun = true }
        }
        #expect(!hasBegun)
    }

    @Test("an error that says more than cancellation is not hidden by the deadline")
    func ownError() async throws {
        await #expect(throws: Failure()) {
            try await withDeadline(.after(.milliseconds(1), from: Loop.now)) {
                do { try await Loop.shared.sleep(until: .never) } catch { throw Failure() }
            }
        }
    }

    @Test("a result that came in spite of the deadline is not thrown away")
    func lateResult() async throws {
        let value = try await withDeadline(.after(.milliseconds(1), from: Loop.now)) {
            do { try await Loop.shared.sleep(until: .never) } catch {}
            return "committed"
        }
        #expect(value == "committed")
    }

    @Test("cancelling the caller cancels the body, and is no deadline")
    func callerCancelled() async throws {
        let outcome = Waiter<String>()
        let task = Loop.shared.spawn {
            do {
                try await withDeadline(.after(.seconds(1000), from: Loop.now)) {
                    try await Loop.shared.sleep(until: .never)
                }
                outcome.succeed("returned")
            } catch is CancellationError {
                outcome.succeed("cancelled")
            } catch {
                outcome.succeed("\(error)")
            }
        }
        task.cancel()
        #expect(try await outcome.wait(until: .soon) == "cancelled")
    }

    @Test("the inner of two deadlines ends only what is inside")
    func nested() async throws {
        let inner = try await withDeadline(.soon) {
            do {
                try await withDeadline(.after(.milliseconds(1), from: Loop.now)) {
                    try await Loop.shared.sleep(until: .never)
                }
                return "returned"
            } catch {
                return "\(error)"
            }
        }
        #expect(inner == "the deadline passed")
    }
}

@Suite(.onLoop) @LoopActor struct WaiterTests {
    private struct Failure: Error, Equatable {}

    @Test("an outcome given before the wait is taken by it")
    func early() async throws {
        let waiter = Waiter<Int>()
        #expect(waiter.succeed(1))
        #expect(!waiter.isPending)
        #expect(!waiter.succeed(2))
        #expect(!waiter.fail(Failure()))
        #expect(try await waiter.wait(until: Deadline(.zero)) == 1)
    }

    @Test("a failure is thrown")
    func failure() async throws {
        let waiter = Waiter<Int>()
        Loop.shared.atEndOfTick { waiter.fail(Failure()) }
        await #expect(throws: Failure()) { try await waiter.wait(until: .soon) }
    }

    @Test("after the deadline an outcome is refused, so that its giver can keep it")
    func deadline() async throws {
        let waiter = Waiter<Int>()
        await #expect(throws: DeadlineExceeded()) {
            try await waiter.wait(until: .after(.milliseconds(1), from: Loop.now))
        }
        #expect(!waiter.succeed(1))
        let late = Waiter<Int>()
        await #expect(throws: DeadlineExceeded()) { try await late.wait(until: Deadline(.zero)) }
        #expect(!late.succeed(1))
    }

    @Test("a task that is cancelled already does not wait")
    func cancelledBefore() async throws {
        let outcome = Waiter<String>()
        let task = Loop.shared.spawn {
            let gate = Gate()
            await gate.waitForCancellation()
            do {
                try await Waiter<Void>().wait(until: .never)
            } catch {
                outcome.succeed("\(type(of: error))")
            }
        }
        task.cancel()
        #expect(try await outcome.wait(until: .soon) == "CancellationError")
    }

    @Test("a gate lets all pass once it is open, and later ones too")
    func gate() async throws {
        let gate = Gate()
        var passed = 0
        let tasks = (0..<3).map { _ in
            Loop.shared.spawn {
                await gate.wait()
                passed += 1
            }
        }
        await #expect(throws: DeadlineExceeded()) {
            try await gate.wait(until: .after(.milliseconds(1), from: Loop.now))
        }
        #expect(passed == 0)
        tasks[0].cancel()
        gate.open()
        gate.open()
        for task in tasks { await task.value }
        #expect(passed == 3)
        try await gate.wait(until: Deadline(.zero))
        await gate.wait()
    }
}

extension Gate {
    /// Waits until the task is cancelled.
    fileprivate func waitForCancellation() async {
        do { try await wait(until: .never) } catch {}
    }
}
