import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("What happens while a run of migrations is under way", .onLoop, .serialized)
@LoopActor
struct MeanwhileTests {
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"

    /// A run that is at its canary, where it waits for a lock; then `meanwhile`; then the lock is let go of, or when it
    /// has ended.
    private func run(
        _ ground: WaveGround, adding sql: String = additive,
        terms: MigrationTerms = MigrationTerms(), endsLocked: Bool = false,
        _ meanwhile: @LoopActor () async throws -> Void
    ) async throws -> ControlError? {
        let holder = try await ground.session(ground.shards[0].owner)
        _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
        let catalog = ground.catalog(adding: sql, terms: terms)
        let run = Loop.shared.makeTask { () async -> ControlError? in
            await waveFailure {
                _ = try await WaveRunner(
                    plane: ground.plane(), catalog: catalog, options: .init()
                ).up()
            }
        }
        try await wait(
            ground,
            "SELECT count(*) FROM migration_run WHERE shard_id = 's01' AND state = 'running'")
        try await meanwhile()
        if endsLocked { _ = try await run.value }
        _ = try await offLoop { try holder.run("COMMIT") }
        return try await run.value
    }

    private func wait(_ ground: WaveGround, _ query: String) async throws {
        let deadline = ground.deadline
        while try await ground.psql(ground.control.owner, query) != "1" {
            try #require(!deadline.isExpired(at: Loop.now), "\(query)")
        }
    }

    @Test(
        "an abort ends it behind the statement that is under way, and between two attempts to get locks",
        arguments: [true, false])
    func aborted(isInStatement: Bool) async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            var terms = MigrationTerms()
            if isInStatement { terms.lockTimeout = .seconds(300) }
            let error = try await run(ground, terms: terms, endsLocked: !isInStatement) {
                let store = RolloutStore(plane: ground.plane("bob"))
                #expect(try await store.abort(reason: nil).state == .running)
                let lease = try await ground.psql(
                    ground.control.owner, "SELECT lease_until FROM migration_rollout")
                // It has been told: whoever renews the lease is.
                try await wait(
                    ground,
                    "SELECT count(*) FROM migration_rollout WHERE lease_until > '\(lease)'")
            }
            #expect(error?.code == "rollout-aborted")
            let done = isInStatement ? 1 : 0
            #expect(
                error?.message.contains("\(done) of 3 shards are at version \(count + 1)") == true)
            #expect(try await ground.versions() == [count + done, count, count])
            #expect(
                try await ground.psql(ground.control.owner, "SELECT state FROM migration_rollout")
                    == "aborted")
        }
    }

    @Test("what fails behind an abort is aborted: nobody has to ask for it twice")
    func abortedAndFailed() async throws {
        try await withWaveGround(shards: 2) { ground in
            var terms = MigrationTerms()
            terms.lockTimeout = .seconds(300)
            let store = RolloutStore(plane: ground.plane("bob"))
            let error = try await run(
                ground, adding: "\(Self.additive); SELECT 1 / 0", terms: terms
            ) {
                let asked = try await store.abort(reason: nil)
                #expect(asked.state == .running)
            }
            #expect(error?.code == "rollout-aborted")
            #expect(error?.message.contains("aborted at shard s01 (database-refused)") == true)
            let last = try #require(try await store.last())
            #expect(last.state == .aborted && last.failedShards == ["s01"])
            #expect(last.problem?.contains("division by zero") == true)
            let again = await waveFailure { _ = try await store.abort(reason: nil) }
            #expect(again?.code == "rollout-unknown")
            #expect(
                try await ground.psql(
                    ground.control.owner,
                    "SELECT count(*) FROM migration_rollout WHERE finished_at IS NOT NULL") == "1")
        }
    }

    @Test("whose process dies before it has heard of the abort is aborted: the next run is another")
    func abortedAndKilled() async throws {
        try await withWaveGround(shards: 2) { ground in
            let store = RolloutStore(plane: ground.plane("bob"))
            let catalog = ground.catalog(adding: Self.additive)
            let first = try await store.begin(
                target: catalog.shard[0], canary: "s02", shards: 2, owner: "ann")
            _ = try await StepHistory(store, first, wave: 0).began(
                catalog.shard[0], named: "later", shard: "s02", fingerprint: "")
            #expect(try await store.abort(reason: nil).state == .running)
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            #expect(try await store.last()?.state == .aborted)
            let again = await waveFailure { _ = try await store.abort(reason: nil) }
            #expect(again?.code == "rollout-unknown")
            let runner = WaveRunner(plane: ground.plane(), catalog: catalog, options: .init())
            #expect(try await runner.up().map(\.database) == ["s01", "s02"])
            #expect(
                try await ground.psql(
                    ground.control.owner,
                    """
                    SELECT state, canary, finished_at IS NOT NULL FROM migration_rollout ORDER BY started_at;
                    SELECT state, count(*) FROM migration_run GROUP BY state ORDER BY state
                    """) == "aborted|s02|t\ndone|s01|t\ndone|2\nhalted|1")
        }
    }

    @Test(
        "who hangs is taken over on demand: his statement ends as it would, and he begins nothing more"
    )
    func takenOver() async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            // One statement that waits for longer than the test takes, with the lease renewed beside it.
            var terms = MigrationTerms()
            terms.lockTimeout = .seconds(300)
            let catalog = ground.catalog(adding: Self.additive, terms: terms)
            let holder = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            @LoopActor func run(
                _ name: String, takesOver: Bool = false
            ) -> Task<(applied: [String], error: ControlError?), any Error> {
                var options = WaveRunner.Options()
                options.takesOver = takesOver
                options.reason = takesOver ? "it hangs" : nil
                let runner = WaveRunner(
                    plane: ground.plane(name), catalog: catalog, options: options)
                return Loop.shared.makeTask {
                    var applied: [String] = []
                    let error = await waveFailure {
                        applied = try await runner.up().map(\.database)
                    }
                    return (applied, error)
                }
            }
            func renewed() async throws {
                let lease = try await ground.psql(
                    ground.control.owner, "SELECT lease_until FROM migration_rollout")
                try await wait(
                    ground,
                    "SELECT count(*) FROM migration_rollout WHERE lease_until > '\(lease)'")
            }
            let ann = run("ann")
            try await wait(
                ground,
                "SELECT count(*) FROM migration_run WHERE shard_id = 's01' AND state = 'running'")
            // It has just begun something.
            let early = try await run("bob", takesOver: true).value.error
            #expect(early?.code == "rollout-live" && early?.kind == .conflict)
            #expect(early?.message.contains("ann's run of migrations is alive") == true)
            // Since then only the lease is renewed, which does not make it look alive.
            try await renewed()
            try await renewed()
            try await ground.psql(
                ground.control.owner,
                "UPDATE migration_rollout SET updated_at = updated_at - interval '61 s'")
            try await renewed()
            let last = try #require(try await RolloutStore(plane: ground.plane("bob")).last())
            #expect(last.isStuck)
            let refused = try await run("bob").value.error
            #expect(refused?.code == "rollout-running")
            #expect(refused?.remedy?.contains("--take-over") == true)

            let bob = run("bob", takesOver: true)
            try await wait(ground, "SELECT count(*) FROM migration_rollout WHERE attempt = 2")
            _ = try await offLoop { try holder.run("COMMIT") }
            let lost = try await ann.value
            #expect(lost.error?.code == "rollout-lost")
            #expect(try await ground.versions() == [count + 1, count, count])
            let done = try await bob.value
            #expect(done.error == nil && done.applied.sorted() == ["s02", "s03"])
            #expect(try await ground.versions() == [count + 1, count + 1, count + 1])
            #expect(
                try await ground.psql(
                    ground.control.owner,
                    """
                    SELECT state, attempt FROM migration_rollout;
                    SELECT action, operator_name, detail ->> 'from', detail ->> 'reason'
                    FROM operator_audit ORDER BY seq
                    """)
                        == """
                        done|3
                        migrate.up|ann||
                        migrate.take-over|bob|ann|it hangs
                        migrate.up|bob||
                        """)
        }
    }

    @Test("who asks for locks again and again gets on; taken over, he asks for them no more")
    func takenOverBetweenAttempts() async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            let catalog = ground.catalog(adding: Self.additive)
            let holder = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let ann = WaveRunner(plane: ground.plane("ann"), catalog: catalog, options: .init())
            let run = Loop.shared.makeTask { await waveFailure { _ = try await ann.up() } }
            try await wait(
                ground,
                "SELECT count(*) FROM migration_run WHERE shard_id = 's01' AND state = 'running'")
            try await ground.psql(
                ground.control.owner,
                "UPDATE migration_rollout SET updated_at = updated_at - interval '61 s'")
            try await wait(
                ground,
                """
                SELECT count(*) FROM migration_rollout
                WHERE updated_at > clock_timestamp() - interval '30 s'
                """)
            let early = await waveFailure {
                try await RolloutStore(plane: ground.plane("bob")).takeOver(reason: nil)
            }
            #expect(early?.code == "rollout-live")
            try await ground.psql(
                ground.control.owner, "UPDATE migration_rollout SET attempt = attempt + 1")
            #expect(try await run.value?.code == "rollout-lost")
            // Nobody has let go of the lock, and he has not given up.
            #expect(
                try await ground.psql(
                    ground.control.owner,
                    "SELECT error LIKE '%another process has taken this run%' FROM migration_run")
                    == "t")
            #expect(try await ground.versions() == [count, count, count])
            _ = try await offLoop { try holder.run("COMMIT") }
        }
    }

    @Test("a clinic that begins to move is not migrated away from under its move")
    func moved() async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            let clinic = "00000000-0000-7000-8000-000000000001"
            let error = try await run(ground) {
                try await ground.psql(
                    ground.control.owner,
                    """
                    INSERT INTO tier (name, definition) VALUES ('t', '{}');
                    INSERT INTO tenant (id, slug, name, tier, state, time_zone)
                    VALUES ('\(clinic)', 'moving', 'n', 't', 'active', 'UTC');
                    INSERT INTO move (id, tenant_id, source_shard, target_shard, state, step)
                    VALUES (gen_random_uuid(), '\(clinic)', 's02', 's03', 'running', 'planned')
                    """)
            }
            #expect(error?.code == "rollout-halted")
            #expect(
                error?.message.contains(
                    "shard s02 cannot be migrated while clinics are on the move") == true)
            #expect(try await ground.versions() == [count + 1, count, count])
        }
    }
}
