import CLinux
import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy
import HCTesting

@testable import HCControl

/// A control database of a test's own, with one shard that nobody connects to and clinics in two tiers, and
/// operators who work on it.
@LoopActor
final class ControlGround {
    nonisolated let services: LocalServices
    nonisolated let database: ControlDatabase
    private let directory: String
    private let configuration: PlatformConfiguration
    private let threads = BlockingPool()
    private var planes: [ControlPlane] = []

    static func make() async throws -> ControlGround {
        let threads = BlockingPool()
        let (services, database) = try await threads.run(
            deadline: .after(.seconds(120), from: Loop.now)
        ) {
            let services = try LocalServices.shared()
            return (services, try services.makeControlDatabase())
        }
        let ground = try ControlGround(services, database)
        try await ground.psql(
            """
            INSERT INTO tier (name, definition) VALUES
                ('basic', '{"name":"basic","unitsPerSecond":50,"burstUnits":1000}'),
                ('large', '{"name":"large","weight":9,"unitsPerSecond":500,"burstUnits":5000}'),
                ('trial', '{"name":"trial","unitsPerSecond":5,"burstUnits":500}');
            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name, capacity) VALUES
                ('s1', 's1', '1', 1, 1, 's1', 10);
            INSERT INTO tenant (id, slug, name, tier, state) VALUES
                ('018f0000-0000-7000-8000-00000000000a', 'sunrise', 'Sunrise', 'basic', 'active'),
                ('018f0000-0000-7000-8000-00000000000b', 'lakeside', 'Lakeside', 'basic', 'active');
            INSERT INTO placement (tenant_id, shard_id, state) SELECT id, 's1', 'serving' FROM tenant;
            INSERT INTO domain (host, tenant_id, kind, verified_at)
                SELECT slug || '.localhost', id, 'platform', now() FROM tenant;
            """)
        return ground
    }

    private init(_ services: LocalServices, _ database: ControlDatabase) throws {
        self.services = services
        self.database = database
        var template = Array("/tmp/hc-control-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try Files.replace(
            "\(directory)/control.admin.conninfo", with: Array("\(database.admin)".utf8),
            mode: 0o600)
        let key = (0..<32).map { _ in UInt8.random(in: .min ... .max) }
        try Files.replace(
            "\(directory)/master.key", with: Array(Hex.encode(key).utf8), mode: 0o600)
        configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(directory)","secretsDirectory":"\(directory)",
                 "masterKeyFile":"\(directory)/master.key","tokenKeyFile":"\(directory)/token.key",
                 "redis":{"socket":"\(directory)/redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
    }

    var deadline: Deadline { .after(.seconds(30), from: Loop.now) }

    /// A connection of its own for each operator, as for each command.
    func plane(_ name: String) -> ControlPlane {
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: name, progress: { _ in })
        planes.append(plane)
        return plane
    }

    func close() async {
        for plane in planes { await plane.close() }
        for file in ["control.admin.conninfo", "master.key"] { unlink("\(directory)/\(file)") }
        rmdir(directory)
    }

    /// Rows as lines, without the last line's end.
    @discardableResult
    func psql(_ sql: String) async throws -> String {
        let (services, admin) = (services, database.admin)
        let text = try await threads.run(deadline: deadline) { try services.psql(admin, sql) }
        return text.last == "\n" ? String(text.dropLast()) : text
    }

    /// A worker's own view of the directory, which polls so rarely that only news can bring a change.
    func follower() async throws -> DirectoryFollower {
        let router = Sensitive("\(database.router)")
        var configuration = DirectoryConfiguration(applicationName: "control-test", file: nil) {
            router
        }
        configuration.pollInterval = .seconds(600)
        let follower = DirectoryFollower(
            configuration, clocks: .system, logger: .silent,
            metrics: TenancyMetrics(MetricsRegistry()), blocking: threads)
        _ = try await follower.load(deadline: deadline)
        return follower
    }
}

/// Runs `body` on a ground of its own.
@LoopActor
func withGround(_ body: @LoopActor (ControlGround) async throws -> Void) async throws {
    let ground = try await ControlGround.make()
    do {
        try await body(ground)
    } catch {
        await ground.close()
        throw error
    }
    await ground.close()
}
