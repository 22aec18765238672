import HCCore
import HCCrypto
package import HCIO
import HCPostgres
import HCTenancy

/// What operators do with moves. Each is written down first and then carried on, by this process or by any other.
@LoopActor
package struct MoveService {
    package typealias Tell = (Move, String) -> Void

    let plane: ControlPlane
    let store: MoveStore

    package init(plane: ControlPlane) {
        self.plane = plane
        store = MoveStore(plane: plane)
    }

    /// Names who carries a move on in `move.lease_owner`; no other has the same.
    func makeOwner() -> String {
        var random = SystemRandom()
        return "\(plane.operatorName)/\(UUID.v7(at: plane.clocks.now(), using: &random))"
    }

    // MARK: Begin

    /// - Throws: `ControlError` with the reasons why not.
    package func begin(
        _ plan: MovePlan, reason: String?, tell: @escaping Tell
    ) async throws -> Mover {
        let since = plane.clocks.monotonic()
        let move = try await store.begin(plan, owner: makeOwner(), reason: reason)
        return Mover(move, plane: plane, since: since, tell: tell)
    }

    /// Waits for a process that takes the move, which nobody has, for as long.
    ///
    /// - Returns: whether one did.
    package func awaitTaker(of move: Move, for patience: Duration) async throws -> Bool {
        let limit = Deadline.after(patience, from: plane.clocks.monotonic())
        while !limit.isExpired(at: plane.clocks.monotonic()) {
            let now = try await store.find(move.id)
            if now.state.isOver || now.isLeased || now.step == .soaking { return true }
            try await Loop.shared.sleep(for: .milliseconds(50))
        }
        return false
    }

    /// Follows a move that another process carries on, and takes it if that one is gone.
    ///
    /// - Returns: the move, when it is over or soaks.
    package func follow(_ id: MoveID, tell: @escaping Tell) async throws -> Move {
        var seen: MoveStep?
        while true {
            let move = try await store.find(id)
            if move.state.isOver || (move.state == .soaking && move.step == .soaking) {
                return move
            }
            if move.step != seen {
                tell(move, "")
                seen = move.step
            }
            if move.isForgotten, !move.isLeased {
                throw ControlError(
                    .failed, code: "arrival-forgotten",
                    "the server of shard \(move.destination) has forgotten that '\(move.slug)' came",
                    remedy: "See 'hc-admin shard reconcile \(move.destination)'.")
            }
            if !move.isLeased, let mover = try await take(id, tell: tell) {
                _ = try await mover.run()
                continue
            }
            try await Loop.shared.sleep(for: .milliseconds(100))
        }
    }

    /// Takes over a move that nobody has.
    package func take(_ id: MoveID, tell: @escaping Tell) async throws -> Mover? {
        let since = plane.clocks.monotonic()
        guard let move = try await store.claim(id, owner: makeOwner()) else { return nil }
        return Mover(move, plane: plane, since: since, tell: tell)
    }

    // MARK: Change

    /// Undoes a move that has not passed its commit point.
    package func abort(_ name: String, reason: String?, tell: @escaping Tell) async throws -> Move {
        let move = try await store.find(named: name)
        try await store.requestAbort(move, reason: reason)
        return try await follow(move.id, tell: tell)
    }

    /// Brings a clinic back whose move soaks, also to others of its group: `Move.together` has them then.
    package func revert(
        _ name: String, _ groups: MoveGroups = .none, reason: String?, tell: @escaping Tell
    ) async throws -> Mover {
        let move = try await returnable(name)
        let apart = try await store.tenants(named: groups.others(of: move.slug))
        let since = plane.clocks.monotonic()
        let turned = try await store.turn(
            move, to: .returning, direction: .back, apart: apart, owner: makeOwner(), reason: reason
        )
        return Mover(turned, plane: plane, since: since, tell: tell)
    }

    /// What `revert` would begin with.
    ///
    /// - Returns: the move, and who of the clinic's group is where it would come back to.
    package func previewRevert(
        _ name: String, _ groups: MoveGroups
    ) async throws -> (move: Move, together: [String]) {
        let move = try await returnable(name)
        let apart = try await store.tenants(named: groups.others(of: move.slug))
        return (move, try await store.neighbours(of: move.tenant, among: apart, on: move.source))
    }

    private func returnable(_ name: String) async throws -> Move {
        let move = try await soaking(name, "reverted")
        guard let reason = move.progress["wayBackLost"]?.asString else { return move }
        throw ControlError(
            .refused, code: "way-back-lost",
            "'\(move.slug)' cannot be brought back by its move: \(reason)",
            remedy: "End its soak with 'hc-admin move finalize \(move.slug)', then move it.")
    }

    /// Gives the way back up and removes what was left behind.
    package func finalize(_ name: String, reason: String?, tell: @escaping Tell) async throws
        -> Mover
    {
        let move = try await soaking(name, "finalized")
        let since = plane.clocks.monotonic()
        let turned = try await store.turn(
            move, to: .closing, direction: .forward, owner: makeOwner(), reason: reason)
        return Mover(turned, plane: plane, since: since, tell: tell)
    }

    private func soaking(_ name: String, _ what: String) async throws -> Move {
        let move = try await store.find(named: name)
        guard move.state == .soaking, move.step == .soaking else {
            throw ControlError(
                .conflict, code: "move-not-soaking",
                "the move of '\(move.slug)' cannot be \(what): it is \(move.state.rawValue) (\(move.step.rawValue))",
                remedy: move.state == .running
                    ? "Wait for it, or undo it with 'hc-admin move abort \(move.slug)'." : nil)
        }
        return move
    }
}
