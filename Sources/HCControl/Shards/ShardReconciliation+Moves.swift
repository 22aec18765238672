import HCCore
import HCIO
import HCPostgres

/// Moves of a shard whose server is another one now.
extension ShardReconciliation {
    /// For moves past their commit point to get to where they soak.
    private static let patience = Duration.seconds(30)

    /// Carries on what has passed its commit point.
    ///
    /// - Returns: moves that soak: all others are over.
    /// - Throws: `ControlError` (`moves-unsettled`) naming each that has to be settled first.
    func settledMoves(dryRun: Bool) async throws -> [Move] {
        let store = MoveStore(plane: plane)
        let open = try await store.list(shard: id, isOpen: true, limit: 100_000)
        var reasons: [String] = []
        for move in open where !(move.state == .soaking && move.step == .soaking) {
            if move.state == .running, move.step.isBeforeCommit {
                reasons.append(
                    move.isAbortRequested
                        ? "the abort of the move of '\(move.slug)' is not over: hc-admin move show \(move.slug) --wait"
                        : "'\(move.slug)' is on the move and before its commit point: hc-admin move abort \(move.slug)"
                )
            } else if move.state == .aborting {
                reasons.append(
                    "the abort of the move of '\(move.slug)' is not over: hc-admin move show \(move.slug) --wait"
                )
            }
        }
        guard reasons.isEmpty else { throw unsettled(reasons) }
        guard !dryRun else { return open }
        for move in open where !(move.state == .soaking && move.step == .soaking) {
            guard try await carryOn(move) else {
                throw unsettled([
                    "the move of '\(move.slug)' does not go on after its commit point: hc-admin move show \(move.slug)"
                ])
            }
        }
        return try await store.list(shard: id, isOpen: true, limit: 100_000)
    }

    private func unsettled(_ reasons: [String]) -> ControlError {
        ControlError(
            .refused, code: "moves-unsettled",
            "shard \(id) cannot be reconciled yet: " + reasons.joined(separator: "; "),
            remedy: "Nothing was changed. Give this command again when that is done.")
    }

    private func carryOn(_ move: Move) async throws -> Bool {
        let (store, service) = (MoveStore(plane: plane), MoveService(plane: plane))
        let limit = Deadline.after(ShardReconciliation.patience, from: plane.clocks.monotonic())
        while !limit.isExpired(at: plane.clocks.monotonic()) {
            let now = try await store.find(move.id)
            if now.state.isOver || (now.state == .soaking && now.step == .soaking) { return true }
            if !now.isLeased, let mover = try await service.take(move.id, tell: { _, _ in }) {
                _ = try await mover.run()
                continue
            }
            try await Loop.shared.sleep(for: .milliseconds(100))
        }
        return false
    }

    /// The slot of the way back is gone with the former primary, or what followed it has forgotten how far it was.
    /// The rows that were left behind stay until the soak is over.
    func loseWayBack(
        of move: Move, _ shards: [Shard], _ result: inout Result
    ) async throws {
        guard move.progress["wayBackLost"] == nil else { return }
        let reason =
            move.target == id
            ? "the slot of its way back was on the former primary of \(id)"
            : "the new primary of \(id) may lack what the way back had brought"
        result.waysBack.append(Loss(clinic: move.slug, reason: reason))
        guard !result.isDryRun else { return }
        try await plane.attempt("the move of '\(move.slug)' cannot be changed") {
            _ = try await plane.control().execute(
                Query(
                    """
                    UPDATE move SET progress = progress || jsonb_build_object('wayBackLost', $2::text),
                        updated_at = clock_timestamp()
                    WHERE id = $1 AND state = 'soaking'
                    """, [.id(move.id), .text(reason)]), deadline: plane.deadline)
        }
        let store = MoveStore(plane: plane)
        for object in try await store.objects(of: move.id) {
            guard let shard = shards.first(where: { $0.id == object.shard }),
                let other = shards.first(where: {
                    [move.source, move.target].contains($0.id) && $0.id != object.shard
                })
            else { continue }
            do {
                try await MoveStream.drop(
                    object, of: move, plane: plane, shard: shard, other: other)
                try await store.isGone(object)
            } catch {
                plane.progress("\(object.kind.rawValue) \(object.name) stays for now: \(error)")
            }
        }
    }
}
