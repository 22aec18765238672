import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Lets the shard that a clinic came from serve it again, when the one that it came to has forgotten that.
///
/// A standby that took over without the end of a clinic's arrival has neither what the clinic had brought nor what it
/// was told there since. The former shard has the rows of the fence, and behind them what the way back had brought: no
/// less than the new server. So it is the one that serves, under a new epoch; the commit point is one transaction of
/// the control database, as for any move, and what follows it is what follows any move that was taken back. Nothing is
/// copied, and nobody is sent to wait: the door that forgot is not open.
@LoopActor
struct MoveRecall {
    let plane: ControlPlane
    let store: MoveStore

    /// For whoever has the move to leave it.
    private static let patience = Duration.seconds(10)

    init(plane: ControlPlane) {
        self.plane = plane
        store = MoveStore(plane: plane)
    }

    struct Obstacle {
        /// In words.
        var reason: String
        /// The rows may be there, and nobody can tell now.
        var isForNow = false
    }

    /// Why the former shard cannot serve the clinic again; nil if it can.
    func obstacle(of move: Move, _ shards: [Shard]) async throws -> Obstacle? {
        guard [.committed, .opened, .switched, .soaking, .closing].contains(move.step),
            let former = shards.first(where: { $0.id == move.origin }), former.state != "closed"
        else {
            return Obstacle(reason: "its rows are gone from shard \(move.origin)")
        }
        let identities = try await store.identities(of: move.id)
        let was = move.direction == .forward ? identities.source : identities.target
        let found: ShardInspection.Identity
        do {
            found = try await ShardInspection(plane: plane).identity(reference: former.reference)
        } catch let error as ControlError {
            return Obstacle(
                reason: "shard \(former.id), which has its rows, cannot be asked: \(error.message)",
                isForNow: true)
        }
        guard found.identity == was else {
            return Obstacle(reason: "another server has taken over at shard \(former.id), too")
        }
        let door = try await door(of: move, on: former)
        guard ["handover", "moved", "incoming"].contains(door) else {
            return Obstacle(reason: "shard \(former.id) has it as \(door)")
        }
        return nil
    }

    private func door(of move: Move, on shard: Shard) async throws -> String {
        try await plane.attempt("the clinic's door on shard \(shard.id) cannot be read") {
            try await plane.shard(reference: shard.reference, .mover).execute(
                Query("SELECT state FROM hc_tenant WHERE tenant_id = $1", [.id(move.tenant)]),
                deadline: plane.deadline
            ).singleIfPresent()?.text(0) ?? "absent"
        }
    }

    /// - Returns: the move, past its new commit point, for this process to carry on.
    /// - Throws: `ControlError`; `MoveLost` if another process has the move.
    func run(_ move: Move, owner: String, reason: String?) async throws -> Mover {
        let since = plane.clocks.monotonic()
        var move = try await claim(move, owner: owner)
        let lease = MoveLease(move, plane: plane, since: since)
        lease.start()
        do {
            move = try await turn(move, lease, reason)
        } catch {
            await lease.stop()
            throw error
        }
        await lease.stop()
        return Mover(move, plane: plane, since: plane.clocks.monotonic())
    }

    private func claim(_ move: Move, owner: String) async throws -> Move {
        let limit = Deadline.after(MoveRecall.patience, from: plane.clocks.monotonic())
        while true {
            if let claimed = try await store.claim(move.id, owner: owner) { return claimed }
            guard !limit.isExpired(at: plane.clocks.monotonic()) else {
                throw ControlError(
                    .conflict, code: "move-running",
                    "somebody else carries the move of '\(move.slug)' on",
                    remedy: "Give the command again.")
            }
            try await Loop.shared.sleep(for: .milliseconds(20))
        }
    }

    private func turn(_ move: Move, _ lease: MoveLease, _ reason: String?) async throws -> Move {
        let registry = ShardRegistry(plane: plane)
        let (former, forgetful) = (
            try await registry.find(move.origin), try await registry.find(move.destination)
        )
        let epoch = try await store.placementEpoch(of: move)
        let there = MoveFence(plane: plane, move: move, origin: former, destination: forgetful)
        // Nothing that was begun for the move comes to the rows of the former shard any more.
        try await there.becomeKnown()
        for object in try await store.objects(of: move.id) {
            try lease.require()
            let isFormer = object.shard == former.id
            try await MoveStream.drop(
                object, of: move, plane: plane, shard: isFormer ? former : forgetful,
                other: isFormer ? forgetful : former)
            try await store.isGone(object)
        }
        try await there.reserve()
        // A move that died at its commit point has not let it go yet.
        if try await door(of: move, on: former) == "handover" {
            _ = try await there.leave(epoch: epoch)
        }
        var back = move
        back.direction = move.direction == .forward ? .back : .forward
        back.epoch = epoch
        try await MoveFence(
            plane: plane, move: back, origin: forgetful, destination: former
        ).reserve()
        try FaultPoint.reach("recall.reserved")
        try lease.require()
        guard try await store.recall(back, reason: reason) else { throw MoveLost() }
        return try await store.find(move.id)
    }
}

extension MoveStore {
    /// The commit point of a recall: the placement is the former shard's again.
    ///
    /// - Parameter move: turned around, with the epoch that the clinic has.
    /// - Returns: false if the move or the placement is not as it was.
    fileprivate func recall(_ move: Move, reason: String?) async throws -> Bool {
        try await plane.attempt("the clinic cannot be given back to shard \(move.destination)") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let changed = try await transaction.execute(
                    Query(
                        """
                        UPDATE move
                        SET direction = $3, state = 'running', step = 'committed', epoch = $4, abort_requested = false,
                            progress = progress || jsonb_build_object(
                                'recalledFrom', $5::text, 'isForgotten', NULL, 'waitingFor', NULL),
                            updated_at = clock_timestamp()
                        WHERE id = $1 AND attempt = $2 AND state IN ('running', 'soaking') AND direction <> $3
                            AND step IN ('committed', 'opened', 'switched', 'soaking', 'closing')
                        """,
                        [
                            .id(move.id), .int8(move.attempt), .text(move.direction.rawValue),
                            .int8(move.epoch), .text(move.origin),
                        ])
                ).affectedRows
                guard changed == 1 else { return false }
                let epoch = try await transaction.execute(
                    Query(
                        "SELECT placement_swap($1, $2, 'serving', $3, 'serving')",
                        [.id(move.tenant), .int8(move.epoch), .text(move.destination)])
                ).single().intIfPresent(0)
                guard epoch != nil else { throw MoveLost() }
                _ = try await transaction.execute(final: [
                    plane.audit(
                        "tenant.move.recall", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"), "from": .string(move.origin),
                            "shard": .string(move.destination),
                            "reason": reason.map { .string($0) } ?? .null,
                        ])
                ])
                return true
            }
        }
    }
}
