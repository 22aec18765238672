import HCCore
package import HCIO

/// The moves of a plan, begun and carried on by this process; what it leaves when it dies, any other carries on.
@LoopActor
package final class RebalanceMovers {
    private let plane: ControlPlane
    private let options: MoveOptions
    private let reason: String?
    private let tell: MoveService.Tell
    private var running: Set<MoveID> = []

    package init(
        plane: ControlPlane, options: MoveOptions, reason: String?, tell: @escaping MoveService.Tell
    ) {
        self.plane = plane
        self.options = options
        self.reason = reason
        self.tell = tell
    }

    package var moves: RebalanceRunner.Moves {
        RebalanceRunner.Moves(
            begin: { try await self.begin($0) }, look: { try await self.look(MoveID($0)) })
    }

    private func begin(_ wanted: RebalancePlanFile.Move) async throws -> UUID {
        // Moves do not wait for each other's statements.
        let own = plane.twin()
        do {
            var plan = try await MovePreflight(plane: own).plan(
                wanted.slug, to: wanted.target, options)
            plan.apart = wanted.apart
            guard plan.tenant.id == wanted.clinic, plan.source.id == wanted.source else {
                throw ControlError(
                    .conflict, code: "plan-drifted",
                    "'\(wanted.slug)' is not the clinic that was planned for",
                    remedy: "Make another plan: hc-admin rebalance plan.")
            }
            let mover = try await MoveService(plane: own).begin(plan, reason: reason, tell: tell)
            let id = mover.id
            running.insert(id)
            carryOn(mover, on: own)
            return id.uuid
        } catch {
            await own.close()
            throw error
        }
    }

    /// Until the move is over or soaks. What fails here is seen by who looks at the move: it is nobody's then.
    private func carryOn(_ mover: Mover, on own: ControlPlane) {
        let id = mover.id
        Loop.shared.spawn { [self] in
            do {
                _ = try await mover.run()
            } catch {
                plane.progress("move \(id.uuid) goes on: \(error)")
            }
            await own.close()
            running.remove(id)
        }
    }

    private func look(_ id: MoveID) async throws -> RebalanceRunner.Moves.Look {
        let move = try await MoveStore(plane: plane).find(id)
        switch move.state {
        case .soaking, .done:
            return move.direction == .forward ? .there : .failed("it was reverted")
        case .aborted, .reverted, .failed:
            let reason = move.progress["abortReason"]?.asString ?? move.error
            return .failed(reason ?? "it was \(move.state.rawValue)")
        case .running, .aborting:
            if move.isForgotten, !move.isLeased {
                return .failed("shard \(move.destination) has forgotten that it came")
            }
            if !move.isLeased, !running.contains(id) { try await takeOver(id) }
            return .underWay
        }
    }

    private func takeOver(_ id: MoveID) async throws {
        let own = plane.twin()
        guard let mover = try await MoveService(plane: own).take(id, tell: tell) else {
            return await own.close()
        }
        running.insert(id)
        carryOn(mover, on: own)
    }
}
