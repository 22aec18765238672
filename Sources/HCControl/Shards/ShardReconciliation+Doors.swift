import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// The doors of a shard are made to follow the control map.
extension ShardReconciliation {
    fileprivate struct Clinic {
        var id: TenantID
        /// Its slug, or its id if the control map does not know it.
        var name: String
        var door: DoorVerdict.Door?
        /// The door's, when it was looked at: a move that changes it leaves another.
        var attempt: Int64 = 0
        var place: DoorVerdict.Place?
    }

    /// - Returns: moves whose arrival was forgotten, and whose clinics the shard they came from can serve again.
    func reconcileDoors(_ result: inout Result, _ shards: [Shard]) async throws -> [Move] {
        let clinics = try await clinics(of: result.shard)
        try FaultPoint.reach("reconcile.doors-read")
        // A move that was begun, or was carried on, while the others were settled may have closed one of these doors.
        if !result.isDryRun { try await requireNoneBegun() }
        let verdicts = clinics.map { DoorVerdict.of($0.door, $0.place, on: id) }
        let late = zip(clinics, verdicts).filter { $0.1 == .mapIsBehind }.map(\.0.name)
        guard late.isEmpty else {
            throw ControlError(
                .refused, code: "map-behind",
                "shard \(id) knows later places of \(late.count) clinics (\(ShardRegistry.some(late)))"
                    + " than the control map",
                remedy:
                    "The control database is older than the shard: bring it up to date first, from its own log or standby."
            )
        }
        var recallable: [Move] = []
        for (clinic, verdict) in zip(clinics, verdicts) {
            let from = clinic.door.map { "\($0.state) at epoch \($0.epoch)" } ?? "unknown"
            func change(_ to: String) {
                result.doors.append(DoorChange(clinic: clinic.name, from: from, to: to))
            }
            switch verdict {
            case .keep, .mapIsBehind: continue
            case .set(let state): change(state)
            case .leave(let epoch, let shard): change("moved to \(shard) at epoch \(epoch)")
            case .dismiss: change("absent")
            case .lost(let reason, _):
                // Its move would go on first.
                if result.isDryRun, result.waiting.contains(where: { $0.clinic == clinic.name }) {
                    continue
                }
                if let move = try await restore(clinic, reason, shards, &result) {
                    recallable.append(move)
                    // One that lets in at an epoch of long ago expects nobody any more.
                    if !result.isDryRun, let door = clinic.door,
                        DoorVerdict.open.contains(door.state)
                    {
                        try await apply(.dismiss, to: clinic, on: result.shard)
                    }
                    continue
                }
            }
            if !result.isDryRun { try await apply(verdict, to: clinic, on: result.shard) }
        }
        return recallable
    }

    /// A clinic that is placed here, and that the server does not know to have come.
    ///
    /// - Returns: its move, if the shard that it came from can serve it again.
    private func restore(
        _ clinic: Clinic, _ reason: String, _ shards: [Shard], _ result: inout Result
    ) async throws -> Move? {
        func lose(_ more: String) {
            result.lost.append(Loss(clinic: clinic.name, reason: "\(reason); \(more)"))
        }
        guard let place = clinic.place,
            let (move, arrival) = try await arrival(of: clinic.id, at: place.epoch)
        else {
            lose("no move has brought it: restore the shard from a backup and its log")
            return nil
        }
        // It has just come, or somebody has changed its door by hand: no server has forgotten anything.
        guard !arrival.isSameServer else {
            lose("see 'hc-admin move show \(clinic.name)', and give the command again")
            return nil
        }
        let obstacle = try await MoveRecall(plane: plane).obstacle(of: move, shards)
        guard let obstacle else { return move }
        guard arrival.isWhole, !obstacle.isForNow, clinic.door?.state == "incoming" else {
            lose(
                "it came by move \(move.id.uuid), and \(obstacle.reason). Give the command again when that has changed,"
                    + " or restore shard \(id) up to \(move.progress["drainPosition"]?.asString ?? "its arrival")"
                    + " of its log at least")
            return nil
        }
        let state = MoveFence.doorState(place.tenantState)
        result.doors.append(
            DoorChange(
                clinic: clinic.name, from: "incoming at epoch \(clinic.door?.epoch ?? 0)",
                to: "\(state) at epoch \(place.epoch)"))
        result.arrivals.append(
            Loss(
                clinic: clinic.name,
                reason: "it is served as it came by move \(move.id.uuid), at "
                    + "\(move.progress["committedAt"]?.asString ?? "its commit point"): what it was told since"
                    + " is not on this server"))
        if !result.isDryRun {
            try await open(clinic, as: state, place.epoch, arrival.timeline, on: result.shard)
        }
        return nil
    }

    /// As its move would have opened it, if the server is still the one that was looked at.
    private func open(
        _ clinic: Clinic, as state: String, _ epoch: Int64, _ timeline: Int, on shard: Shard
    ) async throws {
        let isDone = try await plane.attempt("the door of '\(clinic.name)' cannot be opened") {
            let connection = try await plane.shard(reference: shard.reference, .mover)
            guard
                try await ShardIdentity(of: connection, deadline: plane.deadline)?.timeline
                    == timeline
            else { return false }
            return try await connection.execute(
                Query(
                    """
                    UPDATE hc_tenant SET state = $2, epoch = $3
                    WHERE tenant_id = $1 AND state = 'incoming' AND epoch < $3
                    """, [.id(clinic.id), .text(state), .int8(epoch)]), deadline: plane.deadline
            ).affectedRows == 1
        }
        guard isDone else { throw doorChanged(clinic) }
    }

    private func doorChanged(_ clinic: Clinic) -> ControlError {
        ControlError(
            .conflict, code: "door-changed",
            "the door of '\(clinic.name)' was changed by somebody else just now",
            remedy: "Give the command again.")
    }

    private func clinics(of shard: Shard) async throws -> [Clinic] {
        let doors = try await plane.attempt("the clinics of shard \(id) cannot be read") {
            try await plane.shard(reference: shard.reference, .mover).execute(
                Query("SELECT tenant_id, state, epoch, attempt FROM hc_tenant"),
                deadline: plane.deadline
            ).rows
        }
        var clinics: [TenantID: Clinic] = [:]
        for row in doors {
            let tenant: TenantID = try row.id(0)
            clinics[tenant] = Clinic(
                id: tenant, name: "\(tenant.uuid)",
                door: DoorVerdict.Door(state: try row.text(1), epoch: Int64(try row.int(2))),
                attempt: Int64(try row.int(3)))
        }
        let places = try await plane.attempt("the placements cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT tenant_id, slug, shard_id, epoch, placement.state, tenant.state
                    FROM placement JOIN tenant ON tenant.id = tenant_id
                    WHERE shard_id = $1 OR tenant_id = ANY ($2)
                    """, [.text(id), .uuids(clinics.keys.map(\.uuid))]), deadline: plane.deadline
            ).rows
        }
        for row in places {
            let tenant: TenantID = try row.id(0)
            let name = try row.text(1)
            clinics[tenant, default: Clinic(id: tenant, name: name)].name = name
            clinics[tenant]?.place = DoorVerdict.Place(
                shard: try row.text(2), epoch: Int64(try row.int(3)), state: try row.text(4),
                tenantState: try row.text(5))
        }
        return clinics.values.sorted { $0.name < $1.name }
    }

    /// Along the life of a door (`hc_tenant_guard`), in one transaction; the server takes no writers meanwhile, for its
    /// identity is refused.
    private func apply(
        _ verdict: DoorVerdict, to clinic: Clinic, on shard: Shard
    ) async throws {
        var steps: [(from: String, to: String)]
        var leaves: (epoch: Int64, shard: String)?
        switch verdict {
        case .keep, .mapIsBehind, .lost(_, suspends: false): return
        case .set(let state):
            steps = [("'rw', 'ro', 'suspended', 'draining', 'fenced', 'handover'", state)]
        case .lost(_, suspends: true):
            steps = [("'rw', 'ro', 'draining', 'fenced', 'handover'", "suspended")]
        case .dismiss:
            steps = [
                ("'rw', 'ro', 'draining', 'fenced', 'handover'", "suspended"),
                ("'suspended', 'incoming'", "absent"),
            ]
        case .leave(let epoch, let to):
            steps = [
                ("'rw', 'ro', 'suspended'", "draining"), ("'draining'", "fenced"),
                ("'fenced'", "handover"),
            ]
            leaves = (epoch, to)
        }
        var queries = [
            Query("SELECT pg_advisory_xact_lock(hc_fence_key($1))", [.id(clinic.id)])
        ]
        for step in steps {
            queries.append(
                .unsafeSQL(
                    """
                    UPDATE hc_tenant SET state = $2
                    WHERE tenant_id = $1 AND state IN (\(step.from)) AND attempt = $3
                    """,
                    [.id(clinic.id), .text(step.to), .int8(clinic.attempt)]))
        }
        if let leaves {
            queries.append(
                Query(
                    """
                    UPDATE hc_tenant SET state = 'moved', epoch = $2, moved_to = $3
                    WHERE tenant_id = $1 AND state = 'handover' AND epoch <= $2 AND attempt = $4
                    """,
                    [
                        .id(clinic.id), .int8(leaves.epoch), .text(leaves.shard),
                        .int8(clinic.attempt),
                    ]))
        }
        let isDone = try await plane.attempt("the door of '\(clinic.name)' cannot be changed") {
            try await plane.shard(reference: shard.reference, .mover).execute(
                queries, deadline: plane.deadline
            ).last?.affectedRows == 1
        }
        guard isDone else { throw doorChanged(clinic) }
    }
}
