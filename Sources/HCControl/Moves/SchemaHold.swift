import HCIO
import HCPostgres
import HCTenancy

/// Keeps migrations away from the two shards of a move for as long as a process carries it on: it shares the lock that a
/// migration takes alone (`MigrationRunner`), on the connections of the move. While nobody carries it on, its row in
/// `move` keeps them away.
@LoopActor
struct SchemaHold {
    let plane: ControlPlane
    let shards: [Shard]

    /// Given again it takes what was lost with a connection.
    ///
    /// - Throws: `ControlError` (`shard-migrating`) if a migration runs on one of them.
    func take() async throws {
        for shard in shards {
            let isHeld = try await plane.attempt(
                "shard \(shard.id) does not say whether it is migrated"
            ) {
                try await plane.shard(reference: shard.reference, .mover).execute(
                    Query(
                        """
                        SELECT CASE WHEN EXISTS (
                            SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
                                AND classid = 1 AND objid = 0 AND objsubid = 2 AND mode = 'ShareLock' AND granted
                        ) THEN true ELSE pg_try_advisory_lock_shared(1, 0) END
                        """), deadline: plane.deadline
                ).single().bool(0)
            }
            guard isHeld else {
                throw ControlError(
                    .refused, code: "shard-migrating", "shard \(shard.id) is being migrated",
                    remedy: "The move goes on when that is over.")
            }
        }
    }

    /// What cannot be given back goes with its connection.
    func release() async {
        for shard in shards {
            do {
                _ = try await plane.shard(reference: shard.reference, .mover).execute(
                    Query("SELECT pg_advisory_unlock_all()"), deadline: plane.deadline)
            } catch {
                continue
            }
        }
    }
}
