import HCIO
import HCPostgres

/// What the servers have to spare.
extension ShardDrain {
    func room(_ origin: Shard, _ targets: [Shard]) async throws -> DrainRoom {
        let running = try await MoveStore(plane: plane).list(
            shard: id, isOpen: true, limit: 100_000
        ).filter { $0.state != .soaking }
        let names = running.flatMap {
            [MoveStream.name($0, isMirror: false), MoveStream.name($0, isMirror: true)]
        }
        var room = DrainRoom(origin: try await spare(origin, names), targets: [:])
        for target in targets { room.targets[target.id] = try await spare(target, names) }
        return room
    }

    /// - Parameter own: streams that are counted as if they were not there: `running` counts their moves.
    private func spare(_ shard: Shard, _ own: [String]) async throws -> DrainRoom.Spare {
        try await plane.attempt("shard \(shard.id) cannot be examined") {
            let row = try await plane.shard(reference: shard.reference, .superuser).execute(
                Query(
                    """
                    SELECT current_setting('max_replication_slots')::int4 - (
                            SELECT count(*) FROM pg_replication_slots
                            WHERE slot_name <> ALL ($1) AND slot_name !~ '^(pg_[0-9]+_sync|hc_watch)_')::int4,
                        current_setting('max_wal_senders')::int4 - (
                            SELECT count(*) FROM pg_stat_replication
                            WHERE application_name <> ALL ($1) AND application_name !~ '^(pg_[0-9]+_sync|hc_watch)_')::int4,
                        current_setting('max_logical_replication_workers')::int4 - (
                            SELECT count(pid) FROM pg_stat_subscription WHERE subname <> ALL ($1))::int4,
                        current_setting('max_sync_workers_per_subscription')::int4
                    """, [.texts(own)]), deadline: plane.deadline
            ).single()
            return DrainRoom.Spare(
                slots: try row.int(0), senders: try row.int(1), workers: try row.int(2),
                copiers: try row.int(3))
        }
    }
}
