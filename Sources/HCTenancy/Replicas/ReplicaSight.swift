package import HCCore
package import HCIO
package import HCPostgres

/// What a server says of itself: whose copy it is, and how far.
package struct ReplicaSight: Sendable, Equatable {
    package let identity: ShardIdentity
    /// In recovery: it follows another server.
    package let isStandby: Bool
    package let replayed: LogPosition

    package enum Refusal: String, Error, Sendable {
        case otherCluster = "it is a copy of another server, or another database"
        case otherTimeline = "it follows another timeline"
        case notAStandby = "it is no replica: it takes writes of its own"
    }

    /// Why it must not be read from in the place of a shard; nil: it may.
    ///
    /// After a fail-over a replica may still be on the old timeline, with commits that the new primary never had, or on
    /// the new one before the map is: positions of two timelines cannot be compared, so both are refused.
    package func refusal(asReplicaOf shard: ShardIdentity) -> Refusal? {
        if identity.systemIdentifier != shard.systemIdentifier
            || identity.databaseOID != shard.databaseOID
        {
            return .otherCluster
        }
        if !isStandby { return .notAStandby }
        return identity.timeline == shard.timeline ? nil : .otherTimeline
    }

    /// Asks a server. Costs it next to nothing.
    ///
    /// A standby does not tell the timeline that it replays (PostgreSQL manual 9.27.3); the control file has that of the
    /// last restart point, and that of the least point to which recovery must go: the newer of the two is at most a
    /// restart point late.
    @LoopActor
    package static func look(
        at connection: PostgresConnection, deadline: Deadline
    ) async throws(PostgresError) -> ReplicaSight {
        let row = try await connection.execute(ReplicaSight.question, deadline: deadline).single()
        return ReplicaSight(
            identity: ShardIdentity(
                systemIdentifier: try row.text(0), timeline: try row.int(1),
                databaseOID: Int64(try row.int(2))),
            isStandby: try row.bool(3), replayed: try row.position(4))
    }

    private static let question = Query(
        """
        SELECT system_identifier::text,
            CASE WHEN pg_is_in_recovery() THEN greatest(timeline_id, min_recovery_end_timeline)
                ELSE timeline_id
            END,
            pg_database.oid::int8, pg_is_in_recovery(), (pg_last_wal_replay_lsn() - '0/0')::int8
        FROM pg_control_system(), pg_control_checkpoint(), pg_control_recovery(), pg_database
        WHERE datname = current_database()
        """)
}

extension LogPosition {
    /// Where the log of a primary ends: whatever was committed before the question is before it.
    static let endQuestion = Query("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8")

    /// Asks a primary where its log ends.
    @LoopActor
    package static func end(
        of connection: PostgresConnection, deadline: Deadline
    ) async throws(PostgresError) -> LogPosition {
        try await connection.execute(endQuestion, deadline: deadline).single().position(0)
    }
}

extension PostgresRow {
    /// A position that was sent as a number; 0 for NULL, which a server has that never replayed anything.
    func position(_ column: Int) throws(PostgresError) -> LogPosition {
        LogPosition(UInt64(clamping: try intIfPresent(column) ?? 0))
    }
}
