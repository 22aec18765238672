package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// What a move would do, and what it found when it looked whether it can.
package struct MovePlan: Sendable {
    package struct Table: Sendable {
        package var name: String
        package var rows: Int64
        package var bytes: Int64
    }

    package var tenant: TenantSummary
    package var source: Shard
    package var target: Shard
    package var options: MoveOptions
    /// Larger than any number that a move of this clinic has had on either shard.
    var attempt: Int64
    var sourceIdentity: JSONValue
    var targetIdentity: JSONValue
    /// Rows are counted; bytes are estimated from the tables' size.
    package var tables: [Table]
    package var warnings: [String]
    /// Clinics that are not to be on one shard with it: who decided on the target says so.
    var apart: [TenantID] = []
    /// It goes there though some of them are there: the audit has who.
    var ignoresGroup = false

    package var rows: Int64 { tables.reduce(0) { $0 + $1.rows } }
    package var bytes: Int64 { tables.reduce(0) { $0 + $1.bytes } }

    package var json: JSONValue {
        [
            "rows": .integer(rows), "bytes": .integer(bytes),
            "tables": .array(
                tables.map {
                    [
                        "name": .string($0.name), "rows": .integer($0.rows),
                        "bytes": .integer($0.bytes),
                    ]
                }),
            "warnings": .array(warnings.map { .string($0) }),
        ]
    }
}

/// S0: whether a clinic can be moved, and why not. Changes nothing.
@LoopActor
package struct MovePreflight {
    let plane: ControlPlane

    package struct Limits: Sendable {
        /// Bytes that stay free on the target's disk beside twice the clinic's.
        package var diskReserve: Int64 = 256 << 20
        /// A transaction that writes for longer is not waited for.
        package var transactionSecondsMax = 300

        package init() {}
    }

    private let limits: Limits

    package init(plane: ControlPlane, limits: Limits = Limits()) {
        self.plane = plane
        self.limits = limits
    }

    /// Slots and workers that a move uses: one of each to follow, and some to copy.
    private static let streamsPerMove = 2
    /// Of the log, that a standby may be behind.
    private static let standbyLagMax = 64 << 20

    /// Several clinics to one shard, where each finds those before it.
    ///
    /// - Throws: `ControlError` of the first that cannot be moved.
    package func plans(
        _ slugs: [String], to shard: String, _ options: MoveOptions, _ groups: MoveGroups
    ) async throws -> [MovePlan] {
        var plans: [MovePlan] = []
        for slug in slugs {
            let others = Set(groups.others(of: slug))
            var plan = try await plan(slug, to: shard, options, groups)
            let before = plans.map(\.tenant.slug).filter { others.contains($0) }
            if !before.isEmpty {
                let reason = MovePreflight.meets(before, on: shard)
                guard groups.areIgnored else { throw refusal(slug, shard, [reason]) }
                plan.warnings.append(reason)
            }
            plans.append(plan)
        }
        return plans
    }

    private static func meets(_ slugs: [String], on shard: String) -> String {
        "shard \(shard) has clinics of its group, or they are on their way there: "
            + ShardRegistry.some(slugs.map { "'\($0)'" })
    }

    private func refusal(_ slug: String, _ shard: String, _ reasons: [String]) -> ControlError {
        ControlError(
            .refused, code: "move-refused",
            "'\(slug)' cannot be moved to shard \(shard): " + reasons.joined(separator: "; "),
            remedy: "Nothing was changed. See admin/moves.md for each of these.")
    }

    /// - Parameter groups: nil if the target was chosen by them.
    /// - Throws: `ControlError`: of kind `refused` with every reason that was found, each with what to do.
    package func plan(
        _ slug: String, to shard: String, _ options: MoveOptions = MoveOptions(),
        _ groups: MoveGroups? = nil
    ) async throws -> MovePlan {
        let tenant = try await TenantRegistry(plane: plane).find(slug)
        let shards = ShardRegistry(plane: plane)
        let (source, target) = (try await shards.find(tenant.shard), try await shards.find(shard))
        guard source.id != target.id else {
            throw ControlError(
                .refused, code: "same-shard", "'\(slug)' is on shard \(shard) already")
        }
        var reasons: [String] = []
        var warnings: [String] = []
        if !["active", "readonly", "suspended"].contains(tenant.state) {
            reasons.append("the clinic is \(tenant.state)")
        }
        let store = MoveStore(plane: plane)
        if let running = try await store.list(tenant: tenant.id, isOpen: true, limit: 1).first {
            throw ControlError(
                .conflict, code: "move-running",
                "'\(slug)' is on the move already (\(running.state.rawValue), \(running.step.rawValue))",
                remedy: running.state == .soaking
                    ? "End it with 'hc-admin move finalize \(slug)', or take it back with 'move revert'."
                    : "See 'hc-admin move show \(slug)'.")
        }
        if target.state != "open" { reasons.append("shard \(target.id) is \(target.state)") }
        if target.used >= target.capacity {
            reasons.append(
                "shard \(target.id) is full: \(target.used) of \(target.capacity) in tier weight")
        }
        let apart = try await store.tenants(named: groups?.others(of: slug) ?? [])
        let met = try await store.neighbours(of: tenant.id, among: apart, on: target.id)
        if !met.isEmpty {
            let reason = MovePreflight.meets(met, on: target.id)
            if groups?.areIgnored == true {
                warnings.append(reason)
            } else {
                reasons.append(reason)
            }
        }
        let sourceIdentity = try await identity(source, &reasons)
        let targetIdentity = try await identity(target, &reasons)
        try await compareSchemas(source, target, &reasons)
        for (shard, other) in [(source, target), (target, source)] {
            try await examine(shard, beside: other, &reasons, &warnings)
        }
        let attempt = try await rooms(tenant, source, target, &reasons)
        let tables = try await tables(tenant.id, source)
        try await requireDisk(
            for: tables.reduce(0) { $0 + $1.bytes }, on: target, &reasons, &warnings)
        guard reasons.isEmpty else { throw refusal(slug, target.id, reasons) }
        return MovePlan(
            tenant: tenant, source: source, target: target, options: options, attempt: attempt,
            sourceIdentity: sourceIdentity, targetIdentity: targetIdentity, tables: tables,
            warnings: warnings, apart: apart, ignoresGroup: groups?.areIgnored ?? false)
    }

    /// Whether the shards are still who they were when the move began (rule of fail-over, pitfall 19).
    func requireIdentities(of move: Move) async throws {
        let shards = ShardRegistry(plane: plane)
        try await requireIdentities(
            of: [try await shards.find(move.source), try await shards.find(move.target)])
    }

    func requireIdentities(of shards: [Shard]) async throws {
        var reasons: [String] = []
        for shard in shards { _ = try await identity(shard, &reasons) }
        guard reasons.isEmpty else {
            throw ControlError(
                .refused, code: "identity-changed", reasons.joined(separator: "; "),
                remedy: "See 'hc-admin shard reconcile'.")
        }
    }

    /// Whether rows of one shard fit into the tables of the other.
    func requireSameSchemas(of move: Move) async throws {
        let shards = ShardRegistry(plane: plane)
        var reasons: [String] = []
        try await compareSchemas(
            try await shards.find(move.source), try await shards.find(move.target), &reasons)
        guard reasons.isEmpty else {
            throw ControlError(
                .refused, code: "schemas-differ", reasons.joined(separator: "; "),
                remedy: "Run 'hc-admin migrate up'.")
        }
    }

    /// The first schema of shards with everything that a move calls (`hc_purge_from`).
    private static let schemaMin = 8

    private func identity(_ shard: Shard, _ reasons: inout [String]) async throws -> JSONValue {
        let found = try await ShardInspection(plane: plane).identity(reference: shard.reference)
        if found.identity.systemIdentifier != shard.systemIdentifier
            || found.identity.timeline != shard.timeline || found.database != shard.database
        {
            reasons.append(
                "shard \(shard.id) is not the server that it was: system identifier"
                    + " \(found.identity.systemIdentifier), timeline \(found.identity.timeline)")
        }
        return [
            "systemIdentifier": .string(found.identity.systemIdentifier),
            "timeline": .integer(Int64(found.identity.timeline)),
            "databaseOID": .integer(found.identity.databaseOID),
        ]
    }

    private func compareSchemas(
        _ source: Shard, _ target: Shard, _ reasons: inout [String]
    ) async throws {
        var found: [(version: Int, fingerprint: String, unended: [String])] = []
        for shard in [source, target] {
            let row = try await plane.attempt("the schema of shard \(shard.id) cannot be read") {
                try await plane.shard(reference: shard.reference, .mover).execute(
                    Query(
                        """
                        SELECT coalesce(max(version), 0), hc_schema_fingerprint(),
                            coalesce(array_agg(version::text) FILTER (WHERE phase = 'expanded'), '{}')
                        FROM hc_schema
                        """), deadline: plane.deadline
                ).single()
            }
            found.append((try row.int(0), try row.text(1), try row.texts(2)))
        }
        for (shard, schema) in zip([source, target], found)
        where schema.version < MovePreflight.schemaMin {
            reasons.append(
                "shard \(shard.id) has schema version \(schema.version), this program moves clinics from version"
                    + " \(MovePreflight.schemaMin) on: run 'hc-admin migrate up'")
        }
        if found[0].version != found[1].version {
            reasons.append(
                "the schemas differ: version \(found[0].version) on \(source.id),"
                    + " \(found[1].version) on \(target.id): run 'hc-admin migrate up'")
        } else if found[0].fingerprint != found[1].fingerprint {
            reasons.append(
                "the schemas of \(source.id) and \(target.id) differ though their version is the same:"
                    + " somebody changed one by hand")
        }
        // Nobody would go through rows that come to where all have been gone through.
        for version in found[0].unended where !found[1].unended.contains(version) {
            reasons.append(
                "migration \(version) has not ended on \(source.id), and has on \(target.id):"
                    + " run 'hc-admin migrate up'")
        }
    }

    /// What a server must offer to both directions of a stream.
    private func examine(
        _ shard: Shard, beside other: Shard, _ reasons: inout [String], _ warnings: inout [String]
    ) async throws {
        let row = try await plane.attempt("shard \(shard.id) cannot be examined") {
            try await plane.shard(reference: shard.reference, .superuser).execute(
                Query(
                    """
                    SELECT current_setting('wal_level'),
                        current_setting('max_replication_slots')::int4
                            - (SELECT count(*) FROM pg_replication_slots)::int4,
                        current_setting('max_wal_senders')::int4 - (SELECT count(*) FROM pg_stat_replication)::int4,
                        current_setting('max_logical_replication_workers')::int4
                            - (SELECT count(*) FROM pg_stat_activity
                                WHERE backend_type = 'logical replication worker')::int4,
                        (SELECT rolbypassrls AND rolreplication FROM pg_roles WHERE rolname = 'hc_mover'),
                        (SELECT usesuper FROM pg_user WHERE usename = current_user),
                        (SELECT coalesce(string_agg(class.relname, ', ' ORDER BY class.relname), '')
                            FROM pg_class class
                            JOIN pg_attribute attribute ON attribute.attrelid = class.oid
                                AND attribute.attname = 'tenant_id' AND NOT attribute.attisdropped
                            LEFT JOIN pg_index key ON key.indrelid = class.oid AND key.indisprimary
                            WHERE class.relkind = 'r' AND class.relnamespace = 'public'::regnamespace
                                AND (key.indkey[0] IS DISTINCT FROM attribute.attnum OR class.relreplident <> 'd')),
                        (SELECT count(*) FROM pg_prepared_xacts)::int4,
                        current_setting('max_slot_wal_keep_size'),
                        current_setting('wal_retrieve_retry_interval'),
                        coalesce((SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::int4
                            FROM pg_stat_activity
                            WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()), 0),
                        pg_try_advisory_xact_lock_shared(1, 0),
                        coalesce(current_setting('output_plugin_libraries', true), 'pgoutput') LIKE '%pgoutput%',
                        (SELECT coalesce(max(pg_current_wal_insert_lsn() - replay_lsn), 0)::int8
                            FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')),
                        (SELECT coalesce(max(pg_current_wal_insert_lsn() - replay_lsn), 0)::int8
                            FROM pg_stat_replication
                            JOIN pg_replication_slots ON active_pid = pg_stat_replication.pid
                            WHERE sync_state = 'async' AND slot_type = 'physical')
                    """), deadline: plane.deadline
            ).single()
        }
        let name = "shard \(shard.id)"
        if try row.text(0) != "logical" {
            reasons.append("\(name) has wal_level = \(try row.text(0)), it must be logical")
        }
        let need = MovePreflight.streamsPerMove
        if try row.int(1) < need {
            reasons.append("\(name) has \(try row.int(1)) free replication slots of \(need) needed")
        }
        if try row.int(2) < need {
            reasons.append("\(name) has \(try row.int(2)) free WAL senders of \(need) needed")
        }
        if try row.int(3) < need {
            reasons.append(
                "\(name) has \(try row.int(3)) free logical replication workers of \(need) needed")
        }
        if try row.boolIfPresent(4) != true {
            reasons.append(
                "hc_mover lacks BYPASSRLS or REPLICATION on \(name): run migrations/roles.sql")
        }
        if try row.boolIfPresent(5) != true {
            reasons.append("shards/\(shard.reference).superuser.conninfo names no superuser")
        }
        let keyless = try row.text(6)
        if !keyless.isEmpty {
            reasons.append("on \(name) the key of \(keyless) does not begin with tenant_id")
        }
        if try row.int(7) > 0 {
            warnings.append("\(name) has prepared transactions, for which the slot waits")
        }
        if try row.text(8) == "-1" {
            warnings.append(
                "\(name) sets no max_slot_wal_keep_size: a move that hangs could fill its disk")
        }
        let oldest = try row.int(10)
        if oldest >= limits.transactionSecondsMax {
            reasons.append(
                "\(name) has a transaction that writes for \(oldest) s: its log cannot be kept before that ends"
            )
        } else if oldest >= 10 {
            warnings.append("\(name) has a transaction that writes for \(oldest) s")
        }
        if try row.int(13) > MovePreflight.standbyLagMax {
            reasons.append(
                "a synchronous standby of \(name) is \(try row.int(13)) bytes behind: every commit would wait for it"
            )
        }
        if try row.int(14) > MovePreflight.standbyLagMax {
            warnings.append("a standby of \(name) is \(try row.int(14)) bytes behind")
        }
        if try !row.bool(11) { reasons.append("\(name) is being migrated") }
        if try !row.bool(12) {
            reasons.append("\(name) does not list pgoutput in output_plugin_libraries")
        }
    }

    /// The copy, its indexes and the log of both fit, as the operating system of the target's server says.
    private func requireDisk(
        for bytes: Int64, on shard: Shard, _ reasons: inout [String], _ warnings: inout [String]
    ) async throws {
        let free: Int64?
        do {
            // PostgreSQL has no function for it; a superuser's program starts in the data directory.
            free = try await plane.shard(reference: shard.reference, .superuser).execute(
                [
                    Query("CREATE TEMPORARY TABLE hc_disk (line text) ON COMMIT DROP"),
                    Query("COPY hc_disk FROM PROGRAM 'df -Pk .'"),
                    Query(
                        """
                        SELECT (regexp_match(line, '^.*\\s[0-9]+\\s+[0-9]+\\s+([0-9]+)\\s+[0-9]+%'))[1]::int8 * 1024
                        FROM hc_disk WHERE line ~ '[0-9]+%'
                        """),
                ], deadline: plane.deadline)[2].rows.first?.intIfPresent(0).map { Int64($0) }
        } catch let error as PostgresError where error.sqlstate != nil {
            free = nil
        }
        guard let free else {
            warnings.append("shard \(shard.id) does not say how much room its disk has")
            return
        }
        let need = bytes * 2 + limits.diskReserve
        if free < need {
            reasons.append(
                "the disk of shard \(shard.id) has \(free) bytes left, the move needs \(need)")
        }
    }

    /// What the shards say of the clinic.
    ///
    /// - Returns: the number that the move's first attempt gets.
    private func rooms(
        _ tenant: TenantSummary, _ source: Shard, _ target: Shard, _ reasons: inout [String]
    ) async throws -> Int64 {
        var attempts: [Int64] = []
        for shard in [source, target] {
            let row = try await plane.attempt("shard \(shard.id) does not say what it knows") {
                try await plane.shard(reference: shard.reference, .mover).execute(
                    Query(
                        "SELECT state, epoch, attempt FROM hc_tenant WHERE tenant_id = $1",
                        [.id(tenant.id)]), deadline: plane.deadline
                ).singleIfPresent()
            }
            guard let row else {
                if shard.id == source.id {
                    reasons.append("shard \(source.id) does not know the clinic")
                }
                continue
            }
            attempts.append(Int64(try row.int(2)))
            let state = try row.text(0)
            if shard.id == source.id {
                let epoch = Int64(try row.int(1))
                if !["rw", "ro", "suspended"].contains(state) || epoch != tenant.epoch {
                    reasons.append(
                        "the clinic is \(state) at epoch \(epoch) on shard \(source.id),"
                            + " where it should be served at epoch \(tenant.epoch)")
                }
            } else if !["absent", "incoming", "moved"].contains(state) {
                reasons.append("the clinic is \(state) on shard \(target.id) too")
            }
        }
        return (attempts.max() ?? 0) + 1
    }

    private func tables(_ tenant: TenantID, _ shard: Shard) async throws -> [MovePlan.Table] {
        try await plane.attempt("the rows of the clinic cannot be counted") {
            let mover = try await plane.shard(reference: shard.reference, .mover)
            let names = try await mover.execute(
                Query("SELECT name, quote_ident(name) FROM hc_tenant_tables() AS name"),
                deadline: plane.deadline
            ).rows.map { (try $0.text(0), try $0.text(1)) }
            let counts = try await mover.execute(
                names.map { name, quoted in
                    .unsafeSQL(
                        """
                        SELECT count(*)::int8, pg_table_size('public.\(quoted)'::regclass)::int8,
                            greatest((SELECT reltuples FROM pg_class WHERE oid = 'public.\(quoted)'::regclass), 1)
                                ::int8
                        FROM public.\(quoted) WHERE tenant_id = $1
                        """, [.id(tenant)])
                }, deadline: plane.deadline)
            return try zip(names, counts).map { name, result in
                let row = try result.single()
                let rows = Int64(try row.int(0))
                let perRow = Double(try row.int(1)) / Double(max(try row.int(2), Int(rows), 1))
                return MovePlan.Table(
                    name: name.0, rows: rows, bytes: Int64(perRow * Double(rows)))
            }
        }
    }
}
