import HCCore
import HCIO
import HCPostgres

/// Who waits for a lock on shards of a wave, and has for too long: the gate does not let the next wave begin then.
///
/// PostgreSQL tells of all databases of a server at once. So each server is asked once, over a connection to whichever of its
/// shards comes first, and only shards in whose database somebody waits are asked for more.
@LoopActor
final class LockWaits {
    /// Where a shard was when it was looked at: that may be another server than it was registered with.
    struct Place: Hashable, Sendable {
        struct Server: Hashable, Sendable {
            /// As registered.
            var systemIdentifier: String
            /// In microseconds since 1970. A copy of a server, with the same identifier, was started at another time.
            var startedAt: Int64
        }

        var server: Server
        var database: String

        /// `startedAt`, `database`
        static let question = Query(
            """
            SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8, current_database()::text
            """)

        init(_ result: PostgresResult, of shard: Shard) throws {
            let row = try result.single()
            server = Server(
                systemIdentifier: shard.systemIdentifier, startedAt: Int64(try row.int(0)))
            database = try row.text(1)
        }
    }

    private let bound: Duration
    private var asked: Set<Place.Server> = []
    /// Where somebody waits.
    private var found: Set<Place> = []

    init(above bound: Duration) {
        self.bound = bound
    }

    var isEmpty: Bool { found.isEmpty }

    /// Asks the server of a shard, unless that was done.
    func ask(_ shard: Shard, at place: Place, _ plane: ControlPlane) async throws {
        guard asked.insert(place.server).inserted else { return }
        let databases = try await plane.attempt("shard \(shard.id) cannot be looked at") {
            try await plane.shard(reference: shard.reference, .owner).execute(
                Query(
                    """
                    SELECT DISTINCT activity.datname::text
                    FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
                    WHERE NOT granted AND locktype <> 'advisory' AND activity.datname IS NOT NULL
                        AND waitstart <= clock_timestamp() - $1 * interval '1 ms'
                    """, [.int8(bound.inMilliseconds)]), deadline: plane.deadline
            ).rows.map { try $0.text(0) }
        }
        for database in databases {
            var there = place
            there.database = database
            found.insert(there)
        }
    }

    /// - Returns: `lock-waits`, which names who waits on the shard; nil if nobody does, or does not any more.
    func problem(
        on shard: Shard, at place: Place, _ plane: ControlPlane
    ) async throws -> ControlError? {
        guard found.contains(place) else { return nil }
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
