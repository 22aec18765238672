import HCCore
import HCIO

/// How many transactions of one clinic a process runs at once: a busy clinic waits for itself and leaves the
/// pool to the others. First come, first served; bounded.
@LoopActor
final class TenantTurns {
    private struct Turns {
        var running = 0
        var waiting = RingBuffer<Waiter<Void>>(capacityMax: TenantTurns.waitingMax)
    }

    /// Requests of one clinic that wait for their turn in one process.
    nonisolated static let waitingMax = 1024

    private var turns: [TenantID: Turns] = [:]

    /// Clinics that run or wait for something.
    var activeCount: Int { turns.count }

    /// Waits for a turn. Each is given back with `leave`.
    func enter(
        _ tenant: TenantID, limit: Int, deadline: Deadline
    ) async throws(TenancyError) {
        var mine = turns[tenant, default: Turns()]
        if mine.running < limit {
            mine.running += 1
            turns[tenant] = mine
            return
        }
        let waiter = Waiter<Void>()
        guard mine.waiting.append(waiter) else { throw .overloaded(retryAfter: .seconds(1)) }
        turns[tenant] = mine
        do {
            // Whoever leaves hands its turn over: the count does not change.
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            throw .deadlineExceeded
        } catch {
            throw .cancelled
        }
    }

    func leave(_ tenant: TenantID) {
        guard var mine = turns[tenant] else { preconditionFailure("a turn is given back once") }
        while let next = mine.waiting.popFirst() {
            // Those whose patience ended are passed over.
            if next.succeed(()) {
                turns[tenant] = mine
                return
            }
        }
        mine.running -= 1
        turns[tenant] = mine.running == 0 ? nil : mine
    }
}
