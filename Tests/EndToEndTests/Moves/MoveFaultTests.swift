import Glibc
import HCCore
import HCTesting
import Synchronization
import Testing

extension EndToEnd {
    /// The fault matrix of moves: `deploy/local/test faults` runs all of it, `deploy/local/test faults REGEX` a part.
    @Suite struct MoveFaultTests {
        private struct Run {
            var ground: MoveFaultGround?
            var grounds = 0
            /// On this ground.
            var cases = 0
        }

        /// On one platform: what the clients write stays, and every move carries it. Twice as many took as long as three
        /// grounds of this many do: the clinic had half a million rows then.
        private static let casesMax = 20

        private static let run = Mutex(Run())

        @Test(
            "a move that meets a fault loses nothing, doubles nothing and leaves nothing over",
            arguments: MoveFault.chosen)
        func fault(_ fault: MoveFault) throws {
            try Self.run.withLock { run in
                let ground: MoveFaultGround
                if run.cases >= Self.casesMax, let old = run.ground {
                    try old.close()
                    run.ground = nil
                }
                if let whole = run.ground {
                    ground = whole
                } else {
                    run.grounds += 1
                    run.cases = 0
                    ground = try MoveFaultGround("faults-\(run.grounds)")
                    run.ground = ground
                }
                run.cases += 1
                let begin = ContinuousClock.now
                var verdict = MoveFaultVerdict(fault)
                do {
                    try verdict.judge(ground)
                } catch {
                    verdict.wrongs.append("\(error)")
                }
                let took = ContinuousClock.now - begin
                print(
                    "\(verdict.wrongs.isEmpty ? "ok    " : "FAILED") \(text(took)) s, \(verdict.summary): \(fault.name)"
                )
                // Into a pipe it would come many cases later, and whoever waits could not tell slow from hung.
                fflush(nil)
                guard !verdict.wrongs.isEmpty else { return }
                // The next case gets a platform that nothing is wrong with.
                run.ground = nil
                let logs = try ground.abandon(fault.name)
                for wrong in verdict.wrongs { print("       \(wrong)") }
                print("       logs: \(logs)")
                Issue.record(
                    "\(fault.name): \(verdict.wrongs.joined(separator: "; ")); logs: \(logs)")
            }
        }

        private func text(_ duration: Duration) -> String {
            let tenths = duration.inMilliseconds / 100
            return "\(tenths / 10).\(tenths % 10)"
        }
    }
}
