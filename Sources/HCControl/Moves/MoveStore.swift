import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// The table `move`: every change is a compare-and-swap in READ COMMITTED on the control database.
@LoopActor
package struct MoveStore {
    /// How long a process has a move without renewing it. A clinic whose mover dies in the pause waits for so long, and
    /// for the time that its successor needs.
    package static let lease = Duration.milliseconds(1500)
    static let renewEvery = Duration.milliseconds(400)

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    // MARK: Reading

    /// The newest first.
    ///
    /// - Parameters:
    ///   - tenant: only this clinic's.
    ///   - isOpen: only those that are not over.
    package func list(
        tenant: TenantID? = nil, shard: String? = nil, isOpen: Bool = false, limit: Int = 100
    ) async throws -> [Move] {
        try await plane.attempt("the moves cannot be read") {
            try await plane.control().execute(
                .unsafeSQL(
                    """
                    SELECT \(Move.columns) FROM move JOIN tenant ON tenant.id = move.tenant_id
                    WHERE ($1::uuid IS NULL OR tenant_id = $1)
                        AND ($2::text IS NULL OR $2 IN (source_shard, target_shard))
                        AND (NOT $3 OR move.state IN ('running', 'aborting', 'soaking'))
                    ORDER BY move.created_at DESC, move.id DESC LIMIT $4
                    """,
                    [.optional(tenant), .optional(shard), .bool(isOpen), .int4(Int32(limit))]),
                deadline: plane.deadline
            ).rows.map { try Move($0) }
        }
    }

    /// - Throws: `ControlError` of kind `notFound`.
    package func find(_ id: MoveID) async throws -> Move {
        let found = try await plane.attempt("the move cannot be read") {
            try await plane.control().execute(
                .unsafeSQL(
                    """
                    SELECT \(Move.columns) FROM move JOIN tenant ON tenant.id = move.tenant_id
                    WHERE move.id = $1
                    """, [.id(id)]), deadline: plane.deadline
            ).rows.map { try Move($0) }
        }
        guard let move = found.first else {
            throw ControlError(
                .notFound, code: "move-unknown", "there is no move \(id.uuid)",
                remedy: "See 'hc-admin move list'.")
        }
        return move
    }

    /// A move by its id, or the last one of a clinic by its slug.
    package func find(named name: String) async throws -> Move {
        if let uuid = UUID(name) { return try await find(MoveID(uuid)) }
        let tenant = try await TenantRegistry(plane: plane).find(name)
        guard let move = try await list(tenant: tenant.id, limit: 1).first else {
            throw ControlError(
                .notFound, code: "move-unknown", "'\(name)' was never moved",
                remedy: "See 'hc-admin move list'.")
        }
        return move
    }

    /// Moves that nobody carries on and that have something to do now.
    package func forsaken() async throws -> [MoveID] {
        try await plane.attempt("the moves cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT id FROM move
                    WHERE (state IN ('running', 'aborting')
                            OR state = 'soaking' AND (step <> 'soaking' OR soak_until < clock_timestamp()))
                        AND (lease_until IS NULL OR lease_until < clock_timestamp())
                        -- An operator decides: it is looked at again in case that he has.
                        AND ((progress ->> 'isForgotten') IS NULL OR updated_at < clock_timestamp() - interval '10 s')
                    ORDER BY step = 'gating' DESC, updated_at LIMIT 100
                    """), deadline: plane.deadline
            ).rows.map { try $0.id(0) }
        }
    }

    /// Those of some clinics that are on a shard, or on their way there.
    func neighbours(
        of tenant: TenantID, among apart: [TenantID], on shard: String
    ) async throws -> [String] {
        guard !apart.isEmpty else { return [] }
        return try await plane.attempt("the placements cannot be read") {
            try await plane.control().execute(
                MoveStore.neighbours(of: tenant, among: apart, on: shard), deadline: plane.deadline
            ).rows.map { try $0.text(0) }
        }
    }

    /// The clinics that there are of some slugs.
    func tenants(named slugs: [String]) async throws -> [TenantID] {
        guard !slugs.isEmpty else { return [] }
        return try await plane.attempt("the clinics cannot be read") {
            try await plane.control().execute(
                Query(
                    "SELECT id FROM tenant WHERE slug = ANY ($1) ORDER BY id", [.texts(slugs)]),
                deadline: plane.deadline
            ).rows.map { try $0.id(0) }
        }
    }

    // MARK: Changing

    /// Writes a new move down, with its lease, and marks the clinic's placement as moving.
    ///
    /// - Throws: `ControlError` of kind `conflict` if the clinic is on the move already, or has just been moved, or if
    ///   one that it is to be apart from has come to the target since that was chosen (`group-there`); of kind `refused`
    ///   if the target takes no clinics any more.
    func begin(_ plan: MovePlan, owner: String, reason: String?) async throws -> Move {
        var random = SystemRandom()
        let id: MoveID = Identifier(UUID.v7(at: plane.clocks.now(), using: &random))
        let isMine = try await plane.attempt("the move cannot be written down") {
            do {
                try await plane.control().transaction(deadline: plane.deadline) { transaction in
                    let met = try await takePlace(for: plan, transaction)
                    _ = try await transaction.execute(final: [
                        // Shards may not have heard of the last numbers of a move that is over: its processes might.
                        Query(
                            """
                            INSERT INTO move (id, tenant_id, source_shard, target_shard, state, step, attempt,
                                lease_owner, lease_until, source_identity, target_identity, epoch, options,
                                progress, reason, operator_name)
                            VALUES ($1, $2, $3, $4, 'running', 'planned',
                                greatest($5, (SELECT max(attempt) + 1 FROM move WHERE tenant_id = $2)),
                                $6, clock_timestamp() + $7 * interval '1 ms', $8, $9, $10, $11, $12, $13, $14)
                            """,
                            [
                                .id(id), .id(plan.tenant.id), .text(plan.source.id),
                                .text(plan.target.id), .int8(plan.attempt), .text(owner),
                                .int8(MoveStore.lease.inMilliseconds),
                                .json(plan.sourceIdentity.serialized),
                                .json(plan.targetIdentity.serialized), .int8(plan.tenant.epoch),
                                .json(plan.options.json.serialized),
                                .json(
                                    plan.json.merging(MoveStore.together(met)).serialized),
                                .optional(reason), .text(plane.operatorName),
                            ]),
                        Query(
                            "SELECT placement_swap($1, $2, 'serving', $3, 'moving')",
                            [.id(plan.tenant.id), .int8(plan.tenant.epoch), .text(plan.source.id)]),
                        // Fails the transaction if the placement is not what was planned for.
                        Query(
                            """
                            SELECT 1 / (SELECT count(*) FROM placement
                                WHERE tenant_id = $1 AND epoch = $2 AND shard_id = $3 AND state = 'moving')
                            """,
                            [.id(plan.tenant.id), .int8(plan.tenant.epoch), .text(plan.source.id)]),
                        plane.audit(
                            "tenant.move", subject: plan.tenant.slug,
                            detail: JSONValue.object([
                                "move": .string("\(id.uuid)"), "source": .string(plan.source.id),
                                "target": .string(plan.target.id),
                                "reason": reason.map { .string($0) } ?? .null,
                            ]).merging(MoveStore.together(met))),
                    ])
                }
                return true
            } catch let error as PostgresError
                where error.sqlstate == .uniqueViolation || error.sqlstate == .divisionByZero
            {
                return false
            }
        }
        guard isMine else {
            throw ControlError(
                .conflict, code: "move-running", "'\(plan.tenant.slug)' is on the move already",
                remedy: "See 'hc-admin move show \(plan.tenant.slug)'.")
        }
        return try await find(id)
    }

    /// The target is held as it is until the move is written down: nobody drains it in between. Who is to be apart from
    /// others holds it alone: two of one group that have both chosen it, each while the other was not there, come one after
    /// the other, and the second finds the first, on its way or there.
    ///
    /// - Returns: who of its group is there, if that is ignored.
    private func takePlace(
        for plan: MovePlan, _ transaction: PostgresTransaction
    ) async throws -> [String] {
        let target = plan.target.id
        let results = try await transaction.execute([
            MoveStore.hold(target, alone: !plan.apart.isEmpty),
            // Sees what was written down before the shard was this one's to hold.
            MoveStore.neighbours(of: plan.tenant.id, among: plan.apart, on: target),
        ])
        let state = try results[0].singleIfPresent()?.text(0) ?? "gone"
        guard state == "open" else {
            throw ControlError(
                .refused, code: "move-refused", "shard \(target) is \(state) by now")
        }
        let met = try results[1].rows.map { try $0.text(0) }
        guard let neighbour = met.first, !plan.ignoresGroup else { return met }
        throw ControlError(
            .conflict, code: MoveStore.groupThere,
            "'\(neighbour)', of the group of '\(plan.tenant.slug)', is on shard \(target) by now, or on its way there",
            remedy: "Choose another shard: give the command again.")
    }

    private static func hold(_ shard: String, alone isAlone: Bool) -> Query {
        .unsafeSQL(
            "SELECT state FROM shard WHERE id = $1 FOR \(isAlone ? "NO KEY UPDATE" : "SHARE")",
            [.text(shard)])
    }

    private static func neighbours(
        of tenant: TenantID, among apart: [TenantID], on shard: String
    ) -> Query {
        Query(
            """
            SELECT slug FROM placement JOIN tenant ON tenant.id = tenant_id
            WHERE tenant_id = ANY ($1) AND tenant_id <> $2 AND placement.state <> 'closed'
                AND (shard_id = $3 OR EXISTS (
                    SELECT FROM move WHERE move.tenant_id = placement.tenant_id AND move.state = 'running'
                        AND $3 = CASE direction WHEN 'forward' THEN target_shard ELSE source_shard END))
            ORDER BY slug
            """,
            [.uuids(apart.map(\.uuid)), .id(tenant), .text(shard)])
    }

    private static func together(_ met: [String]) -> JSONValue {
        met.isEmpty ? [:] : ["together": .array(met.map { .string($0) })]
    }

    /// The code of a refusal: the target was a good choice when it was made.
    nonisolated static let groupThere = "group-there"

    /// Takes over a move that nobody has. Nil if somebody has it.
    func claim(_ id: MoveID, owner: String) async throws -> Move? {
        let attempt = try await plane.attempt("the move cannot be taken over") {
            try await plane.control().execute(
                Query(
                    "SELECT move_claim($1, $2, $3)",
                    [.id(id), .text(owner), .int8(MoveStore.lease.inMilliseconds)]),
                deadline: plane.deadline
            ).single().intIfPresent(0)
        }
        guard attempt != nil else { return nil }
        return try await find(id)
    }

    /// Gives a move back, for others to go on with at once.
    func release(_ move: Move) async throws {
        try await plane.attempt("the move cannot be given back") {
            _ = try await plane.control().execute(
                Query(
                    "UPDATE move SET lease_until = NULL WHERE id = $1 AND attempt = $2",
                    [.id(move.id), .int8(move.attempt)]), deadline: plane.deadline)
        }
    }

    /// - Returns: whether the abort is wanted; nil if the move is not this process' any more.
    func renew(_ id: MoveID, owner: String, deadline: Deadline) async throws -> Bool? {
        try await plane.control().execute(
            Query(
                "SELECT move_renew($1, $2, $3)",
                [.id(id), .text(owner), .int8(MoveStore.lease.inMilliseconds)]),
            deadline: deadline
        ).single().boolIfPresent(0)
    }

    /// One step further.
    ///
    /// - Returns: the attempt from now on: it grows where a pause begins and where one is broken off.
    /// - Throws: `MoveLost` if the move is not where it was, or is somebody else's.
    @discardableResult
    func advance(
        _ move: Move, to step: MoveStep, state: MoveState? = nil, _ more: JSONValue = [:],
        also queries: [Query] = [], deadline: Deadline? = nil
    ) async throws -> Int64 {
        let attempt: Int64? = try await plane.attempt("the step cannot be written down") {
            // What goes with the step is done only if the step is.
            let deadline = deadline ?? plane.deadline
            return try await plane.control().transaction(deadline: deadline) { transaction in
                let row = try await transaction.execute(
                    Query(
                        "SELECT move_advance($1, $2, $3, $4, $5, $6)",
                        [
                            .id(move.id), .int8(move.attempt), .text(move.step.rawValue),
                            .text(step.rawValue), .text((state ?? move.state).rawValue),
                            .json(more.serialized),
                        ])
                ).single()
                guard let attempt = try row.intIfPresent(0) else { return nil }
                _ = try await transaction.execute(final: queries + [Query("SELECT")])
                return Int64(attempt)
            }
        }
        guard let attempt else { throw MoveLost() }
        return attempt
    }

    /// The epoch of the clinic, which has passed the move's commit point.
    ///
    /// - Throws: `MoveLost` if it is placed elsewhere.
    func placementEpoch(of move: Move) async throws -> Int64 {
        let epoch = try await plane.attempt("the placement cannot be read") {
            try await plane.control().execute(
                Query(
                    "SELECT epoch FROM placement WHERE tenant_id = $1 AND shard_id = $2",
                    [.id(move.tenant), .text(move.destination)]), deadline: plane.deadline
            ).singleIfPresent()?.int(0)
        }
        guard let epoch else { throw MoveLost() }
        return Int64(epoch)
    }

    /// Who the two servers were when the move began.
    func identities(of id: MoveID) async throws -> (source: ShardIdentity, target: ShardIdentity) {
        let row = try await plane.attempt("the move cannot be read") {
            try await plane.control().execute(
                Query("SELECT source_identity, target_identity FROM move WHERE id = $1", [.id(id)]),
                deadline: plane.deadline
            ).single()
        }
        func identity(_ column: Int) throws -> ShardIdentity {
            let value = try JSONReader.parse(try row.json(column))
            return ShardIdentity(
                systemIdentifier: value["systemIdentifier"]?.asString ?? "",
                timeline: Int(value["timeline"]?.asInteger ?? 0),
                databaseOID: value["databaseOID"]?.asInteger ?? 0)
        }
        return (try identity(0), try identity(1))
    }

    /// What the operator sees of the step that goes on.
    func report(_ move: Move, _ more: JSONValue) async throws {
        try await plane.attempt("the progress cannot be written down") {
            _ = try await plane.control().execute(
                Query(
                    """
                    UPDATE move SET progress = progress || $3, updated_at = clock_timestamp()
                    WHERE id = $1 AND attempt = $2
                    """, [.id(move.id), .int8(move.attempt), .json(more.serialized)]),
                deadline: plane.deadline)
        }
    }

    /// The commit point (S9).
    ///
    /// - Returns: the clinic's state, which the destination is to serve it by; nil if the control database refused, for
    ///   good.
    /// - Throws: `PostgresError`: it may have been passed.
    func commit(_ move: Move, _ more: JSONValue, deadline: Deadline) async throws -> String? {
        do {
            return try await plane.control().execute(
                [
                    Query("SELECT state FROM tenant WHERE id = $1", [.id(move.tenant)]),
                    Query(
                        "SELECT move_commit($1, $2, $3, $4)",
                        [
                            .id(move.id), .int8(move.attempt), .text(move.step.rawValue),
                            .json(more.serialized),
                        ]),
                    plane.audit(
                        "tenant.move.commit", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"),
                            "shard": .string(move.destination), "attempt": .integer(move.attempt),
                        ]),
                ], deadline: deadline)[0].single().text(0)
        } catch let error as PostgresError where error.sqlstate == .moveNotYours {
            return nil
        }
    }

    /// Wants a move undone. From then on its commit point refuses.
    ///
    /// - Throws: `ControlError` if it has passed the commit point, or is over.
    package func requestAbort(_ move: Move, reason: String?) async throws {
        let isTaken = try await plane.attempt("the abort cannot be asked for") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let rows = try await transaction.execute(
                    Query(
                        """
                        UPDATE move SET abort_requested = true, updated_at = clock_timestamp()
                        WHERE id = $1 AND state IN ('running', 'aborting')
                            AND step NOT IN ('committed', 'opened', 'switched', 'closing', 'purging', 'finished')
                        RETURNING true
                        """, [.id(move.id)])
                ).rows
                guard !rows.isEmpty else { return false }
                _ = try await transaction.execute(final: [
                    plane.audit(
                        "tenant.move.abort", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"),
                            "reason": reason.map { .string($0) } ?? .null,
                        ])
                ])
                return true
            }
        }
        guard isTaken else {
            let now = try await find(move.id)
            throw ControlError(
                .conflict, code: "move-past-commit",
                now.state.isOver
                    ? "the move is over: \(now.state.rawValue)"
                    : "the move has passed its commit point (\(now.step.rawValue))",
                remedy: now.state.isOver
                    ? nil : "Take it back with 'hc-admin move revert \(now.slug)'.")
        }
    }

    /// Turns a move that soaks around, or ends its soak.
    ///
    /// A way back is a rescue and is not refused because others of the clinic's group have come to its former shard
    /// meanwhile. They are written down: whoever brings one of them there at the same time finds this one, or is found.
    ///
    /// - Parameter apart: clinics that are not to be on one shard with it.
    func turn(
        _ move: Move, to step: MoveStep, direction: Move.Direction, apart: [TenantID] = [],
        owner: String, reason: String?
    ) async throws -> Move {
        let isTaken = try await plane.attempt("the move cannot be changed") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                var met: [String] = []
                // What it met on its way forward is not there.
                let progress: JSONValue =
                    direction == .back && move.progress["together"] != nil
                    ? ["pauseTries": 0, "together": .null] : ["pauseTries": 0]
                if direction == .back, !apart.isEmpty {
                    met = try await transaction.execute([
                        MoveStore.hold(move.source, alone: true),
                        MoveStore.neighbours(of: move.tenant, among: apart, on: move.source),
                    ])[1].rows.map { try $0.text(0) }
                }
                let rows = try await transaction.execute(
                    Query(
                        """
                        UPDATE move
                        SET step = $3, direction = $4, progress = progress || $7, state = CASE WHEN $4 = 'back' THEN 'running' ELSE state END,
                            attempt = attempt + 1, lease_owner = $5, lease_until = clock_timestamp() + $6 * interval '1 ms',
                            epoch = (SELECT epoch FROM placement WHERE placement.tenant_id = move.tenant_id),
                            abort_requested = false, updated_at = clock_timestamp()
                        WHERE id = $1 AND attempt = $2 AND state = 'soaking' AND step = 'soaking'
                            AND (lease_until IS NULL OR lease_until < clock_timestamp())
                        RETURNING true
                        """,
                        [
                            .id(move.id), .int8(move.attempt), .text(step.rawValue),
                            .text(direction.rawValue), .text(owner),
                            .int8(MoveStore.lease.inMilliseconds),
                            .json(progress.merging(MoveStore.together(met)).serialized),
                        ])
                ).rows
                guard !rows.isEmpty else { return false }
                if direction == .back {
                    let epoch = try await transaction.execute(
                        Query(
                            """
                            SELECT placement_swap(tenant_id, epoch, 'serving', shard_id, 'moving')
                            FROM placement WHERE tenant_id = $1
                            """, [.id(move.tenant)])
                    ).single().intIfPresent(0)
                    guard epoch != nil else { throw MoveLost() }
                }
                _ = try await transaction.execute(final: [
                    plane.audit(
                        direction == .back ? "tenant.move.revert" : "tenant.move.finalize",
                        subject: move.slug,
                        detail: JSONValue.object([
                            "move": .string("\(move.id.uuid)"),
                            "reason": reason.map { .string($0) } ?? .null,
                        ]).merging(MoveStore.together(met)))
                ])
                return true
            }
        }
        guard isTaken else {
            throw ControlError(
                .conflict, code: "move-changed", "somebody else has just changed the move",
                remedy: "See 'hc-admin move show \(move.slug)'.")
        }
        return try await find(move.id)
    }

    // MARK: What is made on shards

    /// Written before it is made.
    ///
    /// - Throws: `MoveLost` if a later attempt has the move.
    func willMake(_ kind: MoveObject.Kind, _ name: String, on shard: String, for move: Move)
        async throws
    {
        let count = try await plane.attempt("the cleanup record cannot be written") {
            try await plane.control().execute(
                Query(
                    """
                    INSERT INTO move_object (move_id, shard_id, kind, name)
                    SELECT id, $2, $3, $4 FROM move WHERE id = $1 AND attempt = $5 FOR SHARE
                    ON CONFLICT (shard_id, kind, name) DO UPDATE SET dropped_at = NULL
                    """,
                    [
                        .id(move.id), .text(shard), .text(kind.rawValue), .text(name),
                        .int8(move.attempt),
                    ]), deadline: plane.deadline
            ).affectedRows
        }
        guard count == 1 else { throw MoveLost() }
    }

    /// Seen to be gone.
    func isGone(_ object: MoveObject) async throws {
        try await plane.attempt("the cleanup record cannot be written") {
            _ = try await plane.control().execute(
                Query(
                    """
                    UPDATE move_object SET dropped_at = clock_timestamp()
                    WHERE shard_id = $1 AND kind = $2 AND name = $3
                    """,
                    [.text(object.shard), .text(object.kind.rawValue), .text(object.name)]),
                deadline: plane.deadline)
        }
    }

    /// What is there of a move, or may be.
    ///
    /// - Parameter withGone: also what was removed: a server that took over may have it again.
    package func objects(
        of id: MoveID, withGone: Bool = false
    ) async throws -> [MoveObject] {
        try await plane.attempt("the cleanup records cannot be read") {
            try await plane.control().execute(
                Query(
                    """
                    SELECT shard_id, kind, name FROM move_object
                    WHERE move_id = $1 AND (dropped_at IS NULL OR $2)
                    ORDER BY CASE kind WHEN 'subscription' THEN 1 WHEN 'slot' THEN 2 ELSE 3 END, name
                    """, [.id(id), .bool(withGone)]), deadline: plane.deadline
            ).rows.compactMap { row in
                guard let kind = MoveObject.Kind(rawValue: try row.text(1)) else { return nil }
                return MoveObject(shard: try row.text(0), kind: kind, name: try row.text(2))
            }
        }
    }
}

/// Something that a move has made on a shard.
package struct MoveObject: Sendable, Hashable {
    package enum Kind: String, Sendable {
        case publication
        case slot
        case subscription
    }

    package var shard: String
    package var kind: Kind
    package var name: String
}

/// The move is another process' by now, or was undone: whoever finds that stops at once and touches nothing more.
struct MoveLost: Error {}
