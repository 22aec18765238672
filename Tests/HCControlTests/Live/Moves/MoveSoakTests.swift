import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("The streams of a move, and its soak", .serialized, .onLoop)
@LoopActor
struct MoveSoakTests {
    @Test(
        "a stream that the end of its connection has stopped goes on, before and after the commit point",
        arguments: [
            "move.subscribed.done", "move.mirrored", "move.verified", "move.committed.done",
        ]
    )
    func stoppedStream(_ point: String) async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("\(point)=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.breakStream(publisher: ground.shards[0])
            try await ground.awaitStopped(subscriber: ground.shards[1])
            let move = try await ground.carryOn()
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
            // The way back is followed by nobody's leave.
            try await ground.breakStream(publisher: ground.shards[1])
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("a way back that is given up leaves the clinic where it is, and nothing where it was")
    func wayBackLost() async throws {
        try await withMoveGround { ground in
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            try await ground.breakStream(publisher: ground.shards[1])
            try await ground.psql(
                ground.shards[1].superuser,
                """
                DO $$ BEGIN
                    LOOP
                        PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots
                        WHERE database = current_database() AND active;
                        BEGIN
                            PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                            WHERE database = current_database();
                            EXIT;
                        EXCEPTION WHEN object_in_use THEN NULL;
                        END;
                    END LOOP;
                END $$
                """)
            let stayed = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(stayed.state == .soaking && stayed.direction == .forward)
            let done = try await MoveService(plane: ground.plane()).finalize(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(done.state == .done, "\(done.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT state FROM hc_tenant WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "absent")
        }
    }

    /// A move whose clinic is served at its destination, and whose stream was not turned around.
    private func withOpened(_ body: @LoopActor (MoveGround) async throws -> Void) async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await body(ground)
        }
    }

    @Test(
        "a way back whose log is lost before anybody reads it is given up: that is told, and the move ends",
        arguments: [true, false])
    func neverTurned(isSlotThere: Bool) async throws {
        try await withOpened { ground in
            if isSlotThere {
                try await ground.loseLog(of: "hc_mirror_%", on: ground.shards[1])
            } else {
                try await ground.psql(
                    ground.shards[1].superuser,
                    """
                    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                    WHERE slot_name LIKE 'hc_mirror_%'
                    """)
            }
            // The process that sees it dies before it has written that down.
            try FaultPoint.arm("move.opened.done=fail", perform: { _ in })
            await #expect(throws: FaultPointFailure.self) {
                _ = try await ground.carryOnWithinBounds()
            }
            FaultPoint.disarm()
            let move = try await ground.carryOnWithinBounds()
            #expect(move.state == .soaking && move.step == .soaking, "\(move.progress.text)")
            #expect(move.manifest != nil)
            let lost = move.progress["wayBackLost"]?.asString ?? ""
            #expect(lost.contains("the slot hc_mirror_"), "\(lost)")
            #expect(try await ground.leftovers().filter { !$0.contains(" barrier ") } == [])
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT count(*) FROM operator_audit WHERE action = 'tenant.move.way-back-lost'"
                )
                    == "1")
            let plane = ground.plane()
            #expect(try await SoakCheck(plane: plane).take() == [])
            let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
            let found = try await doctor.leftovers(
                of: try await ShardRegistry(plane: plane).find("s1"))
            #expect(found.contains { $0.detail.contains("sunrise cannot be brought back") })
            let refusal = await controlFailure {
                _ = try await MoveService(plane: plane).revert(
                    "sunrise", reason: nil, tell: { _, _ in })
            }
            #expect(refusal?.code == "way-back-lost")
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "300", "the rows that were left behind stay while it soaks")
            let done = try await MoveService(plane: plane).finalize(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(done.state == .done, "\(done.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("a move whose log is lost before the commit point is taken back, and says why")
    func lostBeforeCommit() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            try FaultPoint.arm("move.verified=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let name = try await ground.psql(
                ground.shards[1].superuser,
                "SELECT subname FROM pg_subscription WHERE subname LIKE 'hc_move_%'")
            try await ground.psql(
                ground.shards[1].superuser, "ALTER SUBSCRIPTION \(name) DISABLE")
            try await ground.loseLog(of: name, on: ground.shards[0])
            let move = try await ground.carryOnWithinBounds()
            #expect(move.state == .aborted, "\(move.progress.text)")
            let why = move.progress["abortReason"]?.asString ?? ""
            #expect(why.contains("shard s1 no longer has the log that the move needs"), "\(why)")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("a stream whose log is lost when it has brought everything is not waited for")
    func nothingToCome() async throws {
        try await withOpened { ground in
            // What it brought was not confirmed before.
            try await ground.psql(
                ground.control.admin,
                "UPDATE move SET progress = progress || '{\"fencePosition\": \"FFFF/0\"}'")
            try await ground.loseLog(of: "hc_move_%", on: ground.shards[0])
            let move = try await ground.carryOnWithinBounds()
            #expect(move.state == .soaking && move.step == .soaking, "\(move.progress.text)")
            #expect(move.progress["wayBackLost"]?.asString == nil)
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("a way back whose log is lost while the move soaks is told, and is not gone")
    func lostInSoak() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            let moved = try await ground.begin(ground.plane()).run()
            #expect(moved.state == .soaking)
            let name = MoveStream.name(moved, isMirror: true)
            try await ground.psql(
                ground.shards[0].superuser, "ALTER SUBSCRIPTION \(name) DISABLE")
            try await ground.loseLog(of: name, on: ground.shards[1])
            let plane = ground.plane()
            let told = try await SoakCheck(plane: plane).run(moved.id)
            #expect(told?.contains("no longer has the log") == true, "\(told ?? "")")
            let refusal = await controlFailure {
                _ = try await MoveService(plane: plane).revert(
                    "sunrise", reason: nil, tell: { _, _ in })
            }
            #expect(refusal?.code == "way-back-lost")
            let done = try await MoveService(plane: plane).finalize(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(done.state == .done, "\(done.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test(
        "a clinic goes back though its move was begun before keys were published, and under writers"
    )
    func withoutKeys() async throws {
        try await withMoveGround(patients: 6000) { ground in
            let load = try await MoveLoad.start(ground)
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            let keys = try await ground.psql(
                ground.shards[1].superuser,
                "SELECT pubname FROM pg_publication WHERE pubname LIKE 'hc_mirror_%_keys'")
            try await ground.psql(ground.shards[1].superuser, "DROP PUBLICATION \(keys)")
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            try await load.stop()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[0], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("the doctor finds what no move has made, and nothing while one soaks")
    func leftovers() async throws {
        try await withMoveGround { ground in
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            let plane = ground.plane()
            let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
            let shards = try await ShardRegistry(plane: plane).list()
            for shard in shards { #expect(try await doctor.leftovers(of: shard).isEmpty) }
            try await ground.psql(
                ground.shards[0].superuser,
                "SELECT pg_create_logical_replication_slot('hc_move_nobodys', 'pgoutput')")
            try await ground.psql(
                ground.control.admin,
                "UPDATE move SET state = 'done', step = 'finished', finished_at = now()")
            let found = try await doctor.leftovers(of: shards[0]).map(\.detail)
            #expect(found.contains { $0.contains("slot hc_move_nobodys is left over") }, "\(found)")
            #expect(found.contains { $0.contains("subscription hc_mirror_") }, "\(found)")
        }
    }

    @Test(
        "both sides are compared while a move soaks, under writers; what goes wrong later is found and told"
    )
    func soakCheck() async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground)
            let moved = try await ground.begin(ground.plane()).run()
            #expect(moved.state == .soaking)
            let plane = ground.plane()
            let (check, store) = (SoakCheck(plane: plane), MoveStore(plane: plane))
            #expect(try await check.take() == [moved.id])
            #expect(try await check.take().isEmpty, "another agent has it")
            #expect(try await check.run(moved.id) == nil)
            try await load.stop()
            #expect(load.failures == [])
            #expect(try await store.find(moved.id).progress["soakChecks"]?.asInteger == 1)
            try await ground.psql(
                ground.shards[0].superuser,
                """
                UPDATE practitioner SET name = name || '!'
                WHERE tenant_id = '\(MoveGround.sunrise)' AND name = 'P7'
                """)
            let difference = try #require(try await check.run(moved.id))
            #expect(difference.contains("practitioner"))
            let registry = ShardRegistry(plane: plane)
            let doctor = Doctor(plane: plane, catalog: MigrationCatalog(control: [], shard: []))
            let found = try await doctor.leftovers(of: try await registry.find("s1"))
            #expect(found.contains { $0.detail.contains("sunrise cannot be brought back") })
            // The way back finds it too, and the clinic stays where it is.
            let stayed = try await MoveService(plane: plane).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(stayed.state == .soaking && stayed.direction == .forward)
            #expect(stayed.progress["abortReason"]?.asString?.contains("practitioner") == true)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }
}
