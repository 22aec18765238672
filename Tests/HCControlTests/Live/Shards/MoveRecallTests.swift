import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

/// What has to hold for the shard that a clinic came from to serve it again. The server of `s2` is told by hand to have
/// forgotten it; `ForgottenArrivalTests` has real ones.
@Suite("A clinic that was forgotten is taken back", .serialized, .onLoop)
@LoopActor
struct MoveRecallTests {
    private func reconcile(
        _ ground: MoveGround, _ shard: String = "s2", dryRun: Bool = false
    ) async throws -> ShardReconciliation.Result {
        try await ShardReconciliation(shard, plane: ground.plane()).run(
            isNewSystem: false, reason: "test", dryRun: dryRun)
    }

    /// Until the point, where the process dies.
    private func die(_ point: String, _ body: @LoopActor () async throws -> Void) async throws {
        try FaultPoint.arm("\(point)=fail", perform: { _ in })
        await #expect(throws: FaultPointFailure.self) { try await body() }
        FaultPoint.disarm()
    }

    @Test("only by a shard that still has its rows, is who it was, and has let it go")
    func obstacles() async throws {
        try await withMoveGround { ground in
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            let plane = ground.plane()
            let move = try await MoveStore(plane: plane).find(named: "sunrise")
            let shards = try await ShardRegistry(plane: plane).list()
            func obstacle(
                of move: Move, _ shards: [Shard]
            ) async throws -> MoveRecall.Obstacle? {
                try await MoveRecall(plane: ground.plane()).obstacle(of: move, shards)
            }
            #expect(try await obstacle(of: move, shards)?.reason == nil)
            var later = move
            for step in [MoveStep.purging, .finished] {
                later.step = step
                #expect(
                    try await obstacle(of: later, shards)?.reason
                        == "its rows are gone from shard s1")
            }
            var closed = shards
            for place in closed.indices { closed[place].state = "closed" }
            #expect(
                try await obstacle(of: move, closed)?.reason == "its rows are gone from shard s1")

            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(MoveGround.sunrise)'")
            #expect(try await obstacle(of: move, shards)?.reason == "shard s1 has it as absent")
            try ground.lose(1)
            let away = try #require(try await obstacle(of: move, shards))
            #expect(away.isForNow && away.reason.contains("cannot be asked"), "\(away.reason)")
            try ground.find(1)
            try await ground.psql(
                ground.control.admin,
                "UPDATE move SET source_identity = source_identity || '{\"timeline\": 7}'")
            let other = try #require(try await obstacle(of: move, shards))
            #expect(!other.isForNow && other.reason.contains("another server has taken over"))
        }
    }

    @Test(
        "not if the move or the placement was changed in between",
        arguments: [
            "move SET attempt = attempt + 1", "move SET state = 'done'",
            "move SET direction = 'back'", "move SET step = 'purging'",
            "placement SET state = 'moving'",
        ])
    func changedMeanwhile(_ change: String) async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await ground.forgetArrival()
            let (services, admin) = (ground.services, ground.control.admin)
            try FaultPoint.arm("recall.reserved=stop@1") { _ in
                do {
                    try services.psql(
                        admin, "UPDATE \(change) WHERE tenant_id = '\(MoveGround.sunrise)'")
                } catch {
                    fatalError("\(error)")
                }
            }
            await #expect(throws: MoveLost.self) { try await reconcile(ground) }
            FaultPoint.disarm()
            let now = try await ground.psql(
                admin, "SELECT direction, shard_id FROM move JOIN placement USING (tenant_id)")
            #expect(now == (change.contains("direction") ? "back|s2" : "forward|s2"))
        }
    }

    @Test("nobody is let in where it was forgotten, and nothing is taken away by who came too late")
    func numbers() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await ground.forgetArrival(door: ("rw", 1))
            let made = try await ground.leftovers()
            #expect(!made.isEmpty)
            try await ground.psql(
                ground.shards[0].superuser,
                """
                UPDATE hc_tenant SET attempt = attempt + 1000
                WHERE tenant_id = '\(MoveGround.sunrise)'
                """)
            await #expect(throws: MoveLost.self) { try await reconcile(ground) }
            #expect(try await ground.leftovers() == made)
            // It let in at an epoch of long ago.
            #expect(try await ground.door(2) == "absent|1")
            try await ground.expireLeases()
            try await ground.psql(
                ground.shards[0].superuser,
                """
                SET session_replication_role = replica;
                UPDATE hc_tenant SET attempt = attempt - 1000
                WHERE tenant_id = '\(MoveGround.sunrise)'
                """)
            try await die("recall.reserved") { _ = try await reconcile(ground) }
            #expect(try await ground.door(2) == "incoming|1")
            try await ground.expireLeases()
            let result = try await reconcile(ground)
            #expect(result.recalls.map(\.clinic) == ["sunrise"] && result.waysBack == [])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("by the move that brought it, and not by one that was undone or led elsewhere")
    func whichMove() async throws {
        try await withMoveGround { ground in
            try await ground.recordSchemas()
            let options = MoveOptions(pauseBudget: .seconds(5), soak: .zero)
            let first = try await ground.begin(ground.plane(), options).run()
            #expect(first.state == .done)
            try await die("move.copied") {
                _ = try await ground.begin(ground.plane(), to: "s1").run()
            }
            try await ground.expireLeases()
            let undone = try await MoveService(plane: ground.plane()).abort(
                "sunrise", reason: nil, tell: { _, _ in })
            #expect(undone.state == .aborted)
            try await ground.forgetArrival()
            let reason = try await reconcile(ground).lost.first?.reason ?? ""
            #expect(reason.contains("it came by move \(first.id.uuid)"), "\(reason)")
            // Placed by hand where its last move did not bring it.
            try await ground.psql(
                ground.control.admin,
                "UPDATE placement SET shard_id = 's1', epoch = 3 WHERE tenant_id = '\(MoveGround.sunrise)'"
            )
            let none = try await reconcile(ground, "s1").lost.first?.reason ?? ""
            #expect(none.contains("no move has brought it"), "\(none)")
        }
    }

    @Test("a server of another system has nothing of what came, and lets nobody in")
    func otherSystem() async throws {
        try await withMoveGround { ground in
            try await die("move.committed") { _ = try await ground.begin(ground.plane()).run() }
            try await ground.psql(
                ground.control.admin,
                "UPDATE move SET target_identity = target_identity || '{\"systemIdentifier\": \"1\"}'"
            )
            let stopped = try await ground.carryOn()
            #expect(stopped.step == .committed && stopped.isForgotten)
            #expect(try await ground.door(2) == "incoming|1")
        }
    }

    @Test("its new door is opened by the latest attempt, and on the server that was looked at")
    func openedByWhom() async throws {
        try await withMoveGround { ground in
            try await die("move.committed") { _ = try await ground.begin(ground.plane()).run() }
            let plane = ground.plane()
            let registry = ShardRegistry(plane: plane)
            var fence = MoveFence(
                plane: plane, move: try await MoveStore(plane: plane).find(named: "sunrise"),
                origin: try await registry.find("s1"), destination: try await registry.find("s2"))
            await #expect(throws: MoveLost.self) { try await fence.open(epoch: 2, timeline: 2) }
            fence.move.attempt -= 1
            let late = fence
            await #expect(throws: MoveLost.self) { try await late.open(epoch: 2, timeline: 1) }
            #expect(try await ground.door(2) == "incoming|1")
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }
}
