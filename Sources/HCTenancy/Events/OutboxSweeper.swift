import HCCore
package import HCIO
import HCPostgres
import HCRedis

/// Publishes what was committed and left behind: by a process that died before it could, while Redis was away, or
/// by programs that do not publish (`hc-admin`).
///
/// Of all processes one sweeps a shard in a given interval (a key in Redis says which; without Redis there is nothing
/// to publish to). Should two sweep at once, the rows of a batch are locked, and the stream takes no id twice: a row
/// may be sent again, never lost. `hc-jobs` can take this over by running the service in place of the workers.
@LoopActor
package final class OutboxSweeper: Service {
    private let door: TenantDoor
    private let stream: EventStream
    private let limits: EventLimits
    private let metrics: EventMetrics
    private var random = SystemRandomNumberGenerator()
    /// What the last sweep of each shard found.
    private var found: [ShardID: Backlog] = [:]
    /// Shards that are being swept here: one that is slow holds up no other.
    private var sweeping: Set<ShardID> = []

    init(door: TenantDoor, stream: EventStream, limits: EventLimits, metrics: EventMetrics) {
        self.door = door
        self.stream = stream
        self.limits = limits
        self.metrics = metrics
    }

    package var serviceName: String { "outbox sweeper" }

    package func run() async throws {
        while !Task.isCancelled {
            // Never at the same time as the others: whoever comes first has the turn.
            let jitter = Double.random(in: 0.8...1.2, using: &random)
            try await Loop.shared.sleep(for: limits.sweepInterval * jitter)
            for shard in door.directory.snapshot?.shardRecords.map(\.id) ?? [] {
                Loop.shared.spawn { await self.look(at: shard) }
            }
        }
    }

    /// Sweeps every shard whose turn is free, and waits for it.
    func sweep() async {
        for shard in door.directory.snapshot?.shardRecords.map(\.id) ?? [] {
            await look(at: shard)
        }
    }

    private func look(at shard: ShardID) async {
        guard stream.redis.state == .ready, sweeping.insert(shard).inserted else { return }
        defer { sweeping.remove(shard) }
        found[shard] = nil
        if await takeTurn(shard) {
            do {
                found[shard] = try await sweep(shard)
            } catch {
                door.logger.warning(
                    "the outbox of a shard was not swept",
                    [("shard", .string(shard.text)), ("reason", .string("\(error)"))])
            }
        }
        metrics.backlog.set(found.values.reduce(0) { $0 + $1.rows })
        metrics.backlogAge.set((found.values.map(\.age).max() ?? .zero) / .seconds(1))
    }

    private struct Backlog {
        var rows = 0
        var age = Duration.zero
    }

    private func takeTurn(_ shard: ShardID) async -> Bool {
        do throws(RedisError) {
            return try await stream.redis.send(
                [
                    "SET", .text("\(shard):events:sweeper"), "1", "NX", "PX",
                    .integer((limits.sweepInterval * 0.75).inMilliseconds),
                ], deadline: .after(limits.redisTimeout, from: Loop.now)
            ).isOK
        } catch {
            return false
        }
    }

    // MARK: One shard

    /// Says how much there was, and publishes it.
    private func sweep(_ shard: ShardID) async throws -> Backlog {
        let deadline = Deadline.after(limits.sweepTimeout, from: Loop.now)
        let query = OutboxRows.backlog(age: limits.sweepAge, limit: limits.sweepRowsMax)
        let rows = try await door.shards.withConnection(to: shard, deadline: deadline) {
            connection in
            try await connection.execute([query], deadline: deadline)
        }[0].rows
        var found = Backlog()
        let now = door.clocks.now()
        for row in rows {
            found.rows += try row.int(1)
            found.age = max(found.age, now - (try row.timestamp(2)))
            await sweep(TenantID(try row.uuid(0)))
        }
        return found
    }

    /// A clinic that is suspended, on its way or gone is not named by the shard and keeps its rows until it is served again, here or elsewhere.
    private func sweep(_ tenant: TenantID) async {
        for _ in 0..<limits.sweepBatchesMax {
            do {
                let context = try door.context(tenant: tenant)
                let count = try await publishBatch(
                    context, deadline: .after(limits.sweepTimeout, from: Loop.now))
                guard count == limits.sweepBatchMax else { return }
            } catch {
                door.logger.debug(
                    "a clinic's outbox was not swept",
                    [("tenant", .identifier(tenant)), ("reason", .string("\(error)"))])
                return
            }
        }
    }

    /// Locks late rows, publishes and deletes them. The body may run again: what was published is then known.
    private func publishBatch(
        _ context: TenantContext, deadline: Deadline
    ) async throws -> Int {
        let count = try await context.transaction(.write, deadline: deadline) { transaction in
            let late = try await transaction.execute([
                OutboxRows.withoutFlush,
                OutboxRows.lockLate(
                    tenant: context.id, age: self.limits.sweepAge, limit: self.limits.sweepBatchMax
                ),
            ])[1]
            let rows = try late.rows.map { try OutboxRow($0) }
            guard !rows.isEmpty else { return 0 }
            try await self.publish(rows, of: context.id)
            _ = try await transaction.execute(
                OutboxRows.delete(rows.map(\.id), tenant: context.id))
            return rows.count
        }
        metrics.swept.increment(by: count)
        return count
    }

    private func publish(_ rows: [OutboxRow], of tenant: TenantID) async throws {
        guard let record = door.directory.snapshot?.find(tenant) else {
            throw TenancyError.tenantUnknown
        }
        let events = rows.filter(\.isEvent)
        for start in stride(from: 0, to: events.count, by: limits.publishBatchMax) {
            let batch = Array(events[start..<min(start + limits.publishBatchMax, events.count)])
            let added = try await stream.publish(
                batch, of: record, deadline: .after(limits.redisTimeout, from: Loop.now))
            metrics.published.increment(by: added)
            metrics.repeated.increment(by: batch.count - added)
            let now = door.clocks.now()
            for row in batch { metrics.publishLag.observe(now - row.at) }
        }
    }
}
