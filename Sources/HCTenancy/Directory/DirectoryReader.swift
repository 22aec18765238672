import HCCore
import HCIO
import HCPostgres

/// What the follower asks the control database, and how it reads the answers.
@LoopActor
struct DirectoryReader {
    let connection: PostgresConnection
    let clocks: Clocks
    let logger: Logger
    private var names = Interner()

    init(connection: PostgresConnection, clocks: Clocks, logger: Logger) {
        self.connection = connection
        self.clocks = clocks
        self.logger = logger
    }

    /// Which database this is: a restored or replaced one has another counter.
    func source(deadline: Deadline) async throws(PostgresError) -> String {
        try await connection.execute(
            [
                Query(
                    """
                    SELECT system_identifier::text || '/' || pg_database.oid::text
                    FROM pg_control_system(), pg_database WHERE datname = current_database()
                    """)
            ], deadline: deadline)[0].single().text(0)
    }

    func listen(deadline: Deadline) async throws(PostgresError) {
        _ = try await connection.execute([Query("LISTEN hc_placement")], deadline: deadline)
    }

    struct News {
        /// Of the control database itself.
        var schema: SchemaState
        var feed: FollowerMachine.Feed
        /// How long ago each line was written when the query ran, by the database's clock.
        var ages: [Duration]
        /// When the answer was there.
        var readAt: MonotonicTime
    }

    /// The counter first: what it counts is committed, so the lines that follow cannot be missing.
    func news(
        after version: Int64, source: String, deadline: Deadline
    ) async throws(PostgresError) -> News {
        let results = try await connection.execute(
            [
                Query("SELECT version FROM placement_version"),
                Query(
                    """
                    SELECT version, kind, tenant_id,
                        (extract(epoch FROM clock_timestamp() - at) * 1000000)::int8
                    FROM placement_log
                    WHERE version > $1 ORDER BY version LIMIT $2
                    """, [.int8(version), .int8(Int64(FollowerMachine.linesMax))]),
                SchemaState.question,
            ], deadline: deadline)
        var lines: [FollowerMachine.Line] = []
        lines.reserveCapacity(results[1].count)
        var ages: [Duration] = []
        for row in results[1].rows {
            let subject: FollowerMachine.Line.Subject?
            switch (try row.text(1), try row.uuidIfPresent(2)) {
            case ("placement", let tenant?), ("tenant", let tenant?), ("domain", let tenant?),
                ("keys", let tenant?):
                subject = .tenant(TenantID(tenant))
            case ("tier", _): subject = .tier
            case ("shard", _): subject = .shard
            default: subject = nil
            }
            lines.append(FollowerMachine.Line(version: Int64(try row.int(0)), subject: subject))
            ages.append(.microseconds(Int64(try row.int(3))))
        }
        return News(
            schema: try SchemaState(results[2]),
            feed: FollowerMachine.Feed(
                source: source, version: Int64(try results[0].single().int(0)), lines: lines),
            ages: ages, readAt: clocks.monotonic())
    }

    /// Everything but the clinics, which follow page by page. The version is read first, so all the rest is at
    /// least as new: lines that are then read again change nothing.
    func beginning(
        source: String, deadline: Deadline
    ) async throws(PostgresError) -> DirectorySnapshot {
        let results = try await connection.execute(
            [
                Query("SELECT version FROM placement_version"), DirectoryReader.shards,
                DirectoryReader.tiers,
            ], deadline: deadline)
        return DirectorySnapshot(
            source: source, version: Int64(try results[0].single().int(0)),
            shards: try shards(results[1]), tiers: try tiers(results[2]))
    }

    struct Page {
        var tenants: [TenantRecord]
        /// Nil: it was the last page.
        var next: UUID?
    }

    /// - Parameter after: the id that the page before ended with.
    mutating func page(
        after tenant: UUID?, length: Int, deadline: Deadline
    ) async throws(PostgresError) -> Page {
        let result = try await connection.execute(
            [
                Query(
                    """
                    SELECT tenant_id, slug, name, hosts, tier, tenant_state, time_zone, locale, shard_id, epoch,
                        placement_state, keys, origins
                    FROM directory_entry WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2
                    """,
                    [
                        .uuid(tenant ?? UUID(high: 0, low: 0)),
                        .int8(Int64(length)),
                    ])
            ], deadline: deadline)[0]
        var next: UUID?
        if result.count == length {
            next = try result[result.count - 1].uuid(0)
        }
        return Page(tenants: try tenants(result), next: next)
    }

    struct Parts {
        var tenants: [TenantRecord] = []
        var shards: [ShardRecord]?
        var tiers: [TierDefinition]?
    }

    mutating func parts(
        _ reading: FollowerMachine.Reading, deadline: Deadline
    ) async throws(PostgresError) -> Parts {
        var queries: [Query] = []
        if !reading.tenants.isEmpty {
            queries.append(DirectoryReader.tenants(reading.tenants))
        }
        if reading.shards { queries.append(DirectoryReader.shards) }
        if reading.tiers { queries.append(DirectoryReader.tiers) }
        guard !queries.isEmpty else { return Parts() }
        var results = try await connection.execute(queries, deadline: deadline)[...]
        var parts = Parts()
        if !reading.tenants.isEmpty { parts.tenants = try tenants(results.removeFirst()) }
        if reading.shards { parts.shards = try shards(results.removeFirst()) }
        if reading.tiers { parts.tiers = try tiers(results.removeFirst()) }
        return parts
    }

    // MARK: Queries

    private static let shards = Query(
        """
        SELECT id, dsn_ref, state, system_id, timeline, database_oid, connection_limit, coalesce((
            SELECT jsonb_agg(jsonb_build_object('name', name, 'reference', replica.dsn_ref,
                'state', replica.state, 'weight', replica.weight))
            FROM replica WHERE shard_id = shard.id
        ), '[]'), schema_version, schema_serves_from
        FROM shard
        """)

    private static let tiers = Query("SELECT name, definition FROM tier")

    private static func tenants(_ tenants: [TenantID]) -> Query {
        Query(
            """
            SELECT tenant_id, slug, name, hosts, tier, tenant_state, time_zone, locale, shard_id, epoch,
                placement_state, keys, origins
            FROM directory_entry WHERE tenant_id = ANY ($1)
            """, [.uuids(tenants.map(\.uuid))])
    }

    // MARK: Rows

    private func shards(_ result: PostgresResult) throws(PostgresError) -> [ShardRecord] {
        var shards: [ShardRecord] = []
        for row in result.rows {
            let id = try row.text(0)
            guard let state = ShardRecord.State(rawValue: try row.text(2)) else {
                logger.error("a shard of the directory cannot be read", [("shard", .string(id))])
                continue
            }
            shards.append(
                ShardRecord(
                    id: ShardID(id), reference: try row.text(1), state: state,
                    identity: ShardIdentity(
                        systemIdentifier: try row.text(3), timeline: try row.int(4),
                        databaseOID: Int64(try row.int(5))),
                    connectionLimit: try row.int(6),
                    schema: try DirectoryReader.schema(row),
                    replicas: replicas(try row.json(7), of: id)))
        }
        return shards
    }

    /// - Returns: nil if nobody has looked at it yet.
    private static func schema(_ row: PostgresRow) throws(PostgresError) -> SchemaState? {
        let version = try row.int(8)
        return version > 0
            ? SchemaState(version: version, servesFrom: try row.int(9)) : nil
    }

    /// One that this program does not understand is not read from; the shard is served all the same.
    private func replicas(_ json: [UInt8], of shard: String) -> [ReplicaRecord] {
        let values = (try? JSONReader.parse(json))?.asArray ?? []
        let replicas = values.compactMap { ReplicaRecord(directoryJSON: $0) }
        if replicas.count != values.count {
            logger.error(
                "a replica of the directory cannot be read", [("shard", .string(shard))])
        }
        return replicas
    }

    private func tiers(_ result: PostgresResult) throws(PostgresError) -> [TierDefinition] {
        var tiers: [TierDefinition] = []
        for row in result.rows {
            let name = try row.text(0)
            let definition = try row.json(1)
            do {
                tiers.append(try TierDefinition(json: try JSONReader.parse(definition)))
            } catch {
                logger.error(
                    "a tier of the directory cannot be read",
                    [("tier", .string(name)), ("reason", .string("\(error)"))])
            }
        }
        return tiers
    }

    /// A row that this program does not understand makes one clinic unreachable, not all.
    private mutating func tenants(_ result: PostgresResult) throws(PostgresError) -> [TenantRecord]
    {
        var tenants: [TenantRecord] = []
        tenants.reserveCapacity(result.count)
        for row in result.rows {
            let id = TenantID(try row.uuid(0))
            guard let state = TenantRecord.State(rawValue: try row.text(5)),
                let placement = TenantRecord.PlacementState(rawValue: try row.text(10)),
                let hosts = DirectoryReader.strings(try row.json(3)),
                let keys = keys(try row.json(11)),
                let origins = DirectoryReader.strings(try row.json(12))
            else {
                logger.error(
                    "a clinic of the directory cannot be read", [("tenant", .identifier(id))])
                continue
            }
            tenants.append(
                TenantRecord(
                    id: id, slug: try row.text(1), name: try row.text(2), hosts: hosts,
                    tierName: names.one(try row.text(4)), state: state,
                    timeZone: names.one(try row.text(6)), locale: names.one(try row.text(7)),
                    origins: origins, shard: ShardID(names.one(try row.text(8))),
                    epoch: Int64(try row.int(9)), placement: placement, keys: keys))
        }
        return tenants
    }

    private static func strings(_ json: [UInt8]) -> [String]? {
        guard let values = (try? JSONReader.parse(json))?.asArray else { return nil }
        let strings = values.compactMap(\.asString)
        return strings.count == values.count ? strings : nil
    }

    private mutating func keys(_ json: [UInt8]) -> [WrappedKey]? {
        guard let values = (try? JSONReader.parse(json))?.asArray else { return nil }
        var keys: [WrappedKey] = []
        keys.reserveCapacity(values.count)
        for value in values {
            guard let key = WrappedKey(directoryJSON: value, &names) else { return nil }
            keys.append(key)
        }
        return keys
    }
}
