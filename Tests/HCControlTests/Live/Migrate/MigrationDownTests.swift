import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCControl

@Suite("The newest migration of a shard is taken back", .onLoop, .serialized)
@LoopActor
struct MigrationDownTests {
    private static let up = "ALTER TABLE cache_tag ADD COLUMN later text"
    private static let down = "ALTER TABLE cache_tag DROP COLUMN later"

    @Test("the schema and the ledger are what they were, and it can be applied again")
    func takenBack() async throws {
        try await withWaveGround(shards: 2) { ground in
            let runner = MigrationRunner(
                plane: ground.plane(), catalog: ground.catalog(adding: Self.up, down: Self.down))
            let before = try await ground.psql(
                ground.shards[0].owner, "SELECT hc_schema_fingerprint()")
            _ = try await runner.upShards(only: "s01", dryRun: false)
            #expect(try await runner.downShard("s01", dryRun: true).name == "later")
            #expect(try await ground.versions().first == ground.catalog.shard.count + 1)
            #expect(try await runner.downShard("s01", dryRun: false).name == "later")
            #expect(
                try await ground.versions()
                    == [Int](repeating: ground.catalog.shard.count, count: 2))
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT schema_version, schema_fingerprint FROM shard WHERE id = 's01'")
                    == "\(ground.catalog.shard.count)|\(before)")
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT action, subject FROM operator_audit")
                    == "migrate.down|s01")
            #expect(try await runner.upShards(dryRun: false).count == 2)
        }
    }

    @Test("without a down.sql nothing is taken back, nor by one that fails")
    func refused() async throws {
        try await withWaveGround(shards: 1) { ground in
            let oneWay = MigrationRunner(plane: ground.plane(), catalog: ground.catalog)
            let none = await waveFailure { _ = try await oneWay.downShard("s01", dryRun: true) }
            #expect(none?.code == "migration-irreversible" && none?.kind == .refused)
            let bad = MigrationRunner(
                plane: ground.plane(),
                catalog: ground.catalog(adding: Self.up, down: "\(Self.down); SELECT 1 / 0"))
            _ = try await bad.upShards(dryRun: false)
            let failed = await waveFailure { _ = try await bad.downShard("s01", dryRun: false) }
            #expect(failed?.message.contains("division by zero") == true)
            #expect(try await ground.versions() == [ground.catalog.shard.count + 1])
            #expect(
                try await ground.psql(ground.shards[0].owner, "SELECT count(later) FROM cache_tag")
                    == "0")
        }
    }

    /// `migrate down` and `migrate up --shard`.
    @Test(
        "while one shard is worked on outside of any run no run begins, and nobody works on one while a run is under way",
        arguments: [true, false])
    func withoutRun(takesBack: Bool) async throws {
        try await withWaveGround(shards: 2) { ground in
            let count = ground.catalog.shard.count
            let catalog = ground.catalog(adding: Self.up, down: Self.down)
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            if takesBack { _ = try await runner.upShards(only: "s02", dryRun: false) }
            @LoopActor func alone() async -> ControlError? {
                await waveFailure {
                    if takesBack {
                        _ = try await runner.downShard("s02", dryRun: false)
                    } else {
                        _ = try await runner.upShards(only: "s02", dryRun: false)
                    }
                }
            }
            @LoopActor func waves() -> WaveRunner {
                WaveRunner(plane: ground.plane("bob"), catalog: catalog, options: .init())
            }
            let holder = try await ground.session(ground.shards[1].owner)
            _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let working = Loop.shared.makeTask { await alone() }
            let deadline = ground.deadline
            while try await ground.psql(
                ground.shards[1].owner,
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'") == "0"
            {
                try #require(!deadline.isExpired(at: Loop.now), "nobody waits")
            }
            let early = await waveFailure { _ = try await waves().up() }
            #expect(early?.kind == .conflict && early?.code == "shard-migrating")
            #expect(try await RolloutStore(plane: ground.plane()).last() == nil)
            _ = try await offLoop { try holder.run("COMMIT") }
            #expect(try await working.value == nil)
            #expect(try await ground.versions() == [count, takesBack ? count : count + 1])

            // The other way round: at its canary the run waits.
            let first = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop { try first.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let run = Loop.shared.makeTask { try await waves().up().count }
            while try await RolloutStore(plane: ground.plane()).last() == nil {
                try #require(!deadline.isExpired(at: Loop.now), "no run begins")
            }
            #expect(await alone()?.code == "rollout-running")
            _ = try await offLoop { try first.run("COMMIT") }
            #expect(try await run.value == (takesBack ? 2 : 1))
        }
    }

    @Test("whose lease ran out while he slept does not go on with his run behind who has seen none")
    func lapsed() async throws {
        try await withWaveGround(shards: 1) { ground in
            let store = RolloutStore(plane: ground.plane("ann"))
            let run = try await store.begin(
                target: ground.catalog.shard[0], canary: "s01", shards: 1, owner: "ann")
            #expect(try await store.renew(run) == false)
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            let other = ground.plane("bob")
            try await RolloutStore(plane: other).withoutRun { isAlone in
                try isAlone()
                #expect(try await store.renew(run) == nil)
                // The lock has gone with the session.
                try await other.control().close()
                #expect(throws: ControlError.self) { try isAlone() }
            }
            // Nor does his lock stay.
            let held = """
                SELECT count(*) FROM pg_locks
                WHERE locktype = 'advisory' AND (classid, objid, objsubid) = (1, 1, 2)
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """
            let deadline = ground.deadline
            while try await ground.psql(ground.control.owner, held) != "0" {
                try #require(!deadline.isExpired(at: Loop.now), "a session is left")
            }
            _ = try await store.begin(
                target: ground.catalog.shard[0], canary: "s01", shards: 1, owner: "ann")
        }
    }
}
