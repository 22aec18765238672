import Glibc
import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

/// A migration of `cache_tag` in phases: a column beside another, filled, and the old one dropped.
@Suite("Migrations in phases", .onLoop, .serialized)
@LoopActor
struct PhaseTests {
    private static let expand = "ALTER TABLE cache_tag ADD COLUMN total bigint"
    private static let backfill = """
        WITH batch AS (
            SELECT tag FROM cache_tag WHERE tenant_id = $1 AND ($2::text IS NULL OR tag > $2) ORDER BY tag LIMIT $3
        ), filled AS (
            UPDATE cache_tag SET total = count * 10 FROM batch
            WHERE cache_tag.tenant_id = $1 AND cache_tag.tag = batch.tag AND total IS NULL
        )
        SELECT count(*), CASE WHEN count(*) = $3 THEN max(tag) END FROM batch
        """
    private static let contract = "ALTER TABLE cache_tag ALTER COLUMN count SET DEFAULT 1"
    private static let unfilled = "SELECT count(*) FROM cache_tag WHERE total IS NULL"
    private static let ledger = """
        SELECT version, phase, serves_from FROM hc_schema ORDER BY version DESC LIMIT 1
        """

    private func clinic(_ number: Int) -> String {
        "00000000-0000-7000-8000-00000000000\(number)"
    }

    /// Clinics with rows of their own on a shard.
    private func populate(
        _ ground: WaveGround, shard: Int = 0, clinics: ClosedRange<Int> = 1...3, rows: Int = 5
    ) async throws {
        for number in clinics {
            try await ground.psql(
                ground.shards[shard].superuser,
                """
                INSERT INTO hc_tenant (tenant_id, epoch, state) VALUES ('\(clinic(number))', 1, 'rw');
                INSERT INTO cache_tag (tenant_id, tag, count)
                SELECT '\(clinic(number))', 'tag' || n, n FROM generate_series(1, \(rows)) AS n
                """)
        }
    }

    private func state(_ ground: WaveGround, _ number: Int, _ state: String) async throws {
        try await ground.psql(
            ground.shards[0].superuser,
            "UPDATE hc_tenant SET state = '\(state)' WHERE tenant_id = '\(clinic(number))'")
    }

    private func catalog(
        _ ground: WaveGround, contract: String? = contract, batchRows: Int = 500,
        lagMax: Int = 64 << 20, down: String? = nil, backfill: String? = backfill
    ) -> MigrationCatalog {
        var terms = MigrationTerms()
        terms.batchRows = batchRows
        terms.busyPercent = 100
        terms.replicaLagBytesMax = lagMax
        return ground.catalog(
            adding: Self.expand, backfill: backfill, contract: contract, down: down, terms: terms)
    }

    private func waves(_ ground: WaveGround, _ catalog: MigrationCatalog) -> WaveRunner {
        WaveRunner(plane: ground.plane(), catalog: catalog, options: .init())
    }

    private func superuser(_ ground: WaveGround, _ sql: String, shard: Int = 0) async throws
        -> String
    {
        try await ground.psql(ground.shards[shard].superuser, sql)
    }

    /// A process that serves, of a release that knows no more than `knows`.
    private func serve(_ ground: WaveGround, knows: Int) async throws {
        try await ground.psql(
            ground.control.owner,
            """
            INSERT INTO program_process (id, name, host, process_id, version, control_lowest, control_highest,
                shard_lowest, shard_highest, started_at)
            VALUES (gen_random_uuid(), 'hc-server worker 0', 'old-host', 77, '1.0.0', 1, 1000, 1, \(knows), now())
            """)
    }

    private func expireLease(_ ground: WaveGround) async throws {
        try await ground.psql(
            ground.control.admin,
            "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
    }

    @Test("every shard is expanded and filled before any is contracted")
    func order() async throws {
        try await withWaveGround(shards: 3) { ground in
            for shard in 0..<3 { try await populate(ground, shard: shard) }
            try await state(ground, 2, "suspended")
            let number = ground.catalog.shard.count + 1
            let runner = waves(ground, catalog(ground))
            let plan = try await runner.plan()
            #expect(plan.steps.map(\.name) == ["later (expand)", "later (backfill)"])
            #expect(plan.later.map(\.name) == ["later (contract)"] && plan.gate == nil)
            let applied = try await runner.up()
            #expect(runner.waits == nil)
            #expect(applied.suffix(3).map(\.name) == Array(repeating: "later (contract)", count: 3))
            #expect(applied.prefix(6).allSatisfy { $0.name != "later (contract)" })
            for shard in 0..<3 {
                #expect(try await superuser(ground, Self.unfilled, shard: shard) == "0")
                #expect(
                    try await superuser(ground, Self.ledger, shard: shard) == "\(number)||\(number)"
                )
            }
            let left = try await superuser(
                ground, "SELECT (SELECT sum(total) FROM cache_tag), count(*) FROM hc_backfill")
            #expect(left == "450|0")
            #expect(
                try await ground.psql(
                    ground.control.admin, "SELECT state, count(*) FROM migration_rollout GROUP BY 1"
                )
                    == "done|2")
            #expect(try await waves(ground, catalog(ground)).up().isEmpty)
        }
    }

    @Test("a contract waits for every process that serves, and goes through late rows first")
    func waits() async throws {
        try await withWaveGround(shards: 2) { ground in
            let number = ground.catalog.shard.count + 1
            try await populate(ground)
            try await serve(ground, knows: number - 1)
            let first = waves(ground, catalog(ground))
            let applied = try await first.up()
            #expect(applied.count == 4)
            #expect(first.waits?.message.contains("old-host (process 77, release 1.0.0") == true)
            #expect(try await superuser(ground, Self.ledger) == "\(number)|backfilled|")
            let status = try await MigrationRunner(
                plane: ground.plane(), catalog: catalog(ground)
            ).shardStatus()
            #expect(
                status[0].state == .pending && status[0].pending == ["\(number) later (contract)"])
            let refused = await waveFailure { _ = try await waves(ground, catalog(ground)).up() }
            #expect(refused?.code == "contract-waits" && refused?.kind == .refused)

            // What an old process writes: the backfill has gone by.
            _ = try await superuser(
                ground, "INSERT INTO cache_tag VALUES ('\(clinic(1))', 'a', 7)")
            _ = try await ground.psql(
                ground.control.owner, "UPDATE program_process SET shard_highest = \(number)")
            #expect(try await waves(ground, catalog(ground)).up().count == 2)
            #expect(try await superuser(ground, Self.unfilled) == "0")
            #expect(try await superuser(ground, Self.ledger) == "\(number)||\(number)")
        }
    }

    @Test("no program that does not know the migration serves a shard from before its last pass on")
    func closed() async throws {
        try await withWaveGround(shards: 1) { ground in
            let number = ground.catalog.shard.count + 1
            try await populate(ground)
            try FaultPoint.arm("migrate.contract-closed=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) {
                _ = try await waves(ground, catalog(ground)).up()
            }
            FaultPoint.disarm()
            #expect(try await superuser(ground, Self.ledger) == "\(number)|backfilled|\(number)")
            try await expireLease(ground)
            #expect(try await waves(ground, catalog(ground)).up().count == 1)
            #expect(try await superuser(ground, Self.ledger) == "\(number)||\(number)")
        }
    }

    /// A worker that was stopped, say, and goes on when the contract is over: it has looked at nothing since.
    @Test(
        "who does not report himself loses his sessions before the last pass, and what he had under way"
    )
    func sessions() async throws {
        try await withWaveGround(shards: 1) { ground in
            let number = ground.catalog.shard.count + 1
            try await populate(ground)
            try await serve(ground, knows: number)
            try await serve(ground, knows: number - 1)
            let first = waves(ground, catalog(ground))
            #expect(try await first.up().count == 2 && first.waits != nil)
            try await ground.psql(
                ground.control.owner,
                """
                UPDATE program_process SET seen_at = now() - interval '31 s' WHERE shard_highest < \(number)
                """)
            let ids = try await ground.psql(
                ground.control.owner, "SELECT id FROM program_process ORDER BY seen_at"
            ).split(separator: "\n")
            try #require(ids.count == 2)
            var workers: [SQLSession] = []
            for id in ids {
                let worker = try await ground.session(ground.shards[0].app)
                _ = try await offLoop {
                    try worker.run("SET application_name = 'hc-server worker 0 \(id)'")
                }
                workers.append(worker)
            }
            let (stopped, live) = (workers[0], workers[1])
            let row = "INSERT INTO cache_tag (tenant_id, tag, count) VALUES ('\(clinic(1))'"
            let enter = "SELECT hc_enter('\(clinic(1))', 1, 'w')"
            // Written in the old form, and nobody sees it yet.
            let early = try await offLoop {
                try stopped.run("BEGIN; \(enter); \(row), 'early', 7)")
            }
            #expect(early.state == "00000")
            #expect(try await waves(ground, catalog(ground)).up().count == 1)
            await #expect(throws: (any Error).self) {
                _ = try await offLoop { try stopped.run("COMMIT") }
            }
            let late = try await offLoop {
                try live.run("BEGIN; \(enter); \(row), 'late', 7); COMMIT")
            }
            #expect(late.state == "00000")
            #expect(
                try await superuser(
                    ground, "SELECT tag FROM cache_tag WHERE tag IN ('early', 'late')") == "late")
        }
    }

    @Test("a contract refuses while a clinic's rows have not been gone through since then")
    func unfilled() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground)
            try await serve(ground, knows: 1)
            _ = try await waves(ground, catalog(ground)).up()
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog(ground))
            let migration = try #require(runner.catalog.shard.last)
            let target = MigrationRunner.Target(
                connection: try await runner.plane.shard(reference: "s01", .owner), database: "s01",
                reference: "s01")
            for since in ["2001-01-01", "2999-01-01"] {
                if since == "2001-01-01" {
                    // It came from another shard after the backfill.
                    try await populate(ground, clinics: 7...7)
                }
                let error = await waveFailure {
                    try await runner.run(
                        runner.contractScript(migration, Self.contract, 1, since), on: target,
                        migration.terms, "contract")
                }
                #expect(error?.message.contains("HC020") == true)
            }
        }
    }

    @Test(
        "whose process dies between two batches goes on behind the last one",
        arguments: ["migrate.backfill-batch=fail@2", "migrate.backfill-passed=fail@1"])
    func resumes(point: String) async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground, clinics: 1...2)
            let catalog = catalog(ground, contract: nil, batchRows: 2)
            try FaultPoint.arm(point, perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) {
                _ = try await waves(ground, catalog).up()
            }
            FaultPoint.disarm()
            if point.contains("batch") {
                #expect(
                    try await superuser(
                        ground, "SELECT rows_seen, cursor, done_at FROM hc_backfill")
                        == "4|tag4|")
                let status = try await MigrationRunner(plane: ground.plane(), catalog: catalog)
                    .shardStatus()
                #expect(status[0].pending[0].hasSuffix("later (backfill): 0 of 2 clinics, 4 rows"))
            }
            try await expireLease(ground)
            #expect(try await waves(ground, catalog).up().map(\.name) == ["later (backfill)"])
            // Ten rows, and none of them twice.
            #expect(
                try await superuser(
                    ground, "SELECT sum(rows_seen), count(done_at) FROM hc_backfill") == "10|2")
            #expect(try await superuser(ground, Self.unfilled) == "0")
        }
    }

    @Test("a clinic that is being handed over is waited for, one that has gone is left out")
    func handover() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground)
            try await state(ground, 1, "draining")
            for step in ["draining", "fenced", "handover", "moved"] {
                try await state(ground, 3, step)
            }
            let catalog = catalog(ground, contract: nil)
            let run = Loop.shared.makeTask { try await waves(ground, catalog).up() }
            let deadline = ground.deadline
            while try await superuser(
                ground,
                "SELECT to_regclass('hc_backfill') IS NOT NULL AND EXISTS"
                    + " (SELECT FROM hc_backfill WHERE done_at IS NOT NULL)") != "t"
            {
                try #require(!deadline.isExpired(at: Loop.now), "nothing is filled")
            }
            #expect(
                try await superuser(
                    ground, "SELECT DISTINCT tenant_id FROM cache_tag WHERE total IS NOT NULL")
                    == clinic(2))
            try await state(ground, 1, "rw")
            #expect(try await run.value.count == 2)
            #expect(
                try await superuser(
                    ground, "SELECT DISTINCT tenant_id FROM cache_tag WHERE total IS NULL")
                    == clinic(3))
        }
    }

    @Test("an abort ends it while a batch waits for a row that somebody keeps")
    func abortedWhileWaiting() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground, clinics: 1...1)
            let writer = try await ground.session(ground.shards[0].superuser)
            let catalog = catalog(ground, contract: nil)
            // The column is there before somebody keeps a row, and the column out.
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            _ = try await runner.take(
                MigrationStep(migration: try #require(catalog.shard.last), phase: .expand),
                at: .init(
                    connection: try await runner.plane.shard(reference: "s01", .owner),
                    database: "s01", reference: "s01"))
            _ = try await offLoop { try writer.run("BEGIN; SELECT FROM cache_tag FOR UPDATE") }
            let run = Loop.shared.makeTask {
                await waveFailure { _ = try await waves(ground, catalog).up() }
            }
            let deadline = ground.deadline
            while try await superuser(
                ground,
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'hc-admin'"
            ) != "1" {
                try #require(!deadline.isExpired(at: Loop.now), "no batch waits")
            }
            _ = try await RolloutStore(plane: ground.plane("bob")).abort(reason: nil)
            // Nobody has let go of the row, and it has not been given up.
            #expect(try await run.value?.code == "rollout-aborted")
            #expect(
                try await ground.psql(
                    ground.control.owner,
                    "SELECT name, state, error FROM migration_run ORDER BY started_at DESC LIMIT 1")
                    == "later (backfill)|failed|it was stopped half-way")
            _ = try await offLoop { try writer.run("ROLLBACK") }
        }
    }

    @Test("a move's fence keeps a batch out, and a batch holds the fence back")
    func fence() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground, clinics: 1...1)
            let mover = try await ground.session(ground.shards[0].mover)
            let enter = "SELECT hc_backfill_enter('\(clinic(1))')"
            let lock = "SELECT pg_try_advisory_xact_lock(hc_fence_key('\(clinic(1))'))"
            _ = try await offLoop { try mover.run("BEGIN; \(lock)") }
            #expect(try await ground.psql(ground.shards[0].owner, enter) == "busy")
            _ = try await offLoop { try mover.run("ROLLBACK") }
            let batch = try await ground.session(ground.shards[0].owner)
            let entered = try await offLoop { try batch.run("BEGIN; \(enter)").text }
            #expect(entered == "entered")
            let isFenced = try await offLoop { try mover.run("BEGIN; \(lock)").text }
            #expect(isFenced == "f")
            // Only that clinic's rows, although the owner asks for all.
            try await populate(ground, clinics: 2...2)
            let seen = try await offLoop {
                try batch.run("SELECT count(DISTINCT tenant_id) FROM cache_tag").text
            }
            #expect(seen == "1")
        }
    }

    @Test("it waits while a reader of the log is behind, and can be stopped meanwhile")
    func lag() async throws {
        try await withWaveGround(shards: 1) { ground in
            try await populate(ground)
            let catalog = catalog(ground, lagMax: -1)
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            let migration = try #require(catalog.shard.last)
            let target = MigrationRunner.Target(
                connection: try await runner.plane.shard(reference: "s01", .owner), database: "s01",
                reference: "s01")
            try await runner.apply(migration, to: target)
            var asked = 0
            let isDone = try await Backfill(
                plane: runner.plane, migration: migration, target: target
            ).run {
                asked += 1
                return asked < 3
            }
            #expect(!isDone && asked == 3)
            #expect(try await superuser(ground, Self.unfilled) == "15")
        }
    }

    @Test("it waits while a replica's receiver is stopped, and goes on when that follows again")
    func stoppedReplica() async throws {
        try await withWaveGround(shards: 1, on: LocalServices.replicated) { ground in
            try await populate(ground)
            let replica = try ground.services.conninfo("shards/s1.r1.superuser")
            let receiver = try #require(
                pid_t(await ground.psql(replica, "SELECT pid FROM pg_stat_wal_receiver")))
            #expect(kill(receiver, SIGSTOP) == 0)
            defer { kill(receiver, SIGCONT) }
            // More than it may be behind.
            _ = try await superuser(
                ground,
                """
                SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1 << 20)))
                FROM generate_series(1, 3)
                """)
            let (told, tell) = AsyncStream.makeStream(of: String.self)
            let catalog = catalog(ground, contract: nil, lagMax: 1 << 20)
            let plane = ground.plane(progress: { _ = tell.yield($0) })
            let run = Loop.shared.makeTask {
                defer { tell.finish() }
                return try await WaveRunner(plane: plane, catalog: catalog, options: .init()).up()
            }
            var hasWaited = false
            for await line in told where line.contains("waits for a reader of the log") {
                hasWaited = true
                break
            }
            #expect(hasWaited)
            #expect(try await superuser(ground, Self.unfilled) == "15")
            kill(receiver, SIGCONT)
            #expect(try await run.value.count == 2)
            #expect(try await superuser(ground, Self.unfilled) == "0")
        }
    }

    @Test(
        "a statement that is no batch, or does not get on, halts the run at the canary and says so",
        arguments: [
            ("SELECT $1::uuid, $2::text, $3::int", "one row of a bigint and a text"),
            (
                "SELECT $3::bigint, 'here' FROM (SELECT $1::uuid, $2::text) AS given",
                "does not get on"
            ),
        ])
    func bad(backfill: String, message: String) async throws {
        try await withWaveGround(shards: 2) { ground in
            try await populate(ground)
            try await populate(ground, shard: 1)
            let error = await waveFailure {
                _ = try await waves(ground, catalog(ground, backfill: backfill)).up()
            }
            #expect(error?.code == "rollout-halted")
            #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
            #expect(
                try await ground.versions()
                    == [ground.catalog.shard.count + 1, ground.catalog.shard.count])
        }
    }

    @Test("what was expanded is taken back, what was contracted is not")
    func down() async throws {
        try await withWaveGround(shards: 1) { ground in
            let catalog = catalog(ground, down: "ALTER TABLE cache_tag DROP COLUMN total")
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            try await populate(ground)
            try await serve(ground, knows: 1)
            _ = try await waves(ground, catalog).up()
            #expect(try await runner.downShard("s01", dryRun: false).name == "later")
            #expect(try await ground.versions() == [ground.catalog.shard.count])
            #expect(try await superuser(ground, "SELECT count(*) FROM hc_backfill") == "0")
            _ = try await ground.psql(ground.control.owner, "DELETE FROM program_process")
            #expect(try await waves(ground, catalog).up().count == 3)
            let error = await waveFailure { _ = try await runner.downShard("s01", dryRun: false) }
            #expect(error?.code == "migration-irreversible")
        }
    }

    @Test("clinics may move while rows are filled, not while the schema changes")
    func moves() async throws {
        try await withWaveGround(shards: 2) { ground in
            try await populate(ground)
            let catalog = catalog(ground)
            try FaultPoint.arm("migrate.backfill-batch=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) {
                _ = try await waves(ground, catalog).up()
            }
            FaultPoint.disarm()
            try await expireLease(ground)
            _ = try await ground.psql(
                ground.control.owner,
                """
                INSERT INTO tier (name, definition) VALUES ('t', '{}');
                INSERT INTO tenant (id, slug, name, tier, state, time_zone)
                VALUES ('\(clinic(1))', 'moving', 'n', 't', 'active', 'UTC');
                INSERT INTO move (id, tenant_id, source_shard, target_shard, state, step)
                VALUES (gen_random_uuid(), '\(clinic(1))', 's01', 's02', 'running', 'planned')
                """)
            // s02 has not been expanded yet: nothing goes on.
            let early = await waveFailure { _ = try await waves(ground, catalog).up() }
            #expect(early?.code == "moves-open")
            _ = try await ground.psql(ground.control.owner, "UPDATE move SET state = 'done'")
            try FaultPoint.arm("migrate.backfill-passed=fail@1", perform: { _ in })
            await #expect(throws: FaultPointFailure.self) {
                _ = try await waves(ground, catalog).up()
            }
            FaultPoint.disarm()
            try await expireLease(ground)
            let runner = MigrationRunner(plane: ground.plane(), catalog: catalog)
            _ = try await runner.take(
                MigrationStep(migration: try #require(catalog.shard.last), phase: .expand),
                at: .init(
                    connection: try await runner.plane.shard(reference: "s02", .owner),
                    database: "s02", reference: "s02"))
            _ = try await ground.psql(ground.control.owner, "UPDATE move SET state = 'running'")
            let late = await waveFailure { _ = try await waves(ground, catalog).up() }
            #expect(late?.code == "moves-open", "the fill is done, the contract is not begun")
            for shard in 0..<2 {
                #expect(
                    try await superuser(ground, Self.ledger, shard: shard)
                        == "\(ground.catalog.shard.count + 1)|backfilled|")
            }
        }
    }
}
