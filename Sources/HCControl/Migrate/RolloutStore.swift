import HCCore
import HCCrypto
package import HCIO
import HCPostgres

/// The table `migration_rollout`: every change is a compare-and-swap by the attempt's number.
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
    func isRunning() async throws -> ControlError {
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
}
