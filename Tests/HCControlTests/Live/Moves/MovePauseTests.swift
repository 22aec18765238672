import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("The pause of a move", .serialized, .onLoop)
@LoopActor
struct MovePauseTests {
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

    @Test("what a pause that was broken off still sends comes too late")
    func lateStatements() async throws {
        try await withMoveGround { ground in
            let (plane, store, registry, taken) = try await ground.takeVerified()
            var move = taken
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
            let (plane, store, registry, taken) = try await ground.takeVerified()
            var move = taken
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
                    barrier, deadline: .after(.milliseconds(50), from: Loop.now))
                    == nil)
            let failure = await #expect(throws: PostgresError.self) {
                try await verification.finish(
                    look, at: destination, of: move.tenant, plane: patient,
                    deadline: .after(.milliseconds(50), from: Loop.now))
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
        "the control database is lost in the pause: the door is opened again without it, as no commit was sent",
        arguments: ["move.gated", "move.fenced"])
    func controlLost(_ point: String) async throws {
        try await withMoveGround { ground in
            let mover = try await ground.begin(ground.plane())
            try FaultPoint.arm(
                "\(point)=stop@1",
                perform: { _ in
                    do {
                        try ground.loseControl()
                    } catch {
                        Issue.record(error)
                    }
                })
            // Its process has lost the move when it ends, and can tell nobody.
            await #expect(throws: ControlError.self) { try await mover.run() }
            FaultPoint.disarm()
            let open = try await ground.psql(
                ground.shards[0].superuser,
                "SELECT state FROM hc_tenant WHERE tenant_id = '\(MoveGround.sunrise)'")
            #expect(open == "rw")
            try ground.findControl()
            let move = try await ground.carryOn()
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test(
        "rows are compared a few chunks at a time: what is read on one side is soon read on the other"
    )
    func fewChunks() async throws {
        try await withMoveGround(patients: 20_000) { ground in
            let (plane, store, registry, taken) = try await ground.takeVerified()
            let move = taken
            let stream = MoveStream(
                plane: plane, store: store, move: move,
                name: MoveStream.name(move, isMirror: false),
                publisher: try await registry.find("s1"),
                subscriber: try await registry.find("s2"))
            let plan = try await TenantDigest.plan(
                of: move.tenant, source: plane.shard(reference: "s1", .mover),
                target: plane.shard(reference: "s2", .mover), deadline: ground.deadline)
            #expect(plan.chunks.count > 32)
            var looks: [Int] = []
            _ = try await MoveVerification.run(
                over: stream, isWatched: false, plane: plane,
                progress: { rows, _ in looks.append(rows) })
            // As many as the pace lets it, and never more than sixteen.
            let most = zip(looks, [0] + looks).map { $0 - $1 }.max() ?? 0
            #expect(most <= 16 * plan.rowsPerChunk, "\(looks)")
            #expect(looks.count >= (plan.chunks.count + 15) / 16, "\(looks)")
            #expect(looks.last == plan.rows)
            #expect(try await ground.carryOn().state == .soaking)
        }
    }

    @Test(
        "the destination's planner is told of a table of which the clinic is a large part, and of no other"
    )
    func analyzed() async throws {
        try await withMoveGround(patients: 1500) { ground in
            let looked = """
                SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_stat_user_tables
                WHERE last_analyze IS NOT NULL
                """
            let before = try await ground.psql(ground.shards[1].superuser, looked)
            #expect(before == "")
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            #expect(
                try await ground.psql(ground.shards[1].superuser, looked)
                    == "audit_event practitioner")
            #expect(
                try await ground.psql(
                    ground.shards[1].superuser,
                    "SELECT reltuples FROM pg_class WHERE relname = 'practitioner'") == "1500")
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
}
