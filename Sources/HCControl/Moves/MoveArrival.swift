import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Whether the server that is a move's destination has what came, past the commit point.
///
/// A standby that took over may lack the end of its primary's log. What came is behind one place in that log
/// (`drainPosition`), and the two servers have the same up to where their timelines part: so it has all of it if they
/// part behind that place. That the barrier is there would be no proof: the stream goes on from what the former primary
/// had confirmed, and may bring it to a server that lacks rows before it.
struct MoveArrival: Sendable {
    /// The door there has been opened for the clinic, and with it came everything before.
    var isKnown: Bool
    /// Every row that came is there.
    var isWhole: Bool
    /// The server is the one that the move drained to.
    var isSameServer: Bool
    /// Of the server as it was asked.
    var timeline: Int
}

/// The destination's server has forgotten the clinic's arrival: it must not be let in there, and what was left behind
/// is kept. `shard reconcile` decides.
struct ArrivalForgotten: Error, CustomStringConvertible {
    var shard: String

    var description: String {
        "the server of shard \(shard) has forgotten that the clinic came: hc-admin shard reconcile \(shard)"
    }
}

extension Move {
    /// The destination of the way back of a move whose arrival was forgotten: it has had the rows all the time.
    var isRecall: Bool { progress["recalledFrom"]?.asString == origin }

    /// Its last look found that the destination has forgotten what came.
    package var isForgotten: Bool { progress["isForgotten"]?.asBool == true }

    func position(_ name: String) -> LogPosition? {
        progress[name]?.asString.flatMap { LogPosition(text: $0) }
    }
}

extension MoveFence {
    /// What the destination has of a move that has passed its commit point.
    func arrival(_ store: MoveStore) async throws -> MoveArrival {
        let identities = try await store.identities(of: move.id)
        let was = move.direction == .forward ? identities.target : identities.source
        return try await MoveArrival.look(
            at: destination, as: was, drained: move.isRecall ? nil : move.position("drainPosition"),
            tenant: move.tenant, epoch: try await store.placementEpoch(of: move), plane: plane)
    }

    /// A standby of the destination that lacks some of what came, on its disk, with how much; nil if none is known to.
    ///
    /// Known is who is connected, and who has a slot: that stays where its standby was last, for as long as the standby is
    /// away. One whose log was removed since (`max_slot_wal_keep_size`) can never catch up and has to be made anew: nobody
    /// waits for it. Of a standby without a slot that is away nothing is known.
    func standbyLacks() async throws -> (standby: String, bytes: Int64)? {
        guard let position = move.position("drainPosition"), !move.isRecall else { return nil }
        return try await plane.attempt("the standbys of shard \(destination.id) cannot be seen") {
            try await plane.shard(reference: destination.reference, .superuser).execute(
                Query(
                    """
                    SELECT name, ($1::text::pg_lsn - reached)::int8 FROM (
                        SELECT format('standby %s', coalesce(slot_name, application_name)), flush_lsn
                        FROM pg_stat_replication
                        LEFT JOIN pg_replication_slots ON active_pid = pg_stat_replication.pid
                        WHERE slot_type IS DISTINCT FROM 'logical' AND state IN ('catchup', 'streaming')
                        UNION ALL
                        SELECT format('standby with the slot %s, which is away,', slot_name), restart_lsn
                        FROM pg_replication_slots
                        WHERE slot_type = 'physical' AND NOT active AND NOT temporary AND wal_status <> 'lost'
                    ) AS standby (name, reached)
                    WHERE reached < $1::text::pg_lsn ORDER BY reached LIMIT 1
                    """, [.text(position.text)]), deadline: plane.deadline
            ).singleIfPresent().map { (standby: try $0.text(0), bytes: Int64(try $0.int(1))) }
        }
    }
}

extension MoveArrival {
    /// - Parameters:
    ///   - was: the server that the move drained to.
    ///   - drained: behind everything that came; nil: it is there if the server is the same.
    ///   - epoch: that the clinic has where it arrived.
    @LoopActor
    static func look(
        at shard: Shard, as was: ShardIdentity, drained: LogPosition?, tenant: TenantID,
        epoch: Int64, plane: ControlPlane
    ) async throws -> MoveArrival {
        try await plane.attempt("shard \(shard.id) does not say what has come") {
            let connection = try await plane.shard(reference: shard.reference, .mover)
            guard let now = try await ShardIdentity(of: connection, deadline: plane.deadline) else {
                throw ControlError(
                    .refused, code: "shard-standby",
                    "the files of '\(shard.reference)' lead to a standby",
                    remedy: "Name the primary in them.")
            }
            let isKnown = try await connection.execute(
                Query(
                    "SELECT EXISTS (SELECT FROM hc_tenant WHERE tenant_id = $1 AND epoch >= $2)",
                    [.id(tenant), .int8(epoch)]), deadline: plane.deadline
            ).single().bool(0)
            let isSameSystem = now.systemIdentifier == was.systemIdentifier
            let isSameServer = isSameSystem && now.timeline == was.timeline
            var isWhole = isSameServer
            if isSameSystem, !isSameServer {
                let parted = try await partedAt(was.timeline, now.timeline, shard, plane)
                isWhole = parted.flatMap { parted in drained.map { $0 <= parted } } ?? false
            }
            return MoveArrival(
                isKnown: isKnown, isWhole: isWhole, isSameServer: isSameServer,
                timeline: now.timeline)
        }
    }

    /// Where a timeline was left for those that led to the present one, as the server's history file has it (PostgreSQL
    /// 15 manual, 26.3.5); nil if it does not name it.
    @LoopActor
    private static func partedAt(
        _ former: Int, _ present: Int, _ shard: Shard, _ plane: ControlPlane
    ) async throws -> LogPosition? {
        let history = try await plane.shard(reference: shard.reference, .superuser).execute(
            Query(
                """
                SELECT pg_read_file('pg_wal/' || lpad(upper(to_hex($1)), 8, '0') || '.history', 0, 1000000, true)
                """, [.int4(Int32(present))]), deadline: plane.deadline
        ).single().textIfPresent(0)
        return history.flatMap { place(of: former, in: $0) }
    }

    /// From a timeline's history: lines of a timeline, where it ended, and why.
    static func place(of timeline: Int, in history: String) -> LogPosition? {
        for line in history.split(separator: "\n") {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, Int(words[0]) == timeline else { continue }
            return LogPosition(text: String(words[1]))
        }
        return nil
    }
}
