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

    @Test("a second move of the same clinic is refused, and one to where it is")
    func twice() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let mover = try await ground.begin(plane)
            let second = await controlFailure { _ = try await ground.begin(ground.plane()) }
            #expect(second?.code == "move-running")
            let same = await controlFailure {
                _ = try await MovePreflight(plane: plane).plan("lakeside", to: "s1")
            }
            #expect(same?.code == "same-shard")
            let unknown = await controlFailure {
                _ = try await MovePreflight(plane: plane).plan("lakeside", to: "s9")
            }
            #expect(unknown?.kind == .notFound)
            #expect(try await mover.run().state == .soaking)
            let third = await controlFailure {
                _ = try await ground.begin(ground.plane(), to: "s1")
            }
            #expect(third?.code == "move-running", "it soaks")
        }
    }

    @Test("what cannot be moved is refused with every reason, and nothing is changed")
    func refusals() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            try await ground.psql(
                ground.shards[1].owner, "ALTER TABLE clinic ADD COLUMN by_hand text")
            try await ground.psql(
                ground.control.admin,
                "UPDATE shard SET state = 'draining', timeline = 7 WHERE id = 's2'")
            let refusal = try #require(
                await controlFailure {
                    _ = try await MovePreflight(plane: plane).plan("sunrise", to: "s2")
                })
            #expect(refusal.code == "move-refused" && refusal.kind == .refused)
            for part in [
                "somebody changed one by hand", "is draining", "not the server that it was",
            ] {
                #expect(refusal.message.contains(part), "\(refusal.message)")
            }
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("a disk that is too full, and a transaction that writes for too long, are reasons")
    func room() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan("sunrise", to: "s2")
            #expect(!plan.warnings.contains { $0.contains("disk") }, "\(plan.warnings)")
            var limits = MovePreflight.Limits()
            limits.diskReserve = .max / 4
            limits.transactionSecondsMax = 0
            let (services, app) = (ground.services, ground.shards[0].app)
            let writer = try await offLoop {
                let session = try services.session(app)
                try session.run(
                    """
                    BEGIN;
                    SELECT hc_enter('\(MoveGround.lakeside)', 1, 'w');
                    INSERT INTO practitioner (tenant_id, id, name)
                    VALUES ('\(MoveGround.lakeside)', gen_random_uuid(), 'slow');
                    """)
                return session
            }
            let strict = limits
            let refusal = try #require(
                await controlFailure {
                    _ = try await MovePreflight(plane: plane, limits: strict).plan(
                        "sunrise", to: "s2")
                })
            #expect(refusal.message.contains("the disk of shard s2 has"), "\(refusal.message)")
            #expect(refusal.message.contains("shard s1 has a transaction that writes"))
            _ = try await offLoop { try writer.run("ROLLBACK") }
        }
    }

    @Test(
        "a transaction that stays inside breaks the pause off; when it has ended the move goes on")
    func longWriter() async throws {
        try await withMoveGround { ground in
            let services = ground.services
            let app = ground.shards[0].app
            let writer = try await offLoop {
                let session = try services.session(app)
                try session.run(
                    """
                    BEGIN;
                    SELECT hc_enter('\(MoveGround.sunrise)', 1, 'w');
                    INSERT INTO practitioner (tenant_id, id, name)
                    VALUES ('\(MoveGround.sunrise)', gen_random_uuid(), 'slow');
                    """)
                return session
            }
            let plane = ground.plane()
            let mover = try await ground.begin(
                plane, MoveOptions(pauseBudget: .milliseconds(50), soak: .zero))
            let running = Loop.shared.makeTask { try await mover.run() }
            let store = MoveStore(plane: ground.plane())
            // The slot waits for it, or the pause: both say so.
            var reason = ""
            while !reason.contains("transaction") && !reason.contains("process") {
                let move = try await store.find(named: "sunrise")
                reason = move.progress["waitingFor"]?.asString ?? ""
                try await Loop.shared.lookAround()
            }
            #expect(
                try await ground.psql(
                    ground.shards[0].owner, "SELECT pg_try_advisory_xact_lock(1, 0)") == "f",
                "nobody migrates it meanwhile")
            _ = try await offLoop { try writer.run("COMMIT") }
            let move = try await running.value
            #expect(move.state == .done, "\(move.progress.text)")
            #expect(
                try await ground.psql(
                    ground.shards[1].superuser,
                    "SELECT count(*) FROM practitioner WHERE name = 'slow'") == "1")
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

    @Test("a mover that was stopped and goes on after its successor changes nothing any more")
    func zombie() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.gated=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let store = MoveStore(plane: plane)
            let zombie = try await store.find(named: "sunrise")
            let registry = ShardRegistry(plane: plane)
            let fence = MoveFence(
                plane: plane, move: zombie, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            try await ground.expireLeases()
            let successor = try #require(try await store.claim(zombie.id, owner: "successor"))
            #expect(successor.attempt == zombie.attempt + 1)
            let other = MoveFence(
                plane: ground.plane(), move: successor, origin: fence.origin,
                destination: fence.destination)
            try await other.reopen()
            // Everything that it could still send.
            #expect(try await fence.gate(deadline: ground.deadline) == false)
            guard case .lost = try await fence.fence(deadline: ground.deadline) else {
                Issue.record("a zombie has fenced")
                return
            }
            #expect(try await fence.handOver(deadline: ground.deadline) == false)
            await #expect(throws: MoveLost.self) { try await fence.reopen() }
            await #expect(throws: MoveLost.self) { try await fence.leave(epoch: 2) }
            #expect(try await store.commit(zombie, [:], deadline: ground.deadline) == nil)
            await #expect(throws: MoveLost.self) { try await store.advance(zombie, to: .committed) }
            try await other.reserve()
            await #expect(throws: MoveLost.self) { try await fence.open(epoch: 2) }
            await #expect(throws: MoveLost.self) { try await fence.reserve() }
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a mover that goes on after its successor makes nothing more and takes nothing away")
    func lateObjects() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.published=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let zombie = try await store.find(named: "sunrise")
            let (source, target) = (try await registry.find("s1"), try await registry.find("s2"))
            #expect(try await ground.carryOn().state == .soaking)
            let streams = [
                MoveStream(
                    plane: plane, store: store, move: zombie,
                    name: MoveStream.name(zombie, isMirror: false), publisher: source,
                    subscriber: target),
                MoveStream(
                    plane: plane, store: store, move: zombie,
                    name: MoveStream.name(zombie, isMirror: true), publisher: target,
                    subscriber: source),
            ]
            for stream in streams {
                await #expect(throws: MoveLost.self) { try await stream.publish() }
                await #expect(throws: MoveLost.self) { try await stream.makeSlot() }
                await #expect(throws: MoveLost.self) { try await stream.subscribe(copies: false) }
                await #expect(throws: MoveLost.self) { try await stream.makeDurable() }
                await #expect(throws: MoveLost.self) { try await stream.enable() }
                await #expect(throws: MoveLost.self) { try await stream.skip(to: nil) }
                for (kind, shard, other) in [
                    (MoveObject.Kind.publication, stream.publisher, stream.subscriber),
                    (.slot, stream.publisher, stream.subscriber),
                ] {
                    let object = MoveObject(shard: shard.id, kind: kind, name: stream.name)
                    // What is not there is as good as removed, for a zombie too.
                    guard kind != .slot || stream.publisher.id == target.id else { continue }
                    await #expect(throws: MoveLost.self) {
                        try await MoveStream.drop(
                            object, of: zombie, plane: plane, shard: shard, other: other)
                    }
                }
            }
            await #expect(throws: MoveLost.self) { try await streams[1].unsubscribe() }
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

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

    @Test("what a pause that was broken off still sends comes too late")
    func lateStatements() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.verified=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let id = try await store.find(named: "sunrise").id
            var move = try #require(try await store.claim(id, owner: "one process"))
            var late = MoveFence(
                plane: plane, move: move, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            move.attempt = try await store.advance(move, to: .gating)
            move.step = .gating
            late.move = move
            #expect(try await late.gate(deadline: ground.deadline))
            move.attempt = try await store.advance(move, to: .verified)
            var next = late
            next.move = move
            try await next.reopen()
            // The same process, the same lease: only the number is another.
            #expect(try await late.gate(deadline: ground.deadline) == false)
            guard case .lost = try await late.fence(deadline: ground.deadline) else {
                Issue.record("a pause that is over has fenced")
                return
            }
            await #expect(throws: MoveLost.self) { try await late.reopen() }
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT state FROM hc_tenant WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "rw")
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test(
        "a destination that gives no answer keeps the door closed no longer than the pause may last"
    )
    func deafDestination() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.verified=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let id = try await store.find(named: "sunrise").id
            var move = try #require(try await store.claim(id, owner: "one process"))
            let (origin, destination) = (
                try await registry.find("s1"), try await registry.find("s2")
            )
            let stream = MoveStream(
                plane: plane, store: store, move: move,
                name: MoveStream.name(move, isMirror: false), publisher: origin,
                subscriber: destination)
            let verification = try await MoveVerification.run(
                over: stream, isWatched: true, plane: plane, progress: { _, _ in })
            move.attempt = try await store.advance(move, to: .gating)
            move.step = .gating
            let fence = MoveFence(
                plane: plane, move: move, origin: origin, destination: destination)
            #expect(try await fence.gate(deadline: ground.deadline))
            guard case .fenced(let barrier) = try await fence.fence(deadline: ground.deadline)
            else {
                Issue.record("nobody is inside, and the fence was not made")
                return
            }
            #expect(try await fence.drain(barrier, deadline: ground.deadline) != nil)
            let look = try await verification.look(
                at: origin, behind: barrier.number, of: move.tenant, plane: plane,
                deadline: ground.deadline)
            let (services, target) = (ground.services, ground.shards[1].superuser)
            let lock = try await offLoop {
                let session = try services.session(target)
                // It ends in the end, and who has waited for it is found out.
                try session.run(
                    """
                    SET idle_in_transaction_session_timeout = '30s';
                    BEGIN;
                    LOCK TABLE hc_barrier, patient IN ACCESS EXCLUSIVE MODE;
                    """)
                return session
            }
            // To its clock a statement may take an hour: only the end of the pause is left.
            let patient = ground.plane(
                clocks: Clocks(
                    now: Clocks.system.now,
                    monotonic: { Clocks.system.monotonic() + .seconds(3600) }))
            let deaf = MoveFence(
                plane: patient, move: move, origin: origin, destination: destination)
            #expect(
                try await deaf.drain(
                    barrier, deadline: .after(.milliseconds(50), from: Loop.shared.now))
                    == nil)
            let failure = await #expect(throws: PostgresError.self) {
                try await verification.finish(
                    look, at: destination, of: move.tenant, plane: patient,
                    deadline: .after(.milliseconds(50), from: Loop.shared.now))
            }
            guard case .deadlineExceeded? = failure?.kind else {
                Issue.record("it ended otherwise: \(String(describing: failure))")
                return
            }
            _ = try await offLoop { try lock.run("ROLLBACK") }
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test(
        "a shard is not migrated while a clinic is on the move, nor a clinic moved while a shard is migrated"
    )
    func migrations() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
            let next = MigrationCatalog(
                control: catalog.control,
                shard: catalog.shard + [
                    Migration(
                        version: catalog.shard.count + 1, name: "later", checksum: "c",
                        sql: "SELECT 1")
                ])
            // Somebody migrates the target, and takes the time of this session for it.
            let (services, owner) = (ground.services, ground.shards[1].owner)
            let migrating = try await offLoop {
                let session = try services.session(owner)
                try session.run("SELECT pg_advisory_lock(1, 0)")
                return session
            }
            let refusal = await controlFailure { _ = try await ground.begin(plane) }
            #expect(refusal?.message.contains("s2 is being migrated") == true)
            _ = try await offLoop { try migrating.run("SELECT pg_advisory_unlock(1, 0)") }

            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let mover = try await ground.begin(plane)
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            for shard in ["s1", "s2"] {
                let refusal = await controlFailure {
                    _ = try await MigrationRunner(plane: ground.plane(), catalog: next).upShards(
                        only: shard, dryRun: false)
                }
                #expect(refusal?.code == "moves-open")
                #expect(refusal?.message.contains("sunrise (copied)") == true)
            }
            // Nothing to do is no danger.
            #expect(
                try await MigrationRunner(plane: ground.plane(), catalog: catalog).upShards(
                    dryRun: false
                ).isEmpty)
            #expect(try await ground.carryOn().state == .soaking)
        }
    }

    @Test("the process that carries a move on holds the lock that migrations take")
    func holdsLock() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let registry = ShardRegistry(plane: plane)
            let hold = SchemaHold(
                plane: plane,
                shards: [try await registry.find("s1"), try await registry.find("s2")])
            try await hold.take()
            try await hold.take()
            let free = "SELECT pg_try_advisory_xact_lock(1, 0)"
            #expect(try await ground.psql(ground.shards[0].owner, free) == "f")
            #expect(try await ground.psql(ground.shards[1].owner, free) == "f")
            await hold.release()
            #expect(try await ground.psql(ground.shards[1].owner, free) == "t")
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

    @Test("the way back is whole though the process that turned the stream died, and under writers")
    func deathWhileTurning() async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground)
            try FaultPoint.arm("move.opened.done=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            // What is written now goes back by the stream that is there already.
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 20 }
            #expect(try await ground.carryOn().state == .soaking)
            let plane = ground.plane()
            #expect(
                try await SoakCheck(plane: plane).run(
                    try await MoveStore(plane: plane).find(named: "sunrise").id) == nil)
            let back = try await MoveService(plane: plane).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            try await load.stop()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[0], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test(
        "of a large clinic the pause reads only what was never found equal, and each row that was changed since"
    )
    func largeClinic() async throws {
        try await withMoveGround(patients: 6000) { ground in
            let load = try await MoveLoad.start(ground)
            let move = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero)
            ).run()
            try await load.stop()
            #expect(move.state == .done, "\(move.progress.text)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            let verification = try #require(move.progress["verification"])
            #expect(verification["mode"]?.asString == "dirty-chunks")
            let chunks = try #require(verification["chunks"]?.asInteger)
            let inPause = try #require(verification["chunksInPause"]?.asInteger)
            #expect(inPause < chunks, "\(inPause) of \(chunks)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("rows are removed by the latest attempt only")
    func latePurge() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            let zombie = try await store.find(named: "sunrise")
            let move = try #require(try await store.claim(zombie.id, owner: "successor"))
            var fence = MoveFence(
                plane: plane, move: move, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            try await fence.reserve()
            fence.move = zombie
            let late = fence
            await #expect(throws: MoveLost.self) { try await late.purge(late.destination) }
            #expect(
                try await ground.psql(
                    ground.shards[1].superuser,
                    "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "300")
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

    /// Where a mover dies: between steps, between doing and writing down, and at every point of the pause.
    nonisolated private static let deaths = [
        "move.planned", "move.planned.done", "move.reserved.done", "move.published.done",
        "move.slotted",
        "move.slotted.done", "move.subscribed", "move.subscribed.done", "move.copied.done",
        "move.mirrored.done",
        "move.gated", "move.fenced", "move.drained", "move.handed-over", "move.committed",
        "move.committed.done", "move.opened.done", "move.switched", "move.closing.done",
        "move.purging.done",
    ]

    @Test("whoever carries a move on, wherever its process died, ends it", arguments: deaths)
    func death(_ point: String) async throws {
        try await withMoveGround { ground in
            let load = try await MoveLoad.start(ground, writers: 2)
            try FaultPoint.arm("\(point)=fail", perform: { _ in })
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let move = try await ground.carryOn()
            #expect(move.state == .done, "\(move.progress.text)")
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 2 }
            try await load.stop()
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }
}
