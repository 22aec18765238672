package import HCCore
package import HCIO
package import HCPostgres

package struct ShardPoolConfiguration: Sendable {
    /// Connection string for a shard's reference, read for every pool.
    package var conninfo: @Sendable (_ reference: String) throws -> Sensitive<String>
    package var applicationName: String
    package var pools: PlatformConfiguration.Pools
    /// How replicas are read from.
    package var replicas = PlatformConfiguration.Replicas()
    package var connectTimeout = Duration.seconds(3)
    /// Which schemas of shards this program works with.
    package var schemas = SchemaRange.shard
    /// Where the pools report.
    package var metrics: MetricsRegistry?

    package init(
        applicationName: String, pools: PlatformConfiguration.Pools,
        conninfo: @escaping @Sendable (_ reference: String) throws -> Sensitive<String>
    ) {
        self.applicationName = applicationName
        self.pools = pools
        self.conninfo = conninfo
    }
}

/// One pool of connections per shard, opened when its first clinic is served, closed when the shard is gone
/// from the map or has become another database.
///
/// A connection is used only if the server proves to be the shard: a restored, cloned or promoted server does
/// not know the latest fence, and would let in writes of a clinic that has moved away.
@LoopActor
package final class ShardPools {
    /// The map names a shard that it does not list.
    enum Refusal: Error, Equatable {
        case shardUnknown
    }

    /// For the work under way on a pool that is closed.
    private static let drainTimeout = Duration.seconds(30)

    private struct Entry {
        var record: ShardRecord
        var pool: ShardPool
    }

    private let configuration: ShardPoolConfiguration
    private let logger: Logger
    private let metrics: TenancyMetrics
    /// Which of the shards this program can serve.
    package let schemas: ShardSchemas
    private var records: [ShardID: ShardRecord] = [:]
    private var entries: [ShardID: Entry] = [:]
    /// Of shards that have replicas, from the first read on that one may answer.
    private var readers: [ShardID: ReplicaReader] = [:]
    private var uses: [ShardID: TenantUse] = [:]

    /// Clinics of a shard that metrics name.
    private static let namedMax = 32

    package init(
        _ configuration: ShardPoolConfiguration, logger: Logger, metrics: TenancyMetrics
    ) {
        self.configuration = configuration
        self.logger = logger
        self.metrics = metrics
        schemas = ShardSchemas(
            range: configuration.schemas, logger: logger,
            registry: configuration.metrics ?? .unread)
        schemas.open = { [weak self] in self.map { Set($0.entries.keys) } ?? [] }
        schemas.look = { [weak self] shard, deadline in
            guard let self else { throw CancellationError() }
            return try await pool(of: shard).withConnection(
                for: ShardPools.platform, ShardPools.platformTier, deadline: deadline
            ) { connection in
                try await SchemaState(of: connection, deadline: deadline)
            }
        }
    }

    /// Shards with a pool now.
    package var openCount: Int { entries.count }

    /// Takes the shards of a new map: pools of shards that are gone, or are another database now, are closed.
    func follow(_ map: DirectorySnapshot) {
        records = Dictionary(
            map.shardRecords.map { ($0.id, $0) }, uniquingKeysWith: { _, new in new })
        schemas.follow(map.shardRecords)
        for (id, entry) in entries {
            let now = records[id]
            if let now, now.reference == entry.record.reference,
                now.identity == entry.record.identity
            {
                continue
            }
            entries[id] = nil
            logger.notice("a shard's pool is closed", [("shard", .string(id.text))])
            let pool = entry.pool
            let limit = Deadline.after(ShardPools.drainTimeout, from: Loop.now)
            Loop.shared.spawn { await pool.shutDown(deadline: limit) }
        }
        for (id, reader) in readers {
            // Positions of another server's log mean nothing.
            if let now = records[id], now.reference == reader.shard.reference,
                now.identity == reader.shard.identity, !now.replicas.isEmpty
            {
                reader.follow(now.replicas)
                continue
            }
            readers[id] = nil
            let limit = Deadline.after(ShardPools.drainTimeout, from: Loop.now)
            Loop.shared.spawn { await reader.shutDown(deadline: limit) }
        }
    }

    /// What reads from the replicas of a shard; nil for one without.
    func replicas(of shard: ShardID) -> ReplicaReader? {
        if let reader = readers[shard] { return reader }
        guard let record = records[shard], !record.replicas.isEmpty else { return nil }
        let reader = ReplicaReader(
            record,
            ReplicaReader.Configuration(
                replicas: configuration.replicas, pools: configuration.pools,
                applicationName: configuration.applicationName,
                connectTimeout: configuration.connectTimeout, conninfo: configuration.conninfo,
                registry: configuration.metrics ?? .unread),
            logger: logger, metrics: metrics)
        readers[shard] = reader
        return reader
    }

    var lagMax: Duration { configuration.replicas.lagMax }

    private(set) lazy var marksLost = (configuration.metrics ?? .unread).counter(
        "hc_replica_marks_lost_total",
        "Writes of which Redis could not be told, for their sessions' reads of replicas")

    /// The log of this shard, as positions in it are told; nil for one without replicas, where nobody needs any.
    func log(of shard: ShardID) -> ShardIdentity? {
        guard let record = records[shard], !record.replicas.isEmpty else { return nil }
        return record.identity
    }

    /// Runs `body` on a connection to the shard when it is the clinic's turn: see `ShardPool`.
    ///
    /// - Throws: also `TenancyError.schemaUnsupported`.
    func withConnection<Value>(
        to shard: ShardID, for tenant: TenantID, _ tier: TierDefinition, isUrgent: Bool = false,
        deadline: Deadline, _ body: @LoopActor (PostgresConnection) async throws -> Value
    ) async throws -> Value {
        try schemas.requireServed(shard)
        return try await pool(of: shard).withConnection(
            for: tenant, tier, isUrgent: isUrgent, deadline: deadline
        ) { connection in
            // What the connection told when it was opened.
            try schemas.requireServed(shard)
            return try await body(connection)
        }
    }

    /// For the platform's own work on a shard, which shares its connections as a clinic of its own would.
    func withConnection<Value>(
        to shard: ShardID, deadline: Deadline,
        _ body: @LoopActor (PostgresConnection) async throws -> Value
    ) async throws -> Value {
        try await withConnection(
            to: shard, for: ShardPools.platform, ShardPools.platformTier, deadline: deadline, body)
    }

    /// "No one": never the id of a clinic.
    nonisolated static let platform = TenantID(.zero)
    private nonisolated static let platformTier = TierDefinition(
        name: "platform", weight: 4, rates: [],
        pool: TierPool(inFlightMax: 2, waitingMax: 16, queueTimeout: .seconds(5)))

    /// Clinics whose place may have changed hold nothing where they are not.
    func follow(_ changed: [TenantID], _ map: DirectorySnapshot) {
        for tenant in changed {
            let shard = map.find(tenant)?.shard
            for (id, entry) in entries where id != shard { entry.pool.forget(tenant) }
        }
    }

    /// Adds what the clinics use of each shard's connections: those that use most by name, the others together.
    ///
    /// - Parameter name: of a clinic; nil for one that is not known any more.
    func append(to snapshot: inout MetricsSnapshot, name: (TenantID) -> String?) {
        uses = uses.filter { entries[$0.key] != nil }
        for (shard, entry) in entries {
            var views: [ShardPool.Queue.FlowView] = []
            let forgotten = entry.pool.forEachTenant { views.append($0) }
            let lines = uses[shard, default: TenantUse(namedMax: ShardPools.namedMax)].update(
                views, forgotten: forgotten)
            for line in lines {
                let tenant =
                    switch line.tenant {
                    case nil: TenantMetrics.others
                    case ShardPools.platform?: TenantMetrics.platform
                    case let tenant?: name(tenant) ?? "\(tenant)"
                    }
                TenantMetrics.append(line, shard: shard, tenant: tenant, to: &snapshot)
            }
        }
    }

    /// Shards of which something was counted for the rebalancer.
    var counted: [ShardID] {
        entries.filter { !$0.value.pool.loads.entries.isEmpty }.keys.sorted()
    }

    /// What clinics have used of a shard since the last time; the platform's own work is nobody's.
    func takeLoads(
        of shard: ShardID
    ) -> (entries: [TenantID: LoadLedger.Entry], missed: Int) {
        guard var taken = entries[shard]?.pool.takeLoads() else { return ([:], 0) }
        taken.entries[ShardPools.platform] = nil
        return taken
    }

    /// Reports what clinics use of the shards.
    package private(set) lazy var reporter = LoadReporter(
        shards: self, logger: logger, metrics: LoadMetrics(configuration.metrics ?? .unread))

    /// Refuses new work and waits for what is under way, until the deadline.
    package func shutDown(deadline: Deadline) async {
        let pools = entries.values.map(\.pool)
        let readers = readers.values
        entries = [:]
        self.readers = [:]
        records = [:]
        for reader in readers { await reader.shutDown(deadline: deadline) }
        for pool in pools { await pool.shutDown(deadline: deadline) }
    }

    private func pool(of shard: ShardID) throws(Refusal) -> ShardPool {
        if let entry = entries[shard] { return entry.pool }
        guard let record = records[shard] else { throw .shardUnknown }
        let pool = makePool(record)
        entries[shard] = Entry(record: record, pool: pool)
        pool.start()
        return pool
    }

    private func makePool(_ record: ShardRecord) -> ShardPool {
        let pools = configuration.pools
        return ShardPool(
            makeConnections(record),
            limits: ShardPool.Queue.Limits(
                connections: pools.shardConnectionsMax, waitingMax: pools.shardQueueMax),
            metrics: configuration.metrics.map { ShardQueueMetrics($0, shard: record.id.text) })
    }

    private func makeConnections(_ record: ShardRecord) -> PostgresPool {
        let (configuration, logger, metrics) = (configuration, logger, metrics)
        let (pools, schemas) = (configuration.pools, schemas)
        return PostgresPool(
            name: "shard \(record.id)",
            configuration: PoolConfiguration(
                softLimit: min(pools.shardConnectionsMin, pools.shardConnectionsMax),
                // The queue lets in no more than there are; they wait while one is being opened.
                hardLimit: pools.shardConnectionsMax, waitersMax: pools.shardConnectionsMax,
                idleTimeout: pools.idleTimeout, connectTimeout: configuration.connectTimeout),
            metrics: configuration.metrics.map { PoolMetrics($0, pool: record.id.text) },
            postgres: {
                // Read for each connection: passwords change.
                var postgres = PostgresConfiguration(
                    connectionString: try configuration.conninfo(record.reference),
                    applicationName: configuration.applicationName)
                // A transaction of a clinic whose tier has these needs to say nothing.
                postgres.isPooled = pools.transactionPooling
                let usual = TierTimeouts()
                postgres.statementTimeout = usual.statement
                postgres.lockTimeout = usual.lock
                postgres.idleInTransactionTimeout = usual.transaction
                return postgres
            },
            identify: { connection, deadline in
                let identity = try await ShardIdentity(of: connection, deadline: deadline)
                if identity == record.identity {
                    if pools.transactionPooling {
                        connection.serverStart = try await connection.execute(
                            Query("SELECT pg_postmaster_start_time()"), deadline: deadline
                        ).single().timestamp(0)
                    }
                    schemas.saw(
                        try await SchemaState(of: connection, deadline: deadline), of: record.id)
                    return
                }
                metrics.identityRefusals.increment()
                logger.critical(
                    "a server is not the shard that the map names: hc-admin shard reconcile",
                    [
                        ("shard", .string(record.id.text)),
                        ("expected", .string("\(record.identity)")),
                        ("found", .string(identity.map { "\($0)" } ?? "a standby")),
                    ])
                throw PostgresError(.connectFailed(.identityRefused))
            })
    }
}

extension ShardIdentity {
    /// Asks a database who it is.
    ///
    /// The timeline is the one that is written now: the control file's is that of the last checkpoint, and a
    /// server that was just promoted would pass for its predecessor.
    /// - Returns: nil for a standby, which is no shard.
    @LoopActor
    package init?(
        of connection: PostgresConnection, deadline: Deadline
    ) async throws(PostgresError) {
        try self.init(
            await connection.execute(ShardIdentity.question, deadline: deadline).single())
    }

    /// For who asks something else, too.
    package static let question = Query(
        """
        SELECT system_identifier::text,
            CASE WHEN NOT pg_is_in_recovery() THEN
                ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
            END,
            pg_database.oid::int8
        FROM pg_control_system(), pg_database WHERE datname = current_database()
        """)

    /// The answer to `question`.
    ///
    /// - Returns: nil for a standby.
    package init?(_ row: PostgresRow) throws(PostgresError) {
        guard let timeline = try row.intIfPresent(1) else { return nil }
        self.init(
            systemIdentifier: try row.text(0), timeline: timeline,
            databaseOID: Int64(try row.int(2)))
    }
}
