import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCControl

@Suite("What the workers of a run write is brought together", .onLoop, .serialized)
@LoopActor
struct RolloutJournalTests {
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"

    /// Several write at the same time.
    private func write(
        _ names: [String], _ ground: WaveGround
    ) async throws -> [(any Error)?] {
        let journal = RolloutJournal(plane: ground.plane())
        let tasks = names.map { name in
            Loop.shared.makeTask { () async -> (any Error)? in
                do {
                    let results = try await journal.write([
                        Query("SELECT $1", [.text(name)]),
                        Query(
                            "INSERT INTO tier (name, definition) VALUES ($1, '{}')", [.text(name)]),
                    ])
                    #expect(try results.count == 2 && results[0].single().text(0) == name)
                    return nil
                } catch {
                    return error
                }
            }
        }
        var errors: [(any Error)?] = []
        for task in tasks { errors.append(try await task.value) }
        return errors
    }

    @Test("while one is being written all others wait for one transaction, and get what is theirs")
    func together() async throws {
        try await withWaveGround(shards: 1) { ground in
            let errors = try await write(["a", "b", "c", "d", "e"], ground)
            #expect(errors.allSatisfy { $0 == nil })
            #expect(
                try await ground.psql(
                    ground.control.owner, "SELECT count(*), count(DISTINCT xmin::text) FROM tier")
                    == "5|2")
        }
    }

    @Test("what one of them has met is not the others' matter")
    func apart() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await ground.psql(
                ground.control.owner, "INSERT INTO tier (name, definition) VALUES ('c', '{}')")
            let errors = try await write(["a", "b", "c", "d"], ground)
            #expect(errors.map { $0 == nil } == [true, true, false, true])
            #expect(
                try await ground.psql(
                    ground.control.owner, "SELECT string_agg(name, '' ORDER BY name) FROM tier")
                    == "abcd")
        }
    }

    @Test(
        "a shard whose end cannot be written down halts the run, be it the last of its wave or not",
        arguments: [2, 3])
    func unwritten(number: Int) async throws {
        try await withWaveGround { ground in
            let (count, shard) = (ground.catalog.shard.count, ground.id(number))
            try await ground.psql(
                ground.control.owner,
                """
                ALTER TABLE shard ADD CONSTRAINT test
                    CHECK (id <> '\(shard)' OR schema_version <= \(count)) NOT VALID
                """)
            @LoopActor func runner() -> WaveRunner {
                var options = WaveRunner.Options()
                options.parallel = 1
                return WaveRunner(
                    plane: ground.plane(), catalog: ground.catalog(adding: Self.additive),
                    options: options)
            }
            let error = await waveFailure { _ = try await runner().up() }
            #expect(error?.code == "rollout-halted")
            #expect(
                try await RolloutStore(plane: ground.plane()).last()?.failedShards.contains(shard)
                    == true)
            // It is there, and nothing was begun that could not be written down.
            #expect(
                try await ground.versions()
                    == (1...10).map { $0 <= number ? count + 1 : count })
            try await ground.psql(
                ground.control.owner, "ALTER TABLE shard DROP CONSTRAINT test")
            _ = try await runner().up()
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    """
                    SELECT min(schema_version) FROM shard;
                    SELECT state, count(*) FROM migration_run GROUP BY state ORDER BY state
                    """) == "\(count + 1)\ndone|9\nhalted|1")
        }
    }

    @Test("whose run was taken over tells nobody any more what a shard has")
    func takenOver() async throws {
        try await withWaveGround(shards: 2) { ground in
            let catalog = ground.catalog(adding: Self.additive)
            let store = RolloutStore(plane: ground.plane("ann"))
            let version = catalog.shard.count
            @LoopActor func history(_ rollout: Rollout) async throws -> StepHistory {
                let history = StepHistory(store, rollout, wave: 0)
                let run = try #require(
                    try await history.began(
                        catalog.shard[version - 1], named: "later", shard: "s01", fingerprint: ""))
                history.ended(
                    run, shard: "s01", fingerprint: "f",
                    record: ShardRegistry.record(
                        id: "s01", version: version, fingerprint: "f", servesFrom: 1, run: run))
                return history
            }
            func begin() async throws -> Rollout {
                try await store.begin(
                    target: catalog.shard[0], canary: "s01", shards: 2, owner: "ann")
            }
            let recorded = "SELECT schema_version FROM shard WHERE id = 's01'"
            let first = try await history(begin())
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            let second = try await history(begin())
            try await first.settle()
            #expect(try await ground.psql(ground.control.admin, recorded) == "\(version - 1)")
            try await second.settle()
            #expect(try await ground.psql(ground.control.admin, recorded) == "\(version)")
        }
    }
}
