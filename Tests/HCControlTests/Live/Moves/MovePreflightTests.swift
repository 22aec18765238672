import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("What a move asks before it begins", .serialized, .onLoop)
@LoopActor
struct MovePreflightTests {
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

    @Test("a synchronous standby that is behind is a reason, another one a warning")
    func laggingStandby() async throws {
        let services = try await offLoop {
            try LocalServices(shards: 2, servers: 2, replicas: true)
        }
        try await withMoveGround(own: services) { ground in
            let primary = ground.shards[0].superuser
            let standby = try services.replica(of: ground.shards[0], role: "superuser")
            func plan() async throws -> MovePlan {
                try await MovePreflight(plane: ground.plane()).plan("sunrise", to: "s2")
            }
            #expect(try await plan().warnings.allSatisfy { !$0.contains("standby") })
            try await ground.psql(standby, "SELECT pg_wal_replay_pause()")
            while try await ground.psql(standby, "SELECT pg_get_wal_replay_pause_state()")
                != "paused"
            {}
            // 80 MB of log, which it has and does not look at.
            for _ in 0..<5 {
                try await ground.psql(
                    primary,
                    "SELECT pg_logical_emit_message(false, 'hc', 'x'); SELECT pg_switch_wal()")
            }
            #expect(try await plan().warnings.contains { $0.contains("a standby of shard s1 is") })
            try await ground.psql(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            try await ground.psql(primary, "SELECT pg_reload_conf()")
            while try await ground.psql(
                primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
                == "0"
            {}
            let refusal = await controlFailure { _ = try await plan() }
            #expect(refusal?.code == "move-refused")
            #expect(
                refusal?.message.contains("a synchronous standby of shard s1 is") == true,
                "\(String(describing: refusal))")
            try await ground.psql(standby, "SELECT pg_wal_replay_resume()")
            while try await ground.psql(
                primary,
                "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()")
                == "0"
            {}
            #expect(try await plan().warnings.allSatisfy { !$0.contains("standby") })
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
}
