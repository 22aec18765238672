import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCRedis
import HCTesting
import Synchronization

@testable import HCTenancy

/// Runs `body` so many times at once, and waits for all.
@LoopActor func concurrently<Value: Sendable>(
    _ count: Int, _ body: @escaping @LoopActor (Int) async throws -> Value
) async throws -> [Value] {
    let tasks = (0..<count).map { number in
        Loop.shared.makeTask { try await body(number) }
    }
    var values: [Value] = []
    for task in tasks { values.append(try await task.value) }
    return values
}

/// A control database, two shards and three clinics of a test's own, and what a worker has to serve them:
/// `sunrise` and `hillview` on the first shard, `lakeside` on the second.
@LoopActor
final class LivePlatform {
    nonisolated static let sunrise = TenantID(
        UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000a))
    nonisolated static let lakeside = TenantID(
        UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000b))
    nonisolated static let hillview = TenantID(
        UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_000c))

    nonisolated let ground: Ground
    /// While set, nobody finds the control database.
    nonisolated let controlIsDown: Flag
    let registry = MetricsRegistry()
    let metrics: TenancyMetrics
    let directory: DirectoryFollower
    let shards: ShardPools
    let redis: RedisClient?
    let door: TenantDoor

    nonisolated final class Flag: Sendable {
        private let value = Atomic<Bool>(false)
        var isSet: Bool { value.load(ordering: .relaxed) }
        func set(_ new: Bool) { value.store(new, ordering: .relaxed) }
    }

    nonisolated final class Databases: Sendable {
        let control: ControlDatabase
        let first: ShardDatabase
        let second: ShardDatabase

        init(_ services: LocalServices) throws {
            control = try services.makeControlDatabase()
            first = try services.makeShardDatabase(beside: "s1")
            second = try services.makeShardDatabase(beside: "s1")
        }

        /// Those that are to be dropped. Dropping blocks, and the server waits for sessions that are just
        /// being opened by the loop: so it must not happen on the loop's thread.
        static let forsaken = Mutex<[Databases]>([])
    }

    /// What all workers of one platform share.
    nonisolated final class Ground: Sendable {
        let services: LocalServices
        let master: MasterKey
        private let databases: Mutex<Databases?>

        init(_ services: LocalServices) throws {
            self.services = services
            master = try Sample.master()
            databases = Mutex(try Databases(services))
        }

        private var present: Databases {
            databases.withLock { databases in
                guard let databases else { preconditionFailure("dropped with the ground only") }
                return databases
            }
        }
        var control: ControlDatabase { present.control }
        var first: ShardDatabase { present.first }
        var second: ShardDatabase { present.second }

        deinit {
            databases.withLock { databases in
                Databases.forsaken.withLock { forsaken in
                    if let last = databases.take() { forsaken.append(last) }
                }
            }
            Task.detached {
                let last = Databases.forsaken.withLock { $0.popLast() }
                withExtendedLifetime(last) {}
            }
        }
    }

    static func makeGround(_ services: LocalServices? = nil) async throws -> Ground {
        try await offLoop {
            let ground = try Ground(services ?? LocalServices.shared())
            try populate(ground)
            return ground
        }
    }

    static func make(
        _ ground: Ground? = nil, file: String? = nil, redis: RedisClient? = nil,
        events: EventFeedSetup? = nil, copies: CoherenceSetup? = nil,
        cache: CacheSetup = CacheSetup(), load: Bool = true,
        prepare: (inout ShardPoolConfiguration) -> Void = { _ in }
    ) async throws -> LivePlatform {
        let ground = if let ground { ground } else { try await makeGround() }
        let platform = LivePlatform(
            ground, file: file, redis: redis, events: events, copies: copies, cache: cache,
            prepare: prepare)
        if load {
            _ = try await platform.directory.load(deadline: platform.deadline)
        }
        return platform
    }

    private init(
        _ ground: Ground, file: String?, redis: RedisClient?, events: EventFeedSetup?,
        copies: CoherenceSetup?, cache: CacheSetup, prepare: (inout ShardPoolConfiguration) -> Void
    ) {
        self.ground = ground
        metrics = TenancyMetrics(registry)
        self.redis = redis
        let down = Flag()
        controlIsDown = down
        let router = Sensitive("\(ground.control.router)")
        directory = DirectoryFollower(
            DirectoryConfiguration(applicationName: "tenancy-test", file: file) {
                down.isSet ? Sensitive("host=/nonexistent dbname=none user=none") : router
            }, clocks: .system, logger: .silent, metrics: metrics, blocking: fixtureThreads)
        let conninfos = [
            "first": Sensitive("\(ground.first.app)"),
            "second": Sensitive("\(ground.second.app)"),
        ]
        var configuration = ShardPoolConfiguration(
            applicationName: "tenancy-test",
            pools: PlatformConfiguration.Pools(
                shardConnectionsMax: 4, shardConnectionsMin: 0, shardQueueMax: 1000,
                idleTimeout: .seconds(60), shardReserve: 0, instances: 1)
        ) { reference in
            guard let conninfo = conninfos[reference] else { throw FixtureError("no such shard") }
            return conninfo
        }
        prepare(&configuration)
        configuration.metrics = configuration.metrics ?? registry
        shards = ShardPools(configuration, logger: .silent, metrics: metrics)
        door = TenantDoor(
            directory: directory, shards: shards, redis: redis, master: ground.master, processes: 2,
            clocks: .system, logger: .silent, metrics: metrics, events: events,
            copies: copies, cache: cache)
    }

    nonisolated var services: LocalServices { ground.services }
    nonisolated var control: ControlDatabase { ground.control }
    nonisolated var first: ShardDatabase { ground.first }
    nonisolated var second: ShardDatabase { ground.second }

    /// Generous: a test that needs it has failed.
    var deadline: Deadline { .after(.seconds(30), from: Loop.now) }

    func context(_ tenant: TenantID) throws -> TenantContext { try door.context(tenant: tenant) }

    @discardableResult
    func psql(_ conninfo: Conninfo, _ sql: String) async throws -> String {
        let services = services
        return try await offLoop { try services.psql(conninfo, sql) }
    }

    // MARK: What is there

    nonisolated private static func populate(_ ground: Ground) throws {
        let services = ground.services
        func identity(_ shard: ShardDatabase) throws -> String {
            try services.psql(
                shard.superuser,
                """
                SELECT quote_literal(system_identifier::text) || ', ' || timeline_id || ', '
                    || (SELECT oid FROM pg_database WHERE datname = current_database())
                FROM pg_control_system(), pg_control_checkpoint()
                """)
        }
        var sql = """
            INSERT INTO tier (name, definition) VALUES
                ('basic', '{"name":"basic","unitsPerSecond":50,"burstUnits":1000}');
            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name) VALUES
                ('s1', 'first', \(try identity(ground.first)), 'first'),
                ('s2', 'second', \(try identity(ground.second)), 'second');

            """
        for (tenant, slug, shard) in [
            (sunrise, "sunrise", "s1"), (hillview, "hillview", "s1"), (lakeside, "lakeside", "s2"),
        ] {
            sql += """
                INSERT INTO tenant (id, slug, name, tier, state)
                VALUES ('\(tenant)', '\(slug)', '\(slug)', 'basic', 'active');
                INSERT INTO placement (tenant_id, shard_id, state) VALUES ('\(tenant)', '\(shard)', 'serving');
                INSERT INTO domain (host, tenant_id, kind, verified_at)
                VALUES ('\(slug).localhost', '\(tenant)', 'platform', now());

                """
            for key in try WrappedKey.makeSet(for: tenant, master: ground.master) {
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
        try services.psql(ground.control.admin, sql)
        try services.psql(
            ground.first.owner,
            "INSERT INTO hc_tenant VALUES ('\(sunrise)', 1, 'rw'), ('\(hillview)', 1, 'rw')")
        try services.psql(
            ground.second.owner, "INSERT INTO hc_tenant VALUES ('\(lakeside)', 1, 'rw')")
    }

    /// Moves `sunrise` to the second shard, as a mover would, without its rows.
    func moveSunrise() async throws {
        try await psql(
            first.owner,
            """
            UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(Self.sunrise)';
            UPDATE hc_tenant SET state = 'fenced' WHERE tenant_id = '\(Self.sunrise)';
            UPDATE hc_tenant SET state = 'handover' WHERE tenant_id = '\(Self.sunrise)';
            """)
        try await psql(
            control.admin, "SELECT placement_swap('\(Self.sunrise)', 1, 'serving', 's2', 'serving')"
        )
        try await psql(second.owner, "INSERT INTO hc_tenant VALUES ('\(Self.sunrise)', 2, 'rw')")
        try await psql(
            first.owner,
            """
            UPDATE hc_tenant SET state = 'moved', epoch = 2, moved_to = 's2'
            WHERE tenant_id = '\(Self.sunrise)'
            """)
    }

    // MARK: Statements

    static func event(_ action: StaticString = "read") -> AuditEvent {
        AuditEvent(actor: .system, action: action, entity: "patient", requestID: "test-1")
    }

    static func addPractitioner(
        _ name: String, id: UUID = .v7(at: Clocks.system.now()), to tenant: TenantID
    ) -> Query {
        Query(
            "INSERT INTO practitioner (tenant_id, id, name) VALUES ($1, $2, $3)",
            [.id(tenant), .uuid(id), .text(name)])
    }

    /// Without a tenant predicate, on purpose.
    static let allPractitioners = Query("SELECT name FROM practitioner ORDER BY name")

    func names(_ tenant: TenantID) async throws -> [String] {
        let results = try await context(tenant).read([Self.allPractitioners], deadline: deadline)
        return try results[0].rows.map { try $0.text(0) }
    }
}

extension UUID {
    static func v7(at time: Timestamp) -> UUID {
        var random = SystemRandom()
        return v7(at: time, using: &random)
    }
}
