import HCCore
import HCIO
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
}
