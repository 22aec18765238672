import HCCore
import HCCrypto
package import HCIO
import HCPostgres

/// Applies migrations to the control database and to the shards.
///
/// Each migration runs in one transaction with its line in the database's own ledger, under a lock that
/// makes two runners take turns; so after a crash a migration is applied or it is not.
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

    /// DDL that waits for a lock makes everybody behind it wait too: it gives up soon, and is tried again.
    let locks: LockRetry
    private static let migrationTimeout = Duration.seconds(600)

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
                pending: plan.pending.map { "\($0.version) \($0.name)" },
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
    /// applied stays applied.
    package func upShards(only id: String? = nil, dryRun: Bool) async throws -> [Applied] {
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
            let fingerprint = try await fingerprint(of: connection, shard.id)
            try await registry.recordSchema(
                id: shard.id, version: catalog.shard.count, fingerprint: fingerprint)
        }
        return applied
    }

    /// Rows that are on their way between two shards need the same tables on both. A move that begins now either has the
    /// lock that the migration takes, or waits until it is over.
    private func requireNoMoves(_ shard: Shard, _ connection: PostgresConnection) async throws {
        guard try await !pending(shard, connection).isEmpty else { return }
        try await requireNoMoves(shard)
    }

    func requireNoMoves(_ shard: Shard) async throws {
        let moves = try await MoveStore(plane: plane).list(shard: shard.id, isOpen: true, limit: 5)
        guard !moves.isEmpty else { return }
        throw ControlError(
            .refused, code: "moves-open",
            "shard \(shard.id) cannot be migrated while clinics are on the move: "
                + moves.map { "\($0.slug) (\($0.step.rawValue))" }.joined(separator: ", "),
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
        let plan = try MigrationPlan(
            database: database, catalog: migrations, applied: await ledger(of: connection, database)
        )
        for migration in plan.pending where !dryRun {
            plane.progress("\(database): applying \(migration.version) \(migration.name)")
            try await apply(migration, to: connection, database, reference: reference)
        }
        return plan.pending.map { Applied(database: database, version: $0.version, name: $0.name) }
    }

    /// The file, its ledger line and the check that its predecessor is the last one: one implicit transaction
    /// (PostgreSQL manual, 55.2.2.1), under an advisory lock of the two-argument form, which tenants never use.
    ///
    /// - Parameter reference: the shard's; nil for the control database.
    /// - Throws: `ControlError` (`migration-locked`) when somebody kept the locks for the whole time that it may try.
    func apply(
        _ migration: Migration, to connection: PostgresConnection, _ database: String,
        reference: String?
    ) async throws {
        // The name and the checksum come from `MigrationCatalog`, which lets only [a-z0-9_-] pass.
        let script = """
            SET LOCAL lock_timeout = '\(locks.timeout.inMilliseconds)ms';
            SELECT pg_advisory_xact_lock(1, 0);
            DO $guard$ BEGIN
                IF to_regclass('public.hc_schema') IS NOT NULL THEN
                    IF \(migration.version) <> (SELECT coalesce(max(version), 0) + 1 FROM public.hc_schema) THEN
                        RAISE EXCEPTION 'another run has changed the ledger' USING ERRCODE = 'serialization_failure';
                    END IF;
                ELSIF \(migration.version) <> 1 THEN
                    RAISE EXCEPTION 'the ledger is missing';
                END IF;
            END $guard$;
            \(migration.sql)
            ;
            INSERT INTO public.hc_schema (version, name, checksum, fingerprint)
            VALUES (\(migration.version), '\(migration.name)', '\(migration.checksum)',
                public.hc_schema_fingerprint());
            """
        let what = "\(database): migration \(migration.version) (\(migration.name)) failed"
        let watch = LockWatch(plane, shardReference: reference, process: connection.processID)
        do {
            try await plane.attempt(what) { try await retry(script, on: connection, watch, what) }
        } catch {
            await watch.close()
            throw error
        }
        await watch.close()
    }

    /// Runs a script until it gets its locks. Who holds them is looked for from the second attempt on.
    private func retry(
        _ script: String, on connection: PostgresConnection, _ watch: LockWatch, _ what: String
    ) async throws {
        var random = SystemRandom()
        let end = Deadline.after(locks.total, from: plane.clocks.monotonic())
        for attempt in 1... {
            let watching = attempt > 1 ? Loop.shared.spawn { await watch.run() } : nil
            defer { watching?.cancel() }
            let isLocked = try await isLockedOut(script, on: connection)
            guard isLocked else { return }
            guard attempt < locks.attemptsMax, !end.isExpired(at: plane.clocks.monotonic()) else {
                throw ControlError(
                    .failed, code: "migration-locked",
                    "\(what): in \(attempt) attempts it did not get its locks within"
                        + " \(locks.timeout.inMilliseconds) ms"
                        + (watch.findings.isEmpty ? "" : "; \(watch.findings)"),
                    remedy: "Nothing of it was applied. Wait for that transaction, or end it with"
                        + " pg_terminate_backend(PROCESS), and run 'hc-admin migrate up' again.")
            }
            try await Loop.shared.sleep(for: locks.pause(after: attempt, using: &random))
        }
    }

    /// - Returns: whether a lock was not to be had in time; then nothing of the script was done.
    private func isLockedOut(
        _ script: String, on connection: PostgresConnection
    ) async throws -> Bool {
        do {
            try await connection.executeScript(
                script,
                deadline: .after(MigrationRunner.migrationTimeout, from: plane.clocks.monotonic()))
            return false
        } catch {
            guard error.sqlstate == .lockNotAvailable else { throw error }
            return true
        }
    }

    // MARK: Details

    func pending(_ shard: Shard, _ connection: PostgresConnection) async throws -> [Migration] {
        try MigrationPlan(
            database: shard.id, catalog: catalog.shard,
            applied: await ledger(of: connection, shard.id)
        ).pending
    }

    private func ledger(
        of connection: PostgresConnection, _ database: String
    ) async throws -> [MigrationPlan.Applied] {
        try await plane.attempt("the ledger of \(database) cannot be read") {
            let exists = try await connection.execute(
                [Query("SELECT to_regclass('public.hc_schema') IS NOT NULL")],
                deadline: plane.deadline)
            guard try exists[0][0].bool(0) else { return [] }
            let rows = try await connection.execute(
                [Query("SELECT version, name, checksum FROM hc_schema ORDER BY version")],
                deadline: plane.deadline)[0]
            return try rows.rows.map { row in
                MigrationPlan.Applied(
                    version: try row.int(0), name: try row.text(1), checksum: try row.text(2))
            }
        }
    }

    func fingerprint(
        of connection: PostgresConnection, _ database: String
    ) async throws -> String {
        try await plane.attempt("the schema of \(database) cannot be read") {
            try await connection.execute(
                [Query("SELECT hc_schema_fingerprint()")], deadline: plane.deadline)[0][0].text(0)
        }
    }
}
