import HCCore
import HCIO

/// Commits the audit rows of reads in groups: while one commit of a clinic is under way, the rows of its other
/// reads gather and are committed together next, in one INSERT and one flush of the log.
///
/// A reader gets its data only after the commit with its row: what was seen is recorded, or was not seen. When
/// the commit fails, so do the reads (fail closed). A row that was sent when the connection was lost is sent
/// again: it has its id, and is stored once.
///
/// In a read-only clinic rows are still added (`hc_enter` mode `a`). While a clinic is drained or fenced for a
/// move they are refused like writes, since the target would never see them: the reads wait for the few
/// milliseconds of the hand-over and their rows are stored on the shard that serves the clinic then.
@LoopActor
final class AuditCommitter {
    struct Limits {
        /// Reads of one clinic that wait for a commit, in one process.
        var waitingMax = 4096
        /// Rows in one commit.
        var batchMax = 512
        /// Commits of one clinic at a time: while one waits for the disk, the next is prepared.
        var underWayMax = 2
        var commitTimeout = Duration.seconds(5)

        init() {}
    }

    typealias Commit =
        @LoopActor (TenantID, [AuditRow], Deadline) async throws -> Void

    private struct Entry {
        let row: AuditRow
        let waiter: Waiter<Void>
    }

    private let limits: Limits
    private let metrics: TenancyMetrics
    private let commit: Commit
    private var queues: [TenantID: GatheringMachine<Entry>] = [:]

    init(limits: Limits = Limits(), metrics: TenancyMetrics, commit: @escaping Commit) {
        self.limits = limits
        self.metrics = metrics
        self.commit = commit
    }

    /// Clinics with a commit under way.
    var activeCount: Int { queues.count }

    /// Waits until the row is committed.
    ///
    /// - Throws: `TenancyError`: the row may be committed later, and the read must not be answered.
    func record(
        _ row: AuditRow, of tenant: TenantID, deadline: Deadline
    ) async throws(TenancyError) {
        let waiter = Waiter<Void>()
        let arrival = queues[
            tenant,
            default: GatheringMachine(
                waitingMax: limits.waitingMax, groupMax: limits.batchMax,
                underWayMax: limits.underWayMax)
        ].add(Entry(row: row, waiter: waiter))
        switch arrival {
        case .refuse:
            metrics.auditFailures.increment()
            throw .auditUnavailable(retryAfter: .seconds(1))
        case .wait: break
        case .announce:
            // What else is read in this tick of the loop joins.
            Loop.shared.atEndOfTick { self.begin(tenant) }
        }
        do {
            try await waiter.wait(until: deadline)
        } catch {
            metrics.auditFailures.increment()
            throw AuditCommitter.failure(error)
        }
    }

    private func begin(_ tenant: TenantID) {
        var goesOn = true
        while goesOn, let (entries, more) = queues[tenant]?.begin() {
            goesOn = more
            Loop.shared.spawn { [self] in
                let outcome = await commit(entries.map(\.row), of: tenant)
                for entry in entries {
                    switch outcome {
                    case .success: entry.waiter.succeed(())
                    case .failure(let error): entry.waiter.fail(error)
                    }
                }
                end(tenant)
            }
        }
    }

    private func end(_ tenant: TenantID) {
        guard let goesOn = queues[tenant]?.end() else { return }
        if goesOn { return begin(tenant) }
        if queues[tenant]?.isIdle == true { queues[tenant] = nil }
    }

    private func commit(_ rows: [AuditRow], of tenant: TenantID) async -> Result<Void, any Error> {
        do {
            try await commit(
                tenant, rows, .after(limits.commitTimeout, from: Loop.now))
            metrics.auditCommits.increment()
            metrics.auditRows.increment(by: rows.count)
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    /// A clinic's state is told as it is; for everything else the audit is what failed.
    private static func failure(_ error: any Error) -> TenancyError {
        switch error {
        case is DeadlineExceeded: return .deadlineExceeded
        case is CancellationError: return .cancelled
        case let error as TenancyError:
            switch error {
            case .suspended, .moving, .tenantUnknown, .keyUnavailable, .shardUnavailable,
                .overloaded:
                return error
            default: return .auditUnavailable(retryAfter: .seconds(1))
            }
        default: return .auditUnavailable(retryAfter: .seconds(1))
        }
    }
}
