import HCCore
import HCCrypto
import HCIO
import HCPostgres

extension MigrationRunner {
    /// One database that is worked on.
    struct Target {
        let connection: PostgresConnection
        /// `control`, or the shard's id.
        let database: String
        /// The shard's; nil for the control database.
        let reference: String?
    }

    /// - Parameter mayGoOn: asked between the batches of a backfill.
    /// - Returns: false if it was not to go on.
    func take(
        _ step: MigrationStep, at target: Target, while mayGoOn: () -> Bool = { true }
    ) async throws -> Bool {
        switch step.phase {
        case .up:
            try await narrowing(step, at: target) { try await apply(step.migration, to: target) }
            return true
        case .expand:
            try await apply(step.migration, to: target)
            return true
        case .backfill:
            return try await Backfill(plane: plane, migration: step.migration, target: target)
                .run(while: mayGoOn)
        case .contract:
            return try await contract(step.migration, at: target, while: mayGoOn)
        }
    }

    /// - Throws: `ControlError` (`migration-locked`) when somebody kept the locks for the whole time that it may try.
    func apply(_ migration: Migration, to target: Target) async throws {
        let what = "\(target.database): migration \(migration.version) (\(migration.name)) failed"
        guard migration.terms.isTransactional else {
            return try await applyOutside(migration, to: target, what)
        }
        let script = """
            \(preamble(migration, before: migration.version - 1))
            \(guardOfNarrowing(migration, at: target))
            \(migration.sql)
            ;
            \(endOfNarrowing(migration, at: target))
            \(SchemaMark.keep);
            \(MigrationRunner.ledgerLine(of: migration));
            """
        try await run(script, on: target, migration.terms, what)
    }

    /// Takes the newest migration of a database back, by its `down.sql` and with its line in the ledger.
    func undo(_ migration: Migration, at target: Target) async throws {
        let down = try requireReversible(migration)
        let script = """
            \(preamble(migration, before: migration.version))
            \(down)
            ;
            \(migration.backfill == nil ? "" : "DELETE FROM public.hc_backfill WHERE version = \(migration.version);")
            DELETE FROM public.hc_schema WHERE version = \(migration.version);
            """
        try await run(
            script, on: target, migration.terms,
            "\(target.database): migration \(migration.version) (\(migration.name)) cannot be taken back"
        )
    }

    @discardableResult
    func requireReversible(_ migration: Migration) throws(ControlError) -> String {
        guard let down = migration.down else {
            throw ControlError(
                .refused, code: "migration-irreversible",
                "migration \(migration.version) (\(migration.name)) has no down.sql: it is not taken back",
                remedy: "Put what is to be changed into a new migration.")
        }
        return down
    }

    /// Runs `verify.sql`, if there is one, as who sees the rows of all clinics and in a transaction that only reads.
    ///
    /// - Throws: `ControlError` (`verify-failed`) with what it has found.
    func verify(_ migration: Migration, at target: Target) async throws {
        guard let verify = migration.verify else { return }
        let what =
            "\(target.database): migration \(migration.version) (\(migration.name)) cannot be verified"
        let found = try await plane.attempt(what) {
            let connection = target.connection
            let reader =
                if let reference = target.reference {
                    try await plane.shard(reference: reference, .mover)
                } else {
                    connection
                }
            return try await reader.transaction(
                TransactionOptions(isReadOnly: true),
                deadline: .after(migration.terms.timeout, from: plane.clocks.monotonic())
            ) { transaction in
                let results = try await transaction.execute([
                    Query(
                        "SELECT set_config('statement_timeout', $1, true)",
                        [.text("\(migration.terms.timeout.inMilliseconds)ms")]),
                    .unsafeSQL(verify, []),
                ])
                return try results[1].rows.prefix(MigrationRunner.findingsMax).map {
                    try $0.textIfPresent(0) ?? "NULL"
                }
            }
        }
        guard !found.isEmpty else { return }
        throw ControlError(
            .failed, code: "verify-failed",
            "\(target.database): migration \(migration.version) (\(migration.name)) is applied, and verify.sql"
                + " finds: " + found.joined(separator: "; "),
            remedy: "Repair that; 'hc-admin migrate up' verifies it once more and goes on.")
    }

    private static let findingsMax = 5

    // MARK: Scripts

    /// One implicit transaction (PostgreSQL manual, 55.2.2.1), under an advisory lock of the two-argument form, which
    /// tenants never use, that goes on only if the ledger is where the caller saw it.
    func preamble(_ migration: Migration, before last: Int) -> String {
        """
        SET LOCAL lock_timeout = '\(lockRetry(migration.terms).timeout.inMilliseconds)ms';
        SET LOCAL statement_timeout = '\(migration.terms.timeout.inMilliseconds)ms';
        SELECT pg_advisory_xact_lock(1, 0);
        \(MigrationRunner.guardOfLedger(last: last));
        """
    }

    /// What refuses to go on when the ledger's last line is another one.
    static func guardOfLedger(last: Int) -> String {
        """
        DO $guard$ BEGIN
            IF to_regclass('public.hc_schema') IS NOT NULL THEN
                IF \(last) <> (SELECT coalesce(max(version), 0) FROM public.hc_schema) THEN
                    RAISE EXCEPTION 'another run has changed the ledger' USING ERRCODE = 'serialization_failure';
                END IF;
            ELSIF \(last) <> 0 THEN
                RAISE EXCEPTION 'the ledger is missing';
            END IF;
        END $guard$
        """
    }

    /// The name and the checksum come from `MigrationCatalog`, which lets only [a-z0-9_-] pass.
    static func ledgerLine(of migration: Migration) -> String {
        // Columns that the first migrations make come into the statement only with those that need them.
        var (columns, values) = ("", "")
        if migration.isPhased {
            columns += ", phase"
            values += ", 'expanded'"
        } else if let version = migration.servesFrom {
            columns += ", serves_from"
            values += ", \(version)"
        }
        return """
            INSERT INTO public.hc_schema (version, name, checksum, fingerprint\(columns))
            VALUES (\(migration.version), '\(migration.name)', '\(migration.checksum)',
                public.hc_schema_fingerprint()\(values))
            """
    }

    /// How the migration asks for its locks.
    func lockRetry(_ terms: MigrationTerms) -> LockRetry {
        var locks = locks
        locks.attemptsMax *= max(1, Int(terms.lockTotal / locks.total))
        locks.timeout = terms.lockTimeout
        locks.total = terms.lockTotal
        return locks
    }

    // MARK: Locks

    func run(
        _ script: String, on target: Target, _ terms: MigrationTerms, _ what: String
    ) async throws {
        let watch = LockWatch(
            plane, shardReference: target.reference, process: target.connection.processID)
        do {
            try await plane.attempt(what) {
                try await retry(script, on: target.connection, terms, watch, what)
            }
        } catch {
            await watch.close()
            throw error
        }
        await watch.close()
    }

    /// Runs a script until it gets its locks. Who holds them is looked for from the second attempt on.
    private func retry(
        _ script: String, on connection: PostgresConnection, _ terms: MigrationTerms,
        _ watch: LockWatch, _ what: String
    ) async throws {
        let locks = lockRetry(terms)
        var random = SystemRandom()
        let start = plane.clocks.monotonic()
        for attempt in 1... {
            try requireRun()
            let watching = attempt > 1 ? Loop.shared.spawn { await watch.run() } : nil
            defer { watching?.cancel() }
            let isLocked = try await isLockedOut(script, on: connection, terms.timeout)
            guard isLocked else { return }
            let pause = locks.next(
                after: attempt, elapsed: plane.clocks.monotonic() - start, using: &random)
            guard let pause else {
                throw MigrationRunner.locked(
                    "\(what): in \(attempt) attempts it did not get its locks within"
                        + " \(locks.timeout.inMilliseconds) ms", watch)
            }
            try await Loop.shared.sleep(for: pause)
        }
    }

    static func locked(_ message: String, _ watch: LockWatch) -> ControlError {
        ControlError(
            .failed, code: "migration-locked",
            message + (watch.findings.isEmpty ? "" : "; \(watch.findings)"),
            remedy: "Nothing of it was applied. Wait for that transaction, or end it with"
                + " pg_terminate_backend(PROCESS), and run 'hc-admin migrate up' again.")
    }

    /// - Returns: whether a lock was not to be had in time; then nothing of the script was done.
    func isLockedOut(
        _ script: String, on connection: PostgresConnection, _ timeout: Duration
    ) async throws -> Bool {
        do {
            try await connection.executeScript(
                script, deadline: .after(timeout, from: plane.clocks.monotonic()))
            return false
        } catch {
            guard error.sqlstate == .lockNotAvailable else { throw error }
            return true
        }
    }
}
