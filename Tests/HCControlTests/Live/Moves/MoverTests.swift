import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A clinic is moved", .serialized, .onLoop)
@LoopActor
struct MoverTests {
    @Test("under writers, there and back: nothing is lost, nothing is left over")
    func thereAndBack() async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground)
            let there = try await ground.begin(ground.plane()).run()
            #expect(there.state == .soaking, "\(there.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 5 }
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(back.state == .reverted, "\(back.progress.text)")
            let after = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > after + 5 }
            try await load.stop()
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[0], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("without a soak the rows left behind go at once; its manifest can be checked")
    func withoutSoak() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let load = try await MoveLoad.start(ground)
            let move = try await ground.begin(
                plane, MoveOptions(pauseBudget: .seconds(5), soak: .zero)
            ).run()
            try await load.stop()
            #expect(move.state == .done, "\(move.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
            let signer = try MoveManifest.makeSigner(plane.controlDoor().master)
            let document = try #require(move.manifest)
            let manifest = try MoveManifest.verified(document, by: signer)
            #expect(manifest.epochAfter == 2 && manifest.target.shard == "s2")
            #expect(manifest.confirmedPosition >= manifest.fencePosition)
            let practitioners = try #require(manifest.tables.first { $0.name == "practitioner" })
            #expect(practitioners.digest.rows >= 300)
            #expect(throws: MoveManifestError.self) {
                try MoveManifest.verified(document.adding(["slug": "lakeside"]), by: signer)
            }
            // Without a database: what `move show --json` prints, and that with a figure changed.
            let checked = try MoveManifest.verified(
                move.json.serialized, from: "answer", masterKeyFile: ground.masterKeyFile)
            #expect(checked == manifest)
            let changed = await controlFailure {
                _ = try MoveManifest.verified(
                    move.json.adding(["manifest": document.adding(["epochAfter": 3])]).serialized,
                    from: "answer", masterKeyFile: ground.masterKeyFile)
            }
            #expect(changed?.code == "bad-manifest")
            let cut = await controlFailure {
                _ = try MoveManifest.verified(
                    Array(document.serialized.dropLast()), from: "answer",
                    masterKeyFile: ground.masterKeyFile)
            }
            #expect(cut?.code == "bad-manifest" && cut?.message.contains("no JSON text") == true)
        }
    }

    @Test("a copy that is not equal is found, and the clinic stays where it is")
    func corrupted() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.psql(
                ground.shards[1].superuser,
                """
                UPDATE practitioner SET name = name || '!'
                WHERE tenant_id = '\(MoveGround.sunrise)' AND name = 'P7'
                """)
            let move = try await ground.carryOn()
            #expect(move.state == .aborted)
            let reason = move.progress["abortReason"]?.asString ?? ""
            #expect(reason.contains("practitioner"), "\(reason)")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("an abort before the commit point wins, one after it is refused")
    func aborts() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.handed-over=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let store = MoveStore(plane: plane)
            let stopped = try await store.find(named: "sunrise")
            #expect(stopped.step == .gating)
            try await store.requestAbort(stopped, reason: nil)
            // Its process is not gone: it goes on, and asks for the commit point.
            #expect(try await store.commit(stopped, [:], deadline: ground.deadline) == nil)
            let undone = try await ground.carryOn()
            #expect(undone.state == .aborted)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])

            let done = try await ground.begin(ground.plane()).run()
            #expect(done.state == .soaking)
            let late = await controlFailure { try await store.requestAbort(done, reason: nil) }
            #expect(late?.code == "move-past-commit")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("an abort is heeded while rows are still being compared")
    func abortOfComparison() async throws {
        // More rows than one look of the comparison takes.
        try await withMoveGround(patients: 20_000) { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let first = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await first.run() }
            FaultPoint.disarm()
            // The first look of the comparison waits at the destination for as long as this stands.
            let (services, database) = (ground.services, ground.shards[1].superuser)
            let lock = try await offLoop {
                let session = try services.session(database)
                try session.run(
                    """
                    BEGIN;
                    DO $$ BEGIN
                        EXECUTE (
                            SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', string_agg(name::text, ', '))
                            FROM hc_tenant_tables() AS names (name)
                        );
                    END $$;
                    """)
                return session
            }
            try await ground.expireLeases()
            let plane = ground.plane("successor")
            let store = MoveStore(plane: ground.plane())
            var looks = 0
            let mover = try #require(
                try await MoveService(plane: plane).take(first.id) { _, text in
                    looks += text.contains("to be compared") ? 1 : 0
                })
            let running = Loop.shared.makeTask { try await mover.run() }
            try await ground.untilTrue(
                ground.shards[1],
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation IS NOT NULL)")
            try await store.requestAbort(try await store.find(first.id), reason: nil)
            try await Loop.shared.wait { mover.lease.isAbortWanted }
            _ = try await offLoop { try lock.run("ROLLBACK") }
            let move = try await running.value
            #expect(move.state == .aborted)
            #expect(looks == 1)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("a server that took over at the origin without the fence lets the clinic go for good")
    func fenceLost() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.committed.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            // What a standby has that was promoted and is behind.
            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = '\(MoveGround.sunrise)'")
            let move = try await ground.carryOn()
            #expect(move.state == .done, "no way back is kept: \(move.progress.text)")
            #expect(move.progress["fenceLost"]?.asBool == true)
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT state || epoch FROM hc_tenant WHERE tenant_id = '\(MoveGround.sunrise)'"
                )
                    == "moved2")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }
}
