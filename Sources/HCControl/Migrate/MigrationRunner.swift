import HCCore
import HCCrypto
package import HCIO
import HCPostgres

/// Applies migrations to the control database and to the shards.
///
/// Each migration runs in one transaction with its line in the database's own ledger, under a lock that
/// makes two runners take turns; so after a crash a migration is applied or it is not. What PostgreSQL takes only outside
/// a transaction is run once more then: `MigrationRunner+Outside`.
@LoopActor
package struct MigrationRunner {
    /// One database as `migrate status` shows it.
    package struct Status: Sendable {
        /// `control`, or the shard's id.
        package var id: String
        package var version: Int
        package var fingerprint: String
        package var pending: [String]
        package var state: State
        package var problem: String?
    }

    package enum State: String, Sendable {
        case current
        case pending
        /// The ledger and the files contradict each other.
        case drift
        case unreachable
    }

    package struct Applied: Sendable {
        package var database: String
        package var version: Int
        package var name: String
    }

    let plane: ControlPlane
    let catalog: MigrationCatalog

    /// DDL that waits for a lock makes everybody behind it wait too: it gives up soon, and is tried again. The migration
    /// says for how long.
    let locks: LockRetry
    /// Nobody serves a scratch database.
    var asksServers = true
    /// Asked before each attempt to get locks: throws if somebody else has taken over what this is a part of, or wants it
    /// ended.
    var requireRun: @LoopActor @Sendable () throws(ControlError) -> Void = {}

    package init(
        plane: ControlPlane, catalog: MigrationCatalog, locks: LockRetry = LockRetry()
    ) {
        self.plane = plane
        self.catalog = catalog
        self.locks = locks
    }

    // MARK: Status

    package func controlStatus() async -> Status {
        do {
            return try await status(id: "control", of: plane.control(.owner), catalog.control)
        } catch {
            return Status(
                id: "control", version: 0, fingerprint: "", pending: [], state: .unreachable,
                problem: "\(error)")
        }
    }

    /// One line for each registered shard; a shard that cannot be reached is a line, not an error.
    package func shardStatus() async throws -> [Status] {
        var lines: [Status] = []
        for shard in try await ShardRegistry(plane: plane).list(isInUse: true) {
            do {
                let connection = try await plane.shard(reference: shard.reference, .owner)
                lines.append(try await status(id: shard.id, of: connection, catalog.shard))
            } catch {
                lines.append(
                    Status(
                        id: shard.id, version: shard.schemaVersion, fingerprint: shard.fingerprint,
                        pending: [], state: .unreachable, problem: "\(error)"))
            }
        }
        return lines
    }

    private func status(
        id: String, of connection: PostgresConnection, _ migrations: [Migration]
    ) async throws -> Status {
        let applied = try await ledger(of: connection, id)
        let fingerprint = applied.isEmpty ? "" : try await fingerprint(of: connection, id)
        do {
            let plan = try MigrationPlan(database: id, catalog: migrations, applied: applied)
            return Status(
                id: id, version: applied.count, fingerprint: fingerprint,
                pending: try await titles(plan.pending, connection),
                state: plan.pending.isEmpty ? .current : .pending)
        } catch {
            return Status(
                id: id, version: applied.count, fingerprint: fingerprint, pending: [],
                state: .drift,
                problem: "\(error)")
        }
    }

    // MARK: Up

    /// Brings the control database up to date.
    package func upControl(dryRun: Bool) async throws -> [Applied] {
        let connection = try await plane.control(.owner)
        return try await up(
            connection, "control", reference: nil, catalog.control, dryRun: dryRun)
    }

    /// Brings registered shards up to date, one after the other; the first failure ends the run, and what was
    /// applied stays applied. No run of waves is begun meanwhile.
    ///
    /// - Throws: `ControlError` (`rollout-running`), or what stands in the way.
    package func upShards(only id: String? = nil, dryRun: Bool) async throws -> [Applied] {
        let store = RolloutStore(plane: plane)
        guard !dryRun else {
            try await store.requireNone()
            return try await upAlone(id, dryRun: true)
        }
        return try await store.withoutRun { isAlone in
            var runner = self
            runner.requireRun = isAlone
            return try await runner.upAlone(id, dryRun: false)
        }
    }

    private func upAlone(_ id: String?, dryRun: Bool) async throws -> [Applied] {
        let registry = ShardRegistry(plane: plane)
        var shards = try await registry.list(isInUse: true)
        if let id {
            let shard = try await registry.find(id)
            try registry.requireNotRetired(shard)
            shards = [shard]
        }
        var applied: [Applied] = []
        for shard in shards {
            let connection = try await plane.shard(reference: shard.reference, .owner)
            if !dryRun { try await requireNoMoves(shard, connection) }
            applied += try await up(
                connection, shard.id, reference: shard.reference, catalog.shard, dryRun: dryRun)
            guard !dryRun else { continue }
            // By its ledger: what somebody has changed by hand since is not made right by being written down.
            let fingerprint = try await plane.attempt("the ledger of \(shard.id) cannot be read") {
                try await connection.execute(
                    Query("SELECT fingerprint FROM hc_schema ORDER BY version DESC LIMIT 1"),
                    deadline: plane.deadline
                ).single().text(0)
            }
            try await registry.recordSchema(
                id: shard.id, version: catalog.shard.count, fingerprint: fingerprint)
        }
        return applied
    }

    /// Takes the newest migration of one shard back: of the canary, say, of a run that halted. No run is begun meanwhile.
    ///
    /// - Throws: `ControlError` (`migration-irreversible`, `nothing-applied`), or what stands in the way of `upShards`.
    package func downShard(_ id: String, dryRun: Bool) async throws -> Migration {
        let store = RolloutStore(plane: plane)
        guard !dryRun else {
            try await store.requireNone()
            return try await downAlone(id, dryRun: true)
        }
        return try await store.withoutRun { isAlone in
            var runner = self
            runner.requireRun = isAlone
            return try await runner.downAlone(id, dryRun: false)
        }
    }

    private func downAlone(_ id: String, dryRun: Bool) async throws -> Migration {
        let registry = ShardRegistry(plane: plane)
        let shard = try await registry.find(id)
        try registry.requireNotRetired(shard)
        let connection = try await plane.shard(reference: shard.reference, .owner)
        let version = try await self.version(of: shard, connection)
        guard version > 0 else {
            throw ControlError(
                .refused, code: "nothing-applied", "shard \(id) has no migration to take back")
        }
        try await requireNoMoves(shard)
        let migration = catalog.shard[version - 1]
        let isOpen = try await pending(shard, connection).first?.version == version
        guard migration.contract == nil || isOpen else {
            throw ControlError(
                .refused, code: "migration-irreversible",
                "migration \(migration.version) (\(migration.name)) has contracted: it is not taken back",
                remedy: "Put what is to be changed into a new migration.")
        }
        let target = Target(connection: connection, database: id, reference: shard.reference)
        guard !dryRun else {
            try requireReversible(migration)
            return migration
        }
        try await undo(migration, at: target)
        try await registry.recordSchema(
            id: id, version: version - 1, fingerprint: try await fingerprint(of: connection, id))
        try await plane.attempt("the audit cannot be written") {
            _ = try await plane.control().execute(
                [
                    plane.audit(
                        "migrate.down", subject: id,
                        detail: ["version": .integer(Int64(migration.version))])
                ], deadline: plane.deadline)
        }
        return migration
    }

    /// Rows that are on their way between two shards need the same tables on both. A move that begins now either has the
    /// lock that the migration takes, or waits until it is over.
    private func requireNoMoves(_ shard: Shard, _ connection: PostgresConnection) async throws {
        guard try await pending(shard, connection).contains(where: \.changesSchema) else { return }
        try await requireNoMoves(shard)
    }

    func requireNoMoves(_ shard: Shard) async throws {
        let moves = try await MoveStore(plane: plane).list(shard: shard.id, isOpen: true)
        if let problem = MigrationRunner.problem(moves: moves, at: shard) { throw problem }
    }

    /// - Returns: nil if none of them is from or to the shard.
    static func problem(moves: [Move], at shard: Shard) -> ControlError? {
        let here = moves.filter { $0.source == shard.id || $0.target == shard.id }
        guard !here.isEmpty else { return nil }
        return ControlError(
            .refused, code: "moves-open",
            "shard \(shard.id) cannot be migrated while clinics are on the move: "
                + here.prefix(5).map { "\($0.slug) (\($0.step.rawValue))" }.joined(separator: ", "),
            remedy:
                "Wait for those that run; end those that soak with 'hc-admin move finalize SLUG'.")
    }

    /// Brings a database that is not registered yet up to date, and returns its fingerprint.
    func upNewShard(reference: String) async throws -> String {
        let connection = try await plane.shard(reference: reference, .owner)
        _ = try await up(
            connection, reference, reference: reference, catalog.shard, dryRun: false)
        return try await fingerprint(of: connection, reference)
    }

    private func up(
        _ connection: PostgresConnection, _ database: String, reference: String?,
        _ migrations: [Migration], dryRun: Bool
    ) async throws -> [Applied] {
        let target = Target(connection: connection, database: database, reference: reference)
        let applied = try await ledger(of: connection, database)
        let plan = try MigrationPlan(database: database, catalog: migrations, applied: applied)
        // Outside of a run of waves nobody has written down what was verified: a process may have died before. What comes
        // before the newest one was verified before that was begun.
        if !dryRun, let newest = applied.last, newest.phase == nil {
            try await verify(migrations[newest.version - 1], at: target)
        }
        for step in plan.pending where !dryRun {
            try await requireServers(for: step, in: reference == nil ? .control : .shard)
            plane.progress("\(database): applying \(step.title)")
            _ = try await take(step, at: target)
            guard step.isLast else { continue }
            try FaultPoint.reach("migrate.before-verify")
            try await verify(step.migration, at: target)
        }
        return plan.pending.map { Applied(database: database, version: $0.version, name: $0.name) }
    }

    /// What is pending, with how far a backfill has come.
    private func titles(
        _ steps: [MigrationStep], _ connection: PostgresConnection
    ) async throws -> [String] {
        guard let step = steps.first, step.phase == .backfill else { return steps.map(\.title) }
        let row = try await connection.execute(
            Query(
                """
                SELECT count(*), count(*) FILTER (WHERE done_at IS NOT NULL), coalesce(sum(rows_seen), 0)::int8
                FROM hc_tenant LEFT JOIN hc_backfill AS line
                    ON line.tenant_id = hc_tenant.tenant_id AND version = $1
                WHERE state NOT IN ('absent', 'incoming', 'moved')
                """, [.int4(Int32(step.version))]), deadline: plane.deadline
        ).single()
        let progress =
            "\(step.title): \(try row.int(1)) of \(try row.int(0)) clinics, \(try row.int(2)) rows"
        return [progress] + steps.dropFirst().map(\.title)
    }

    // MARK: Details

    /// The last migration of which at least a part was applied.
    func version(of shard: Shard, _ connection: PostgresConnection) async throws -> Int {
        try await ledger(of: connection, shard.id).last?.version ?? 0
    }

    func pending(
        _ shard: Shard, _ connection: PostgresConnection
    ) async throws -> [MigrationStep] {
        try MigrationPlan(
            database: shard.id, catalog: catalog.shard,
            applied: await ledger(of: connection, shard.id)
        ).pending
    }
}
