import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

@Suite("Shards are migrated in waves", .serialized, .onLoop)
@LoopActor
struct WaveRunnerTests {
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"

    private func runner(
        _ ground: WaveGround, _ catalog: MigrationCatalog, operator name: String = "ann",
        canary: String? = nil, parallel: Int = 4, except: Set<String> = []
    ) -> WaveRunner {
        var options = WaveRunner.Options()
        options.canary = canary
        options.parallel = parallel
        options.except = except
        var locks = LockRetry()
        locks.attemptsMax = 2
        return WaveRunner(
            plane: ground.plane(name), catalog: catalog, options: options, locks: locks)
    }

    /// As if the process that carries the rollout on had been gone for long.
    private func expireLease(_ ground: WaveGround) async throws {
        try await ground.psql(
            ground.control.admin,
            "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
    }

    private func rollout(_ ground: WaveGround) async throws -> Rollout {
        try #require(try await RolloutStore(plane: ground.plane()).last())
    }

    @Test("a good one crosses canary and waves; the history says in which wave each shard was")
    func good() async throws {
        try await withWaveGround { ground in
            let next = ground.catalog(adding: Self.additive)
            let plan = try await runner(ground, next).plan()
            #expect(plan.waves.map { $0.map(\.shard.id) }.prefix(2) == [["s01"], ["s02", "s03"]])
            #expect(plan.waves.map(\.count) == [1, 2, 7])
            #expect(plan.estimates == [nil, nil, nil])
            let before = try await ground.versions()
            #expect(try await runner(ground, next).up().count == 10)
            #expect(try await ground.versions() == before.map { $0 + 1 })
            let last = try await rollout(ground)
            #expect(last.state == .done && last.shardsDone == 10 && last.leaseLeft == nil)
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    """
                    SELECT wave, count(*), bool_and(fingerprint_before <> fingerprint_after)
                    FROM migration_run WHERE state = 'done' GROUP BY wave ORDER BY wave;
                    SELECT count(DISTINCT schema_fingerprint), min(schema_version) FROM shard;
                    """) == "0|1|t\n1|2|t\n2|7|t\n1|\(next.shard.count)")
            // Again there is nothing to do, and no run is begun.
            #expect(try await runner(ground, next).up().isEmpty)
            #expect(try await rollout(ground).id == last.id)
            // What it took is known from now on.
            let further = try await runner(ground, next).plan()
            #expect(further.isEmpty && further.estimates == [.zero, .zero, .zero])
        }
    }

    @Test("a bad one halts at the canary, and no other shard is touched")
    func badCanary() async throws {
        try await withWaveGround { ground in
            let before = try await ground.versions()
            let bad = ground.catalog(adding: "ALTER TABLE no_such_table ADD COLUMN later text")
            let error = await waveFailure {
                _ = try await runner(ground, bad, canary: "s04").up()
            }
            #expect(error?.code == "rollout-halted")
            #expect(error?.message.contains("halted at shard s04 (database-refused)") == true)
            #expect(error?.message.contains("0 of 10 shards are up to date") == true)
            #expect(error?.message.contains("no_such_table") == true)
            #expect(try await ground.versions() == before)
            let halted = try await rollout(ground)
            #expect(halted.state == .halted && halted.failedShards == ["s04"])
            #expect(halted.problem?.contains("no_such_table") == true)
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT shard_id, state FROM migration_run")
                    == "s04|failed")
            // The file is put right: the same run goes on, with the same canary.
            _ = try await runner(ground, ground.catalog(adding: Self.additive)).up()
            let done = try await rollout(ground)
            #expect(done.id == halted.id && done.state == .done && done.canary == "s04")
            #expect(try await ground.versions() == before.map { $0 + 1 })
        }
    }

    @Test(
        "it fails on the third of ten: the two before keep it, the others are untouched; repaired, it goes on"
    )
    func third() async throws {
        try await withWaveGround { ground in
            let count = ground.catalog.shard.count
            let next = ground.catalog(adding: Self.additive)
            let reader = try await ground.session(ground.shards[2].owner)
            _ = try await offLoop { try reader.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let error = await waveFailure { _ = try await runner(ground, next, parallel: 1).up() }
            #expect(error?.code == "rollout-halted")
            #expect(error?.message.contains("shard s03 (migration-locked)") == true)
            #expect(
                try await ground.versions()
                    == [count + 1, count + 1] + Array(repeating: count, count: 8))
            #expect(try await rollout(ground).failedShards == ["s03"])
            _ = try await offLoop { try reader.run("COMMIT") }
            let applied = try await runner(ground, next, parallel: 1).up()
            #expect(applied.map(\.database) == (3...10).map { ground.id($0) })
            #expect(try await rollout(ground).state == .done)
        }
    }

    @Test("a shard that is down is named before anything is done; without it the others go on")
    func down() async throws {
        try await withWaveGround { ground in
            let next = ground.catalog(adding: Self.additive)
            let before = try await ground.versions()
            try ground.takeDown(7)
            let error = await waveFailure { _ = try await runner(ground, next).up() }
            #expect(error?.code == "shard-unreachable")
            #expect(error?.message.contains("s07") == true)
            #expect(try await ground.versions() == before)
            #expect(try await runner(ground, next, except: ["s07"]).up().count == 9)
            #expect(
                try await ground.versions()
                    == before.enumerated().map { $0 == 6 ? $1 : $1 + 1 })
            let unknown = await waveFailure {
                _ = try await runner(ground, next, except: ["s77"]).up()
            }
            #expect(unknown?.code == "shard-unknown")
        }
    }

    @Test("a shard that is retired is not asked for: its server may be gone")
    func retired() async throws {
        try await withWaveGround(shards: 3) { ground in
            let before = try await ground.versions()
            try await ground.psql(
                ground.control.owner, "UPDATE shard SET state = 'closed' WHERE id = 's01'")
            try ground.takeDown(1)
            let up = try await runner(ground, ground.catalog(adding: Self.additive)).up()
            #expect(up.map(\.database) == ["s02", "s03"])
            #expect(
                try await ground.versions().dropFirst() == before.dropFirst().map { $0 + 1 }[...])
            let alone = MigrationRunner(
                plane: ground.plane(), catalog: ground.catalog(adding: Self.additive))
            #expect(try await alone.shardStatus().map(\.id) == ["s02", "s03"])
            #expect(try await alone.upShards(dryRun: false).isEmpty)
            let up1 = await waveFailure {
                _ = try await alone.upShards(only: "s01", dryRun: false)
            }
            let down1 = await waveFailure { _ = try await alone.downShard("s01", dryRun: false) }
            #expect(up1?.code == "shard-retired" && down1?.code == "shard-retired")
            let drift = try await SchemaDrift(plane: ground.plane()).run()
            #expect(drift.map(\.shard) == ["s02", "s03"])
            #expect(drift.allSatisfy { $0.problem == nil && !$0.isDifferent })
        }
    }

    @Test("a run that cannot be written into the audit is not begun")
    func unaudited() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await ground.psql(
                ground.control.owner,
                "ALTER TABLE operator_audit ADD CHECK (action <> 'migrate.up') NOT VALID")
            let error = await waveFailure {
                _ = try await runner(ground, ground.catalog(adding: Self.additive)).up()
            }
            #expect(error?.code == "database-refused")
            #expect(try await RolloutStore(plane: ground.plane()).last() == nil)
        }
    }

    @Test(
        "a server's clock that is set back keeps nobody from going on with what a dead process left"
    )
    func clockSetBack() async throws {
        try await withWaveGround(shards: 2) { ground in
            let next = ground.catalog(adding: Self.additive)
            let store = RolloutStore(plane: ground.plane("ann"))
            let first = try await store.begin(
                target: next.shard[0], canary: "s01", shards: 2, owner: "ann")
            func shift(_ lease: String) async throws -> Rollout {
                try await ground.psql(
                    ground.control.admin,
                    """
                    UPDATE migration_rollout SET lease_until = clock_timestamp() + interval '\(lease)',
                        updated_at = clock_timestamp() + interval '\(lease)'
                    """)
                return try await rollout(ground)
            }
            // A small step: whoever has it is believed to live.
            #expect(try await shift("11 s").leaseLeft != nil)
            let early = await waveFailure { _ = try await runner(ground, next).up() }
            #expect(early?.code == "rollout-running")
            // By its own clock it got on in an hour.
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET updated_at = clock_timestamp() + interval '1 h'")
            #expect(try await rollout(ground).isStuck)
            #expect(try await shift("1 h").leaseLeft == nil)
            #expect(try await runner(ground, next, operator: "bob").up().count == 2)
            #expect(try await rollout(ground).id == first.id)
            let lost = await waveFailure { try await store.note(first, wave: 1, shardsDone: 1) }
            #expect(lost?.code == "rollout-lost")
        }
    }

    @Test("changes by hand and edited migrations are refused before any shard is touched")
    func drift() async throws {
        try await withWaveGround { ground in
            let next = ground.catalog(adding: Self.additive)
            let before = try await ground.versions()
            try await ground.psql(
                ground.shards[4].owner, "CREATE INDEX by_hand ON cache_tag (tenant_id)")
            try await ground.psql(
                ground.shards[5].owner, "UPDATE hc_schema SET checksum = 'x' WHERE version = 2")
            let error = await waveFailure { _ = try await runner(ground, next).up() }
            #expect(error?.code == "migration-changed")
            #expect(error?.message.contains("after s06 had applied it") == true)
            #expect(error?.message.contains("the schema of shard s05 is not that of s01") == true)
            #expect(try await ground.versions() == before)
            #expect(try await RolloutStore(plane: ground.plane()).last() == nil)
        }
    }

    @Test(
        "a shard that comes out differently is found by the gate, and the next wave does not begin")
    func gate() async throws {
        try await withWaveGround { ground in
            let before = try await ground.versions()
            let second = ground.shards[1].database.name
            let sql = """
                ALTER TABLE cache_tag ADD COLUMN later text;
                DO $$ BEGIN
                    IF current_database() = '\(second)' THEN
                        ALTER TABLE cache_tag ADD COLUMN other text;
                    END IF;
                END $$;
                """
            let error = await waveFailure {
                _ = try await runner(ground, ground.catalog(adding: sql)).up()
            }
            #expect(error?.message.contains("halted at shard s02 (schema-differs)") == true)
            let after = try await ground.versions()
            #expect(after.prefix(3) == before.prefix(3).map { $0 + 1 }[...])
            #expect(after.dropFirst(3) == before.dropFirst(3))
            let halted = try await self.rollout(ground)
            #expect(halted.failedShards == ["s02"])
        }
    }

    @Test("what is changed by hand behind a migration, and before its gate, is found by the gate")
    func changedMeanwhile() async throws {
        try await withWaveGround { ground in
            let before = try await ground.versions()
            let holder = try await ground.session(ground.shards[2].owner)
            _ = try await offLoop { try holder.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let next = ground.catalog(adding: Self.additive)
            let run = Loop.shared.makeTask {
                await waveFailure {
                    var options = WaveRunner.Options()
                    options.parallel = 1
                    _ = try await WaveRunner(
                        plane: ground.plane(), catalog: next, options: options
                    ).up()
                }
            }
            let begun =
                "SELECT count(*) FROM migration_run WHERE shard_id = 's03' AND state = 'running'"
            let deadline = ground.deadline
            while try await ground.psql(ground.control.admin, begun) != "1" {
                try #require(!deadline.isExpired(at: Loop.now), "the third is not begun")
            }
            try await ground.psql(ground.shards[1].superuser, "GRANT SELECT ON hc_load TO hc_app")
            _ = try await offLoop { try holder.run("COMMIT") }
            let error = try await run.value
            #expect(error?.message.contains("halted at shard s02 (schema-differs)") == true)
            #expect(try await ground.versions().dropFirst(3) == before.dropFirst(3))
        }
    }

    /// It takes longer than most migrations do.
    @Test(
        "the fingerprint is made before the run and in the migration's transaction, and never again"
    )
    func fingerprints() async throws {
        try await withWaveGround(shards: 3) { ground in
            for shard in ground.shards {
                try await ground.psql(
                    shard.superuser,
                    "ALTER DATABASE \(shard.database.name) SET track_functions = 'all'")
            }
            #expect(
                try await runner(ground, ground.catalog(adding: Self.additive)).up().count == 3)
            for shard in ground.shards {
                // What a session has counted is told at its end at the latest.
                let others = """
                    SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                    """
                let deadline = ground.deadline
                while try await ground.psql(shard.superuser, others) != "0" {
                    try #require(!deadline.isExpired(at: Loop.now), "sessions are left")
                }
                #expect(
                    try await ground.psql(
                        shard.superuser,
                        "SELECT calls FROM pg_stat_user_functions WHERE funcname = 'hc_schema_fingerprint'"
                    ) == "2")
            }
        }
    }

    @Test("of two operators the second is told who is at it, and does nothing")
    func twoOperators() async throws {
        try await withWaveGround(shards: 3) { ground in
            let next = ground.catalog(adding: Self.additive)
            let reader = try await ground.session(ground.shards[0].owner)
            _ = try await offLoop { try reader.run("BEGIN; LOCK cache_tag IN ACCESS SHARE MODE") }
            let first = Loop.shared.makeTask {
                try await WaveRunner(
                    plane: ground.plane("ann"), catalog: next, options: .init()
                ).up()
            }
            let deadline = ground.deadline
            while try await RolloutStore(plane: ground.plane()).last() == nil {
                try #require(!deadline.isExpired(at: Loop.now), "nobody begins")
            }
            let error = await waveFailure {
                _ = try await runner(ground, next, operator: "bob").up()
            }
            #expect(error?.kind == .conflict && error?.code == "rollout-running")
            #expect(error?.message.contains("ann is migrating the shards") == true)
            // Both past the first look: the table itself lets one in.
            let race = await waveFailure {
                _ = try await RolloutStore(plane: ground.plane("bob")).begin(
                    target: next.shard[0], canary: "s01", shards: 3, owner: "bob")
            }
            #expect(race?.code == "rollout-running")
            _ = try await offLoop { try reader.run("COMMIT") }
            #expect(try await first.value.count == 3)
            #expect(try await rollout(ground).attempt == 1)
        }
    }

    @Test("whose process dies before or after a migration loses nothing; the next one goes on")
    func killed() async throws {
        try await withWaveGround(shards: 4) { ground in
            let next = ground.catalog(adding: Self.additive)
            for point in ["migrate.before-apply=fail@1", "migrate.after-apply=fail@2"] {
                try FaultPoint.arm(point, perform: { _ in })
                defer { FaultPoint.disarm() }
                await #expect(throws: FaultPointFailure.self) {
                    _ = try await runner(ground, next, parallel: 1).up()
                }
                FaultPoint.disarm()
                let early = await waveFailure { _ = try await runner(ground, next).up() }
                #expect(early?.code == "rollout-running")
                try await expireLease(ground)
            }
            #expect(try await runner(ground, next, parallel: 1).up().count == 2)
            let done = try await rollout(ground)
            #expect(done.state == .done && done.attempt == 3 && done.shardsDone == 4)
            #expect(
                try await ground.versions()
                    == Array(repeating: ground.catalog.shard.count + 1, count: 4))
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT state, count(*) FROM migration_run GROUP BY state ORDER BY state")
                    == "done|3\nhalted|2")
        }
    }

    @Test("who was taken over while it slept begins nothing more")
    func takenOver() async throws {
        try await withWaveGround(shards: 3) { ground in
            let next = ground.catalog(adding: Self.additive)
            let store = RolloutStore(plane: ground.plane("ann"))
            let first = try await store.begin(
                target: next.shard[0], canary: "s01", shards: 3, owner: "ann")
            try await expireLease(ground)
            #expect(try await runner(ground, next, operator: "bob").up().count == 3)
            let noting = await waveFailure {
                try await store.note(first, wave: 1, shardsDone: 1)
            }
            let ending = await waveFailure { try await store.end(first, as: .halted) }
            #expect(noting?.code == "rollout-lost" && ending?.code == "rollout-lost")
            let beginning = await waveFailure {
                _ = try await StepHistory(store, first, wave: 0).began(
                    next.shard[0], named: "again", shard: "s01", fingerprint: "")
            }
            #expect(beginning?.code == "rollout-lost")
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT count(*) FROM migration_run WHERE name = 'again'")
                    == "0")
            #expect(try await store.renew(first) == nil)
            #expect(try await rollout(ground).state == .done)
        }
    }

    @Test("an abort ends a halted run; asked of a running one, it stops before the next shard")
    func abort() async throws {
        try await withWaveGround(shards: 3) { ground in
            let store = RolloutStore(plane: ground.plane("bob"))
            let none = await waveFailure { _ = try await store.abort(reason: nil) }
            #expect(none?.code == "rollout-unknown")
            let bad = ground.catalog(adding: "SELECT 1 / 0")
            let halted = await waveFailure { _ = try await runner(ground, bad).up() }
            #expect(halted?.code == "rollout-halted")
            #expect(try await store.abort(reason: "not today").state == .aborted)

            let begun = try await store.begin(
                target: bad.shard[0], canary: "s02", shards: 3, owner: "bob")
            #expect(try await store.abort(reason: nil).state == .running)
            #expect(try await store.renew(begun) == true)
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT action, detail ->> 'reason' FROM operator_audit ORDER BY seq")
                    == "migrate.up|\nmigrate.abort|not today\nmigrate.up|\nmigrate.abort|")
        }
    }
}

@Suite("Waves of shards")
struct MigrationWavesTests {
    @Test(
        "each wave is a part of all shards, none is empty, and the canary is alone",
        arguments: [
            (1, [1]), (2, [1, 1]), (10, [1, 2, 7]), (20, [1, 4, 15]), (100, [1, 4, 20, 75]),
            (1000, [1, 49, 200, 750]),
        ])
    func sizes(count: Int, waves: [Int]) throws {
        let shards = (1...count).map { "s\($0)" }
        let made = try MigrationWaves(shards: shards, canary: "s1")
        #expect(made.waves.map(\.count) == waves)
        #expect(made.waves.flatMap { $0 } == shards)
    }

    @Test(
        "percentages that do not rise to 100 are refused",
        arguments: [[], [5], [0, 100], [50, 50, 100], [100, 5], [5, 101]])
    func refused(percents: [Int]) {
        #expect(throws: ControlError.self) {
            try MigrationWaves(shards: ["a", "b"], canary: "b", percents: percents)
        }
    }

    @Test("a canary goes first wherever it stands")
    func canary() throws {
        let made = try MigrationWaves(shards: ["a", "b", "c"], canary: "c", percents: [100])
        #expect(made.waves == [["c"], ["a", "b"]])
    }
}
