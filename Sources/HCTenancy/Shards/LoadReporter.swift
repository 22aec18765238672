import HCCore
package import HCIO
import HCPostgres

/// Adds what this process' clinics have used to `hc_load` of their shards, once a minute, one statement for each
/// shard. For the rebalancer (`admin/rebalancing.md`).
///
/// On the shard and not in the control database: servers do not write there, a shard has few clinics and few
/// processes that serve them, and the sum of all minutes would be the busiest thing that the control database does.
/// No request waits for it. What cannot be added is lost: a minute of a sum of which averages are made.
@LoopActor
package final class LoadReporter: Service {
    private let shards: ShardPools
    private let logger: Logger
    private let metrics: LoadMetrics
    private var random = SystemRandomNumberGenerator()

    private static let interval = Duration.seconds(60)
    private static let timeout = Duration.seconds(10)

    init(shards: ShardPools, logger: Logger, metrics: LoadMetrics) {
        self.shards = shards
        self.logger = logger
        self.metrics = metrics
    }

    package var serviceName: String { "load reporter" }

    package func run() async throws {
        while !Task.isCancelled {
            // Never all processes at once.
            let jitter = Double.random(in: 0.8...1.2, using: &random)
            try await Loop.shared.sleep(for: LoadReporter.interval * jitter)
            for shard in shards.counted {
                // One that is slow holds up no other.
                Loop.shared.spawn { await self.report(shard) }
            }
        }
    }

    /// Reports everything that was counted, and waits for it.
    package func report() async {
        for shard in shards.counted { await report(shard) }
    }

    private func report(_ shard: ShardID) async {
        let (entries, missed) = shards.takeLoads(of: shard)
        metrics.lost.increment(by: missed)
        guard !entries.isEmpty else { return }
        let deadline = Deadline.after(LoadReporter.timeout, from: Loop.now)
        let query = LoadReporter.add(entries)
        do {
            _ = try await shards.withConnection(to: shard, deadline: deadline) { connection in
                try await connection.execute([query], deadline: deadline)
            }
            metrics.reported.increment(by: entries.count)
        } catch {
            metrics.lost.increment(by: entries.count)
            logger.warning(
                "what clinics used was not reported",
                [
                    ("shard", .string(shard.text)), ("clinics", .integer(Int64(entries.count))),
                    ("reason", .string("\(error)")),
                ])
        }
    }

    nonisolated static func add(_ entries: [TenantID: LoadLedger.Entry]) -> Query {
        let lines = entries.sorted { $0.key < $1.key }
        func microseconds(_ time: (LoadLedger.Entry) -> Duration) -> PostgresValue {
            .int8s(lines.map { Int64(max(0, time($0.value) / .microseconds(1))) })
        }
        return Query(
            "SELECT hc_load_add($1, $2, $3, $4, $5)",
            [
                .uuids(lines.map(\.key.uuid)), microseconds(\.work.time), microseconds(\.pool),
                .int8s(lines.map { Int64($0.value.work.rows) }),
                .int8s(lines.map { Int64($0.value.work.rowsChanged) }),
            ])
    }
}

/// Of the reporter.
struct LoadMetrics {
    let reported: Counter
    let lost: Counter

    init(_ registry: MetricsRegistry) {
        reported = registry.counter(
            "hc_load_reported_total", "Minutes of clinics that were added to hc_load of a shard")
        lost = registry.counter(
            "hc_load_lost_total",
            "Minutes of clinics that could not be added to hc_load, and are lost")
    }
}
