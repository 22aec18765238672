import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

@Suite(.onLoop) @LoopActor struct LoopTests {
    @Test("a spawned task begins at once and stays on the loop over a suspension")
    func spawnIsImmediate() async throws {
        var steps: [String] = []
        let waiter = Waiter<Void>()
        let task = Loop.shared.spawn {
            #expect(Loop.shared.isOnThread)
            steps.append("begun")
            do { try await Loop.shared.sleep(for: .milliseconds(1)) } catch {}
            #expect(Loop.shared.isOnThread)
            steps.append("resumed")
            waiter.succeed(())
        }
        steps.append("spawned")
        try await waiter.wait(until: .after(.seconds(10), from: Loop.shared.now))
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

    @Test("a deadline cancels the body and is told as DeadlineExceeded")
    func deadline() async throws {
        var wasCancelled = false
        await #expect(throws: DeadlineExceeded()) {
            try await withDeadline(.after(.milliseconds(1), from: Loop.shared.now)) {
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
}
