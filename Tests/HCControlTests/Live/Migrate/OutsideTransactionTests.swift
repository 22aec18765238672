import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("What cannot run in a transaction is applied as safely", .onLoop, .serialized)
@LoopActor
struct OutsideTransactionTests {
    private static let build = """
        CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS tag_count ON cache_tag (tenant_id, count)
        """

    private func runner(_ ground: WaveGround, lockSeconds: Int64 = 60) -> MigrationRunner {
        var terms = MigrationTerms()
        terms.isTransactional = false
        terms.lockTotal = .seconds(lockSeconds)
        return MigrationRunner(
            plane: ground.plane(), catalog: ground.catalog(adding: Self.build, terms: terms))
    }

    private func index(_ ground: WaveGround) async throws -> String {
        try await ground.psql(
            ground.shards[0].owner,
            """
            SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indrelid = 'cache_tag'::regclass AND NOT indisprimary
            """)
    }

    /// Rows of which no unique index can be made.
    private func insertTwins(_ ground: WaveGround) async throws {
        try await ground.psql(
            ground.shards[0].superuser,
            """
            INSERT INTO cache_tag (tenant_id, tag, count)
            SELECT '00000000-0000-7000-8000-000000000001', tag, 7 FROM unnest(ARRAY['a', 'b']) AS tag
            """)
    }

    @Test("an index is built, and is in the ledger")
    func builds() async throws {
        try await withWaveGround(shards: 1) { ground in
            let runner = self.runner(ground)
            let applied = try await runner.upShards(dryRun: false)
            #expect(applied.map(\.name) == ["later"])
            #expect(try await index(ground) == "tag_count|t")
            #expect(try await ground.versions() == [ground.catalog.shard.count + 1])
            #expect(try await runner.upShards(dryRun: false).isEmpty)
            // The session goes on with its own settings and without the lock.
            let left = """
                SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1 AND objsubid = 2
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """
            #expect(try await ground.psql(ground.shards[0].superuser, left) == "0")
        }
    }

    @Test("whose process dies between the build and the ledger goes on, and builds nothing twice")
    func killed() async throws {
        try await withWaveGround(shards: 1) { ground in
            try FaultPoint.arm("migrate.before-ledger=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) {
                _ = try await runner(ground).upShards(dryRun: false)
            }
            FaultPoint.disarm()
            #expect(try await index(ground) == "tag_count|t")
            #expect(try await ground.versions() == [ground.catalog.shard.count])
            let file = "SELECT pg_relation_filenode('tag_count')"
            let before = try await ground.psql(ground.shards[0].owner, file)
            #expect(try await runner(ground).upShards(dryRun: false).count == 1)
            #expect(try await ground.psql(ground.shards[0].owner, file) == before)
            #expect(try await ground.versions() == [ground.catalog.shard.count + 1])
        }
    }

    @Test("what was built half-way is dropped and built again")
    func repairs() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await insertTwins(ground)
            // As a process that was killed leaves it: nobody drops it any more.
            await #expect(throws: (any Error).self) {
                try await ground.psql(ground.shards[0].owner, Self.build)
            }
            #expect(try await index(ground) == "tag_count|f")
            try await ground.psql(
                ground.shards[0].superuser, "DELETE FROM cache_tag WHERE tag = 'b'")
            #expect(try await runner(ground).upShards(dryRun: false).count == 1)
            #expect(try await index(ground) == "tag_count|t")
        }
    }

    @Test("a build that fails leaves nothing behind and says why")
    func fails() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await insertTwins(ground)
            let error = await waveFailure {
                _ = try await runner(ground).upShards(dryRun: false)
            }
            #expect(error?.code == "database-refused")
            #expect(error?.message.contains("could not create unique index") == true)
            #expect(try await index(ground) == "")
            #expect(try await ground.versions() == [ground.catalog.shard.count])
        }
    }

    @Test("behind a long transaction it gives up, names it, and leaves nothing behind")
    func waits() async throws {
        try await withWaveGround(shards: 1) { ground in
            let reader = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop {
                try reader.run("BEGIN; LOCK cache_tag IN ROW EXCLUSIVE MODE")
            }
            let error = await waveFailure {
                _ = try await runner(ground, lockSeconds: 1).upShards(dryRun: false)
            }
            #expect(error?.code == "migration-locked")
            #expect(error?.message.contains("is held back by process") == true)
            _ = try await offLoop { try reader.run("COMMIT") }
            #expect(try await runner(ground).upShards(dryRun: false).count == 1)
            #expect(try await index(ground) == "tag_count|t")
        }
    }
}
