import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// What moves that are over have left on a server, and does not belong to any.
///
/// A move takes down what it has made, on the server that was the shard then. One that takes over later may have it again,
/// publications, subscriptions and barriers, as they were when it heard of its primary last: most often when it has
/// forgotten the end of an arrival. A server that was taken for gone has it still, and the rows that the clinic left there
/// (`MoveService.finalize`, without a shard).
///
/// It is the last thing that is done, for nobody waits for it: what cannot be removed now stays, `doctor` names it, and the
/// command can be given again. Each statement carries the number of the move that is over, so nothing of a later one is
/// touched, neither its objects nor the rows that it brings.
extension ShardReconciliation {
    private struct Remains {
        var move: Move
        var objects: [MoveObject] = []
        var barriers = 0
        /// The move was ended without this server: the clinic's rows are here.
        var hasRows = false

        var text: String {
            (objects.map { "\($0.kind.rawValue) \($0.name)" }
                + (barriers > 0 ? ["\(barriers) barriers"] : [])
                + (hasRows ? ["the rows that it left"] : [])).joined(separator: ", ")
                + " of move \(move.id.uuid)"
        }
    }

    func removeRemains(_ result: inout Result) async throws {
        for remains in try await remains(on: result.shard) {
            if !result.isDryRun {
                do {
                    try await remove(remains, from: result.shard)
                } catch {
                    plane.progress("\(remains.text) stays for now: \(error)")
                    continue
                }
            }
            result.remains.append(Loss(clinic: remains.move.slug, reason: remains.text))
        }
    }

    private func remains(on shard: Shard) async throws -> [Remains] {
        let store = MoveStore(plane: plane)
        var found: [MoveID: Remains] = [:]
        func remains(of id: MoveID) async throws -> Remains? {
            if let known = found[id] { return known }
            do {
                let move = try await store.find(id)
                return move.state.isOver ? Remains(move: move) : nil
            } catch let error as ControlError where error.kind == .notFound {
                // Of nobody that is known: the doctor names it.
                return nil
            }
        }
        let here = try await plane.attempt("what moves have made on shard \(id) cannot be read") {
            try await plane.shard(reference: shard.reference, .mover).execute(
                [
                    Query(
                        """
                        SELECT kind, name, substring(name FROM '^hc_(?:move|mirror)_([0-9a-f]{32})(?:_keys)?$')::uuid
                        FROM (
                            SELECT 'slot', slot_name::text FROM pg_replication_slots
                            WHERE database = current_database()
                            UNION ALL SELECT 'subscription', subname::text FROM pg_subscription
                            WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                            UNION ALL SELECT 'publication', pubname::text FROM pg_publication
                        ) AS made (kind, name)
                        WHERE name ~ '^hc_(move|mirror)_[0-9a-f]{32}(_keys)?$'
                        ORDER BY CASE kind WHEN 'subscription' THEN 1 WHEN 'slot' THEN 2 ELSE 3 END, name
                        """),
                    Query("SELECT move_id, count(*) FROM hc_barrier GROUP BY move_id"),
                ], deadline: plane.deadline)
        }
        for row in here[0].rows {
            let id: MoveID = try row.id(2)
            guard var remains = try await remains(of: id),
                let kind = MoveObject.Kind(rawValue: try row.text(0))
            else { continue }
            remains.objects.append(
                MoveObject(shard: shard.id, kind: kind, name: try row.text(1)))
            found[id] = remains
        }
        for row in here[1].rows {
            let id: MoveID = try row.id(0)
            guard var remains = try await remains(of: id) else { continue }
            remains.barriers = try row.int(1)
            found[id] = remains
        }
        for id in try await endedWithout(shard) {
            guard var remains = try await remains(of: id) else { continue }
            remains.hasRows = true
            found[id] = remains
        }
        return found.values.sorted { $0.move.createdAt < $1.move.createdAt }
    }

    private func endedWithout(_ shard: Shard) async throws -> [MoveID] {
        try await plane.attempt("the moves cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT id FROM move
                    WHERE progress ->> 'givenUp' = $1 AND jsonb_typeof(progress -> 'leftBehind') = 'array'
                        AND state NOT IN ('running', 'aborting', 'soaking')
                    """, [.text(shard.id)]), deadline: plane.deadline
            ).rows.map { try $0.id(0) }
        }
    }

    private func remove(_ remains: Remains, from shard: Shard) async throws {
        let (store, move) = (MoveStore(plane: plane), remains.move)
        for object in remains.objects {
            // A move that is over copies nothing: the other server has no slot of its tables.
            try await MoveStream.drop(object, of: move, plane: plane, shard: shard, other: nil)
            try await store.isGone(object)
        }
        let mover = try await plane.shard(reference: shard.reference, .mover)
        if remains.hasRows { try await removeRows(of: move, from: shard, mover) }
        try await plane.attempt("the barriers cannot be removed from shard \(shard.id)") {
            _ = try await mover.execute(
                Query("DELETE FROM hc_barrier WHERE move_id = $1", [.id(move.id)]),
                deadline: plane.deadline)
        }
        guard remains.hasRows else { return }
        for object in try await store.objects(of: move.id) where object.shard == shard.id {
            try await store.isGone(object)
        }
        try await plane.attempt("the move of '\(move.slug)' cannot be changed") {
            _ = try await plane.control().execute(
                Query(
                    "UPDATE move SET progress = progress || '{\"leftBehind\": null}' WHERE id = $1",
                    [.id(move.id)]), deadline: plane.deadline)
        }
    }

    /// The door was made to follow the map before: it lets nobody in. A clinic that has come back since, or is on its way, has
    /// had all of this removed before.
    private func removeRows(
        of move: Move, from shard: Shard, _ mover: PostgresConnection
    ) async throws {
        let isMine = try await plane.attempt(
            "the clinic's door on shard \(shard.id) cannot be read"
        ) {
            try await mover.execute(
                Query(
                    """
                    SELECT EXISTS (SELECT FROM hc_tenant
                        WHERE tenant_id = $1 AND attempt <= $2 AND state IN ('absent', 'moved'))
                    """, [.id(move.tenant), .int8(move.attempt)]), deadline: plane.deadline
            ).single().bool(0)
        }
        guard isMine else { return }
        try await plane.attempt("rows cannot be removed from shard \(shard.id)") {
            try await TenantPurge(plane: plane, tenant: move.tenant, attempt: move.attempt).run(
                on: mover)
        }
    }
}
