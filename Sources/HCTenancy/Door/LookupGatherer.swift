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

    private final class Entry {
        let query: Query
        let deadline: Deadline
        let waiter = Waiter<PostgresResult>()
        var group: Group?

        init(_ query: Query, _ deadline: Deadline) {
            self.query = query
            self.deadline = deadline
        }
    }

    /// A transaction under way. When nobody waits for it any more it is cancelled.
    private final class Group {
        private var interested: Int
        private var task: Task<Void, Never>?

        init(interested: Int) {
            self.interested = interested
        }

        func begin(_ task: Task<Void, Never>) {
            self.task = task
            if interested == 0 { task.cancel() }
        }

        func leave() {
            interested -= 1
            if interested == 0 { task?.cancel() }
        }
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
        let entry = Entry(query, deadline)
        switch queues[tenant, default: makeQueue()].add(entry) {
        case .refuse: throw TenancyError.overloaded(retryAfter: .seconds(1))
        case .wait: break
        case .announce: Loop.shared.atEndOfTick { self.begin(tenant) }
        }
        do {
            return try await entry.waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            entry.group?.leave()
            throw TenancyError.deadlineExceeded
        } catch is CancellationError {
            entry.group?.leave()
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
            // Who gave up meanwhile is not asked for.
            let wanted = entries.filter(\.waiter.isPending)
            let group = Group(interested: wanted.count)
            for entry in wanted { entry.group = group }
            group.begin(
                Loop.shared.spawn { [self] in
                    await run(wanted, of: tenant)
                    for entry in wanted { entry.group = nil }
                    end(tenant)
                })
        }
    }

    private func end(_ tenant: TenantID) {
        guard let goesOn = queues[tenant]?.end() else { return }
        if goesOn { return begin(tenant) }
        if queues[tenant]?.isIdle == true { queues[tenant] = nil }
    }

    private func run(_ entries: [Entry], of tenant: TenantID) async {
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
