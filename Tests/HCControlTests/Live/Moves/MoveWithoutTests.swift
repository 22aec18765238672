import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A move one of whose servers is gone for good", .serialized, .onLoop)
@LoopActor
struct MoveWithoutTests {
    /// A move whose process dies at the point.
    private func die(_ point: String, _ ground: MoveGround, soak: Duration = .zero) async throws {
        try FaultPoint.arm("\(point)=fail", perform: { _ in })
        let mover = try await ground.begin(
            ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: soak))
        await #expect(throws: FaultPointFailure.self) { try await mover.run() }
        FaultPoint.disarm()
    }

    private func end(_ ground: MoveGround, without shard: String) async throws -> Move {
        try await MoveService(plane: ground.plane()).finalize(
            "sunrise", without: shard, reason: "its disk burnt", tell: { _, _ in }
        ).run()
    }

    private func refusal(_ ground: MoveGround, without shard: String) async -> ControlError? {
        await controlFailure { _ = try await end(ground, without: shard) }
    }

    private func audits(_ ground: MoveGround) async throws -> String {
        try await ground.psql(
            ground.control.admin,
            """
            SELECT detail ->> 'shard' || ' ' || (detail ->> 'reason') FROM operator_audit
            WHERE action = 'tenant.move.without'
            """)
    }

    @Test(
        "ends without the shard that its clinic left, wherever it stands, and names what stays there",
        arguments: [
            "move.opened", "move.opened.done", "move.switched", "move.soaking",
            "move.closing", "move.closing.done", "move.purging",
        ])
    func formerShard(_ point: String) async throws {
        try await withMoveGround { ground in
            let soaks = point == "move.soaking"
            if soaks {
                #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            } else {
                try await die(point, ground)
            }
            try ground.lose(1)
            let done = try await end(ground, without: "s1")
            #expect(done.state == .done && done.givenUp == "s1", "\(done.progress.text)")
            #expect(done.manifest != nil)
            #expect(try await ground.places().contains("sunrise s2 2 serving"))
            #expect(try await ground.door(2) == "rw|2")
            #expect(try await audits(ground) == "s1 its disk burnt")
            let left = done.progress["leftBehind"]?.asArray?.compactMap(\.asString) ?? []
            #expect(left.last == "the rows that 'sunrise' left there", "\(left)")
            // Of the other one nothing is left, and of this one the records.
            let found = try await ground.leftovers().filter { !$0.hasPrefix("s1 ") }
            #expect(found.allSatisfy { $0.hasPrefix("record ") }, "\(found)")
            let records = try await MoveStore(plane: ground.plane()).objects(of: done.id)
            #expect(records.allSatisfy { $0.shard == "s1" })
            #expect(Set(left.dropLast()) == Set(records.map { "\($0.kind.rawValue) \($0.name)" }))
            // It comes back after all.
            try ground.find(1)
            #expect(try await ground.door(1).hasPrefix("rw") == false)
            let plane = ground.plane()
            let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
            let told = try await doctor.leftovers(
                of: try await ShardRegistry(plane: plane).find("s1"))
            #expect(
                told.contains { $0.detail.contains("the move of sunrise was ended without it") })
            try await ground.recordSchemas()
            func reconcile(dryRun: Bool) async throws -> ShardReconciliation.Result {
                try await ShardReconciliation("s1", plane: ground.plane()).run(
                    isNewSystem: false, reason: "test", dryRun: dryRun)
            }
            let preview = try await reconcile(dryRun: true)
            #expect(preview.remains.map(\.clinic) == ["sunrise"])
            #expect(preview.remains.first?.reason.contains("the rows that it left") == true)
            #expect(try await reconcile(dryRun: false).remains == preview.remains)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
            #expect(try await reconcile(dryRun: false).outcome == "unchanged")
        }
    }

    @Test("is undone without its target, and the clinic can be moved again")
    func target() async throws {
        try await withMoveGround { ground in
            try await die("move.mirrored", ground)
            try await ground.expireLeases()
            try ground.lose(2)
            let early = await refusal(ground, without: "s2")
            #expect(early?.code == "move-goes-on", "\(String(describing: early))")
            let store = MoveStore(plane: ground.plane())
            let move = try await store.find(named: "sunrise")
            try await store.requestAbort(move, reason: nil)
            // Whoever has it waits for the server, and keeps it.
            let plane = ground.plane("agent")
            let mover = try #require(
                try await MoveService(plane: plane).take(move.id, tell: { _, _ in }))
            let waiting = Loop.shared.makeTask { try await mover.run() }
            let limit = ground.deadline
            while try await store.find(move.id).progress["waitingFor"]?.asString == nil {
                guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            }
            #expect(try await store.find(move.id).isLeased)
            let undone = try await end(ground, without: "s2")
            #expect(undone.state == .aborted, "\(undone.progress.text)")
            _ = try await waiting.value
            #expect(try await audits(ground) == "s2 its disk burnt")
            #expect(try await ground.door(1) == "rw|1")
            #expect(
                try await ground.places() == ["lakeside s1 1 serving", "sunrise s1 1 serving"])
            #expect(try await ground.leftovers().allSatisfy { !$0.hasPrefix("s1 ") })
            let over = await refusal(ground, without: "s2")
            #expect(over?.code == "move-over")
            try ground.find(2)
            try await ground.recordSchemas()
            let result = try await ShardReconciliation("s2", plane: ground.plane()).run(
                isNewSystem: false, reason: "test", dryRun: false)
            #expect(result.remains.map(\.clinic) == ["sunrise"])
            #expect(result.doors.map(\.to) == ["absent"])
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
        }
    }

    @Test(
        "is not ended without a server that answers, whatever it answers, nor without a replica that does"
    )
    func answers() async throws {
        try await withMoveGround { ground in
            try await die("move.closing", ground)
            let answering = await refusal(ground, without: "s1")
            #expect(answering?.code == "shard-answers" && answering?.kind == .refused)
            // Another database of it is gone; its server is there.
            try ground.lead(1, toDatabase: "none")
            let refusing = await refusal(ground, without: "s1")
            #expect(refusing?.code == "shard-answers", "\(String(describing: refusing))")
            try ground.find(1)
            let reference = try ground.addReplicaFile(of: 1)
            try await ground.psql(
                ground.control.admin,
                "INSERT INTO replica (shard_id, name, dsn_ref) VALUES ('s1', 'r1', '\(reference)')")
            try ground.lose(1)
            let replica = await refusal(ground, without: "s1")
            #expect(replica?.message.contains("replica r1 of shard s1 is not gone") == true)
            let stays = try await MoveStore(plane: ground.plane()).find(named: "sunrise")
            #expect(stays.givenUp == nil && stays.step == .closing)
            try await ground.psql(ground.control.admin, "DELETE FROM replica")
            let other = await refusal(ground, without: "s9")
            #expect(other?.code == "other-shard")
            #expect(try await end(ground, without: "s1").state == .done)
        }
    }

    @Test("is not ended without the shard on which its clinic is placed")
    func placed() async throws {
        try await withMoveGround { ground in
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try ground.lose(2)
            let served = await refusal(ground, without: "s2")
            #expect(served?.code == "placed-there" && served?.kind == .refused)
            try ground.find(2)
            #expect(try await audits(ground) == "")
        }
    }

    @Test("goes on without it by another process when the one that was told dies")
    func died() async throws {
        try await withMoveGround { ground in
            try await die("move.opened", ground)
            try ground.lose(1)
            let service = MoveService(plane: ground.plane())
            for point in ["move.opened", "move.closing.done", "move.purging.done"] {
                try FaultPoint.arm("\(point)=fail", perform: { _ in })
                await #expect(throws: FaultPointFailure.self) {
                    if point == "move.opened" {
                        _ = try await end(ground, without: "s1")
                    } else {
                        _ = try await ground.carryOn()
                    }
                }
                FaultPoint.disarm()
            }
            #expect(try await service.store.find(named: "sunrise").givenUp == "s1")
            #expect(try await ground.carryOn().state == .done)
            let retired = await controlFailure {
                try await ground.psql(
                    ground.control.admin, "UPDATE shard SET state = 'draining' WHERE id = 's1'")
                _ = try await ShardRegistry(plane: ground.plane()).retire(
                    "s1", isLost: true, reason: nil, dryRun: false)
            }
            #expect(
                retired?.message.contains("1 clinics are placed on it (lakeside)") == true
                    && retired?.message.contains("sunrise") == false)
        }
    }

    @Test("a shard that is lost is retired when its moves are ended, and the refusal tells how")
    func retired() async throws {
        try await withMoveGround { ground in
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try ground.lose(1)
            try await ground.psql(
                ground.control.admin,
                """
                UPDATE shard SET state = 'draining' WHERE id = 's1';
                UPDATE placement SET shard_id = 's2', epoch = 2 WHERE tenant_id = '\(MoveGround.lakeside)'
                """)
            func retire() async throws -> ShardRegistry.Retirement {
                try await ShardRegistry(plane: ground.plane()).retire(
                    "s1", isLost: true, reason: nil, dryRun: false)
            }
            let refused = await controlFailure { _ = try await retire() }
            #expect(
                refused?.message.contains("hc-admin move finalize sunrise --without s1") == true)
            #expect(try await end(ground, without: "s1").state == .done)
            #expect(try await retire() == .retired)
            try ground.find(1)
        }
    }
}
