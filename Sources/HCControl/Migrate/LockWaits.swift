import HCCore
import HCIO
import HCPostgres

/// Who waits for a lock on shards of a wave, and has for too long: the gate does not let the next wave begin then.
///
/// PostgreSQL tells of all databases of a server at once. So each server is asked once, in the same round trip as whichever of
/// its shards is looked at first, and its shards are asked only if that did not say that nobody waits there.
@LoopActor
final class LockWaits {
    /// Where a shard was when it was looked at: that may be another server than it was registered with.
    struct Server: Hashable, Sendable {
        /// As registered.
        var systemIdentifier: String
        /// In microseconds since 1970. A copy of a server, with the same identifier, was started at another time.
        var startedAt: Int64

        /// `startedAt`
        static let question = Query(
            "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8")
    }

    private let bound: Duration
    /// Servers, as registered, of which a look asks.
    private var claimed: Set<String> = []
    /// Where nobody waits.
    private var calm: Set<Server> = []

    init(above bound: Duration) {
        self.bound = bound
    }

    /// - Returns: what the look at a shard has to ask, and to `note`; nil if that at another one does.
    func question(with shard: Shard) -> Query? {
        claimed.insert(shard.systemIdentifier).inserted ? question : nil
    }

    func note(_ answer: PostgresResult, of server: Server) throws {
        if try !answer.single().bool(0) { calm.insert(server) }
    }

    func isCalm(_ server: Server) -> Bool { calm.contains(server) }

    /// - Returns: `lock-waits`, which names who waits on the shard; nil if nobody does, or does not any more.
    func problem(on shard: Shard, _ plane: ControlPlane) async throws -> ControlError? {
        let waits = try await plane.attempt("shard \(shard.id) cannot be looked at") {
            try await plane.shard(reference: shard.reference, .owner).execute(
                waiting, deadline: plane.deadline)
        }.rows.map { row in
            "process \(try row.int(0)) has waited for \(try row.int(2)) ms for \(try row.text(1)), which"
                + " process \(try row.text(3)) holds"
        }
        guard !waits.isEmpty else { return nil }
        return ControlError(
            .failed, code: "lock-waits",
            "on shard \(shard.id) " + waits.joined(separator: "; "),
            remedy: "End what holds the lock; then 'hc-admin migrate up' goes on.")
    }

    /// Advisory locks do not count: moves and migrations wait for each other with them, and nobody else does.
    private var question: Query {
        Query(
            """
            SELECT EXISTS (
                SELECT FROM pg_locks
                WHERE NOT granted AND locktype <> 'advisory'
                    AND waitstart <= clock_timestamp() - $1 * interval '1 ms')
            """, [.int8(bound.inMilliseconds)])
    }

    private var waiting: Query {
        Query(
            """
            SELECT pid, coalesce(relation::regclass::text, locktype),
                (extract(epoch FROM clock_timestamp() - waitstart) * 1000)::int8,
                array_to_string(pg_blocking_pids(pid), ', ')
            FROM pg_locks
            WHERE NOT granted AND locktype <> 'advisory'
                AND waitstart <= clock_timestamp() - $1 * interval '1 ms'
                AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
            ORDER BY waitstart LIMIT 5
            """, [.int8(bound.inMilliseconds)])
    }
}
