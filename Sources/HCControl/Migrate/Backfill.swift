import HCCore
import HCCrypto
import HCIO
import HCPostgres

/// Goes through the rows of every clinic of a shard for one migration: a clinic after the other, a batch after the other,
/// each batch a transaction with its line in `hc_backfill`, so that whoever comes after a crash begins where it ended.
///
/// `backfill.sql` is one statement with three parameters: the clinic (`$1`, uuid), where to begin (`$2`, text; NULL: at the
/// first row) and how many rows to take (`$3`, int). It gives back one row: how many rows it has looked at (bigint), and
/// where the next batch begins (text; NULL: this was the last). Row-level security holds it to that clinic's rows.
@LoopActor
struct Backfill {
    let plane: ControlPlane
    let migration: Migration
    let target: MigrationRunner.Target

    /// For how long a clinic that is being handed over is waited for when all others are done.
    private static let busyTimeout = Duration.seconds(120)
    private static let busyPause = Duration.milliseconds(250)
    private static let lagPause = Duration.seconds(1)
    private static let tenantsMax = 500
    /// A batch that had to wait for a row is tried again.
    private static let lockTimeout = Duration.seconds(2)
    private static let triesMax = 20
    /// A batch that takes longer is followed by a smaller one: its rows are locked for others meanwhile.
    private static let batchTime = Duration.milliseconds(500)

    private enum Batch {
        case more
        case last
        /// The clinic is being handed over.
        case busy
        case elsewhere
    }

    /// The phase: every clinic, then the ledger.
    ///
    /// - Returns: false if it was not to go on.
    func run(while mayGoOn: () -> Bool) async throws -> Bool {
        guard try await pass(since: nil, while: mayGoOn) else { return false }
        try FaultPoint.reach("migrate.backfill-passed")
        var fields = "phase = 'backfilled'"
        if migration.contract == nil {
            fields = "phase = NULL"
            fields += migration.servesFrom.map { ", serves_from = \($0)" } ?? ""
        }
        try await plane.attempt(what) {
            try await target.connection.executeScript(
                """
                \(MigrationRunner.guardOfLedger(last: migration.version));
                UPDATE public.hc_schema SET \(fields)
                WHERE version = \(migration.version) AND phase = 'expanded'
                """, deadline: plane.deadline)
        }
        return true
    }

    /// Every clinic that is served here, until none is left.
    ///
    /// - Parameter since: passes that began before then do not count.
    /// - Returns: false if it was not to go on.
    func pass(since: String?, while mayGoOn: () -> Bool) async throws -> Bool {
        var busySince: MonotonicTime?
        while true {
            let tenants = try await due(since: since)
            guard !tenants.isEmpty else { return true }
            var wasBusy = true
            for tenant in tenants {
                guard let batch = try await fill(tenant, since: since, while: mayGoOn) else {
                    return false
                }
                if case .busy = batch { continue }
                wasBusy = false
            }
            guard wasBusy else {
                busySince = nil
                continue
            }
            let now = plane.clocks.monotonic()
            busySince = busySince ?? now
            guard let busySince, now < busySince + Backfill.busyTimeout else {
                throw ControlError(
                    .failed, code: "backfill-busy",
                    "\(what): \(tenants.count) clinics were being handed over all the time, \(tenants[0])"
                        + " among them",
                    remedy: "See 'hc-admin move list'; then run 'hc-admin migrate up' again.")
            }
            try await Loop.shared.sleep(for: Backfill.busyPause)
        }
    }

    // MARK: One clinic

    /// - Returns: how its last batch ended; nil if it was not to go on.
    private func fill(
        _ tenant: UUID, since: String?, while mayGoOn: () -> Bool
    ) async throws -> Batch? {
        var rows = migration.terms.batchRows
        while true {
            guard mayGoOn(), try await replicasFollow(while: mayGoOn) else { return nil }
            let began = plane.clocks.monotonic()
            guard let batch = try await next(tenant, rows: rows, since: since, while: mayGoOn)
            else { return nil }
            try FaultPoint.reach("migrate.backfill-batch")
            let took = plane.clocks.monotonic() - began
            try await rest(after: took)
            guard case .more = batch else { return batch }
            rows =
                took > Backfill.batchTime
                ? max(1, rows / 2) : min(rows * 2, migration.terms.batchRows)
        }
    }

    /// The slower the shard answers, the longer it is left to others.
    private func rest(after took: Duration) async throws {
        let percent = migration.terms.busyPercent
        guard percent < 100 else { return }
        try await Loop.shared.sleep(for: took * (100 - percent) / percent)
    }

    /// A batch that met a row which somebody kept is tried again after a pause.
    ///
    /// - Returns: nil if it was not to go on.
    private func next(
        _ tenant: UUID, rows: Int, since: String?, while mayGoOn: () -> Bool
    ) async throws -> Batch? {
        var random = SystemRandom()
        var attempt = 0
        while true {
            attempt += 1
            let done: Batch? = try await plane.attempt(what) {
                do {
                    return try await batch(tenant, rows: rows, since: since)
                } catch let error as PostgresError {
                    guard attempt < Backfill.triesMax,
                        error.isRetryable || error.sqlstate == .lockNotAvailable
                    else { throw error }
                    return nil
                }
            }
            if let done { return done }
            guard mayGoOn() else { return nil }
            try await Loop.shared.sleep(
                for: LockRetry().pause(after: attempt, using: &random))
        }
    }

    /// One transaction: the door, where the clinic stands, the statement, where it stands now.
    private func batch(_ tenant: UUID, rows: Int, since: String?) async throws -> Batch {
        let deadline = Deadline.after(migration.terms.timeout, from: plane.clocks.monotonic())
        return try await target.connection.transaction(deadline: deadline) { transaction in
            let door = try await transaction.execute([
                Query(
                    "SELECT set_config('lock_timeout', $1, true)",
                    [.text("\(Backfill.lockTimeout.inMilliseconds)ms")]),
                Query("SELECT hc_backfill_enter($1)", [.uuid(tenant)]),
            ])[1][0].text(0)
            guard door == "entered" else { return door == "busy" ? .busy : .elsewhere }
            let line = try await transaction.execute(begin(tenant, since: since))[1][0]
            // Another process has finished it.
            if try line.bool(1) { return .last }
            let place = try line.textIfPresent(0)
            let result = try await transaction.execute(
                .unsafeSQL(
                    migration.backfill ?? "",
                    [.uuid(tenant), .optional(place), .int4(Int32(rows))]))
            let (count, cursor) = try Backfill.line(result, what)
            guard cursor == nil || cursor != place else {
                throw ControlError(
                    .failed, code: "bad-backfill",
                    "\(what): its statement does not get on: it gives back the place at which it began"
                )
            }
            _ = try await transaction.execute(
                Query(
                    """
                    UPDATE hc_backfill
                    SET cursor = $3, rows_seen = rows_seen + $4,
                        done_at = CASE WHEN $3::text IS NULL THEN clock_timestamp() END
                    WHERE tenant_id = $1 AND version = $2
                    """, [.uuid(tenant), version, .optional(cursor), .int8(count)]))
            return cursor == nil ? .last : .more
        }
    }

    /// The clinic's line, begun anew if it is of a pass that does not count.
    private func begin(_ tenant: UUID, since: String?) -> [Query] {
        [
            Query(
                """
                INSERT INTO hc_backfill AS line (tenant_id, version) VALUES ($1, $2)
                ON CONFLICT (tenant_id, version) DO UPDATE
                SET cursor = NULL, begun_at = clock_timestamp(), done_at = NULL
                WHERE line.begun_at < $3::text::timestamptz
                """, [.uuid(tenant), version, .optional(since)]),
            Query(
                "SELECT cursor, done_at IS NOT NULL FROM hc_backfill WHERE tenant_id = $1 AND version = $2",
                [.uuid(tenant), version]),
        ]
    }

    private var version: PostgresValue { .int4(Int32(migration.version)) }

    /// - Throws: `ControlError` (`bad-backfill`) for anything but one row of a count and a place.
    static func line(
        _ result: PostgresResult, _ what: String
    ) throws -> (rows: Int64, cursor: String?) {
        do {
            let row = try result.single()
            return (Int64(try row.int(0)), try row.textIfPresent(1))
        } catch {
            throw ControlError(
                .failed, code: "bad-backfill",
                "\(what): its statement has to give back one row of a bigint and a text",
                cause: error)
        }
    }

    // MARK: Details

    private var what: String {
        "\(target.database): the backfill of migration \(migration.version) (\(migration.name)) failed"
    }

    /// Clinics whose rows have not been gone through.
    private func due(since: String?) async throws -> [UUID] {
        try await plane.attempt(what) {
            try await target.connection.execute(
                Query(
                    """
                    SELECT hc_tenant.tenant_id
                    FROM hc_tenant
                    LEFT JOIN hc_backfill AS line ON line.tenant_id = hc_tenant.tenant_id AND version = $1
                    WHERE state NOT IN ('absent', 'incoming', 'moved')
                        AND (done_at IS NULL OR begun_at < $2::text::timestamptz)
                    ORDER BY line.tenant_id IS NULL, hc_tenant.tenant_id LIMIT $3
                    """,
                    [
                        .int4(Int32(migration.version)), .optional(since),
                        .int8(Int64(Backfill.tenantsMax)),
                    ]), deadline: plane.deadline
            ).rows.map { try $0.uuid(0) }
        }
    }

    /// Waits while a replica, or whoever else reads the log, is too far behind.
    ///
    /// - Returns: false if it was not to go on.
    private func replicasFollow(while mayGoOn: () -> Bool) async throws -> Bool {
        var hasTold = false
        while true {
            let behind = try await plane.attempt(what) {
                try await target.connection.execute(
                    Query(
                        """
                        SELECT coalesce(max(pg_current_wal_insert_lsn() - place), 0)::int8
                        FROM (
                            SELECT coalesce(confirmed_flush_lsn, restart_lsn) FROM pg_replication_slots WHERE active
                            UNION ALL SELECT replay_lsn FROM pg_stat_replication
                        ) AS reader (place)
                        """), deadline: plane.deadline
                ).single().int(0)
            }
            guard behind > migration.terms.replicaLagBytesMax else { return mayGoOn() }
            guard mayGoOn() else { return false }
            if !hasTold {
                plane.progress(
                    "\(target.database): the backfill waits for a reader of the log, which is"
                        + " \(behind >> 20) MB behind")
                hasTold = true
            }
            try await Loop.shared.sleep(for: Backfill.lagPause)
        }
    }
}
