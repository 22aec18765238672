import HCCore
import HCIO
import HCPostgres

/// Statements that PostgreSQL takes only outside a transaction: CREATE INDEX CONCURRENTLY and its kin.
///
/// The statement and its line in the ledger are two commits, and a build that ends half-way leaves an invalid index behind,
/// kept up to date and used by nobody. So what is invalid is dropped first; then the statement is run, which may have been
/// run before; then the line is written. A process can die between any two of them: the next one begins with the first.
extension MigrationRunner {
    /// - Throws: `ControlError` (`migration-locked`) when it had to wait for longer than the migration may.
    func applyOutside(_ migration: Migration, to target: Target, _ what: String) async throws {
        let (connection, terms) = (target.connection, migration.terms)
        try requireRun()
        // A build that waits lets everybody but other DDL pass: it waits once, and for all its time.
        let watch = LockWatch(
            plane, shardReference: target.reference, process: connection.processID)
        let watching = Loop.shared.spawn { await watch.run() }
        defer { watching.cancel() }
        do {
            try await plane.attempt(what) {
                try await script(
                    """
                    SET lock_timeout = '\(terms.lockTotal.inMilliseconds)ms';
                    SET statement_timeout = '\(terms.timeout.inMilliseconds)ms';
                    SELECT pg_advisory_lock(1, 0)
                    """, connection, terms, watch, what)
                try await script(
                    MigrationRunner.guardOfLedger(last: migration.version - 1), connection, terms,
                    watch, what)
                try await dropInvalidIndexes(target, terms, watch, what)
                do {
                    try await script(migration.sql, connection, terms, watch, what)
                } catch {
                    try await repair(after: error, target, terms, watch, what)
                }
                try FaultPoint.reach("migrate.before-ledger")
                try await script(
                    """
                    \(MigrationRunner.guardOfLedger(last: migration.version - 1));
                    \(SchemaMark.keep);
                    \(endOfNarrowing(migration, at: target))
                    \(MigrationRunner.ledgerLine(of: migration))
                    """, connection, terms, watch, what)
                try await script(
                    "SELECT pg_advisory_unlock(1, 0); RESET lock_timeout; RESET statement_timeout",
                    connection, terms, watch, what)
            }
        } catch {
            // Its session's lock goes with it.
            connection.close()
            await watch.close()
            throw error
        }
        await watch.close()
    }

    /// What an attempt left behind is not left to cost every write until the next one.
    private func repair(
        after error: any Error, _ target: Target, _ terms: MigrationTerms, _ watch: LockWatch,
        _ what: String
    ) async throws {
        guard target.connection.isUsable else { throw error }
        do {
            try await dropInvalidIndexes(target, terms, watch, what)
        } catch let second {
            plane.progress(
                "\(target.database): what the attempt left could not be dropped: \(second)")
        }
        throw error
    }

    /// Invalid indexes are never part of a schema (the linter's rule `index-invalid`): they are what a build that was
    /// broken off has left, REINDEX's too.
    private func dropInvalidIndexes(
        _ target: Target, _ terms: MigrationTerms, _ watch: LockWatch, _ what: String
    ) async throws {
        let left = try await target.connection.execute(
            Query(
                """
                SELECT format('%I.%I', nspname, relname)
                FROM pg_index
                JOIN pg_class AS class ON class.oid = indexrelid AND relkind = 'i'
                JOIN pg_namespace AS space ON space.oid = relnamespace
                WHERE NOT indisvalid AND nspname = 'public'
                ORDER BY 1
                """), deadline: plane.deadline
        ).rows.map { try $0.text(0) }
        for index in left {
            plane.progress("\(target.database): dropping \(index), which was built half-way")
            try await script(
                "DROP INDEX CONCURRENTLY IF EXISTS \(index)", target.connection, terms, watch, what)
        }
    }

    private func script(
        _ sql: String, _ connection: PostgresConnection, _ terms: MigrationTerms,
        _ watch: LockWatch, _ what: String
    ) async throws {
        guard try await isLockedOut(sql, on: connection, terms.timeout) else { return }
        throw MigrationRunner.locked(
            "\(what): it had to wait for more than \(terms.lockTotal.inMilliseconds) ms", watch)
    }
}
