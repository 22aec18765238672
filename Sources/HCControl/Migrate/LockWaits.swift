import HCCore
import HCIO
import HCPostgres

extension MigrationRunner {
    /// Who waits for a lock on a shard, and has for too long: the gate of a wave does not let the next one begin then.
    /// Advisory locks do not count: moves and migrations wait for each other with them, and nobody else does.
    ///
    static func lockWaits(above bound: Duration) -> Query {
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

    /// - Returns: `lock-waits`, which names them; nil if there are none.
    static func problem(lockWaits result: PostgresResult, on shard: String) throws -> ControlError?
    {
        let waits = try result.rows.map { row in
            "process \(try row.int(0)) has waited for \(try row.int(2)) ms for \(try row.text(1)), which"
                + " process \(try row.text(3)) holds"
        }
        guard !waits.isEmpty else { return nil }
        return ControlError(
            .failed, code: "lock-waits",
            "on shard \(shard) " + waits.joined(separator: "; "),
            remedy: "End what holds the lock; then 'hc-admin migrate up' goes on.")
    }
}
