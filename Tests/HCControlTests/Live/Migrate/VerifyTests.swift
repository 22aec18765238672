import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("What a migration has done is verified where it was done", .onLoop, .serialized)
@LoopActor
struct VerifyTests {
    private static let up = "ALTER TABLE cache_tag ADD COLUMN later text"
    private static let verify =
        "SELECT 'tag ' || tag || ' is empty' FROM cache_tag WHERE later IS NULL"

    private func waves(_ ground: WaveGround) -> WaveRunner {
        WaveRunner(
            plane: ground.plane(), catalog: ground.catalog(adding: Self.up, verify: Self.verify),
            options: .init())
    }

    private func insertEmpty(_ ground: WaveGround, shard: Int) async throws {
        try await ground.psql(
            ground.shards[shard].superuser,
            "INSERT INTO cache_tag VALUES ('00000000-0000-7000-8000-000000000001', 'a', 1)")
    }

    private func history(_ ground: WaveGround) async throws -> String {
        try await ground.psql(
            ground.control.admin,
            """
            SELECT shard_id, name, state FROM migration_run WHERE shard_id = 's01' ORDER BY started_at, id
            """)
    }

    @Test("what it finds halts the run at the canary; repaired, it is verified once more")
    func halts() async throws {
        try await withWaveGround(shards: 4) { ground in
            let count = ground.catalog.shard.count
            try await insertEmpty(ground, shard: 0)
            let error = await waveFailure { _ = try await waves(ground).up() }
            #expect(error?.code == "rollout-halted")
            #expect(error?.message.contains("shard s01 (verify-failed)") == true)
            #expect(error?.message.contains("tag a is empty") == true)
            #expect(try await ground.versions() == [count + 1, count, count, count])
            let halted = try await RolloutStore(plane: ground.plane()).last()
            #expect(halted?.state == .halted && halted?.problem?.contains("tag a is empty") == true)
            // Not repaired yet: the canary has nothing left to apply, and still nobody else is touched.
            let again = await waveFailure { _ = try await waves(ground).up() }
            #expect(again?.message.contains("tag a is empty") == true)
            #expect(try await ground.versions() == [count + 1, count, count, count])
            try await ground.psql(
                ground.shards[0].superuser, "UPDATE cache_tag SET later = 'x'")
            #expect(try await waves(ground).up().count == 3)
            #expect(
                try await history(ground)
                    == """
                    s01|later|done
                    s01|later (verify)|failed
                    s01|later (verify)|failed
                    s01|later (verify)|done
                    """)
        }
    }

    @Test("what it finds is looked for by the next run too, after an abort")
    func aborted() async throws {
        try await withWaveGround(shards: 2) { ground in
            let count = ground.catalog.shard.count
            try await insertEmpty(ground, shard: 0)
            let error = await waveFailure { _ = try await waves(ground).up() }
            #expect(error?.message.contains("shard s01 (verify-failed)") == true)
            _ = try await RolloutStore(plane: ground.plane()).abort(reason: nil)
            let again = await waveFailure { _ = try await waves(ground).up() }
            #expect(again?.message.contains("shard s01 (verify-failed)") == true)
            #expect(try await ground.versions() == [count + 1, count])
        }
    }

    @Test("who takes a migration back and applies it once more has it verified once more")
    func takenBack() async throws {
        try await withWaveGround(shards: 2) { ground in
            let catalog = ground.catalog(
                adding: Self.up, verify: Self.verify,
                down: "ALTER TABLE cache_tag DROP COLUMN later")
            @LoopActor func up() -> WaveRunner {
                WaveRunner(plane: ground.plane(), catalog: catalog, options: .init())
            }
            #expect(try await up().up().count == 2)
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            _ = try await runner.downShard("s01", dryRun: false)
            try await insertEmpty(ground, shard: 0)
            try FaultPoint.arm("migrate.before-verify=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) { _ = try await up().up() }
            FaultPoint.disarm()
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            let error = await waveFailure { _ = try await up().up() }
            #expect(error?.message.contains("shard s01 (verify-failed)") == true)
        }
    }

    @Test(
        "whose process dies before the verification does not leave it out",
        arguments: ["migrate.after-apply=fail@1", "migrate.before-verify=fail@1"])
    func killed(point: String) async throws {
        try await withWaveGround(shards: 2) { ground in
            let count = ground.catalog.shard.count
            try await insertEmpty(ground, shard: 0)
            try FaultPoint.arm(point, perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) { _ = try await waves(ground).up() }
            FaultPoint.disarm()
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            let error = await waveFailure { _ = try await waves(ground).up() }
            #expect(error?.message.contains("shard s01 (verify-failed)") == true)
            #expect(try await ground.versions() == [count + 1, count])
        }
    }

    /// `migrate up --shard`, and what comes before the shards.
    @Test(
        "outside of waves, too, whose process dies before the verification does not leave it out",
        arguments: ["s01", "control"])
    func killedAlone(database: String) async throws {
        try await withWaveGround(shards: 1) { ground in
            let verify = "SELECT 'tier ' || name FROM tier"
            let extra = Migration(
                version: ground.catalog.control.count + 1, name: "later", checksum: "c",
                sql: "SELECT 1", verify: verify)
            let runner = MigrationRunner(
                plane: ground.plane(),
                catalog: MigrationCatalog(
                    control: ground.catalog.control + [extra],
                    shard: ground.catalog(adding: Self.up, verify: Self.verify).shard))
            func up() async throws -> [MigrationRunner.Applied] {
                database == "control"
                    ? try await runner.upControl(dryRun: false)
                    : try await runner.upShards(only: database, dryRun: false)
            }
            try await insertEmpty(ground, shard: 0)
            try await ground.psql(
                ground.control.owner, "INSERT INTO tier (name, definition) VALUES ('bad', '{}')")
            try FaultPoint.arm("migrate.before-verify=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) { _ = try await up() }
            FaultPoint.disarm()
            for _ in 1...2 {
                let error = await waveFailure { _ = try await up() }
                #expect(error?.code == "verify-failed")
            }
            try await ground.psql(ground.control.owner, "DELETE FROM tier")
            try await ground.psql(ground.shards[0].superuser, "DELETE FROM cache_tag")
            #expect(try await up().isEmpty)
        }
    }

    @Test("it cannot change anything")
    func readsOnly() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await insertEmpty(ground, shard: 0)
            let runner = MigrationRunner(
                plane: ground.plane(),
                catalog: ground.catalog(
                    adding: Self.up, verify: "DELETE FROM cache_tag RETURNING tag"))
            let error = await waveFailure { _ = try await runner.upShards(dryRun: false) }
            #expect(error?.message.contains("cannot be verified") == true)
            #expect(
                try await ground.psql(ground.shards[0].superuser, "SELECT count(*) FROM cache_tag")
                    == "1")
        }
    }
}
