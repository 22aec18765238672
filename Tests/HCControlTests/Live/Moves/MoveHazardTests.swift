import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Synchronization
import Testing

@testable import HCControl

/// What may come between two statements of a move.
@Suite("A move that is met by misfortune", .serialized, .onLoop)
@LoopActor
struct MoveHazardTests {
    private final class Flag: Sendable {
        private let value = Atomic(false)
        var isSet: Bool { value.load(ordering: .acquiring) }
        func set() { value.store(true, ordering: .releasing) }
    }

    private final class Box: Sendable {
        let held = Mutex<Task<Move, any Error>?>(nil)
    }

    /// Runs SQL where a fault point is reached for the first time, in front of what comes after it.
    private func arm(
        _ point: String, _ act: @escaping @Sendable () throws -> Void
    ) throws {
        try FaultPoint.arm("\(point)=stop@1") { _ in
            do { try act() } catch { fatalError("\(error)") }
        }
    }

    /// The commit point is passed by somebody else, where the process is about to.
    private func armCommit(_ ground: MoveGround, _ also: @escaping @Sendable () -> Void) throws {
        let (services, admin) = (ground.services, ground.control.admin)
        let target = ground.shards[1].superuser
        try arm("move.handed-over") {
            let place = try services.psql(target, "SELECT pg_current_wal_insert_lsn()")
            try services.psql(
                admin,
                """
                SELECT move_commit(id, attempt, step,
                    jsonb_build_object('drainPosition', '\(place.filter { !$0.isNewline })')) FROM move
                """)
            also()
        }
    }

    /// A process whose statements have no time any more once the flag is set: what they do nobody tells it.
    private func deafPlane(_ ground: MoveGround, _ isLate: Flag) -> ControlPlane {
        ground.plane(
            clocks: Clocks(
                now: Clocks.system.now,
                monotonic: { Clocks.system.monotonic() - (isLate.isSet ? .seconds(3) : .zero) }))
    }

    @Test(
        "a destination that is gone right behind the commit point is opened when it is back, however often it failed before"
    )
    func openedLater() async throws {
        try await withMoveGround { ground in
            let (services, target) = (ground.services, ground.shards[1].superuser)
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan("sunrise", to: "s2")
            var told: [String] = []
            let mover = try await MoveService(plane: plane).begin(plan, reason: nil) {
                told.append($1)
            }
            try arm("move.committed") {
                try services.psql(
                    target,
                    """
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'hc-admin'
                    """)
                // One more, and a move before its commit point would be given up.
                LoopActor.assumeIsolated { mover.failures = 59 }
            }
            let move = try await mover.run()
            FaultPoint.disarm()
            #expect(told.contains { $0.contains("does not open the clinic") }, "\(told)")
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a commit point that is passed behind the last pause's back is not undone")
    func passedAfterAll() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            let holder = try await offLoop { try services.session(admin) }
            let isLate = Flag()
            // The commit's own time is over before it is sent, as for one whose answer never came; the others have more.
            let plane = deafPlane(ground, isLate)
            try arm("move.handed-over") {
                isLate.set()
                try holder.run("BEGIN; SELECT FROM move FOR UPDATE")
            }
            let mover = try await ground.begin(
                plane, MoveOptions(pauseBudget: .seconds(5), pauseTries: 1))
            let running = Loop.shared.makeTask { try await mover.run() }
            while try await ground.psql(
                admin,
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%move_advance%'
                """) != "1"
            {}
            let place = try await ground.psql(
                ground.shards[1].superuser, "SELECT pg_current_wal_insert_lsn()")
            let committed = try await offLoop {
                try holder.run(
                    """
                    SELECT move_commit(id, attempt, step, jsonb_build_object('drainPosition', '\(place)')) FROM move;
                    COMMIT
                    """)
            }
            #expect(committed.text == "2")
            let move = try await running.value
            FaultPoint.disarm()
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a commit point whose answer never came is asked for, and was passed")
    func answerLost() async throws {
        try await withMoveGround { ground in
            let isLate = Flag()
            try armCommit(ground) { isLate.set() }
            let mover = try await ground.begin(
                deafPlane(ground, isLate), MoveOptions(pauseBudget: .seconds(5), pauseTries: 1))
            let move = try await mover.run()
            FaultPoint.disarm()
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("what cannot go on behind a commit point that was passed takes nothing back")
    func fatalBehindCommit() async throws {
        try await withMoveGround { ground in
            try armCommit(ground) {}
            let mover = try await ground.begin(ground.plane())
            let failure = await controlFailure { _ = try await mover.run() }
            FaultPoint.disarm()
            #expect(failure?.code == "move-stuck")
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("who is cancelled while the door is closed opens it before the move is left")
    func cancelled() async throws {
        try await withMoveGround { ground in
            let task = Box()
            try arm("move.gated") { task.held.withLock { $0?.cancel() } }
            let mover = try await ground.begin(ground.plane())
            let running = Loop.shared.makeTask { try await mover.run() }
            task.held.withLock { $0 = running }
            await #expect(throws: CancellationError.self) { try await running.value }
            FaultPoint.disarm()
            #expect(running.isCancelled)
            let step = try await MoveStore(plane: ground.plane()).find(mover.id).step
            #expect(step == .opened)
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a commit point that refuses for another reason than an abort ends the move")
    func placementChanged() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            try arm("move.handed-over") {
                try services.psql(
                    admin,
                    "UPDATE placement SET state = 'serving' WHERE tenant_id = '\(MoveGround.sunrise)'"
                )
            }
            let move = try await ground.begin(ground.plane()).run()
            FaultPoint.disarm()
            #expect(move.state == .aborted, "\(move.progress.text)")
            #expect(move.progress["abortReason"]?.asString?.contains("placement") == true)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("the numbers of a later move are behind all that an earlier one has had")
    func numbers() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.purging=fail", perform: { _ in })
            let first = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            await #expect(throws: FaultPointFailure.self) { try await first.run() }
            FaultPoint.disarm()
            let plane = ground.plane()
            let (store, registry) = (MoveStore(plane: plane), ShardRegistry(plane: plane))
            // Two took it over; of one nothing is heard any more.
            try await ground.expireLeases()
            let zombie = try #require(try await store.claim(first.id, owner: "second"))
            #expect(try await ground.carryOn().state == .done)

            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let back = try await ground.begin(ground.plane(), to: "s1")
            await #expect(throws: FaultPointFailure.self) { try await back.run() }
            FaultPoint.disarm()
            let late = MoveFence(
                plane: plane, move: zombie, origin: try await registry.find("s1"),
                destination: try await registry.find("s2"))
            await #expect(throws: MoveLost.self) { try await late.purge(late.origin) }
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)'")
                    == "300")
        }
    }

    @Test(
        "who was reading when the clinic left reads on, for its rows stay until he has ended; for nobody else they do"
    )
    func readers() async throws {
        try await withMoveGround { ground in
            let (services, shard) = (ground.services, ground.shards[0])
            let count =
                "SELECT count(*) FROM practitioner WHERE tenant_id = '\(MoveGround.sunrise)'"
            // On the same server.
            let beside = try await offLoop { try services.makeShardDatabase(beside: "s1") }
            let (reader, others) = try await offLoop {
                func begin(_ conninfo: Conninfo, _ sql: String = "SELECT 1") throws -> SQLSession {
                    let session = try services.session(conninfo)
                    try session.run("BEGIN; \(sql)")
                    return session
                }
                // A person, and a program in another database.
                return (
                    try begin(shard.app, "SELECT hc_enter('\(MoveGround.sunrise)', 1, 'r')"),
                    [try begin(shard.superuser), try begin(beside.app)]
                )
            }
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            let running = Loop.shared.makeTask { try await mover.run() }
            let store = MoveStore(plane: ground.plane())
            var move = try await store.find(mover.id)
            while !move.state.isOver,
                !(move.step == .purging && move.progress["waitingFor"]?.asString != nil)
            {
                move = try await store.find(mover.id)
            }
            #expect(move.progress["waitingFor"]?.asString?.contains("under way") == true)
            #expect(try await offLoop { try reader.run(count) }.text == "300")
            let late = try await offLoop {
                let session = try services.session(shard.app)
                try session.run("BEGIN; SELECT 1")
                _ = try reader.run("COMMIT")
                return session
            }
            let limit = ground.deadline
            while !move.state.isOver, !limit.isExpired(at: Loop.now) {
                move = try await store.find(mover.id)
            }
            #expect(move.state == .done, "\(move.progress.text)")
            _ = try await offLoop {
                for session in others + [late] { try session.run("COMMIT") }
            }
            withExtendedLifetime(beside) {}
            #expect(try await running.value.state == .done)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("the way back begins where it was told to, also behind the end of the server that serves")
    func mirrorAfterCrash() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            // Comes to the destination by the stream, behind the beginning of the mirror's slot.
            try await ground.psql(
                ground.shards[0].superuser,
                """
                INSERT INTO practitioner (tenant_id, id, name)
                SELECT '\(MoveGround.sunrise)', gen_random_uuid(), 'new' FROM generate_series(1, 20)
                """)
            let moved = try await ground.carryOn()
            #expect(moved.state == .soaking, "\(moved.progress.text)")
            try await offLoop {
                try services.killPostgres(server: 2)
                try services.restart()
            }
            #expect(try await SoakCheck(plane: ground.plane()).run(moved.id) == nil)
            let back = try await MoveService(plane: ground.plane()).revert(
                "sunrise", reason: nil, tell: { _, _ in }
            ).run()
            #expect(back.state == .reverted, "\(back.progress.text)")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 3) == [])
        }
    }

    @Test("both sides are compared though the log ends where nothing is sent before it goes on")
    func quietLog() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            let moved = try await ground.begin(ground.plane()).run()
            #expect(moved.state == .soaking, "\(moved.progress.text)")
            let serving = ground.shards[1].superuser
            // What comes next goes behind the header of the next page, and nobody writes.
            let isAhead = try await ground.psql(
                serving,
                """
                SELECT pg_switch_wal() IS NULL;
                SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
                """)
            #expect(isAhead.hasSuffix("t"), "\(isAhead)")
            #expect(try await SoakCheck(plane: ground.plane()).run(moved.id) == nil)
        }
    }

    @Test("the log of the shard that serves is not kept for one that is gone")
    func goneDestination() async throws {
        let services = try await offLoop { try LocalServices(shards: 2, servers: 2) }
        try await withMoveGround(own: services) { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let store = MoveStore(plane: ground.plane())
            try await store.requestAbort(try await store.find(mover.id), reason: nil)
            try await offLoop { try services.killPostgres(server: 2) }
            let running = Loop.shared.makeTask { try await ground.carryOn() }
            let limit = ground.deadline
            var slots = ""
            repeat {
                slots = try await ground.psql(
                    ground.shards[0].superuser, "SELECT count(*) FROM pg_replication_slots")
            } while slots != "0" && !limit.isExpired(at: Loop.now)
            #expect(slots == "0")
            #expect(try await store.find(mover.id).state == .aborting)
            try await offLoop { try services.restart() }
            #expect(try await running.value.state == .aborted)
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test("a move stays where it is until a shard that is away has given back what was made there")
    func awayAtTheEnd() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.closing=fail", perform: { _ in })
            let mover = try await ground.begin(
                ground.plane(), MoveOptions(pauseBudget: .seconds(5), soak: .zero))
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try ground.lose(1)
            let store = MoveStore(plane: ground.plane())
            let running = Loop.shared.makeTask { try await ground.carryOn() }
            var move = try await store.find(mover.id)
            let limit = ground.deadline
            while move.step == .closing, move.progress["waitingFor"]?.asString == nil,
                !limit.isExpired(at: Loop.now)
            {
                move = try await store.find(mover.id)
            }
            #expect(move.step == .closing, "\(move.progress.text)")
            try ground.find(1)
            #expect(try await running.value.state == .done)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2) == [])
        }
    }

    @Test("a clinic that is on the move is not erased")
    func erased() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.copied=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let refusal = await controlFailure {
                try await TenantEraser(plane: ground.plane()).erase(
                    MoveGround.sunrise, slug: "sunrise", reason: "test")
            }
            #expect(refusal?.code == "placement-changed")
            #expect(try await ground.carryOn().state == .soaking)
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("a comparison whose progress cannot be written down goes on, and is not begun anew")
    func unwrittenProgress() async throws {
        try await withMoveGround { ground in
            let control = ground.control
            // Whoever writes down how far a comparison is loses his connection; the lease has one of its own.
            try await ground.psql(
                control.superuser,
                """
                CREATE FUNCTION end_connection() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                BEGIN
                    PERFORM pg_terminate_backend(pg_backend_pid());
                    RETURN NEW;
                END $$;
                CREATE TRIGGER end_connection BEFORE UPDATE ON move FOR EACH ROW
                    WHEN (OLD.step = 'mirrored' AND NEW.step = 'mirrored' AND NEW.progress ? 'secondsLeft'
                        AND NEW.lease_until IS NOT DISTINCT FROM OLD.lease_until AND NEW.attempt = OLD.attempt)
                    EXECUTE FUNCTION end_connection();
                """)
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan("sunrise", to: "s2")
            var told: [String] = []
            let mover = try await MoveService(plane: plane).begin(plan, reason: nil) {
                move, reason in
                guard move.step == .mirrored else { return }
                told.append(reason)
            }
            let move = try await mover.run()
            #expect(move.state == .soaking, "\(move.progress.text)")
            #expect(mover.failures == 0)
            #expect(told.contains { $0.contains("the progress cannot be written down") }, "\(told)")
            // What is left to compare only gets less, over several looks: begun anew it would be all rows again.
            let left = told.filter { $0.contains("rows to be compared") }.compactMap {
                $0.split(separator: " ").first.flatMap { Int($0) }
            }
            #expect(left == left.sorted(by: >) && left.last == 0, "\(told)")
            #expect(Set(left).count > 1, "\(told)")
            #expect(try await ground.wrongs(servedBy: "s2", epoch: 2, soaks: true) == [])
        }
    }

    @Test("rows that a migration has not gone through do not come to a shard where it has ended")
    func backfill() async throws {
        try await withMoveGround { ground in
            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_schema SET phase = 'expanded' WHERE version = 8")
            let refusal = await controlFailure {
                _ = try await MovePreflight(plane: ground.plane()).plan("sunrise", to: "s2")
            }
            #expect(refusal?.message.contains("migration 8 has not ended on s1") == true)
            try await ground.psql(
                ground.shards[1].superuser,
                "UPDATE hc_schema SET phase = 'expanded' WHERE version = 8")
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
        }
    }
}
