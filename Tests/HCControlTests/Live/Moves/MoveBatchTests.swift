import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("Several clinics are moved by one command", .onLoop, .serialized)
@LoopActor
struct MoveBatchTests {
    private func batch(_ ground: MoveGround) -> MoveBatch {
        MoveBatch(
            plane: ground.plane(),
            options: MoveOptions(
                pauseBudget: .seconds(5), soak: .zero), groups: .none, reason: "test",
            tell: { _, _ in })
    }

    private func states(_ outcomes: [MoveBatch.Outcome]) -> [String] {
        outcomes.map { outcome in
            switch outcome.result {
            case .moved(let move): "\(outcome.slug) \(move.state.rawValue)"
            case .failed: "\(outcome.slug) failed"
            case .notBegun: "\(outcome.slug) not begun"
            }
        }
    }

    @Test("side by side, under load", arguments: [1, 2])
    func together(size: Int) async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground)
            let outcomes = await batch(ground).run(["lakeside", "sunrise"], to: "s2", size: size)
            try await load.stop()
            #expect(states(outcomes) == ["lakeside done", "sunrise done"])
            #expect(load.failures == [])
            let lost = try await load.lost(on: ground.shards[1], ground)
            #expect(lost == 0)
            for tenant in [MoveGround.sunrise, MoveGround.lakeside] {
                let place = try await ground.psql(
                    ground.control.admin,
                    "SELECT shard_id, state, epoch FROM placement WHERE tenant_id = '\(tenant)'")
                #expect(place == "s2|serving|2")
            }
        }
    }

    @Test("after one that fails no more are begun, and it may be asked for again")
    func failure() async throws {
        try await withMoveGround { ground in
            let outcomes = await batch(ground).run(
                ["nobody", "sunrise", "lakeside"], to: "s2", size: 1)
            #expect(
                states(outcomes) == ["nobody failed", "sunrise not begun", "lakeside not begun"])
            let moves = try await ground.psql(ground.control.admin, "SELECT count(*) FROM move")
            #expect(moves == "0")
            let again = await batch(ground).run(["sunrise", "lakeside"], to: "s2", size: 2)
            #expect(states(again) == ["sunrise done", "lakeside done"])
        }
    }

    @Test("one that is undone stops those behind it and none beside it")
    func undone() async throws {
        try await withMoveGround { ground in
            let store = MoveStore(plane: ground.plane())
            var isAsked = false
            let batch = MoveBatch(
                plane: ground.plane(),
                options: MoveOptions(pauseBudget: .seconds(5), soak: .zero), groups: .none,
                reason: "test"
            ) { move, _ in
                guard move.slug == "sunrise", !isAsked else { return }
                isAsked = true
                Loop.shared.spawn {
                    do {
                        try await store.requestAbort(move, reason: "test")
                    } catch {
                        Issue.record("the abort was refused: \(error)")
                    }
                }
            }
            let outcomes = await batch.run(["sunrise", "lakeside"], to: "s2", size: 1)
            #expect(states(outcomes) == ["sunrise aborted", "lakeside not begun"])
            let wrongs = try await ground.wrongs(servedBy: "s1", epoch: 1)
            #expect(wrongs == [])
        }
    }
}

@Suite("An agent samples the load", .onLoop, .serialized)
@LoopActor
struct AgentCollectTests {
    @Test("when nobody has for some minutes, and not before")
    func due() async throws {
        try await withMoveGround { ground in
            let collector = LoadCollector(plane: ground.plane())
            #expect(try await collector.collectIfDue()?.map(\.shard) == ["s1", "s2"])
            #expect(try await collector.collectIfDue() == nil)
            try await ground.psql(
                ground.control.admin,
                "UPDATE shard_load SET sampled_at = sampled_at - interval '6 minutes'")
            #expect(try await collector.collectIfDue()?.map(\.shard) == ["s1", "s2"])
        }
    }

    @Test("it does so while it runs")
    func agent() async throws {
        try await withMoveGround { ground in
            let agent = MoveAgent(plane: ground.plane()) { _, _ in }
            let task = Loop.shared.makeTask { try await agent.run { _ in } }
            let limit = ground.deadline
            while try await ground.psql(
                ground.control.admin, "SELECT count(*) FROM shard_load") != "2"
            {
                guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            }
            task.cancel()
            _ = await task.result
        }
    }
}
