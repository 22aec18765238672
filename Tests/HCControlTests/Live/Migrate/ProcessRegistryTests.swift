import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("Who serves holds back the contracts that he would not survive", .onLoop)
@LoopActor
struct ProcessRegistryTests {
    private func report(
        _ ground: WaveGround, _ host: String, control: Int, shard: Int, secondsAgo: Int = 0
    ) async throws {
        try await ground.psql(
            ground.control.owner,
            """
            INSERT INTO program_process (id, name, host, process_id, version, control_lowest, control_highest,
                shard_lowest, shard_highest, started_at, seen_at, refused)
            VALUES (gen_random_uuid(), 'hc-server worker 0', '\(host)', 7, '1.2.3', 1, \(control), 1, \(shard),
                now(), now() - \(secondsAgo) * interval '1 s', '[{"shard":"s01","reason":"too new"}]')
            """)
    }

    @Test("one that does not know the migration is in its way until it is gone")
    func blockers() async throws {
        try await withWaveGround(shards: 1) { ground in
            let registry = ProcessRegistry(plane: ground.plane())
            #expect(try await registry.blockers(of: 100, in: .shard).isEmpty)
            try await report(ground, "old", control: 100, shard: 99)
            try await report(ground, "new", control: 99, shard: 100)
            try await report(ground, "gone", control: 1, shard: 1, secondsAgo: 60)
            #expect(try await registry.blockers(of: 100, in: .shard).map(\.host) == ["old"])
            #expect(try await registry.blockers(of: 100, in: .control).map(\.host) == ["new"])
            #expect(try await registry.blockers(of: 99, in: .shard).isEmpty)
            let live = try await registry.live()
            #expect(live.map(\.host) == ["new", "old"])
            #expect(live[0].shard == SchemaRange(lowest: 1, highest: 100))
            #expect(live[0].refused.map(\.reason) == ["too new"])
        }
    }

    @Test(
        "the doctor names those that cannot serve what there is, and those that have fallen silent")
    func doctor() async throws {
        try await withWaveGround(shards: 2) { ground in
            let plane = ground.plane()
            func findings() async throws -> [Doctor.Finding] {
                let shards = try await ShardRegistry(plane: plane).list()
                return try await Doctor(plane: plane, catalog: ground.catalog).programs(shards)
            }
            let (control, shard) = (ground.catalog.control.count, ground.catalog.shard.count)
            #expect(try await findings().isEmpty)
            // Newer ones add, so the older goes on; it says itself what it met at s01.
            try await report(ground, "old", control: control, shard: shard - 1)
            let told = try await findings()
            #expect(told.map(\.verdict) == [.failed])
            #expect(told[0].detail.hasSuffix("cannot work with s01: too new"), "\(told)")

            try await ground.psql(
                ground.control.owner, "UPDATE program_process SET refused = '[]', shard_highest = 4"
            )
            for each in ground.shards {
                try await ground.psql(
                    each.owner, "UPDATE hc_schema SET serves_from = 5 WHERE version = \(shard)")
            }
            try await ground.psql(
                ground.control.owner,
                "UPDATE program_process SET control_lowest = 100, control_highest = 100")
            let unfit = try await findings()
            #expect(unfit.map(\.verdict) == [.failed, .failed])
            let details = unfit.map(\.detail).sorted().joined(separator: "\n")
            #expect(
                details.contains("old (process 7, release 1.2.3) cannot work with s01, s02: its"))
            #expect(details.contains("cannot work with the control database: its schema is at"))

            try await ground.psql(
                ground.control.owner,
                "UPDATE program_process SET seen_at = clock_timestamp() - interval '31 s'")
            let silent = try await findings()
            #expect(silent.map(\.verdict) == [.warning])
            #expect(
                silent[0].detail.contains("old (process 7, release 1.2.3) said nothing for 31 s"))
        }
    }

    @Test("a control database from before reports is no error")
    func before() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await ground.psql(ground.control.owner, "DROP TABLE program_process")
            #expect(try await ProcessRegistry(plane: ground.plane()).live().isEmpty)
        }
    }

    @Test("this program knows the newest migrations: whoever adds one says so in SchemaRange")
    func newest() throws {
        let catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
        #expect(SchemaRange.control.highest == catalog.control.count)
        #expect(SchemaRange.shard.highest == catalog.shard.count)
    }

    @Test(
        "what takes away says from which program on; the ledger keeps it, and all processes are told"
    )
    func recorded() async throws {
        try await withWaveGround(shards: 2) { ground in
            let version = ground.catalog.shard.count + 1
            var terms = MigrationTerms()
            terms.servesFrom = version
            let next = MigrationCatalog(
                control: ground.catalog.control,
                shard: ground.catalog.shard + [
                    Migration(
                        version: version, name: "later", checksum: "c", sql: "SELECT 1",
                        terms: terms)
                ])
            let runner = MigrationRunner(plane: ground.plane(), catalog: next)
            _ = try await runner.upShards(only: "s01", dryRun: false)
            #expect(
                try await ground.psql(
                    ground.shards[0].owner,
                    "SELECT version, serves_from FROM hc_schema WHERE serves_from IS NOT NULL")
                    == "\(version)|\(version)")
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT schema_version, schema_serves_from FROM shard ORDER BY id")
                    == "\(version)|\(version)\n\(version - 1)|1")
        }
    }
}
