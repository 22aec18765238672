import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl

/// An `up.sql` with `servesFrom`: it takes away, in one step.
@Suite("What older programs do not survive, without phases", .onLoop, .serialized)
@LoopActor
struct NarrowTests {
    private static let clinic = "00000000-0000-7000-8000-000000000001"
    private static let additive = "ALTER TABLE cache_tag ADD COLUMN later text"
    /// Lines of the ledger that say who may serve.
    private static let closed = """
        SELECT version, serves_from FROM hc_schema WHERE serves_from IS NOT NULL ORDER BY version
        """

    private func catalog(
        _ ground: WaveGround, _ sql: String = additive, isTransactional: Bool = true
    ) -> MigrationCatalog {
        var terms = MigrationTerms()
        terms.servesFrom = ground.catalog.shard.count + 1
        terms.lockTotal = .seconds(1)
        terms.isTransactional = isTransactional
        return ground.catalog(adding: sql, terms: terms)
    }

    private func waves(_ ground: WaveGround, _ catalog: MigrationCatalog) -> WaveRunner {
        WaveRunner(plane: ground.plane(), catalog: catalog, options: .init())
    }

    /// A process that serves and knows the migration, and one that has said nothing for 31 s.
    ///
    /// - Returns: a session of each on the first shard.
    private func workers(
        _ ground: WaveGround, knows version: Int
    ) async throws -> (live: SQLSession, stopped: SQLSession) {
        var sessions: [SQLSession] = []
        for (known, silence) in [(version, 0), (version - 1, 31)] {
            let id = try await ground.psql(
                ground.control.owner,
                """
                INSERT INTO program_process (id, name, host, process_id, version, control_lowest, control_highest,
                    shard_lowest, shard_highest, started_at, seen_at)
                VALUES (gen_random_uuid(), 'hc-server worker 0', 'host', 7, '1.0.0', 1, 1000, 1, \(known), now(),
                    now() - interval '\(silence) s')
                RETURNING id
                """)
            let session = try await ground.session(ground.shards[0].app)
            _ = try await offLoop {
                try session.run("SET application_name = 'hc-server worker 0 \(id)'")
            }
            sessions.append(session)
        }
        return (sessions[0], sessions[1])
    }

    @Test(
        "who does not report himself loses his sessions before the script, and what he had under way"
    )
    func sessions() async throws {
        try await withWaveGround(shards: 1) { ground in
            let number = ground.catalog.shard.count + 1
            let owner = ground.shards[0].superuser
            try await ground.psql(
                owner,
                "INSERT INTO hc_tenant (tenant_id, epoch, state) VALUES ('\(Self.clinic)', 1, 'rw')"
            )
            let (live, stopped) = try await workers(ground, knows: number)
            let begin = "BEGIN; SELECT hc_enter('\(Self.clinic)', 1, 'w'); "
            let row = "INSERT INTO cache_tag (tenant_id, tag, count) VALUES ('\(Self.clinic)'"
            // Written in the old form, and nobody sees it yet.
            let early = try await offLoop { try stopped.run("\(begin)\(row), 'early', 7)") }
            #expect(early.state == "00000")
            #expect(try await waves(ground, catalog(ground)).up().count == 1)
            await #expect(throws: (any Error).self) {
                _ = try await offLoop { try stopped.run("COMMIT") }
            }
            let late = try await offLoop { try live.run("\(begin)\(row), 'late', 7); COMMIT") }
            #expect(late.state == "00000")
            #expect(try await ground.psql(owner, "SELECT tag FROM cache_tag") == "late")
            #expect(try await ground.psql(owner, Self.closed) == "\(number)|\(number)")
        }
    }

    @Test("no program that does not know it serves a shard from before its script on")
    func closed() async throws {
        try await withWaveGround(shards: 1) { ground in
            let number = ground.catalog.shard.count + 1
            let owner = ground.shards[0].owner
            try FaultPoint.arm("migrate.up-closed=fail@1", perform: { _ in })
            defer { FaultPoint.disarm() }
            await #expect(throws: FaultPointFailure.self) {
                _ = try await waves(ground, catalog(ground)).up()
            }
            FaultPoint.disarm()
            #expect(try await ground.psql(owner, Self.closed) == "\(number - 1)|\(number)")
            try await ground.psql(
                ground.control.admin,
                "UPDATE migration_rollout SET lease_until = now() - interval '1 s'")
            #expect(try await waves(ground, catalog(ground)).up().count == 1)
            #expect(try await ground.psql(owner, Self.closed) == "\(number)|\(number)")
        }
    }

    @Test(
        "one that fails leaves the shard to older programs, unless nobody knows how far it came",
        arguments: [true, false])
    func failed(isTransactional: Bool) async throws {
        try await withWaveGround(shards: 2) { ground in
            let number = ground.catalog.shard.count + 1
            let error = await waveFailure {
                _ = try await waves(
                    ground,
                    catalog(ground, "DROP INDEX nowhere", isTransactional: isTransactional)
                ).up()
            }
            #expect(error?.code == "rollout-halted" && error?.message.contains("nowhere") == true)
            let first = try await ground.psql(ground.shards[0].owner, Self.closed)
            #expect(first == (isTransactional ? "" : "\(number - 1)|\(number)"))
            #expect(try await ground.psql(ground.shards[1].owner, Self.closed).isEmpty)
        }
    }

    @Test("a ledger that was opened again meanwhile lets no script run")
    func opened() async throws {
        try await withWaveGround(shards: 1) { ground in
            let next = catalog(ground)
            let runner = MigrationRunner(plane: ground.plane(), catalog: next)
            let migration = try #require(next.shard.last)
            let target = MigrationRunner.Target(
                connection: try await runner.plane.shard(reference: "s01", .owner), database: "s01",
                reference: "s01")
            let error = await waveFailure { try await runner.apply(migration, to: target) }
            #expect(error?.message.contains("another run has changed the ledger") == true)
            #expect(try await ground.versions() == [ground.catalog.shard.count])
        }
    }
}
