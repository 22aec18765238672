import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting

@testable import HCControl

/// Two shard databases of a test's own, and a connection of the mover to each.
@LoopActor
final class TwoShards {
    nonisolated let services: LocalServices
    nonisolated let sourceDatabase: ShardDatabase
    nonisolated let targetDatabase: ShardDatabase
    let source: PostgresConnection
    let target: PostgresConnection
    private let threads: BlockingPool

    nonisolated static let sunrise = TenantID(
        UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000a))
    nonisolated static let lakeside = TenantID(
        UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000b))

    /// - Parameters:
    ///   - sql: what both hold. `:sunrise` and `:lakeside` stand for the clinics.
    ///   - before: run by a superuser on the target before anybody connects to it.
    static func make(_ sql: String, before: String = "") async throws -> TwoShards {
        let threads = BlockingPool()
        let (services, source, target) = try await threads.run(
            deadline: .after(.seconds(120), from: Loop.now)
        ) {
            let services = try LocalServices.shared()
            let source = try services.makeShardDatabase()
            let target = try services.makeShardDatabase()
            for database in [source, target] {
                try services.psql(database.superuser, variables + sql)
            }
            try services.psql(target.superuser, variables + before)
            return (services, source, target)
        }
        return TwoShards(
            services, source, target, threads,
            try await connect(source.mover), try await connect(target.mover))
    }

    private init(
        _ services: LocalServices, _ sourceDatabase: ShardDatabase, _ targetDatabase: ShardDatabase,
        _ threads: BlockingPool, _ source: PostgresConnection, _ target: PostgresConnection
    ) {
        self.services = services
        self.sourceDatabase = sourceDatabase
        self.targetDatabase = targetDatabase
        self.threads = threads
        self.source = source
        self.target = target
    }

    nonisolated private static let variables =
        "\\set sunrise '''\(sunrise.uuid)''::uuid'\n\\set lakeside '''\(lakeside.uuid)''::uuid'\n"

    static func connect(_ conninfo: Conninfo) async throws -> PostgresConnection {
        try await PostgresConnection.connect(
            PostgresConfiguration(
                connectionString: Sensitive("\(conninfo)"), applicationName: "control-test"),
            deadline: .after(.seconds(30), from: Loop.now))
    }

    var deadline: Deadline { .after(.seconds(60), from: Loop.now) }

    func psql(_ database: ShardDatabase, _ sql: String) async throws {
        let services = services
        _ = try await threads.run(deadline: deadline) {
            try services.psql(database.superuser, Self.variables + sql)
        }
    }

    func close() {
        source.close()
        target.close()
    }

    // MARK: What the tests ask

    func plan(rowsPerChunk: Int) async throws -> TenantDigestPlan {
        try await TenantDigest.plan(
            of: Self.sunrise, source: source, target: target, rowsPerChunk: rowsPerChunk,
            deadline: deadline)
    }

    /// How many rows of a table the source has read ever since: one by one, and by its indexes.
    func readings(of table: String) async throws -> (table: Int, indexes: Int) {
        // What this session has counted so far is the others' to see when its transaction ends.
        _ = try await source.execute(
            Query("SELECT pg_stat_force_next_flush()"), deadline: deadline)
        let row = try await source.execute(
            Query(
                """
                SELECT seq_tup_read, (
                    SELECT sum(idx_tup_read)::int8 FROM pg_stat_user_indexes WHERE relname = $1)
                FROM pg_stat_user_tables WHERE relname = $1
                """, [.text(table)]), deadline: deadline
        ).single()
        return (try row.int(0), try row.int(1))
    }

    func differences(_ plan: TenantDigestPlan) async throws -> [ChunkDifference] {
        let here = try await TenantDigest(of: Self.sunrise, on: source).read(
            plan, deadline: deadline)
        let there = try await TenantDigest(of: Self.sunrise, on: target).read(
            plan, deadline: deadline)
        return plan.differences(source: here, target: there)
    }
}

/// Runs `body` with two shards of its own.
@LoopActor
func withTwoShards(
    _ sql: String, before: String = "", _ body: @LoopActor (TwoShards) async throws -> Void
) async throws {
    let shards = try await TwoShards.make(sql, before: before)
    defer { shards.close() }
    try await body(shards)
}
