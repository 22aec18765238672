import HCCore
import HCIO
import HCPostgres

/// Look-ups of one clinic that come in the same moment go to its shard as one transaction: one connection, one
/// `hc_enter()`, one round trip for all of them. A busy clinic costs its shard less for each, an idle one waits
/// for nobody.
///
/// Only statements that find rows by their key come here: none of them keeps the others waiting.
@LoopActor
final class LookupGatherer {
    struct Limits {
        /// Look-ups of one clinic that wait, in one process.
        var waitingMax = 4096
        /// Statements in one transaction.
        var groupMax = 32
        /// Transactions of one clinic at a time.
        var underWayMax = 4

        init() {}
    }

    /// Runs the statements in one transaction and returns their results, in order.
    typealias Perform = @LoopActor (TenantID, [Query], Deadline) async throws -> [PostgresResult]

    private struct Entry {
        let query: Query
        let deadline: Deadline
        let waiter: Waiter<PostgresResult>
    }

    private let limits: Limits
    private let perform: Perform
    private var queues: [TenantID: GatheringMachine<Entry>] = [:]

    init(limits: Limits = Limits(), perform: @escaping Perform) {
        self.limits = limits
        self.perform = perform
    }

    /// Clinics with a look-up under way.
    var activeCount: Int { queues.count }

    /// - Throws: `TenancyError`, or `PostgresError` for what the statement itself met.
    func find(
        _ query: Query, in tenant: TenantID, deadline: Deadline
    ) async throws -> PostgresResult {
        let waiter = Waiter<PostgresResult>()
        let entry = Entry(query: query, deadline: deadline, waiter: waiter)
        switch queues[tenant, default: makeQueue()].add(entry) {
        case .refuse: throw TenancyError.overloaded(retryAfter: .seconds(1))
        case .wait: break
        case .announce: Loop.shared.atEndOfTick { self.begin(tenant) }
        }
        do {
            return try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            throw TenancyError.deadlineExceeded
        } catch is CancellationError {
            throw TenancyError.cancelled
        }
    }

    private func makeQueue() -> GatheringMachine<Entry> {
        GatheringMachine(
            waitingMax: limits.waitingMax, groupMax: limits.groupMax,
            underWayMax: limits.underWayMax)
    }

    private func begin(_ tenant: TenantID) {
        var goesOn = true
        while goesOn, let (entries, more) = queues[tenant]?.begin() {
            goesOn = more
            Loop.shared.spawn { [self] in
                await run(entries, of: tenant)
                end(tenant)
            }
        }
    }

    private func end(_ tenant: TenantID) {
        guard let goesOn = queues[tenant]?.end() else { return }
        if goesOn { return begin(tenant) }
        if queues[tenant]?.isIdle == true { queues[tenant] = nil }
    }

    private func run(_ group: [Entry], of tenant: TenantID) async {
        // Who gave up meanwhile is not asked for.
        let entries = group.filter(\.waiter.isPending)
        guard let first = entries.first else { return }
        // Each waits no longer than its own deadline; the transaction goes on for the most patient.
        let deadline = entries.reduce(first.deadline) { max($0, $1.deadline) }
        do {
            let results = try await perform(tenant, entries.map(\.query), deadline)
            for (entry, result) in zip(entries, results) { entry.waiter.succeed(result) }
        } catch is PostgresError where entries.count > 1 {
            // One statement fails the transaction of all: each is tried on its own.
            for entry in entries where entry.waiter.isPending { await runAlone(entry, of: tenant) }
        } catch {
            for entry in entries { entry.waiter.fail(error) }
        }
    }

    private func runAlone(_ entry: Entry, of tenant: TenantID) async {
        do {
            let results = try await perform(tenant, [entry.query], entry.deadline)
            entry.waiter.succeed(results[0])
        } catch {
            entry.waiter.fail(error)
        }
    }
}
