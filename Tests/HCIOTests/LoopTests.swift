import CLinux
import HCCore
import HCTesting
import Synchronization
import Testing

@testable import HCIO

@Suite(.onLoop) @LoopActor struct LoopTests {
    // MARK: Tasks

    @Test("a spawned task begins at once and stays on the loop over a suspension")
    func spawnIsImmediate() async throws {
        var steps: [String] = []
        let waiter = Waiter<Void>()
        let task = Loop.shared.spawn {
            #expect(Loop.shared.isOnThread)
            steps.append("begun")
            await #expect(throws: Never.self) {
                try await Loop.shared.sleep(for: .milliseconds(1))
            }
            #expect(Loop.shared.isOnThread)
            steps.append("resumed")
            waiter.succeed(())
        }
        steps.append("spawned")
        try await waiter.wait(until: .soon)
        await task.value
        #expect(steps == ["begun", "spawned", "resumed"])
    }

    @TaskLocal private static var name = "none"

    @Test("tasks started in one another each keep their own task, and come back to it")
    func nestedSpawn() async {
        var steps: [String] = []
        let jobsBefore = Loop.shared.statistics.jobs
        await LoopTests.$name.withValue("outer") {
            let first = Loop.shared.spawn {
                LoopTests.$name.withValue("inner") {
                    steps.append(LoopTests.name)
                    Loop.shared.spawn { steps.append("innermost of \(LoopTests.name)") }
                    steps.append(LoopTests.name)
                }
            }
            steps.append(LoopTests.name)
            steps.append(await answer())
            await first.value
        }
        #expect(steps == ["inner", "innermost of inner", "inner", "outer", "answer"])
        #expect(!Task.isCancelled)
        #expect(Loop.shared.statistics.jobs - jobsBefore >= 2)
    }

    private func answer() async -> String { "answer" }

    @Test("children, groups and helpers that are not isolated stay on the loop")
    func structuredChildren() async throws {
        async let one = whereAmI()
        async let two = whereAmI()
        #expect(await one)
        #expect(await two)
        let all = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<3 { group.addTask { await self.whereAmI() } }
            var isEach = true
            for await isOn in group where !isOn { isEach = false }
            return isEach
        }
        #expect(all)
    }

    private nonisolated func whereAmI() async -> Bool {
        await Task.yield()
        return Loop.shared.isOnThread
    }

    @Test("a job from another thread runs on the loop, and is counted as foreign")
    func foreignJob() async throws {
        let before = Loop.shared.foreignJobs
        let ran = Waiter<Bool>()
        startDetachedThread(stackBytes: 1 << 20) {
            Loop.shared.spawn { ran.succeed(Loop.shared.isOnThread) }
        }
        #expect(try await ran.wait(until: .soon))
        #expect(Loop.shared.foreignJobs > before)
    }

    @Test("what another thread posts runs on the loop, and is no foreign job")
    func post() async throws {
        let before = Loop.shared.posts
        let ran = Waiter<Bool>()
        startDetachedThread(stackBytes: 1 << 20) {
            for _ in 0..<100 { Loop.shared.post { ran.succeed(Loop.shared.isOnThread) } }
        }
        #expect(try await ran.wait(until: .soon))
        #expect(Loop.shared.posts > before)
    }

    @Test("a task that never waits for anything does not starve I/O and timers")
    func jobsAreBoundedPerTick() async throws {
        let pair = try OwnedDescriptor.socketPair()
        let told = Flag()
        let source = Source { _ in told.raise() }
        let registration = try Loop.shared.register(
            pair.first.rawValue, events: .readable, source: source)
        poke(pair.second.rawValue)
        var yields = 0
        while !told.isRaised {
            await Task.yield()
            yields += 1
        }
        #expect(yields > 0)
        registration.deregister()
    }

    @Test("assumeIsolated is for the loop's thread, and the loop knows its thread")
    func threads() async throws {
        #expect(Loop.shared.isOnThread)
        #expect(LoopActor.assumeIsolated { 7 } == 7)
        let elsewhere = Waiter<Bool>()
        startDetachedThread(stackBytes: 1 << 20) {
            let isOn = Loop.shared.isOnThread
            Loop.shared.runOrPost { elsewhere.succeed(isOn) }
        }
        #expect(try await elsewhere.wait(until: .soon) == false)
    }

    @Test("an error passes through assumeIsolated with its type")
    func typedErrors() {
        func fail() throws(SystemError) {
            try LoopActor.assumeIsolated { () throws(SystemError) in
                throw SystemError(errno: ENOENT, call: "open")
            }
        }
        #expect(throws: SystemError(errno: ENOENT, call: "open")) { try fail() }
    }

    // MARK: End of tick

    @Test("end-of-tick hooks run once, after the jobs of the tick and before the next wait")
    func endOfTick() async throws {
        var steps: [String] = []
        let done = Waiter<Void>()
        Loop.shared.atEndOfTick {
            steps.append("hook")
            let ticks = Loop.shared.statistics.ticks
            Loop.shared.atEndOfTick {
                steps.append("hook of the hook")
                #expect(Loop.shared.statistics.ticks > ticks, "the loop has looked for events")
                done.succeed(())
            }
        }
        let ticks = Loop.shared.statistics.ticks
        Task(executorPreference: Loop.shared) { @LoopActor in
            #expect(Loop.shared.statistics.ticks == ticks)
            steps.append("job")
        }
        try await done.wait(until: .soon)
        #expect(steps == ["job", "hook", "hook of the hook"])
    }

    @Test("the loop counts ticks, and gives the lag of a period once")
    func lag() async throws {
        let before = Loop.shared.statistics
        try await Loop.shared.sleep(for: .milliseconds(1))
        let after = Loop.shared.statistics
        #expect(after.ticks > before.ticks)
        #expect(after.timersFired > before.timersFired)
        let registry = MetricsRegistry()
        let metrics = LoopMetrics(registry)
        metrics.update(lag: (.milliseconds(3), .milliseconds(2)))
        let text = render(registry)
        #expect(text.contains("hc_loop_ticks_total"))
        #expect(text.contains("hc_loop_longest_tick_seconds 0.003"))
    }
}

/// What a scraper would read.
func render(_ registry: MetricsRegistry) -> String {
    var buffer = ByteBuffer()
    registry.snapshot().render(to: &buffer)
    return buffer.withUnsafeReadableBytes { String(decoding: $0, as: UTF8.self) }
}

/// Something that a callback sets and a test looks at.
@LoopActor final class Flag {
    private(set) var isRaised = false
    func raise() { isRaised = true }
}

/// An event source made of a closure.
@LoopActor final class Source: EventSource {
    private let action: @LoopActor (IOEvents) -> Void

    init(_ action: @escaping @LoopActor (IOEvents) -> Void) { self.action = action }

    func handle(_ events: IOEvents) { action(events) }
}

/// Writes one byte.
func poke(_ fd: Int32) {
    var byte: UInt8 = 1
    #expect(write(fd, &byte, 1) == 1)
}
