import CLinux
import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting

@testable import HCControl

/// A control database and two shards of a test's own, as an operator's commands meet them: forty clinics, `c1` to `c40`,
/// all on `s1`.
@LoopActor
final class RebalanceGround {
    nonisolated let services: LocalServices
    nonisolated let control: ControlDatabase
    nonisolated let shards: [ShardDatabase]
    private let directory: String
    private let threads: BlockingPool
    let plane: ControlPlane

    nonisolated static func clinic(_ number: Int) -> TenantID {
        TenantID(UUID(high: 0x018f_0000_0000_7000, low: 0x8000_0000_0000_0000 + UInt64(number)))
    }

    static func make() async throws -> RebalanceGround {
        let threads = BlockingPool()
        let (services, control, shards) = try await threads.run(
            deadline: .after(.seconds(120), from: Loop.now)
        ) {
            let services = try LocalServices.shared()
            let shards = [try services.makeShardDatabase(), try services.makeShardDatabase()]
            return (services, try services.makeControlDatabase(), shards)
        }
        let ground = try RebalanceGround(services, control, shards, threads)
        try await ground.fill()
        return ground
    }

    private init(
        _ services: LocalServices, _ control: ControlDatabase, _ shards: [ShardDatabase],
        _ threads: BlockingPool
    ) throws {
        self.services = services
        self.control = control
        self.shards = shards
        self.threads = threads
        var template = Array("/tmp/hc-rebalance-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        let directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.directory = directory
        mkdir("\(directory)/shards", 0o700)
        var files = [("control.admin", control.admin)]
        for (index, shard) in shards.enumerated() {
            files.append(("shards/s\(index + 1).mover", shard.mover))
        }
        for (name, conninfo) in files {
            try Files.replace("\(directory)/\(name).conninfo", with: Array("\(conninfo)".utf8))
        }
        let configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(directory)","secretsDirectory":"\(directory)",
                 "masterKeyFile":"\(directory)/master.key","tokenKeyFile":"\(directory)/token.key",
                 "redis":{"socket":"\(directory)/redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
        plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: "test", progress: { _ in })
    }

    private func fill() async throws {
        try await psql(
            control.admin,
            """
            INSERT INTO tier (name, definition) VALUES ('basic', '{"name":"basic"}');
            """)
        for (index, shard) in shards.enumerated() {
            let connection = try await PostgresConnection.connect(
                PostgresConfiguration(
                    connectionString: Sensitive("\(shard.mover)"), applicationName: "test"),
                deadline: deadline)
            defer { connection.close() }
            guard let identity = try await ShardIdentity(of: connection, deadline: deadline) else {
                throw FixtureError("the shard is a standby")
            }
            try await psql(
                control.admin,
                """
                INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name) VALUES
                    ('s\(index + 1)', 's\(index + 1)', '\(identity.systemIdentifier)', \(identity.timeline),
                     \(identity.databaseOID), 'shard');
                """)
        }
        try await psql(
            control.admin,
            """
            INSERT INTO tenant (id, slug, name, tier, state)
                SELECT ('018f0000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'c' || number, 'Clinic',
                    'basic', 'active'
                FROM generate_series(1, 40) AS number;
            INSERT INTO placement (tenant_id, shard_id, state) SELECT id, 's1', 'serving' FROM tenant;
            """)
        try await psql(
            shards[0].superuser,
            """
            INSERT INTO hc_tenant (tenant_id, epoch, state)
                SELECT ('018f0000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 1, 'rw'
                FROM generate_series(1, 40) AS number;
            """)
    }

    var deadline: Deadline { .after(.seconds(60), from: Loop.now) }

    @discardableResult
    func psql(_ database: Conninfo, _ sql: String) async throws -> String {
        let services = services
        let text = try await threads.run(deadline: .after(.seconds(60), from: Loop.now)) {
            try services.psql(database, sql)
        }
        return text.last == "\n" ? String(text.dropLast()) : text
    }

    /// As workers of the first shard report: microseconds of execution and of connections, rows.
    func report(_ uses: [(clinic: Int, microseconds: Int, rows: Int)]) async throws {
        func list(_ value: ((clinic: Int, microseconds: Int, rows: Int)) -> String) -> String {
            uses.map(value).joined(separator: ",")
        }
        try await psql(
            shards[0].superuser,
            """
            SET ROLE hc_app;
            SELECT hc_load_add('{\(list { "\(Self.clinic($0.clinic))" })}', '{\(list { "\($0.microseconds)" })}',
                '{\(list { "\(2 * $0.microseconds)" })}', '{\(list { "\($0.rows)" })}', '{\(list { "\($0.rows / 2)" })}');
            """)
    }

    /// As if the last sample had been taken so long ago.
    func age(_ seconds: Int) async throws {
        try await psql(
            control.admin,
            "UPDATE shard_load SET sampled_at = sampled_at - interval '\(seconds) s'")
    }

    /// What a move does in the end.
    func place(_ clinic: TenantID, on shard: String) async throws {
        try await psql(
            control.admin,
            "SELECT placement_swap('\(clinic)', epoch, state, '\(shard)', 'serving') FROM placement WHERE tenant_id = '\(clinic)'"
        )
    }

    func close() async {
        await plane.close()
        for name in ["control.admin", "shards/s1.mover", "shards/s2.mover"] {
            unlink("\(directory)/\(name).conninfo")
        }
        rmdir("\(directory)/shards")
        rmdir(directory)
    }
}

/// Runs `body` on a ground of its own.
@LoopActor
func withRebalanceGround(
    _ body: @LoopActor (RebalanceGround) async throws -> Void
) async throws {
    let ground = try await RebalanceGround.make()
    do {
        try await body(ground)
    } catch {
        await ground.close()
        throw error
    }
    await ground.close()
}
