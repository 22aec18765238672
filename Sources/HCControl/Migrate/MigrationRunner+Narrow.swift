import HCCore
import HCIO
import HCPostgres

/// What older programs do not survive: from before it is done nobody older serves the shard, not even who cannot be asked.
extension MigrationRunner {
    /// Does around `body`, which applies an `up.sql`, what a contract does before its script: the ledger is closed to older
    /// programs, then the sessions of those that do not report themselves are ended. For a migration that says nothing of
    /// programs only `body` is done.
    ///
    /// Its own line in the ledger comes with its script: until then the line before it says who may serve. That one is as it
    /// was again when `body` is over, or was undone. A process that dies in between leaves it closed, and the next one goes on.
    ///
    /// - Throws: `ControlError` (`contract-waits`, `sessions-stay`), or what `body` does.
    func narrowing(
        _ step: MigrationStep, at target: Target, _ body: () async throws -> Void
    ) async throws {
        let migration = step.migration
        guard let servesFrom = step.servesFrom, isNarrowed(migration, at: target) else {
            return try await body()
        }
        let what = "\(target.database): migration \(migration.version) (\(migration.name)) failed"
        try await requireServers(for: step, in: .shard)
        try await plane.attempt(what) {
            _ = try await target.connection.execute(
                Query(
                    "UPDATE hc_schema SET serves_from = greatest(serves_from, $2) WHERE version = $1",
                    [.int4(Int32(migration.version - 1)), .int4(Int32(servesFrom))]),
                deadline: plane.deadline)
        }
        do {
            try FaultPoint.reach("migrate.up-closed")
            // One that began before it saw the closed ledger has said so by now, or is refused by it.
            try await requireServers(for: step, in: .shard)
            try await endSessions(at: target, servesFrom, what)
            try await body()
        } catch let error as FaultPointFailure {
            throw error
        } catch {
            // Of what is no transaction nobody knows how far it has come.
            if migration.terms.isTransactional { await reopen(before: migration, at: target) }
            throw error
        }
    }

    /// Whether the line before it in the ledger says meanwhile who may serve. Nobody serves a scratch database; and of the
    /// control database programs only read what they can read again.
    private func isNarrowed(_ migration: Migration, at target: Target) -> Bool {
        asksServers && target.reference != nil && !migration.isPhased && migration.version > 1
            && migration.servesFrom != nil
    }

    /// A statement of the script's transaction: nobody has opened the ledger since, or does before this is over.
    func guardOfNarrowing(_ migration: Migration, at target: Target) -> String {
        guard let servesFrom = migration.servesFrom, isNarrowed(migration, at: target) else {
            return ""
        }
        return """
            DO $narrow$ BEGIN
                PERFORM FROM public.hc_schema
                WHERE version = \(migration.version - 1) AND serves_from >= \(servesFrom) FOR UPDATE;
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'another run has changed the ledger' USING ERRCODE = 'serialization_failure';
                END IF;
            END $narrow$;
            """
    }

    /// A statement of the transaction that writes its own line: the line before says what it has always said.
    func endOfNarrowing(_ migration: Migration, at target: Target) -> String {
        guard isNarrowed(migration, at: target) else { return "" }
        let before = catalog.shard[migration.version - 2]
        return """
            UPDATE public.hc_schema SET serves_from = \(before.servesFrom.map { "\($0)" } ?? "NULL")
            WHERE version = \(before.version);
            """
    }

    /// Nothing of the migration was applied. Who cannot say so leaves the shard closed to older programs.
    private func reopen(before migration: Migration, at target: Target) async {
        guard let reference = target.reference else { return }
        do {
            try await plane.shard(reference: reference, .owner).executeScript(
                endOfNarrowing(migration, at: target), deadline: plane.deadline)
        } catch {
            plane.progress(
                "\(target.database): programs that do not know migration \(migration.servesFrom ?? 0)"
                    + " do not serve it until it is migrated: \(error)")
        }
    }

    /// Ends the sessions of all programs that do not report themselves: of a process that was stopped, or is cut off from
    /// the control database. It would go on over them in the old form, with what it had begun and what it has not looked
    /// at the ledger for. A session that is opened from now on sees the closed ledger first.
    ///
    /// Those of processes that know the migration go on. A pooler opens new ones for everybody behind it: there each
    /// transaction looks at the ledger (`Entrance`).
    ///
    /// - Throws: `ControlError` (`sessions-stay`) if one does not end.
    func endSessions(
        at target: Target, _ servesFrom: Int, _ what: String
    ) async throws {
        guard asksServers, let reference = target.reference else { return }
        let spared = try await ProcessRegistry(plane: plane).survivors(of: servesFrom).map(\.id)
        let left = try await plane.attempt(what) {
            // A role may end its own sessions.
            let connection = try await plane.shard(reference: reference, .app)
            let others = try await connection.execute(
                Query(
                    """
                    SELECT pid, backend_start::text, pg_terminate_backend(pid, $2)
                    FROM pg_stat_activity
                    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
                        AND NOT right(application_name, 36) = ANY ($1)
                    """,
                    [
                        .texts(spared.map { "\($0)" }),
                        .int8(MigrationRunner.endTimeout.inMilliseconds),
                    ]), deadline: plane.deadline)
            if others.count > 0 {
                plane.progress(
                    "\(target.database): \(others.count) sessions of programs that do not report themselves were ended"
                )
            }
            // One that ended by itself meanwhile was not ended by us.
            return try await connection.execute(
                Query(
                    """
                    SELECT count(*) FROM pg_stat_activity
                    JOIN unnest($1::int8[], $2::text[]) AS ended (process, since)
                        ON pid = process AND backend_start = since::timestamptz
                    """,
                    [
                        .int8s(try others.rows.map { Int64(try $0.int(0)) }),
                        .texts(try others.rows.map { try $0.text(1) }),
                    ]), deadline: plane.deadline
            ).single().int(0)
        }
        guard left == 0 else {
            throw ControlError(
                .failed, code: "sessions-stay",
                "\(what): \(left) sessions of programs that do not report themselves do not end",
                remedy: "See pg_stat_activity there; then run 'hc-admin migrate up' again.")
        }
    }

    private static let endTimeout = Duration.seconds(5)
}
