import HCCore
import HCIO
import HCPostgres
import HCRedis

/// Publishes what this process has just committed, and deletes the published rows later, many at once.
///
/// It promises nothing: what does not go out at once stays in the outbox for the sweeper. So no request waits for it,
/// and it keeps no more than `waitingMax` messages.
@LoopActor
final class OutboxRelay {
    private let stream: EventStream
    private let limits: EventLimits
    private let clocks: Clocks
    private let metrics: EventMetrics
    /// The newest record of a clinic, nil when it is served no more.
    private let find: @LoopActor (TenantID) -> TenantRecord?
    private let delete: @LoopActor (TenantRecord, [Query], Deadline) async throws -> Void

    private var waiting: [TenantID: [OutboxRow]] = [:]
    private var waitingCount = 0
    private var publishing: Set<TenantID> = []
    private var flushIsDue = false
    private var published: [TenantID: [UUID]] = [:]
    private var publishedCount = 0
    private var forgetTimer: Timer?
    /// Shards on which rows are being deleted: one that is slow holds up no other.
    private var forgetting: Set<ShardID> = []

    init(
        stream: EventStream, limits: EventLimits, clocks: Clocks, metrics: EventMetrics,
        find: @escaping @LoopActor (TenantID) -> TenantRecord?,
        delete: @escaping @LoopActor (TenantRecord, [Query], Deadline) async throws -> Void
    ) {
        self.stream = stream
        self.limits = limits
        self.clocks = clocks
        self.metrics = metrics
        self.find = find
        self.delete = delete
    }

    /// These rows are committed.
    func committed(_ rows: [OutboxRow], of tenant: TenantID) {
        guard !rows.isEmpty else { return }
        do throws(FaultPointFailure) {
            try FaultPoint.reach("events.after-commit")
        } catch {
            return leave(rows.count)
        }
        guard stream.redis.state == .ready, waitingCount + rows.count <= limits.waitingMax else {
            return leave(rows.count)
        }
        waiting[tenant, default: []] += rows
        waitingCount += rows.count
        guard !flushIsDue else { return }
        flushIsDue = true
        // What else is committed in this tick of the loop goes along.
        Loop.shared.atEndOfTick { [self] in
            flushIsDue = false
            for tenant in waiting.keys where publishing.insert(tenant).inserted {
                Loop.shared.spawn { await self.publish(tenant) }
            }
        }
    }

    private func leave(_ count: Int) {
        metrics.publishFailures.increment(by: count)
    }

    // MARK: Publishing

    /// One after the other for a clinic, so that its events stay in the order of their commits here.
    private func publish(_ tenant: TenantID) async {
        defer { publishing.remove(tenant) }
        while let rows = take(tenant) {
            guard let record = find(tenant) else {
                leave(rows.count)
                continue
            }
            let events = rows.filter(\.isEvent)
            do throws(RedisError) {
                if !events.isEmpty {
                    let added = try await stream.publish(
                        events, of: record,
                        deadline: .after(limits.redisTimeout, from: Loop.now))
                    metrics.published.increment(by: added)
                    metrics.repeated.increment(by: events.count - added)
                    let now = clocks.now()
                    for row in events { metrics.publishLag.observe(now - row.at) }
                }
                published(rows.map(\.id), of: tenant)
            } catch {
                leave(rows.count)
            }
        }
    }

    private func take(_ tenant: TenantID) -> [OutboxRow]? {
        guard let rows = waiting[tenant] else { return nil }
        let batch = Array(rows.prefix(limits.publishBatchMax))
        let rest = Array(rows.dropFirst(batch.count))
        waiting[tenant] = rest.isEmpty ? nil : rest
        waitingCount -= batch.count
        return batch
    }

    // MARK: Forgetting

    private func published(_ ids: [UUID], of tenant: TenantID) {
        guard publishedCount + ids.count <= limits.forgetWaitingMax else { return }
        published[tenant, default: []] += ids
        publishedCount += ids.count
        scheduleForgetting()
    }

    private func scheduleForgetting() {
        guard forgetTimer == nil else { return }
        forgetTimer = Loop.shared.schedule(after: limits.forgetInterval) { [weak self] in
            guard let self else { return }
            forgetTimer = nil
            forget()
        }
    }

    /// One task per shard at a time.
    private func forget() {
        var due: [ShardID: [(TenantRecord, [UUID])]] = [:]
        for (tenant, ids) in published {
            guard let record = find(tenant) else {
                drop(tenant)
                continue
            }
            guard !forgetting.contains(record.shard) else { continue }
            due[record.shard, default: []].append((record, ids))
            drop(tenant)
        }
        for (shard, work) in due {
            forgetting.insert(shard)
            Loop.shared.spawn { [self] in
                for (record, ids) in work { await forget(ids, of: record) }
                forgetting.remove(shard)
                if !published.isEmpty { scheduleForgetting() }
            }
        }
    }

    private func drop(_ tenant: TenantID) {
        publishedCount -= published.removeValue(forKey: tenant)?.count ?? 0
    }

    /// A failure is no matter: the sweeper finds the rows, and Redis knows that it has them.
    private func forget(_ ids: [UUID], of record: TenantRecord) async {
        for start in stride(from: 0, to: ids.count, by: limits.forgetBatchMax) {
            let batch = Array(ids[start..<min(start + limits.forgetBatchMax, ids.count)])
            do {
                try await delete(
                    record, [OutboxRows.withoutFlush, OutboxRows.delete(batch, tenant: record.id)],
                    .after(limits.forgetTimeout, from: Loop.now))
            } catch {
                return
            }
        }
    }
}
