import HCCore
import HCIO
import HCPostgres

/// What is done at one shard outside of any run.
extension RolloutStore {
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

    static var isWorkedOnAlone: ControlError {
        ControlError(
            .conflict, code: "shard-migrating",
            "somebody takes a migration back at one shard, or brings one up to date by itself",
            remedy: "When that is over, 'hc-admin migrate up' can be given again.")
    }
}
