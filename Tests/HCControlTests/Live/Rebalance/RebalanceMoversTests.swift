import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A plan is applied by moves of clinics", .onLoop)
@LoopActor
struct RebalanceMoversTests {
    private func plan(_ ground: MoveGround, _ clinics: [(TenantID, String)]) async throws
        -> RebalancePlanFile
    {
        let desk = RebalanceDesk(plane: ground.plane())
        let version = try await desk.view(RebalanceSettings()).mapVersion
        return RebalancePlanFile(
            mapVersion: version, madeAt: Timestamp(microseconds: 1),
            moves: clinics.map { id, slug in
                RebalancePlanFile.Move(
                    clinic: id, slug: slug, source: "s1", target: "s2", epoch: 1, cause: .drain,
                    bytes: 1)
            })
    }

    private func run(
        _ ground: MoveGround, _ plan: RebalancePlanFile,
        _ change: (inout RebalanceApplication.Limits) -> Void = { _ in }
    ) async throws -> RebalanceApplication {
        var limits = RebalanceApplication.Limits()
        (limits.atOnce, limits.perShard) = (2, 2)
        change(&limits)
        let plane = ground.plane("rebalancer")
        let movers = RebalanceMovers(
            plane: plane, options: MoveOptions(), reason: "test", tell: { _, _ in })
        return try await RebalanceRunner(plane: plane, plan: plan, moves: movers.moves)
            .run(limits, tell: { _ in })
    }

    @Test("two clinics go at once, and are served at their target with all their rows")
    func moves() async throws {
        try await withMoveGround { ground in
            let plan = try await plan(
                ground, [(MoveGround.sunrise, "sunrise"), (MoveGround.lakeside, "lakeside")])
            let done = try await run(ground, plan)
            #expect(done.outcomes == [.there, .there], "\(done.outcomes)")
            let desk = RebalanceDesk(plane: ground.plane())
            let view = try await desk.view(RebalanceSettings())
            #expect(view.fleet.clinics.map(\.shard) == [1, 1])
            #expect(view.epochs == [2, 2])
            // It moved a moment ago: only what must not stay moves it again.
            #expect(view.fleet.clinics.map(\.isResting) == [true, true])
            let again = try await run(ground, plan)
            #expect(again.outcomes == [.wasThere, .wasThere])
        }
    }

    @Test("a clinic does not go where one of its group is on its way to, whoever moves that")
    func groupUnderWay() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            var plan = try await plan(ground, [(MoveGround.lakeside, "lakeside")])
            plan.moves[0].apart = [MoveGround.sunrise]
            let done = try await run(ground, plan)
            guard case .failed(let reason) = done.outcomes[0] else {
                Issue.record("\(done.outcomes)")
                return
            }
            #expect(reason.contains("'sunrise', of the group of 'lakeside', is on shard s2 by now"))
            #expect(try await ground.carryOn().state == .soaking)
            #expect(
                try await ground.places() == ["lakeside s1 1 serving", "sunrise s2 2 serving"])
        }
    }

    @Test("a move that the preflight refuses is a failure, and the clinic stays")
    func refused() async throws {
        try await withMoveGround { ground in
            var plan = try await plan(
                ground, [(MoveGround.sunrise, "sunrise"), (MoveGround.lakeside, "lakeside")])
            plan.moves[0].target = "s9"
            let stopped = try await run(ground, plan) { $0.atOnce = 1 }
            #expect(stopped.failures == 1 && stopped.outcomes[1] == .waiting)
            let borne = try await run(ground, plan) { $0.failuresMax = 1 }
            #expect(borne.failures == 1 && borne.outcomes[1] == .there)
        }
    }
}
