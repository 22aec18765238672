package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// One row of `shard`, with what is placed on it.
package struct Shard: Sendable {
    package var id: String
    package var reference: String
    package var systemIdentifier: String
    package var timeline: Int
    package var databaseOID: Int64
    package var database: String
    package var state: String
    package var weight: Int
    package var capacity: Int
    package var connectionLimit: Int
    package var schemaVersion: Int
    package var fingerprint: String
    /// Its label `region`: clinics never leave theirs. Empty: the one that has no name.
    package var region: String
    package var tenants: Int
    /// Sum of the tier weights of its clinics: what `PlacementPolicy` counts.
    package var used: Int

    package var json: JSONValue {
        [
            "id": .string(id), "dsnRef": .string(reference), "state": .string(state),
            "database": .string(database), "systemIdentifier": .string(systemIdentifier),
            "timeline": .integer(Int64(timeline)), "weight": .integer(Int64(weight)),
            "capacity": .integer(Int64(capacity)),
            "connectionLimit": .integer(Int64(connectionLimit)),
            "schemaVersion": .integer(Int64(schemaVersion)), "fingerprint": .string(fingerprint),
            "region": .string(region),
            "tenants": .integer(Int64(tenants)), "used": .integer(Int64(used)),
        ]
    }
}

/// The shards that clinics can be placed on.
@LoopActor
package struct ShardRegistry {
    package struct NewShard: Sendable {
        package var id: String
        /// Names the connection files `<secrets>/shards/<reference>.<role>.conninfo`.
        package var reference: String
        package var weight: Int
        package var capacity: Int
        package var connectionLimit: Int

        package init(
            id: String, reference: String, weight: Int, capacity: Int, connectionLimit: Int
        ) {
            self.id = id
            self.reference = reference
            self.weight = weight
            self.capacity = capacity
            self.connectionLimit = connectionLimit
        }
    }

    package enum Outcome: String, Sendable {
        case added
        case unchanged
        case wouldAdd = "would-add"
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Parameter isInUse: without those that are retired, whose servers may be gone.
    package func list(isInUse: Bool = false) async throws -> [Shard] {
        try await plane.attempt("the shards cannot be read") {
            let connection = try await plane.control()
            let rows = try await connection.execute(
                [
                    Query(
                        """
                        SELECT shard.id, dsn_ref, system_id, timeline, database_oid, database_name, state, weight, capacity,
                            connection_limit, schema_version, schema_fingerprint,
                            coalesce(labels ->> 'region', ''), placed.tenants, placed.used
                        FROM shard
                        CROSS JOIN LATERAL (
                            SELECT count(*)::int4 AS tenants,
                                coalesce(sum(coalesce((definition ->> 'weight')::int4, 1)), 0)::int4 AS used
                            FROM placement
                            JOIN tenant ON tenant.id = placement.tenant_id
                            JOIN tier ON tier.name = tenant.tier
                            WHERE placement.shard_id = shard.id AND placement.state <> 'closed'
                        ) AS placed
                        WHERE NOT $1 OR state <> 'closed'
                        ORDER BY shard.id
                        """, [.bool(isInUse)])
                ], deadline: plane.deadline)[0]
            return try rows.rows.map { row in
                Shard(
                    id: try row.text(0), reference: try row.text(1),
                    systemIdentifier: try row.text(2), timeline: try row.int(3),
                    databaseOID: Int64(try row.int(4)), database: try row.text(5),
                    state: try row.text(6), weight: try row.int(7), capacity: try row.int(8),
                    connectionLimit: try row.int(9), schemaVersion: try row.int(10),
                    fingerprint: try row.text(11), region: try row.text(12),
                    tenants: try row.int(13), used: try row.int(14))
            }
        }
    }

    /// - Throws: `ControlError` of kind `notFound`.
    package func find(_ id: String) async throws -> Shard {
        guard let shard = try await list().first(where: { $0.id == id }) else {
            throw ShardRegistry.unknown(id)
        }
        return shard
    }

    /// Registers a database as a shard: proves who it is, brings its schema up to date, checks that its roles
    /// cannot get around row-level security, and only then lists it. Given again for the same database it
    /// changes nothing.
    package func add(
        _ new: NewShard, catalog: MigrationCatalog, dryRun: Bool
    ) async throws -> (Outcome, Shard?) {
        guard ShardRegistry.isIdentifier(new.id) else {
            throw ControlError(
                .invalid, code: "bad-shard-id", "'\(new.id)' cannot be a shard's id",
                remedy:
                    "Use 1 to 31 lower-case letters, digits and hyphens, starting with a letter.")
        }
        let identity = try await ShardInspection(plane: plane).identity(reference: new.reference)
        let known = try await list()
        if let same = known.first(where: { $0.id == new.id }) {
            guard same.systemIdentifier == identity.identity.systemIdentifier,
                same.reference == new.reference
            else {
                throw ControlError(
                    .conflict, code: "shard-exists",
                    "shard \(new.id) is another database: system identifier \(same.systemIdentifier),"
                        + " reference \(same.reference)",
                    remedy: "Choose another id, or name the reference that it was added with.")
            }
            return (.unchanged, same)
        }
        guard !dryRun else { return (.wouldAdd, nil) }
        let runner = MigrationRunner(plane: plane, catalog: catalog)
        let fingerprint = try await runner.upNewShard(reference: new.reference)
        let servesFrom = try await servesFrom(reference: new.reference)
        try await ShardInspection(plane: plane).requireSound(reference: new.reference)
        try await plane.attempt("shard \(new.id) cannot be registered") {
            let connection = try await plane.control()
            do {
                _ = try await connection.execute(
                    [
                        Query(
                            """
                            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name,
                                weight, capacity, connection_limit, schema_version, schema_fingerprint,
                                schema_serves_from)
                            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                            """,
                            [
                                .text(new.id), .text(new.reference),
                                .text(identity.identity.systemIdentifier),
                                .int4(Int32(identity.identity.timeline)),
                                .int8(identity.identity.databaseOID),
                                .text(identity.database), .int4(Int32(new.weight)),
                                .int4(Int32(new.capacity)), .int4(Int32(new.connectionLimit)),
                                .int4(Int32(catalog.shard.count)), .text(fingerprint),
                                .int4(Int32(servesFrom)),
                            ]),
                        plane.audit("shard.add", subject: new.id),
                    ], deadline: plane.deadline)
            } catch let error as PostgresError where error.sqlstate == .uniqueViolation {
                throw ControlError(
                    .conflict, code: "shard-exists",
                    "the database of '\(new.reference)' is registered as a shard already",
                    remedy: "See 'hc-admin shard list'.")
            }
        }
        return (.added, try await find(new.id))
    }

    /// Writes down what the ledger of a shard says; the feed of the directory tells all processes.
    func recordSchema(id: String, version: Int, fingerprint: String) async throws {
        let reference = try await plane.attempt("the shard cannot be read") {
            try await plane.control().execute(
                Query("SELECT dsn_ref FROM shard WHERE id = $1", [.text(id)]),
                deadline: plane.deadline
            ).singleIfPresent()?.text(0)
        }
        guard let reference else { throw ShardRegistry.unknown(id) }
        let servesFrom = try await servesFrom(reference: reference)
        try await plane.attempt("the schema of shard \(id) cannot be recorded") {
            _ = try await plane.control().execute(
                ShardRegistry.record(
                    id: id, version: version, fingerprint: fingerprint, servesFrom: servesFrom),
                deadline: plane.deadline)
        }
    }

    /// - Parameter run: of a line in the history of migrations, which says by now that it is done: if it does not, somebody
    ///   has taken the run over, who knows more.
    static func record(
        id: String, version: Int, fingerprint: String, servesFrom: Int, run: UUID? = nil
    ) -> Query {
        Query(
            """
            UPDATE shard SET schema_version = $2, schema_fingerprint = $3, schema_serves_from = $4,
                updated_at = now()
            WHERE id = $1
                AND (schema_version, schema_fingerprint, schema_serves_from)
                    IS DISTINCT FROM ($2, $3, $4)
                AND ($5::uuid IS NULL
                    OR EXISTS (SELECT FROM migration_run WHERE migration_run.id = $5 AND migration_run.state = 'done'))
            """,
            [
                .text(id), .int4(Int32(version)), .text(fingerprint), .int4(Int32(servesFrom)),
                run.map { .uuid($0) } ?? .null,
            ])
    }

    private func servesFrom(reference: String) async throws -> Int {
        try await plane.attempt("the ledger of shard \(reference) cannot be read") {
            try await SchemaState(
                of: plane.shard(reference: reference, .owner), deadline: plane.deadline
            ).servesFrom
        }
    }

    static func unknown(_ id: String) -> ControlError {
        ControlError(
            .notFound, code: "shard-unknown", "there is no shard '\(id)'",
            remedy: "See 'hc-admin shard list'.")
    }

    nonisolated static func isIdentifier(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...31).contains(bytes.count), (0x61...0x7A).contains(bytes[0]) else { return false }
        return bytes.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
        }
    }
}
