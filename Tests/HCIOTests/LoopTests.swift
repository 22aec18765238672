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
