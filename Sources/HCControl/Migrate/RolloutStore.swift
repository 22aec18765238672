package import HCCore
import HCCrypto
package import HCIO
import HCPostgres

/// One row of `migration_rollout`.
package struct Rollout: Sendable {
    package enum State: String, Sendable {
        case running
        case halted
        case aborted
        case done
    }

    package let id: UUID
    package let state: State
    package let version: Int
    package let canary: String
    package let wave: Int
    package let shardsDone: Int
    package let shardsTotal: Int
    package let failedShards: [String]
    package let problem: String?
    package let attempt: Int64
    package let operatorName: String
    /// For how long nobody else can take it over; nil if anybody can.
    package let leaseLeft: Duration?
    /// Since it last got on: began or ended something.
    package let silence: Duration

    package var isOpen: Bool { state == .running || state == .halted }
    /// Somebody has it and does not get on: it can be taken from him.
    package var isStuck: Bool { leaseLeft != nil && silence >= RolloutStore.stuckAfter }

    /// One whose process has gone without having heard of the abort has nobody left to end it: it has ended.
    static let columns = """
        id, CASE WHEN \(RolloutStore.isForsaken) THEN 'aborted' ELSE state END, version, canary, wave, shards_done, shards_total, array_to_string(failed_shards, ','), problem,
        attempt, operator_name,
        CASE WHEN \(RolloutStore.isHeld)
            THEN ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::int8 END,
        (abs(extract(epoch FROM clock_timestamp() - updated_at)) * 1000)::int8
        """

    init(_ row: PostgresRow) throws {
        id = try row.uuid(0)
        let state = try row.text(1)
        guard let known = State(rawValue: state) else {
            throw ControlError(
                .failed, code: "rollout-unreadable", "a rollout has the unknown state '\(state)'",
                remedy: "Use the newest release of hc-admin.")
        }
        self.state = known
        version = try row.int(2)
        canary = try row.text(3)
        wave = try row.int(4)
        shardsDone = try row.int(5)
        shardsTotal = try row.int(6)
        failedShards = try row.text(7).split(separator: ",").map(String.init)
        problem = try row.textIfPresent(8)
        attempt = Int64(try row.int(9))
        operatorName = try row.text(10)
        leaseLeft = try row.intIfPresent(11).map { .milliseconds($0) }
        silence = .milliseconds(try row.int(12))
    }

    package var json: JSONValue {
        [
            "id": .string("\(id)"), "state": .string(state.rawValue),
            "version": .integer(Int64(version)), "canary": .string(canary),
            "wave": .integer(Int64(wave)), "shardsDone": .integer(Int64(shardsDone)),
            "shardsTotal": .integer(Int64(shardsTotal)),
            "failedShards": .array(failedShards.map { .string($0) }),
            "problem": problem.map { .string($0) } ?? .null, "operator": .string(operatorName),
            "isCarriedOn": .bool(leaseLeft != nil),
            "silentSeconds": .integer(silence.inMilliseconds / 1000),
        ]
    }
}

/// The tables `migration_rollout` and `migration_run`: every change is a compare-and-swap by the attempt's number.
@LoopActor
package struct RolloutStore {
    /// How long a process has a rollout without renewing it.
    nonisolated static let lease = Duration.seconds(10)
    static let renewEvery = Duration.seconds(2)
    /// A process that renews its lease and has begun and ended nothing for so long may be stuck. It may as well wait for
    /// one long statement: whether it is taken over is for a person to say.
    nonisolated static let stuckAfter = Duration.seconds(60)

    /// In SQL: somebody has the run. A lease never ends further ahead than it lasts; one that does was written before the
    /// server's clock was set back, by a process that renews it at once if it lives. Twice as far, for small steps.
    nonisolated static let isHeld = """
        coalesce(lease_until > clock_timestamp()
            AND lease_until <= clock_timestamp() + \(2 * lease.inMilliseconds) * interval '1 ms', false)
        """

    /// In SQL: it is to be aborted, and nobody is left to do it.
    nonisolated static let isForsaken = "(state = 'running' AND abort_wanted AND NOT \(isHeld))"

    let plane: ControlPlane
    /// Through which it writes while several workers do; nil: over the plane's own connection.
    private let journal: RolloutJournal?

    package init(plane: ControlPlane) {
        self.init(plane: plane, journal: nil)
    }

    init(plane: ControlPlane, journal: RolloutJournal?) {
        self.plane = plane
        self.journal = journal
    }

    /// The newest; nil if there was none, or the control database has no table for it yet.
    package func last() async throws -> Rollout? {
        try await plane.attempt("the last run of migrations cannot be read") {
            let connection = try await plane.control()
            let exists = try await connection.execute(
                Query("SELECT to_regclass('public.migration_rollout') IS NOT NULL"),
                deadline: plane.deadline
            ).single().bool(0)
            guard exists else { return nil }
            return try await connection.execute(
                .unsafeSQL(
                    """
                    SELECT \(Rollout.columns) FROM migration_rollout
                    ORDER BY state IN ('running', 'halted') DESC, started_at DESC LIMIT 1
                    """, []), deadline: plane.deadline
            ).rows.map { try Rollout($0) }.first
        }
    }

    /// Begins a rollout, or takes over the one that halted or whose process is gone.
    ///
    /// - Throws: `ControlError` (`rollout-running`) if somebody is at it.
    func begin(
        target: Migration, canary: String, shards: Int, owner: String
    ) async throws -> Rollout {
        var random = SystemRandom()
        let fresh = UUID.v7(at: plane.clocks.now(), using: &random)
        let detail: JSONValue = [
            "version": .integer(Int64(target.version)), "canary": .string(canary),
        ]
        let mine = try await plane.attempt("the run of migrations cannot be written down") {
            let values: [PostgresValue] = [
                .int4(Int32(target.version)), .text(target.checksum), .text(canary),
                .int4(Int32(shards)), .text(owner), .int8(RolloutStore.lease.inMilliseconds),
                .text(plane.operatorName),
            ]
            return try await plane.control().transaction(deadline: plane.deadline) {
                transaction -> Rollout? in
                let mine = try await begin(values, fresh: fresh, transaction)
                guard let mine else { return nil }
                _ = try await transaction.execute(final: [
                    // Of processes that are gone: whether it was applied says the ledger.
                    Query(
                        """
                        UPDATE migration_run SET state = 'halted', finished_at = clock_timestamp(),
                            error = 'the process that ran it ended'
                        WHERE rollout_id IS NOT NULL AND state = 'running'
                        """),
                    plane.audit("migrate.up", subject: "\(mine.id)", detail: detail),
                ])
                return mine
            }
        }
        guard let mine else { throw try await isRunning() }
        return mine
    }

    private func begin(
        _ values: [PostgresValue], fresh: UUID, _ transaction: PostgresTransaction
    ) async throws -> Rollout? {
        let results = try await transaction.execute([
            Query("SELECT pg_try_advisory_xact_lock(1, 1)"),
            .unsafeSQL(
                """
                UPDATE migration_rollout SET state = 'aborted', lease_until = NULL,
                    finished_at = clock_timestamp(), updated_at = clock_timestamp()
                WHERE \(RolloutStore.isForsaken)
                """, []),
            .unsafeSQL(
                """
                INSERT INTO migration_rollout (id, state, version, checksum, canary, shards_total, lease_owner,
                    lease_until, operator_name)
                VALUES ($8, 'running', $1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 ms', $7)
                ON CONFLICT DO NOTHING RETURNING \(Rollout.columns)
                """, values + [.uuid(fresh)]),
        ])
        guard try results[0].single().bool(0) else { throw RolloutStore.isWorkedOnAlone }
        if let begun = try results[2].rows.map({ try Rollout($0) }).first { return begun }
        return try await transaction.execute(
            .unsafeSQL(
                """
                UPDATE migration_rollout
                SET state = 'running', version = $1, checksum = $2, canary = $3, wave = 0, shards_done = 0,
                    shards_total = $4, failed_shards = '{}', problem = NULL, attempt = attempt + 1,
                    lease_owner = $5, lease_until = clock_timestamp() + $6 * interval '1 ms',
                    abort_wanted = false, operator_name = $7, updated_at = clock_timestamp()
                WHERE state IN ('running', 'halted') AND NOT \(RolloutStore.isHeld)
                RETURNING \(Rollout.columns)
                """, values)
        ).rows.map { try Rollout($0) }.first
    }

    /// - Returns: what to say to the operator who comes second.
    private func isRunning() async throws -> ControlError {
        let other = try await last()
        let left = other?.leaseLeft.map { max(1, ($0.inMilliseconds + 999) / 1000) }
        return ControlError(
            .conflict, code: "rollout-running",
            "\(other?.operatorName ?? "somebody") is migrating the shards"
                + (other.map {
                    " to version \($0.version): \($0.shardsDone) of \($0.shardsTotal) done"
                } ?? ""),
            remedy: "See 'hc-admin migrate status'; "
                + (other?.isStuck == true
                    ? "it has begun and ended nothing for \(RolloutStore.seconds(other)) s: if it is stuck, take it over"
                        + " with 'hc-admin migrate up --take-over'."
                    : "if that process is gone, its run can be taken over"
                        + (left.map { " in \($0) s." } ?? " now.")))
    }

    private static func seconds(_ rollout: Rollout?) -> Int64 {
        (rollout?.silence.inMilliseconds ?? 0) / 1000
    }

    /// Takes the run from a process that has it and does not get on. That one is told with the next thing that it writes or
    /// would begin; what it has begun at a shard is brought to its end there, or undone. Returns when by that process' own
    /// clock it has the run no more: then anybody can go on.
    ///
    /// Does nothing if nobody has it.
    ///
    /// - Throws: `ControlError` (`rollout-live`) if it has got on lately.
    func takeOver(reason: String?) async throws {
        guard let open = try await last(), open.state == .running, open.leaseLeft != nil else {
            return
        }
        let left = try await plane.attempt("the run of migrations cannot be taken over") {
            try await plane.control().transaction(deadline: plane.deadline) {
                transaction -> Duration? in
                let row = try await transaction.execute(
                    Query(
                        """
                        UPDATE migration_rollout SET attempt = attempt + 1, lease_owner = $3
                        WHERE id = $1 AND attempt = $2 AND state = 'running'
                            AND updated_at NOT BETWEEN clock_timestamp() - $4 * interval '1 ms'
                                AND clock_timestamp() + $4 * interval '1 ms'
                        RETURNING (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::int8
                        """,
                        [
                            .uuid(open.id), .int8(open.attempt), .text(plane.operatorName),
                            .int8(RolloutStore.stuckAfter.inMilliseconds),
                        ])
                ).singleIfPresent()
                guard let row else { return nil }
                _ = try await transaction.execute(
                    plane.audit(
                        "migrate.take-over", subject: "\(open.id)",
                        detail: [
                            "from": .string(open.operatorName),
                            "silentSeconds": .integer(RolloutStore.seconds(open)),
                            "reason": reason.map { .string($0) } ?? .null,
                        ]))
                return .milliseconds(max(0, try row.int(0)))
            }
        }
        guard let left else {
            throw ControlError(
                .conflict, code: "rollout-live",
                "\(open.operatorName)'s run of migrations is alive: it got on \(RolloutStore.seconds(open)) s ago",
                remedy:
                    "Wait for it, or end it with 'hc-admin migrate abort'. It can be taken over when it has begun and"
                    + " ended nothing for \(RolloutStore.stuckAfter.inMilliseconds / 1000) s.")
        }
        plane.progress(
            "the run is taken from \(open.operatorName); in \((left.inMilliseconds + 999) / 1000) s it goes on"
        )
        try await Loop.shared.sleep(for: left + RolloutStore.margin)
    }

    /// Behind the end of a lease: a clock's resolution and more.
    private static let margin = Duration.milliseconds(100)

    /// Refuses while somebody carries a rollout on.
    func requireNone() async throws {
        if let last = try await last(), last.isOpen, last.leaseLeft != nil {
            throw try await isRunning()
        }
    }

    /// Runs `body` while no run can be begun: for what is done at one shard outside of any. Several may do so at a time.
    ///
    /// A session's lock on the control database keeps runs away, so it ends with the process. Whose run it was when his
    /// lease ran out has lost it.
    ///
    /// - Parameter body: gets what throws when the lock was lost: to be asked before anything is begun.
    /// - Throws: `ControlError` (`rollout-running`).
    func withoutRun<Value>(
        _ body: (@escaping @LoopActor @Sendable () throws(ControlError) -> Void) async throws ->
            Value
    ) async throws -> Value {
        let connection = try await plane.control()
        let isAlone = try await plane.attempt("the control database cannot be locked") {
            try await connection.execute(
                Query("SELECT pg_try_advisory_lock_shared(1, 1)"), deadline: plane.deadline
            ).single().bool(0)
        }
        guard isAlone else { throw try await isRunning() }
        let result: Value
        do {
            try await forgetLapsed()
            try await requireNone()
            result = try await body { () throws(ControlError) in
                guard connection.isClosed else { return }
                throw ControlError(
                    .failed, code: "control-unreachable",
                    "the control database was lost, and with it what keeps runs of migrations away",
                    remedy: "Nothing is half-made: the same command can be given again.")
            }
        } catch {
            await unlock(connection)
            throw error
        }
        await unlock(connection)
        return result
    }

    /// Where that cannot be said, the session's end says it.
    private func unlock(_ connection: PostgresConnection) async {
        do {
            _ = try await connection.execute(
                Query("SELECT pg_advisory_unlock_shared(1, 1)"), deadline: plane.deadline)
        } catch {
            connection.close()
        }
    }

    /// A process that has slept for longer than its lease may not go on with its run behind the back of who has seen none.
    private func forgetLapsed() async throws {
        guard let last = try await last(), last.state == .running, last.leaseLeft == nil else {
            return
        }
        try await plane.attempt("the run of migrations cannot be written down") {
            _ = try await plane.control().execute(
                .unsafeSQL(
                    """
                    UPDATE migration_rollout SET attempt = attempt + 1
                    WHERE id = $1 AND attempt = $2 AND state = 'running' AND NOT \(RolloutStore.isHeld)
                    """, [.uuid(last.id), .int8(last.attempt)]), deadline: plane.deadline)
        }
    }

    private static var isWorkedOnAlone: ControlError {
        ControlError(
            .conflict, code: "shard-migrating",
            "somebody takes a migration back at one shard, or brings one up to date by itself",
            remedy: "When that is over, 'hc-admin migrate up' can be given again.")
    }

    /// Keeps it, and says how far it has come: nothing else is written for each shard.
    ///
    /// - Returns: whether the abort is wanted; nil if the rollout is not this process' any more.
    ///
    /// - Parameter gotOn: since it was renewed before.
    func renew(
        _ rollout: Rollout, shardsDone: Int = 0, gotOn: Bool = true
    ) async throws -> Bool? {
        try await plane.control().execute(
            Query(
                """
                UPDATE migration_rollout SET lease_until = clock_timestamp() + $3 * interval '1 ms',
                    shards_done = greatest(shards_done, $4),
                    updated_at = CASE WHEN $5 THEN clock_timestamp() ELSE updated_at END
                WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING abort_wanted
                """,
                [
                    .uuid(rollout.id), .int8(rollout.attempt),
                    .int8(RolloutStore.lease.inMilliseconds), .int4(Int32(shardsDone)),
                    .bool(gotOn),
                ]), deadline: .after(RolloutStore.lease, from: plane.clocks.monotonic())
        ).singleIfPresent()?.bool(0)
    }

    func note(_ rollout: Rollout, wave: Int, shardsDone: Int) async throws {
        try await write(
            rollout,
            Query(
                """
                UPDATE migration_rollout SET wave = $3, shards_done = greatest(shards_done, $4),
                    updated_at = clock_timestamp()
                WHERE id = $1 AND attempt = $2 AND state = 'running'
                RETURNING id
                """,
                [
                    .uuid(rollout.id), .int8(rollout.attempt), .int4(Int32(wave)),
                    .int4(Int32(shardsDone)),
                ]))
    }

    /// Ends it or leaves it to whoever repairs what is wrong. What somebody wants aborted is not left to anybody.
    ///
    /// - Returns: as what it ended.
    @discardableResult
    func end(
        _ rollout: Rollout, as state: Rollout.State, shardsDone: Int = 0, failed: [String] = [],
        problem: String? = nil
    ) async throws -> Rollout.State {
        let ended = try await write(
            rollout,
            Query(
                """
                UPDATE migration_rollout
                SET state = CASE WHEN $3 = 'halted' AND abort_wanted THEN 'aborted' ELSE $3 END,
                    failed_shards = $4, problem = $5, lease_until = NULL,
                    shards_done = greatest(shards_done, $6), updated_at = clock_timestamp(),
                    finished_at = CASE WHEN $3 <> 'halted' OR abort_wanted THEN clock_timestamp() END
                WHERE id = $1 AND attempt = $2 AND state = 'running'
                RETURNING state
                """,
                [
                    .uuid(rollout.id), .int8(rollout.attempt), .text(state.rawValue),
                    .texts(failed), .optional(problem), .int4(Int32(shardsDone)),
                ]))
        return try Rollout.State(rawValue: ended.text(0)) ?? state
    }

    @discardableResult
    private func write(_ rollout: Rollout, _ query: Query) async throws -> PostgresRow {
        let mine = try await write([query], "the run of migrations cannot be written down")[0]
            .singleIfPresent()
        guard let mine else { throw RolloutStore.lost }
        return mine
    }

    @discardableResult
    func write(_ queries: [Query], _ what: String) async throws -> [PostgresResult] {
        try await plane.attempt(what) {
            if let journal { return try await journal.write(queries) }
            return try await plane.control().execute(queries, deadline: plane.deadline)
        }
    }

    static var lost: ControlError {
        ControlError(
            .conflict, code: "rollout-lost",
            "another process has taken this run of migrations over",
            remedy: "See 'hc-admin migrate status'.")
    }

    /// Between two attempts to get locks.
    static var leftOff: ControlError {
        ControlError(
            .refused, code: "rollout-left-off",
            "the run was aborted while the migration waited for its locks: nothing of it was applied"
        )
    }

    /// Ends a rollout for good, or asks the process that carries it on to do so before its next shard, or its next attempt
    /// to get locks. What was applied stays applied.
    ///
    /// - Returns: the rollout as it is now; still running if it has been asked only.
    /// - Throws: `ControlError` (`rollout-unknown`) if there is none to end.
    package func abort(reason: String?) async throws -> Rollout {
        guard let open = try await last(), open.isOpen else { throw RolloutStore.unknown }
        let ended = try await plane.attempt("the run of migrations cannot be ended") {
            try await plane.control().execute(
                [
                    .unsafeSQL(
                        """
                        UPDATE migration_rollout
                        SET abort_wanted = true,
                            updated_at = CASE WHEN \(RolloutStore.isHeld) THEN updated_at ELSE clock_timestamp() END,
                            state = CASE WHEN \(RolloutStore.isHeld) THEN state ELSE 'aborted' END,
                            finished_at = CASE WHEN NOT \(RolloutStore.isHeld) THEN clock_timestamp() END
                        WHERE id = $1 AND state IN ('running', 'halted') RETURNING \(Rollout.columns)
                        """, [.uuid(open.id)]),
                    plane.audit(
                        "migrate.abort", subject: "\(open.id)",
                        detail: ["reason": reason.map { .string($0) } ?? .null]),
                ], deadline: plane.deadline)[0].rows.map { try Rollout($0) }.first
        }
        guard let ended else { throw RolloutStore.unknown }
        return ended
    }

    private static var unknown: ControlError {
        ControlError(
            .notFound, code: "rollout-unknown", "no run of migrations is open",
            remedy: "See 'hc-admin migrate status'.")
    }

    // MARK: History

    /// Writes down that a migration begins at a shard.
    ///
    /// - Parameters:
    ///   - changesSchema: then only if no clinic is on the move from or to it.
    ///   - before: what is written with it, whatever becomes of it.
    ///   - onWritten: called when that is written.
    /// - Returns: nil if one is, or was: no beginning was written then.
    /// - Throws: `ControlError` (`rollout-lost`), with no beginning written, if the rollout is not this process' any more.
    func began(
        _ migration: Migration, named name: String, shard: String, wave: Int, fingerprint: String,
        changesSchema: Bool = false, _ rollout: Rollout, after before: [Query] = [],
        onWritten: () -> Void = {}
    ) async throws -> UUID? {
        var random = SystemRandom()
        let id = UUID.v7(at: plane.clocks.now(), using: &random)
        let queries = [
            Query(
                """
                SELECT 1 FROM migration_rollout WHERE id = $1 AND attempt = $2 AND state = 'running'
                """, [.uuid(rollout.id), .int8(rollout.attempt)]),
            Query(
                """
                INSERT INTO migration_run (id, database, shard_id, version, name, checksum, wave, state,
                    fingerprint_before, rollout_id, started_at)
                SELECT $1, 'shard', $2, $3, $4, $5, $6, 'running', $7, $8, clock_timestamp()
                WHERE NOT ($9 AND EXISTS (
                    SELECT FROM move
                    WHERE $2 IN (source_shard, target_shard) AND state IN ('running', 'aborting', 'soaking')))
                    AND EXISTS (
                        SELECT FROM migration_rollout
                        WHERE id = $8 AND attempt = $10 AND state = 'running')
                RETURNING id
                """,
                [
                    .uuid(id), .text(shard), .int4(Int32(migration.version)),
                    .text(name), .text(migration.checksum), .int4(Int32(wave)),
                    .text(fingerprint), .uuid(rollout.id), .bool(changesSchema),
                    .int8(rollout.attempt),
                ]),
        ]
        let results = try await write(
            before + queries, "the history of shard \(shard) cannot be written"
        ).dropFirst(before.count)
        onWritten()
        guard let mine = results.first, let begun = results.last, mine.count == 1,
            begun.count == 1 || changesSchema
        else {
            throw RolloutStore.lost
        }
        return try begun.singleIfPresent()?.uuid(0)
    }

    /// How a verification is called in the history.
    static func verification(of migration: Migration) -> String { "\(migration.name) (verify)" }

    /// What was worked on at shards, by any run, and not found good since: it may have been taken back in between, and
    /// applied once more.
    ///
    /// - Parameter versions: of migrations that have a verification.
    func unverified(of versions: [Int]) async throws -> [String: Set<Int>] {
        guard !versions.isEmpty else { return [:] }
        return try await plane.attempt("the history of migrations cannot be read") {
            let rows = try await plane.control().execute(
                Query(
                    """
                    SELECT DISTINCT shard_id, version FROM migration_run AS run
                    WHERE database = 'shard' AND version = ANY($1) AND name NOT LIKE '% (verify)' AND NOT EXISTS (
                        SELECT FROM migration_run AS good
                        WHERE good.shard_id = run.shard_id AND good.version = run.version
                            AND good.name LIKE '% (verify)' AND good.state = 'done'
                            AND good.started_at >= run.started_at)
                    """, [.int8s(versions.map(Int64.init))]), deadline: plane.deadline
            ).rows
            var found: [String: Set<Int>] = [:]
            for row in rows { found[try row.text(0), default: []].insert(try row.int(1)) }
            return found
        }
    }

    /// Writes down how it ended: with the new fingerprint, or with an error.
    static func ending(_ run: UUID, fingerprint: String?, error: String?) -> Query {
        Query(
            """
            UPDATE migration_run SET state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END,
                fingerprint_after = $2, error = $3, finished_at = clock_timestamp()
            WHERE id = $1 AND state = 'running'
            """, [.uuid(run), .optional(fingerprint), .optional(error)])
    }

    /// How long steps took at the shards that have them, in the mean, by their order.
    func durations(_ steps: [MigrationStep]) async throws -> [Int: Duration] {
        try await plane.attempt("the history of migrations cannot be read") {
            let rows = try await plane.control().execute(
                Query(
                    """
                    SELECT version, name, avg(extract(epoch FROM finished_at - started_at) * 1000)::int8
                    FROM migration_run
                    WHERE database = 'shard' AND state = 'done' AND version = ANY($1) GROUP BY version, name
                    """, [.int8s(steps.map { Int64($0.version) })]), deadline: plane.deadline
            ).rows
            var durations: [Int: Duration] = [:]
            for row in rows {
                let (version, name) = (try row.int(0), try row.text(1))
                guard let step = steps.first(where: { $0.version == version && $0.name == name })
                else { continue }
                durations[step.order] = .milliseconds(try row.int(2))
            }
            return durations
        }
    }
}
