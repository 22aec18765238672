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

    /// - Throws: `ControlError` (`migration-locked`) when somebody kept the locks for the whole time that it may try.
    func apply(_ migration: Migration, to target: Target) async throws {
        let what = "\(target.database): migration \(migration.version) (\(migration.name)) failed"
        guard migration.terms.isTransactional else {
            return try await applyOutside(migration, to: target, what)
        }
        let script = """
            \(preamble(migration, before: migration.version - 1))
            \(migration.sql)
            ;
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

    // MARK: Scripts

    /// One implicit transaction (PostgreSQL manual, 55.2.2.1), under an advisory lock of the two-argument form, which
    /// tenants never use, that goes on only if the ledger is where the caller saw it.
    private func preamble(_ migration: Migration, before last: Int) -> String {
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
        // The first migrations make ledgers without this column.
        let (column, value) =
            migration.terms.servesFrom.map { (", serves_from", ", \($0)") } ?? ("", "")
        return """
            INSERT INTO public.hc_schema (version, name, checksum, fingerprint\(column))
            VALUES (\(migration.version), '\(migration.name)', '\(migration.checksum)',
                public.hc_schema_fingerprint()\(value))
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

    private func run(
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
