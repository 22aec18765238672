import HCCore
import HCIO

/// Requests that wait while their clinic is handed to another shard. Bounded per clinic; woken when the map
/// changes for it.
@LoopActor
final class ParkingLot {
    private var parked: [TenantID: [Waiter<Void>]] = [:]

    /// Requests that wait now, over all clinics.
    private(set) var count = 0

    /// Waits for a change of the clinic's place, at most until `deadline`.
    ///
    /// - Returns: false when the lot of this clinic is full: the caller did not wait.
    /// - Throws: `CancellationError`.
    func park(_ tenant: TenantID, limit: Int, until deadline: Deadline) async throws -> Bool {
        guard parked[tenant, default: []].count < limit else { return false }
        let waiter = Waiter<Void>()
        parked[tenant, default: []].append(waiter)
        count += 1
        defer { leave(tenant, waiter) }
        do {
            try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            return true
        }
        return true
    }

    func wake(_ tenants: some Sequence<TenantID>) {
        for tenant in tenants {
            for waiter in parked[tenant] ?? [] { waiter.succeed(()) }
        }
    }

    private func leave(_ tenant: TenantID, _ waiter: Waiter<Void>) {
        count -= 1
        guard var waiters = parked[tenant] else { return }
        waiters.removeAll { $0 === waiter }
        parked[tenant] = waiters.isEmpty ? nil : waiters
    }
}
