import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCRedis
import HCTesting

@testable import HCClinic
@testable import HCTenancy

/// Runs `body` so many times at once, and waits for all: what each of them returned or threw.
@LoopActor func concurrently<Value: Sendable>(
    _ count: Int, _ body: @escaping @LoopActor (Int) async throws -> Value
) async -> [Result<Value, any Error>] {
    let tasks = (0..<count).map { number in
        Loop.shared.makeTask { try await body(number) }
    }
    var results: [Result<Value, any Error>] = []
    for task in tasks { results.append(await task.result) }
    return results
}

/// A control database, one shard, many empty clinics, and what a worker has to serve them. One per test
/// process: each test takes clinics of its own.
@LoopActor
final class LiveGround {
    nonisolated static let clinicCount = 144

    nonisolated let services: LocalServices
    nonisolated let control: ControlDatabase
    nonisolated let shard: ShardDatabase
    private let directory: DirectoryFollower
    private let shards: ShardPools
    private let master: MasterKey
    let redis: RedisClient
    private let reader: RedisClient
    private let copyReader: RedisClient
    let door: TenantDoor
    private var taken = 0

    private static var making: Task<LiveGround, any Error>?

    static func shared() async throws -> LiveGround {
        if let making { return try await making.value }
        let task = Loop.shared.makeTask { try await make() }
        making = task
        return try await task.value
    }

    private static func make() async throws -> LiveGround {
        let master = try MasterKey(
            keys: [
                (id: "m1", key: SecretBytes((0..<32).map { UInt8(truncatingIfNeeded: $0 * 7 + 1) }))
            ])
        let (services, control, shard) = try await offLoop {
            let services = try LocalServices.shared()
            let control = try services.makeControlDatabase()
            let shard = try services.makeShardDatabase()
            try populate(services, control, shard, master)
            return (services, control, shard)
        }
        let ground = LiveGround(
            services, control, shard, master,
            redis: try services.redisSocket, password: try services.redisPassword)
        try await ground.redis.waitUntilReady(deadline: .after(.seconds(30), from: Loop.now))
        // As a Redis that has forgotten nothing for long: copies are used at once.
        let run = try await ground.redis.runID(
            deadline: .after(.seconds(30), from: Loop.now))
        _ = try await ground.redis.send(
            ["SET", .text(CoherenceScripts.born), .text("\(run)|0")],
            deadline: .after(.seconds(30), from: Loop.now))
        _ = try await ground.directory.load(deadline: .after(.seconds(30), from: Loop.now))
        return ground
    }

    private init(
        _ services: LocalServices, _ control: ControlDatabase, _ shard: ShardDatabase,
        _ master: MasterKey, redis socket: String, password: String
    ) {
        self.services = services
        self.control = control
        self.shard = shard
        self.master = master
        let metrics = TenancyMetrics(MetricsRegistry())
        let router = Sensitive("\(control.router)")
        directory = DirectoryFollower(
            DirectoryConfiguration(applicationName: "clinic-test", file: nil) { router },
            clocks: .system, logger: .silent, metrics: metrics, blocking: fixtureThreads)
        let conninfo = Sensitive("\(shard.app)")
        var pools = ShardPoolConfiguration(
            applicationName: "clinic-test",
            pools: PlatformConfiguration.Pools(
                shardConnectionsMax: 8, shardConnectionsMin: 0, shardQueueMax: 1000,
                idleTimeout: .seconds(60), shardReserve: 0, instances: 1)
        ) { _ in conninfo }
        // Other suites may keep the server busy with new databases.
        pools.connectTimeout = .seconds(60)
        shards = ShardPools(pools, logger: .silent, metrics: metrics)
        redis = RedisClient(
            configuration: RedisConfiguration(password: Sensitive(password)),
            connector: RedisConnectors.plain(.unix(path: socket)), logger: .silent)
        redis.start()
        reader = RedisClient(
            configuration: RedisConfiguration(password: Sensitive(password)),
            connector: RedisConnectors.plain(.unix(path: socket)), logger: .silent)
        reader.start()
        copyReader = RedisClient(
            configuration: RedisConfiguration(password: Sensitive(password)),
            connector: RedisConnectors.plain(.unix(path: socket)), logger: .silent)
        copyReader.start()
        door = TenantDoor(
            directory: directory, shards: shards, redis: redis, master: master, processes: 1,
            clocks: .system, logger: .silent, metrics: metrics,
            events: EventFeedSetup(metrics: EventMetrics(MetricsRegistry()), reader: reader),
            copies: CoherenceSetup(
                metrics: CoherenceMetrics(MetricsRegistry()), reader: copyReader))
        let (feed, coherence) = (door.events, door.coherence)
        Loop.shared.spawn {
            do { try await coherence?.run() } catch {}
        }
        Loop.shared.spawn {
            do { try await feed?.run() } catch {}
        }
    }

    /// A clinic that no other test has.
    func takeTenant() throws -> TenantContext {
        precondition(taken < LiveGround.clinicCount, "more tests than clinics")
        taken += 1
        return try door.context(tenant: LiveGround.tenant(taken))
    }

    /// Nobody comes into this clinic any more, and this process knows.
    func suspend(_ tenant: TenantID) async throws {
        let (services, control) = (services, control)
        _ = try await offLoop {
            try services.psql(
                control.admin, "UPDATE tenant SET state = 'suspended' WHERE id = '\(tenant)'")
        }
        try await directory.refresh(deadline: .after(.seconds(30), from: Loop.now))
    }

    /// A clinic as a process has it that has no Redis.
    func withoutRedis(_ tenant: TenantID) throws -> TenantContext {
        try TenantDoor(
            directory: directory, shards: shards, redis: nil, master: master, processes: 1,
            clocks: .system, logger: .silent, metrics: TenancyMetrics(MetricsRegistry())
        ).context(tenant: tenant)
    }

    nonisolated static func tenant(_ number: Int) -> TenantID {
        TenantID(UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_0000 + UInt64(number)))
    }

    nonisolated private static func populate(
        _ services: LocalServices, _ control: ControlDatabase, _ shard: ShardDatabase,
        _ master: MasterKey
    ) throws {
        let identity = try services.psql(
            shard.superuser,
            """
            SELECT quote_literal(system_identifier::text) || ', ' || timeline_id || ', '
                || (SELECT oid FROM pg_database WHERE datname = current_database())
            FROM pg_control_system(), pg_control_checkpoint()
            """)
        var sql = """
            INSERT INTO tier (name, definition) VALUES
                ('basic', '{"name":"basic","unitsPerSecond":50,"burstUnits":1000,"transactionsMax":8}');
            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name) VALUES
                ('s1', 's1', \(identity), 's1');

            """
        var fences: [String] = []
        for number in 1...clinicCount {
            let tenant = tenant(number)
            fences.append("('\(tenant)', 1, 'rw')")
            sql += """
                INSERT INTO tenant (id, slug, name, tier, state)
                VALUES ('\(tenant)', 'clinic-\(number)', 'Clinic \(number)', 'basic', 'active');
                INSERT INTO placement (tenant_id, shard_id, state) VALUES ('\(tenant)', 's1', 'serving');
                INSERT INTO domain (host, tenant_id, kind, verified_at)
                VALUES ('clinic-\(number).localhost', '\(tenant)', 'platform', now());

                """
            for key in try WrappedKey.makeSet(for: tenant, master: master) {
                sql += """
                    INSERT INTO tenant_key
                        (tenant_id, purpose, version, master_key_id, wrapping_version, wrapped)
                    VALUES ('\(tenant)', '\(key.purpose.rawValue)', \(key.version),
                        \(key.masterKeyID.map { "'\($0)'" } ?? "NULL"),
                        \(key.wrappingVersion.map { "\($0)" } ?? "NULL"),
                        decode('\(Hex.encode(key.wrapped))', 'hex'));

                    """
            }
        }
        try services.psql(control.admin, sql)
        try services.psql(
            shard.owner, "INSERT INTO hc_tenant VALUES \(fences.joined(separator: ", "))")
    }
}
