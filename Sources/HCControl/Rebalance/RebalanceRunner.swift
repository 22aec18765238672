package import HCCore
package import HCIO

/// Carries out a plan: begins its moves one after the other, and looks at them until they are over.
@LoopActor
package struct RebalanceRunner {
    /// What it needs of moves.
    package struct Moves {
        package enum Look: Sendable, Equatable {
            case underWay
            /// The clinic is served at its target.
            case there
            /// In words.
            case failed(String)
        }

        /// Begins a move, and sees to it that somebody carries it on. What it throws counts as a failure.
        package var begin: @LoopActor (RebalancePlanFile.Move) async throws -> UUID
        package var look: @LoopActor (UUID) async throws -> Look

        package init(
            begin: @escaping @LoopActor (RebalancePlanFile.Move) async throws -> UUID,
            look: @escaping @LoopActor (UUID) async throws -> Look
        ) {
            self.begin = begin
            self.look = look
        }
    }

    let plane: ControlPlane
    let plan: RebalancePlanFile
    let moves: Moves
    /// Between two looks at moves that are under way.
    private static let lookEvery = Duration.milliseconds(200)

    package init(plane: ControlPlane, plan: RebalancePlanFile, moves: Moves) {
        self.plane = plane
        self.plan = plan
        self.moves = moves
    }

    /// Whether the plan can be applied: nothing is changed.
    ///
    /// - Throws: `ControlError` (`plan-drifted`) naming what changed.
    package func check() async throws {
        let drift = RebalanceDrift(plane: plane, plan: plan)
        var reason = try await drift.reason()
        for move in plan.moves where reason == nil {
            if case .drifted(let what) = try await drift.standing(of: move) { reason = what }
        }
        guard let reason else { return }
        throw ControlError(
            .conflict, code: "plan-drifted", "the plan is not applied: \(reason)",
            remedy: "Make another: hc-admin rebalance plan.")
    }

    /// What applying the plan would begin with now: which clinics are where they are to come, and which are waited for.
    ///
    /// - Throws: as `check`.
    package func preview(
        _ limits: RebalanceApplication.Limits
    ) async throws -> RebalanceApplication {
        try await check()
        let drift = RebalanceDrift(plane: plane, plan: plan)
        var application = RebalanceApplication(plan.moves, limits: limits)
        for (index, move) in plan.moves.enumerated() {
            if case .done = try await drift.standing(of: move) { application.wasThere(index) }
        }
        return application
    }

    /// Applies the plan, or as much of it as goes well. Given again after it was interrupted, it goes on.
    ///
    /// - Parameter tell: hears what happens, for people.
    /// - Throws: as `check`. Failures of moves are in what it returns.
    package func run(
        _ limits: RebalanceApplication.Limits, tell: (String) -> Void
    ) async throws -> RebalanceApplication {
        try await check()
        let drift = RebalanceDrift(plane: plane, plan: plan)
        var application = RebalanceApplication(plan.moves, limits: limits)
        while true {
            switch application.next() {
            case .begin(let index):
                try await begin(index, &application, drift, tell)
            case .wait:
                try await Loop.shared.sleep(for: RebalanceRunner.lookEvery)
                try await look(&application, tell)
            case .finish:
                return application
            }
        }
    }

    private func begin(
        _ index: Int, _ application: inout RebalanceApplication, _ drift: RebalanceDrift,
        _ tell: (String) -> Void
    ) async throws {
        let move = plan.moves[index]
        if let reason = try await drift.reason() { return application.drifted(reason) }
        switch try await drift.standing(of: move) {
        case .drifted(let reason): application.drifted(reason)
        case .done: application.wasThere(index)
        case .ready:
            do {
                application.begun(index, try await moves.begin(move))
                tell("'\(move.slug)' goes from \(move.source) to \(move.target)")
            } catch let error as CancellationError {
                throw error
            } catch {
                tell("'\(move.slug)' does not go: \(error)")
                application.failed(index, "\(error)")
            }
        }
    }

    private func look(
        _ application: inout RebalanceApplication, _ tell: (String) -> Void
    ) async throws {
        for (index, id) in application.underWay {
            let slug = plan.moves[index].slug
            switch try await moves.look(id) {
            case .underWay: break
            case .there:
                tell("'\(slug)' is at \(plan.moves[index].target)")
                application.ended(index)
            case .failed(let reason):
                tell("'\(slug)' did not go: \(reason)")
                application.failed(index, reason)
            }
        }
    }
}
