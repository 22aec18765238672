import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("What happens while a run of migrations is under way", .onLoop, .serialized)
@LoopActor
struct MeanwhileTests {
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"

    /// A run that is at its canary, where it waits for a lock; then `meanwhile`; then the lock is let go of.
    private func run(
        _ ground: WaveGround, _ meanwhile: @LoopActor () async throws -> Void
    ) async throws -> ControlError? {
        let holder = try await ground.session(ground.shards[0].owner)
        _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
        let catalog = ground.catalog(adding: Self.additive)
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
        _ = try await offLoop { try holder.run("COMMIT") }
        return try await run.value
    }

    private func wait(_ ground: WaveGround, _ query: String) async throws {
        let deadline = ground.deadline
        while try await ground.psql(ground.control.owner, query) != "1" {
            try #require(!deadline.isExpired(at: Loop.shared.now), "\(query)")
        }
    }

    @Test("an abort ends it behind the shard that is being worked on")
    func aborted() async throws {
        try await withWaveGround(shards: 3) { ground in
            let count = ground.catalog.shard.count
            let error = try await run(ground) {
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
            #expect(error?.message.contains("1 of 3 shards are at version \(count + 1)") == true)
            #expect(try await ground.versions() == [count + 1, count, count])
            #expect(
                try await ground.psql(ground.control.owner, "SELECT state FROM migration_rollout")
                    == "aborted")
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
