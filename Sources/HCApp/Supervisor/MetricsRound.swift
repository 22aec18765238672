import HCCore
import HCIO

/// Requests for metrics that are under way, and whose answers they wait for.
@LoopActor
final class MetricsRound {
    private struct Round {
        var missing: Set<Int32>
        let waiter: Waiter<Void>
    }

    private var rounds: [Int: Round] = [:]
    private var next = 1

    nonisolated init() {}

    func begin(_ processes: [Int32]) -> Int {
        let request = next
        next += 1
        rounds[request] = Round(missing: Set(processes), waiter: Waiter())
        settle(request)
        return request
    }

    func arrived(_ process: Int32, request: Int) {
        rounds[request]?.missing.remove(process)
        settle(request)
    }

    func left(_ process: Int32) {
        for request in rounds.keys {
            rounds[request]?.missing.remove(process)
            settle(request)
        }
    }

    /// Ends at the deadline also without the last answers: a stuck worker must not hide the others.
    func wait(_ request: Int, until deadline: Deadline) async {
        guard let waiter = rounds[request]?.waiter else { return }
        do {
            try await waiter.wait(until: deadline)
        } catch {
            // The deadline or a cancellation: what has arrived is what there is.
        }
        rounds[request] = nil
    }

    private func settle(_ request: Int) {
        guard let round = rounds[request], round.missing.isEmpty else { return }
        _ = round.waiter.succeed(())
    }
}
