import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Samples the shards and keeps averages and peaks in the control database. Run every few minutes.
@LoopActor
package struct LoadCollector {
    package struct Outcome: Sendable {
        package enum Result: Sendable, Equatable {
            case sampled(clinics: Int)
            /// The sample before is a moment old.
            case fresh
            /// In words.
            case failed(String)
        }

        package var shard: String
        package var result: Result
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// Any number that nothing else locks.
    private static let lock = Query("SELECT pg_try_advisory_lock(4823071, 1)")
    private static let unlock = Query("SELECT pg_advisory_unlock(4823071, 1)")

    /// Of the timer that agents are (`MoveAgent`).
    package static let every = Duration.seconds(300)

    /// Samples the shards if nobody has for that long, or almost.
    ///
    /// - Returns: nil if somebody has, or is at it.
    func collectIfDue(after every: Duration = every) async throws -> [Outcome]? {
        let isDue = try await plane.attempt("the load cannot be collected") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT NOT EXISTS (SELECT FROM shard_load
                        WHERE sampled_at > clock_timestamp() - $1 * interval '1 ms')
                    """, [.int8(every.inMilliseconds * 9 / 10)]), deadline: plane.deadline
            ).single().bool(0)
        }
        guard isDue else { return nil }
        do {
            return try await collect()
        } catch let error as ControlError {
            guard error.code == "collecting" else { throw error }
            return nil
        }
    }

    /// Samples every shard but closed ones. One that fails holds up no other.
    ///
    /// - Throws: `ControlError` (`conflict`) if somebody else is at it.
    package func collect() async throws -> [Outcome] {
        let connection = try await plane.control()
        let isFree = try await plane.attempt("the load cannot be collected") {
            try await connection.execute(LoadCollector.lock, deadline: plane.deadline)[0].bool(0)
        }
        guard isFree else {
            throw ControlError(
                .conflict, code: "collecting", "somebody else collects the load just now")
        }
        var outcomes: [Outcome] = []
        for shard in try await ShardRegistry(plane: plane).list(isInUse: true) {
            do {
                outcomes.append(Outcome(shard: shard.id, result: try await collect(shard)))
            } catch let error as ControlError {
                outcomes.append(
                    Outcome(
                        shard: shard.id,
                        result: .failed(error.message + (error.cause.map { ": \($0)" } ?? ""))))
            }
        }
        try await plane.attempt("the load cannot be collected") {
            _ = try await connection.execute(LoadCollector.unlock, deadline: plane.deadline)
        }
        return outcomes
    }

    private func collect(_ shard: Shard) async throws -> Outcome.Result {
        let sample = try await read(shard)
        return try await plane.attempt("what shard \(shard.id) uses cannot be kept") {
            let connection = try await plane.control()
            return try await connection.transaction(
                TransactionOptions(), deadline: plane.deadline
            ) { transaction in
                let results = try await transaction.execute([
                    Query(
                        """
                        SELECT extract(epoch FROM sampled_at)::float8, timeline, wal_position
                        FROM shard_load WHERE shard_id = $1
                        """, [.text(shard.id)]),
                    Query(
                        """
                        SELECT placement.tenant_id, week, seen_seconds, loads,
                            CASE WHEN tenant_load.shard_id = placement.shard_id THEN counted END
                        FROM placement
                        LEFT JOIN tenant_load USING (tenant_id)
                        WHERE placement.shard_id = $1 AND placement.state IN ('serving', 'moving')
                        """, [.text(shard.id)]),
                ])
                let before = try results[0].singleIfPresent().map { row in
                    LoadSample.Before(
                        at: try row.double(0), timeline: try row.int(1), position: try row.int(2))
                }
                var (placed, kept): ([TenantID], [TenantID: LoadSample.Kept]) = ([], [:])
                for row in results[1].rows {
                    let id: TenantID = try row.id(0)
                    placed.append(id)
                    kept[id] = try LoadSample.Kept(row)
                }
                guard let after = sample.follow(before, kept: kept, placed: placed) else {
                    return .fresh
                }
                _ = try await transaction.execute(
                    final: LoadCollector.keep(after, sample, of: shard.id))
                return .sampled(clinics: after.count)
            }
        }
    }

    /// - Throws: `ControlError` also for a server that is not the shard.
    private func read(_ shard: Shard) async throws -> LoadSample {
        try await plane.attempt("shard \(shard.id) cannot be sampled") {
            let connection = try await plane.shard(reference: shard.reference, .mover)
            let identity = try await ShardIdentity(of: connection, deadline: plane.deadline)
            guard let identity, identity.systemIdentifier == shard.systemIdentifier,
                identity.timeline == shard.timeline
            else {
                throw ControlError(
                    .refused, code: "shard-identity",
                    "the server is not shard \(shard.id) as it is registered",
                    remedy: "hc-admin shard reconcile \(shard.id)")
            }
            let results = try await connection.execute(
                LoadCollector.questions, deadline: plane.deadline)
            var clinics: [TenantID: LoadSample.Clinic] = [:]
            for row in results[2].rows {
                clinics[try row.id(0), default: .init()].bytes = try row.double(1)
                clinics[try row.id(0), default: .init()].rowsStored = try row.double(2)
            }
            for row in results[1].rows {
                let id: TenantID = try row.id(0)
                clinics[id, default: .init()].counters = LoadSample.Counters(
                    execution: try row.int(1), pool: try row.int(2), rows: try row.int(3),
                    rowsChanged: try row.int(4))
                clinics[id, default: .init()].busiest = try row.int(5)
            }
            return LoadSample(
                at: try results[0].single().double(0), timeline: identity.timeline,
                position: try results[0].single().int(1), clinics: clinics)
        }
    }

    /// What a shard is asked, in one round trip and one transaction.
    ///
    /// No table is read: the share of a clinic in a table is what the statistics of `tenant_id` say of it, and what they do
    /// not name is shared out evenly. They are as old as the last ANALYZE.
    private static let questions: [Query] = [
        Query(
            """
            SELECT extract(epoch FROM now())::float8, (pg_current_wal_insert_lsn() - '0/0')::int8
            """),
        Query(
            """
            SELECT tenant_id, execution_us, pool_us, rows_all, rows_changed, busiest_us FROM hc_load
            JOIN hc_tenant USING (tenant_id) WHERE hc_tenant.state NOT IN ('absent', 'moved')
            """),
        Query(
            """
            WITH served AS (
                SELECT tenant_id FROM hc_tenant WHERE state NOT IN ('absent', 'incoming', 'moved')
            ),
            sized AS (
                SELECT class.oid, pg_total_relation_size(class.oid)::float8 AS bytes,
                    greatest(class.reltuples, 0)::float8 AS tuples,
                    most_common_vals::text::uuid[] AS ids, most_common_freqs AS shares
                FROM hc_tenant_tables() AS name
                JOIN pg_class class ON class.relname = name
                    AND class.relnamespace = 'public'::regnamespace
                LEFT JOIN pg_stats ON schemaname = 'public' AND tablename = name
                    AND attname = 'tenant_id' AND NOT inherited
            ),
            named AS (
                SELECT oid, tenant_id, share::float8
                FROM sized, unnest(ids, shares) AS entry (tenant_id, share)
            ),
            spread AS (
                SELECT served.tenant_id, sized.oid, bytes, tuples, share,
                    sum(share) OVER (PARTITION BY sized.oid) AS told,
                    count(*) FILTER (WHERE share IS NULL) OVER (PARTITION BY sized.oid) AS untold
                FROM served CROSS JOIN sized
                LEFT JOIN named ON named.oid = sized.oid AND named.tenant_id = served.tenant_id
            )
            SELECT tenant_id, sum(bytes * part)::float8, sum(tuples * part)::float8
            FROM (
                SELECT *, coalesce(
                    share, greatest(0, 1 - coalesce(told, 0)) / untold) AS part
                FROM spread
            ) AS parted
            GROUP BY tenant_id
            """),
        Query("UPDATE hc_load SET busiest_us = 0 WHERE busiest_us > 0"),
        // What nobody counts any more, here or at all.
        Query(
            """
            DELETE FROM hc_load WHERE counted_at < now() - interval '2 days' OR NOT EXISTS (
                SELECT FROM hc_tenant
                WHERE hc_tenant.tenant_id = hc_load.tenant_id AND state NOT IN ('absent', 'moved'))
            """),
    ]

    private static func keep(
        _ after: [TenantID: LoadSample.Kept], _ sample: LoadSample, of shard: String
    ) -> [Query] {
        let lines = after.sorted { $0.key < $1.key }
        return [
            Query(
                """
                INSERT INTO tenant_load (
                    tenant_id, shard_id, sampled_at, week, seen_seconds, loads, counted, rows_stored)
                SELECT line.id, $1, now(), line.week, line.seen, line.loads, line.counted, line.stored
                FROM unnest($2::uuid[], $3::int8[], $4::int8[], $5::bytea[], $6::bytea[], $7::int8[])
                    AS line (id, week, seen, loads, counted, stored)
                JOIN tenant ON tenant.id = line.id
                ON CONFLICT (tenant_id) DO UPDATE SET shard_id = excluded.shard_id,
                    sampled_at = excluded.sampled_at, week = excluded.week,
                    seen_seconds = excluded.seen_seconds, loads = excluded.loads,
                    counted = excluded.counted, rows_stored = excluded.rows_stored
                """,
                [
                    .text(shard), .uuids(lines.map(\.key.uuid)),
                    .int8s(lines.map { Int64($0.value.history.week) }),
                    .int8s(lines.map { Int64($0.value.history.seen.rounded()) }),
                    .byteas(lines.map(\.value.history.encoded)),
                    .byteas(lines.map(\.value.counters.encoded)),
                    .int8s(lines.map { Int64(sample.clinics[$0.key]?.rowsStored ?? 0) }),
                ]),
            Query(
                """
                INSERT INTO shard_load (shard_id, sampled_at, timeline, wal_position)
                VALUES ($1, to_timestamp($2), $3, $4)
                ON CONFLICT (shard_id) DO UPDATE SET sampled_at = excluded.sampled_at,
                    timeline = excluded.timeline, wal_position = excluded.wal_position
                """,
                [
                    .text(shard), .double(sample.at), .int4(Int32(sample.timeline)),
                    .int8(Int64(sample.position)),
                ]),
        ]
    }
}
