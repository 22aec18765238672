import HCPostgres

extension Doctor {
    /// Invariant I6: what is on a shard for the sake of moves belongs to a move that is not over. A slot that nobody reads
    /// keeps the log, and in the end fills the disk.
    func leftovers(of shard: Shard) async throws -> [Finding] {
        let name = "moves of \(shard.id)"
        return try await plane.attempt("what moves have made on shard \(shard.id) cannot be read") {
            let known = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT kind, name FROM move_object JOIN move ON move.id = move_id
                        WHERE shard_id = $1 AND dropped_at IS NULL AND state IN ('running', 'aborting', 'soaking')
                        """, [.text(shard.id)]),
                    Query(
                        """
                        SELECT id FROM move
                        WHERE $1 IN (source_shard, target_shard) AND state IN ('running', 'aborting', 'soaking')
                        """, [.text(shard.id)]),
                    Query(
                        """
                        SELECT slug, step, coalesce(progress ->> 'waitingFor', 'nothing in particular')
                        FROM move JOIN tenant ON tenant.id = tenant_id
                        WHERE source_shard = $1 AND move.state IN ('running', 'aborting')
                            AND move.updated_at < clock_timestamp() - interval '10 minutes'
                        """, [.text(shard.id)]),
                    Query(
                        """
                        SELECT slug, coalesce(progress ->> 'wayBackLost', progress ->> 'soakDifference')
                        FROM move JOIN tenant ON tenant.id = tenant_id
                        WHERE source_shard = $1 AND move.state = 'soaking'
                            AND (progress ->> 'wayBackLost' IS NOT NULL OR progress ->> 'soakDifference' IS NOT NULL)
                        """, [.text(shard.id)]),
                    Query(
                        """
                        SELECT slug, array(SELECT jsonb_array_elements_text(progress -> 'leftBehind'))
                        FROM move JOIN tenant ON tenant.id = tenant_id
                        WHERE progress ->> 'givenUp' = $1 AND jsonb_typeof(progress -> 'leftBehind') = 'array'
                        """, [.text(shard.id)]),
                ], deadline: plane.deadline)
            let objects = Set(try known[0].rows.map { "\(try $0.text(0)) \(try $0.text(1))" })
            let moves = Set(try known[1].rows.map { try $0.uuid(0) })
            let here = try await plane.shard(reference: shard.reference, .mover).execute(
                [
                    Query(
                        """
                        SELECT 'slot', slot_name::text FROM pg_replication_slots
                        WHERE slot_name ~ '^hc_(move|mirror)_' AND database = current_database()
                        UNION ALL SELECT 'subscription', subname::text FROM pg_subscription
                        WHERE subname ~ '^hc_(move|mirror)_'
                            AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                        UNION ALL SELECT 'publication', pubname::text FROM pg_publication
                        WHERE pubname ~ '^hc_(move|mirror)_'
                        """),
                    Query("SELECT move_id, count(*) FROM hc_barrier GROUP BY move_id"),
                ], deadline: plane.deadline)
            var findings: [Finding] = []
            for row in here[0].rows {
                let object = "\(try row.text(0)) \(try row.text(1))"
                if !objects.contains(object) {
                    findings.append(
                        finding(
                            name, .failed, "the \(object) is left over: no open move has made it"))
                }
            }
            for row in here[1].rows where !moves.contains(try row.uuid(0)) {
                findings.append(
                    finding(
                        name, .warning,
                        "\(try row.int(1)) barriers are left over of move \(try row.uuid(0))"))
            }
            for row in known[2].rows {
                findings.append(
                    finding(
                        name, .warning,
                        "the move of \(try row.text(0)) stands at \(try row.text(1)) for ten minutes or"
                            + " longer, waiting for \(try row.text(2)); see"
                            + " deploy/runbooks/unfinished-move.md"))
            }
            for row in known[3].rows {
                findings.append(
                    finding(
                        name, .failed,
                        "\(try row.text(0)) cannot be brought back: \(try row.text(1)); see"
                            + " deploy/runbooks/revert-a-move.md"))
            }
            for row in known[4].rows {
                findings.append(
                    finding(
                        name, .warning,
                        "its server was taken for gone when the move of \(try row.text(0)) was ended without it,"
                            + " and answers: there may be "
                            + "\(try row.texts(1).joined(separator: ", ")); see"
                            + " deploy/runbooks/shard-down.md"))
            }
            return findings
        }
    }
}
