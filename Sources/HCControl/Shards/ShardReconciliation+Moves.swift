import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Moves of a shard whose server is another one now.
extension ShardReconciliation {
    /// For another shard to say that it is there.
    private static let shardPatience = Duration.seconds(5)

    /// Carries on what has passed its commit point, as far as it goes.
    ///
    /// - Returns: moves that are not over.
    /// - Throws: `ControlError` (`moves-unsettled`) naming each that has to be settled first.
    func settledMoves(_ shards: [Shard], _ result: inout Result) async throws -> [Move] {
        let store = MoveStore(plane: plane)
        let open = try await store.list(shard: id, isOpen: true, limit: 100_000)
        try requireCommitted(open)
        let unfinished = open.filter { !($0.state == .soaking && $0.step == .soaking) }
        var away: [String: String?] = [:]
        for move in unfinished {
            let other = move.source == id ? move.target : move.source
            if away[other] == nil { away[other] = await absence(of: other, among: shards) }
            if let reason = away[other] ?? nil {
                result.waiting.append(Loss(clinic: move.slug, reason: reason))
            } else if result.isDryRun {
                result.waiting.append(
                    Loss(
                        clinic: move.slug, reason: "its move goes on first (\(move.step.rawValue))")
                )
            } else if let reason = try await carryOn(move) {
                result.waiting.append(Loss(clinic: move.slug, reason: reason))
            }
        }
        return try await store.list(shard: id, isOpen: true, limit: 100_000)
    }

    private func requireCommitted(_ open: [Move]) throws {
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
    }

    /// Why a shard has no part in anything now; nil if it has.
    private func absence(of id: String, among shards: [Shard]) async -> String? {
        guard let shard = shards.first(where: { $0.id == id }) else { return "shard \(id) is gone" }
        let own = plane.twin()
        var reason: String?
        do {
            _ = try await own.shard(reference: shard.reference, .mover).execute(
                Query("SELECT 1"),
                deadline: .after(
                    ShardReconciliation.shardPatience, from: plane.clocks.monotonic()))
        } catch let error as ControlError {
            reason = "shard \(id) is away: \(error.message)"
        } catch {
            reason = "shard \(id) is away: it gives no answer"
        }
        await own.close()
        return reason
    }

    /// Once more, when the doors have been read.
    ///
    /// - Throws: `ControlError` (`moves-unsettled`) naming each move that was begun since.
    func requireNoneBegun() async throws {
        try requireCommitted(
            try await MoveStore(plane: plane).list(shard: id, isOpen: true, limit: 100_000))
    }

    private func unsettled(_ reasons: [String]) -> ControlError {
        ControlError(
            .refused, code: "moves-unsettled",
            "shard \(id) cannot be reconciled yet: " + reasons.joined(separator: "; "),
            remedy: "Nothing was changed. Give this command again when that is done.")
    }

    /// - Returns: why it does not go on; nil if it is where it soaks, or over.
    private func carryOn(_ move: Move) async throws -> String? {
        let limit = Deadline.after(patience, from: plane.clocks.monotonic())
        while true {
            let now = try await MoveStore(plane: plane).find(move.id)
            if now.state.isOver || (now.state == .soaking && now.step == .soaking) { return nil }
            // What it has forgotten is decided on by its door.
            if now.isForgotten, !now.isLeased { return nil }
            guard !limit.isExpired(at: plane.clocks.monotonic()) else {
                return "it is \(now.step.rawValue) and waits for "
                    + (now.progress["waitingFor"]?.asString ?? "the process that has it")
            }
            if !now.isLeased {
                let own = plane.twin()
                if let mover = try await MoveService(plane: own).take(now.id, tell: { _, _ in }) {
                    try await run(mover, on: own, until: limit)
                }
                await own.close()
            }
            try await Loop.shared.sleep(for: .milliseconds(100))
        }
    }

    /// Past its commit point a move goes on for ever: this process leaves it when the time is over.
    private func run(_ mover: Mover, on own: ControlPlane, until limit: Deadline) async throws {
        let running = Loop.shared.makeTask { try await mover.run() }
        let leaving = Loop.shared.makeTask { () -> Bool in
            do { try await Loop.shared.sleep(until: limit) } catch { return false }
            running.cancel()
            // What waits for a server's answer hears that there is none.
            await own.close()
            return true
        }
        let end = await running.result
        leaving.cancel()
        // By who ended it and not by the clock, which the loop's time may be ahead of or behind.
        let isLeft = try await leaving.value
        guard case .failure(let error) = end, !isLeft, !(error is ArrivalForgotten) else { return }
        throw error
    }

    // MARK: What was forgotten

    /// The move that brought a clinic here, of which the server does not know.
    func arrival(of tenant: TenantID, at epoch: Int64) async throws -> (
        move: Move, what: MoveArrival
    )? {
        let store = MoveStore(plane: plane)
        guard
            let move = try await store.list(tenant: tenant, limit: 10).first(where: {
                $0.step.isPastCommit
            }), move.destination == id
        else { return nil }
        let shard = try await ShardRegistry(plane: plane).find(id)
        let identities = try await store.identities(of: move.id)
        return (
            move,
            try await MoveArrival.look(
                at: shard, as: move.direction == .forward ? identities.target : identities.source,
                drained: move.isRecall ? nil : move.position("drainPosition"), tenant: tenant,
                epoch: epoch, plane: plane)
        )
    }

    /// The shard that the clinic came from serves it from here on.
    func recall(_ move: Move, _ result: inout Result, _ reason: String?) async throws {
        result.recalls.append(
            Loss(
                clinic: move.slug,
                reason:
                    "shard \(id) has forgotten its arrival, and shard \(move.origin) has its rows"))
        guard !result.isDryRun else { return }
        let limit = Deadline.after(patience, from: plane.clocks.monotonic())
        let own = plane.twin()
        do {
            let owner = MoveService(plane: own).makeOwner()
            let mover = try await MoveRecall(plane: own).run(move, owner: owner, reason: reason)
            try await run(mover, on: own, until: limit)
        } catch {
            await own.close()
            throw error
        }
        await own.close()
        let now = try await MoveStore(plane: plane).find(move.id)
        guard now.step == .committed else { return }
        result.waiting.append(
            Loss(
                clinic: move.slug,
                reason: "shard \(now.destination) does not open it: "
                    + (now.progress["waitingFor"]?.asString ?? "it gives no answer")))
    }

    /// The slot of the way back is gone with the former primary, or what followed it has forgotten how far it was.
    /// The rows that were left behind stay until the soak is over.
    func loseWayBack(
        of move: Move, _ shards: [Shard], _ result: inout Result
    ) async throws {
        guard move.progress["wayBackLost"] == nil, move.direction == .forward,
            [.committed, .opened, .switched, .soaking].contains(move.step)
        else { return }
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
                    WHERE id = $1 AND state IN ('soaking', 'running')
                    """, [.id(move.id), .text(reason)]), deadline: plane.deadline)
        }
        // What a move still has to do it does with what it has made.
        guard move.state == .soaking, move.step == .soaking else { return }
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
