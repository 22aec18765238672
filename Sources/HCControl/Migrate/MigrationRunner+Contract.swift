import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// The last phase of a migration: what older programs need goes.
extension MigrationRunner {
    /// How often a clinic may have come in while the last pass went on, or been handed over, before it is given up.
    private static let passesMax = 10
    /// "Somebody's rows have not been gone through": raised by the contract's own transaction.
    private static let unfilled = "HC020"

    /// Refuses a step that a process which serves now would not survive.
    ///
    /// - Throws: `ControlError` (`contract-waits`) that names those processes.
    func requireServers(
        for step: MigrationStep, in database: ProcessRegistry.Database
    ) async throws {
        guard asksServers, let version = step.servesFrom else { return }
        let blockers = try await ProcessRegistry(plane: plane).blockers(of: version, in: database)
        guard !blockers.isEmpty else { return }
        let named = blockers.prefix(10).map { process in
            let range = database == .shard ? process.shard : process.control
            return
                "\(process.name) on \(process.host) (process \(process.processIdentifier), release"
                + " \(process.version), knows \(range.highest))"
        }
        throw ControlError(
            .refused, code: "contract-waits",
            "\(step.title) waits until every process that serves knows migration \(version); these do not: "
                + named.joined(separator: ", ")
                + (blockers.count > named.count ? " and \(blockers.count - named.count) more" : ""),
            remedy: "Upgrade or stop them, then run 'hc-admin migrate up' again.")
    }

    /// From here on no older program serves the shard. Rows that one has written since the backfill went by are gone
    /// through once more, then the script runs, in the transaction that proves that no clinic was left out.
    ///
    /// - Returns: false if it was not to go on.
    func contract(
        _ migration: Migration, at target: Target, while mayGoOn: () -> Bool
    ) async throws -> Bool {
        guard let script = migration.contract, let servesFrom = migration.servesFrom else {
            preconditionFailure("a migration without a contract has no such step")
        }
        let step = MigrationStep(migration: migration, phase: .contract)
        let what =
            "\(target.database): the contract of migration \(migration.version) (\(migration.name)) failed"
        try await requireServers(for: step, in: .shard)
        let since = try await closeToOlder(migration, servesFrom, target, what)
        try FaultPoint.reach("migrate.contract-closed")
        // One that began before it saw the closed ledger has said so by now, or is refused by it.
        try await requireServers(for: step, in: .shard)
        try await endSessions(at: target, servesFrom, what)
        for _ in 0..<MigrationRunner.passesMax {
            if migration.backfill != nil {
                let isDone = try await Backfill(plane: plane, migration: migration, target: target)
                    .pass(since: since, while: mayGoOn)
                guard isDone else { return false }
            }
            do {
                try await run(
                    contractScript(migration, script, servesFrom, since), on: target,
                    migration.terms, what)
                return true
            } catch let error as ControlError {
                guard error.message.contains(MigrationRunner.unfilled) else { throw error }
                plane.progress("\(target.database): a clinic came in meanwhile; once more")
            }
        }
        throw ControlError(
            .failed, code: "contract-unfilled",
            "\(what): clinics came to the shard again and again while their rows were gone through",
            remedy: "Let no clinics move meanwhile, then run 'hc-admin migrate up' again.")
    }

    /// - Returns: when, by the shard's clock.
    private func closeToOlder(
        _ migration: Migration, _ servesFrom: Int, _ target: Target, _ what: String
    ) async throws -> String {
        try await plane.attempt(what) {
            let results = try await target.connection.execute(
                [
                    Query(
                        """
                        UPDATE hc_schema SET serves_from = $2 WHERE version = $1 AND phase IS NOT NULL
                        """, [.int4(Int32(migration.version)), .int4(Int32(servesFrom))]),
                    Query("SELECT clock_timestamp()::text"),
                ], deadline: plane.deadline)
            return try results[1][0].text(0)
        }
    }

    func contractScript(
        _ migration: Migration, _ script: String, _ servesFrom: Int, _ since: String
    ) -> String {
        let phase = migration.backfill == nil ? "expanded" : "backfilled"
        let filled =
            migration.backfill == nil
            ? ""
            : """
                IF EXISTS (
                    SELECT FROM public.hc_tenant
                    LEFT JOIN public.hc_backfill AS done ON done.tenant_id = hc_tenant.tenant_id
                        AND done.version = \(migration.version)
                    WHERE state NOT IN ('absent', 'incoming', 'moved')
                        AND (done_at IS NULL OR begun_at < '\(since)'::timestamptz)
                ) THEN
                    RAISE EXCEPTION 'a clinic''s rows have not been gone through (\(MigrationRunner.unfilled))'
                        USING ERRCODE = '\(MigrationRunner.unfilled)';
                END IF;
            """
        return """
            \(preamble(migration, before: migration.version))
            DO $contract$ BEGIN
                IF NOT EXISTS (
                    SELECT FROM public.hc_schema WHERE version = \(migration.version) AND phase = '\(phase)'
                ) THEN
                    RAISE EXCEPTION 'another run has changed the ledger' USING ERRCODE = 'serialization_failure';
                END IF;
            \(filled)
            END $contract$;
            \(script)
            ;
            DELETE FROM public.hc_backfill WHERE version = \(migration.version);
            \(SchemaMark.keep);
            UPDATE public.hc_schema
            SET phase = NULL, serves_from = \(servesFrom), fingerprint = public.hc_schema_fingerprint()
            WHERE version = \(migration.version);
            """
    }
}
