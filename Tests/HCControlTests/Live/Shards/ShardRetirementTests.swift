import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A shard is retired", .serialized, .onLoop)
@LoopActor
struct ShardRetirementTests {
    private func retire(
        _ ground: MoveGround, isLost: Bool = false, dryRun: Bool = false
    ) async throws -> ShardRegistry.Retirement {
        try await ShardRegistry(plane: ground.plane()).retire(
            "s1", isLost: isLost, reason: "test", dryRun: dryRun)
    }

    private func refusal(_ ground: MoveGround) async -> ControlError? {
        await controlFailure { _ = try await retire(ground) }
    }

    @Test("when it is empty, drained, and no way back leads to it; then nobody asks it any more")
    func whole() async throws {
        try await withMoveGround { ground in
            #expect(await refusal(ground)?.code == "shard-not-draining")
            let plane = ground.plane()
            let registry = ShardRegistry(plane: plane)
            _ = try await registry.drain("s1", reason: nil)
            let used = await refusal(ground)
            #expect(used?.code == "shard-in-use")
            #expect(
                used?.message.contains("2 clinics are placed on it (lakeside, sunrise)") == true)
            #expect(used?.message.contains("its server has open doors for 2 clinics") == true)
            let options = ShardDrain.Options(move: MoveOptions(pauseBudget: .seconds(5)))
            let outcome = try await ShardDrain("s1", plane: ground.plane(), options, tell: { _ in })
                .run()
            #expect(outcome.isEmpty && outcome.soaking == 2)
            let soaking = await refusal(ground)
            #expect(
                soaking?.message.contains(
                    "the way back of 'sunrise' is kept: hc-admin move finalize sunrise")
                    == true)
            for slug in ["sunrise", "lakeside"] {
                _ = try await MoveService(plane: ground.plane()).finalize(
                    slug, reason: nil, tell: { _, _ in }
                ).run()
            }
            try await ground.psql(
                ground.control.admin,
                "INSERT INTO replica (shard_id, name, dsn_ref) VALUES ('s1', 'r1', 's1.r1')")
            #expect(
                await refusal(ground)?.message.contains("hc-admin shard replica remove s1 r1")
                    == true)
            try await ground.psql(ground.control.admin, "DELETE FROM replica")

            #expect(try await retire(ground, dryRun: true) == .wouldRetire)
            #expect(try await retire(ground) == .retired)
            #expect(try await retire(ground) == .unchanged)
            #expect(try await registry.list(isInUse: true).map(\.id) == ["s2"])
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT count(*) FROM operator_audit WHERE action = 'shard.retire'") == "1")
            let move = await controlFailure {
                _ = try await MovePreflight(plane: plane).plan("sunrise", to: "s1")
            }
            #expect(move?.message.contains("shard s1 is closed") == true)
            let reconciled = await controlFailure {
                _ = try await ShardReconciliation("s1", plane: plane).run(
                    isNewSystem: false, reason: nil, dryRun: true)
            }
            #expect(reconciled?.code == "shard-retired")
            // Its server may be away from now on.
            let catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
            let runner = MigrationRunner(plane: plane, catalog: catalog)
            #expect(try await runner.shardStatus().map(\.id) == ["s2"])
            let findings = await Doctor(plane: plane, catalog: catalog).examine()
            #expect(!findings.contains { $0.check.hasSuffix("s1") })
        }
    }

    @Test("of a server that is gone only the control database is asked")
    func lost() async throws {
        try await withMoveGround { ground in
            try await ground.psql(
                ground.control.admin,
                """
                UPDATE shard SET state = 'draining' WHERE id = 's1';
                UPDATE placement SET shard_id = 's2', epoch = epoch + 1;
                """)
            #expect(
                await refusal(ground)?.message.contains("its server has open doors for 2 clinics")
                    == true)
            #expect(try await retire(ground, isLost: true) == .retired)
        }
    }

    @Test("a clinic that is placed there meanwhile is either seen, or is not let in")
    func race() async throws {
        try await withMoveGround { ground in
            let plan = try await MovePreflight(plane: ground.plane()).plan("sunrise", to: "s2")
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET state = 'draining' WHERE id = 's2'")
            let registry = ShardRegistry(plane: ground.plane())
            #expect(
                try await registry.retire("s2", isLost: false, reason: nil, dryRun: false)
                    == .retired)
            let late = await controlFailure {
                _ = try await MoveService(plane: ground.plane()).begin(
                    plan, reason: nil, tell: { _, _ in })
            }
            #expect(late?.message.contains("shard s2 is closed by now") == true)
            #expect(
                try await ground.places() == ["lakeside s1 1 serving", "sunrise s1 1 serving"])
        }
    }
}
