import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("A worker and the schemas of its databases", .onLoop)
@LoopActor
struct SchemaTests {
    nonisolated private static let one = Query("SELECT 1")
    nonisolated private static let refused = TenancyError.schemaUnsupported(retryAfter: .seconds(5))
    /// One that was made after this program.
    private let next = SchemaRange.shard.highest + 1

    private func read(_ tenant: TenantID, _ platform: LivePlatform) async throws {
        _ = try await platform.context(tenant).read([Self.one], deadline: platform.deadline)
    }

    private func apply(
        _ version: Int, servesFrom: Int?, to shard: ShardDatabase, _ platform: LivePlatform
    ) async throws {
        try await platform.psql(
            shard.owner,
            """
            INSERT INTO hc_schema (version, name, checksum, fingerprint, serves_from)
            VALUES (\(version), 'later', 'c', 'f', \(servesFrom.map { "\($0)" } ?? "NULL"))
            """)
    }

    @Test(
        "an expand is served; a contract closes that shard and no other, on new connections at once"
    )
    func contract() async throws {
        let platform = try await LivePlatform.make()
        try await apply(next, servesFrom: nil, to: platform.first, platform)
        try await read(LivePlatform.sunrise, platform)
        #expect(platform.shards.schemas.refused.isEmpty)

        let other = try await LivePlatform.make(platform.ground)
        try await apply(next + 1, servesFrom: next, to: platform.first, platform)
        await #expect(throws: Self.refused) { try await read(LivePlatform.sunrise, other) }
        #expect(
            other.shards.schemas.refused.map(\.refusal)
                == [.ahead(servesFrom: next, highest: next - 1)])
        try await read(LivePlatform.lakeside, other)
        #expect(other.shards.schemas.isServing)
        // No clinic has been written to or read: the refusal came before.
        await #expect(throws: Self.refused) {
            try await other.context(LivePlatform.hillview).write(
                [LivePlatform.addPractitioner("Dr No", to: LivePlatform.hillview)],
                audit: [LivePlatform.event("create")], deadline: other.deadline)
        }
        #expect(
            try await platform.psql(platform.first.mover, "SELECT count(*) FROM practitioner")
                == "0\n")
    }

    @Test("what the control database tells closes a shard on open connections, and opens it again")
    func told() async throws {
        let platform = try await LivePlatform.make()
        try await read(LivePlatform.sunrise, platform)
        try await apply(next, servesFrom: next, to: platform.first, platform)
        let looking = Loop.shared.spawn { try? await platform.shards.schemas.run() }
        defer { looking.cancel() }
        try await platform.psql(
            platform.control.admin,
            """
            UPDATE shard SET schema_version = \(next), schema_serves_from = \(next)
            WHERE id = 's1'
            """)
        try await platform.directory.refresh(deadline: platform.deadline)
        try await until(platform) { platform.shards.schemas.refused.count == 1 }
        await #expect(throws: Self.refused) { try await read(LivePlatform.sunrise, platform) }
        try await read(LivePlatform.lakeside, platform)
        // Nobody tells: a refused shard is looked at again and again.
        try await platform.psql(
            platform.first.owner, "DELETE FROM hc_schema WHERE version = \(next)")
        try await until(platform) { platform.shards.schemas.refused.isEmpty }
        try await read(LivePlatform.sunrise, platform)
    }

    @Test("a program that came before the migrations waits for them, and then serves")
    func early() async throws {
        let platform = try await LivePlatform.make {
            $0.schemas = SchemaRange(lowest: 1000, highest: 1000)
        }
        try await platform.psql(
            platform.control.admin, "UPDATE shard SET schema_version = 5")
        try await platform.directory.refresh(deadline: platform.deadline)
        let schemas = platform.shards.schemas
        #expect(!schemas.isServing)
        let serving = Loop.shared.makeTask { try await schemas.untilServing() }
        let looking = Loop.shared.spawn { try? await schemas.run() }
        defer { looking.cancel() }
        try await apply(1000, servesFrom: nil, to: platform.second, platform)
        try await serving.value
        try await read(LivePlatform.lakeside, platform)
        await #expect(throws: Self.refused) { try await read(LivePlatform.sunrise, platform) }
    }

    @Test(
        "a control database that this program does not know is not read, and the map goes on being used"
    )
    func control() async throws {
        let ground = try await LivePlatform.makeGround()
        let platform = try await LivePlatform.make(ground)
        let unknown = SchemaRange.control.highest + 1
        try await platform.psql(
            ground.control.owner,
            """
            INSERT INTO hc_schema (version, name, checksum, fingerprint, serves_from)
            VALUES (\(unknown), 'later', 'c', 'f', \(unknown))
            """)
        await #expect(throws: TenancyError.self) {
            try await platform.directory.refresh(deadline: platform.deadline)
        }
        #expect(
            platform.directory.refusal == .ahead(servesFrom: unknown, highest: unknown - 1))
        try await read(LivePlatform.sunrise, platform)
        let late = try await LivePlatform.make(ground, load: false)
        await #expect(throws: TenancyError.self) {
            _ = try await late.directory.load(deadline: late.deadline)
        }
        try await platform.psql(
            ground.control.owner, "DELETE FROM hc_schema WHERE version = \(unknown)")
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(platform.directory.refusal == nil)
    }

    @Test("a process reports itself, its ranges and what it refuses, and takes its leave")
    func reports() async throws {
        let platform = try await LivePlatform.make()
        var configuration = DirectoryConfiguration(applicationName: "test", file: nil) {
            [router = platform.control.router] in Sensitive("\(router)")
        }
        configuration.reportInterval = .zero
        let id = UUID.v7(at: Clocks.system.now())
        configuration.report = {
            ProcessReport(
                id: id, name: "hc-server worker 0", host: "host-1", processIdentifier: 42,
                version: "9.9.9", shard: SchemaRange(lowest: 5, highest: 7),
                startedAt: Clocks.system.now(),
                refused: [(ShardID("s2"), .behind(version: 4, lowest: 5))])
        }
        let directory = DirectoryFollower(
            configuration, clocks: .system, logger: .silent, metrics: platform.metrics,
            blocking: fixtureThreads)
        _ = try await directory.load(deadline: platform.deadline)
        let question = """
            SELECT name, host, process_id, version, shard_lowest, shard_highest, refused -> 0 ->> 'shard'
            FROM program_process WHERE id = '\(id)'
            """
        #expect(
            try await platform.psql(platform.control.admin, question)
                == "hc-server worker 0|host-1|42|9.9.9|5|7|s2\n")
        // Again, and it is the same line.
        try await directory.refresh(deadline: platform.deadline)
        #expect(
            try await platform.psql(platform.control.admin, "SELECT count(*) FROM program_process")
                == "1\n")
        await directory.leave(deadline: platform.deadline)
        #expect(try await platform.psql(platform.control.admin, question) == "")
    }

    private func until(
        _ platform: LivePlatform, _ isDone: @LoopActor () -> Bool
    ) async throws {
        let limit = platform.deadline
        while !isDone() {
            try #require(!limit.isExpired(at: Loop.now))
            try await Loop.shared.sleep(for: .milliseconds(1))
        }
    }
}
