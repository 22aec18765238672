import CLinux
import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy
import HCTesting

@testable import HCControl

/// A control database and shard databases `s01`, `s02`, … of a test's own, all of them up to date and empty.
@LoopActor
final class WaveGround {
    nonisolated let services: LocalServices
    nonisolated let control: ControlDatabase
    nonisolated let shards: [ShardDatabase]
    private let directory: String
    private let configuration: PlatformConfiguration
    private var planes: [ControlPlane] = []
    /// The migrations as they are, and as they would be with one more of a test's own.
    let catalog: MigrationCatalog

    static func make(
        shards count: Int,
        on servers: @escaping @Sendable () throws -> LocalServices = LocalServices.shared
    ) async throws -> WaveGround {
        let (services, control, shards) = try await offLoop {
            let services = try servers()
            return (
                services, try services.makeControlDatabase(),
                try (0..<count).map { _ in try services.makeShardDatabase() }
            )
        }
        let ground = try WaveGround(services, control, shards)
        let fingerprint = try await ground.psql(shards[0].owner, "SELECT hc_schema_fingerprint()")
        let lines = (1...count).map { number in
            let id = ground.id(number)
            return "('\(id)', '\(id)', '1', 1, \(number), '\(id)', \(ground.catalog.shard.count),"
                + " '\(fingerprint)')"
        }
        try await ground.psql(
            control.admin,
            """
            INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name, schema_version,
                schema_fingerprint)
            VALUES \(lines.joined(separator: ", "))
            """)
        return ground
    }

    private init(
        _ services: LocalServices, _ control: ControlDatabase, _ shards: [ShardDatabase]
    ) throws {
        self.services = services
        self.control = control
        self.shards = shards
        catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
        var template = Array("/tmp/hc-waves-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        let path = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        directory = path
        guard mkdir("\(path)/shards", 0o700) == 0 else { throw FixtureError("mkdir failed") }
        func write(_ name: String, _ text: String) throws {
            try Files.replace("\(path)/\(name)", with: Array(text.utf8), mode: 0o600)
        }
        try write("control.admin.conninfo", "\(control.admin)")
        try write("control.owner.conninfo", "\(control.owner)")
        for (index, shard) in shards.enumerated() {
            let file = "shards/s\(index < 9 ? "0" : "")\(index + 1)"
            try write("\(file).owner.conninfo", "\(shard.owner)")
            try write("\(file).mover.conninfo", "\(shard.mover)")
            try write("\(file).app.conninfo", "\(shard.app)")
        }
        try write("master.key", Hex.encode((0..<32).map { _ in UInt8.random(in: .min ... .max) }))
        configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(path)","secretsDirectory":"\(path)",
                 "masterKeyFile":"\(path)/master.key","tokenKeyFile":"\(path)/token.key",
                 "redis":{"socket":"\(path)/redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
    }

    nonisolated func id(_ number: Int) -> String { "s\(number < 10 ? "0" : "")\(number)" }

    var deadline: Deadline { .after(.seconds(60), from: Loop.now) }

    /// The catalog with one more migration of the shards.
    func catalog(
        adding sql: String, checksum: String = "c", backfill: String? = nil,
        contract: String? = nil, verify: String? = nil, down: String? = nil,
        terms: MigrationTerms = MigrationTerms()
    ) -> MigrationCatalog {
        MigrationCatalog(
            control: catalog.control,
            shard: catalog.shard + [
                Migration(
                    version: catalog.shard.count + 1, name: "later", checksum: checksum, sql: sql,
                    backfill: backfill, contract: contract, verify: verify, down: down, terms: terms
                )
            ])
    }

    /// As another process would have it.
    func plane(
        _ name: String = "ann", progress: @escaping @Sendable (String) -> Void = { _ in }
    ) -> ControlPlane {
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: name, progress: progress)
        planes.append(plane)
        return plane
    }

    func close() async {
        for plane in planes { await plane.close() }
        let directory = directory
        do {
            try await offLoop { _ = try Subprocess.run("/bin/rm", ["-rf", directory]) }
        } catch {
            print("the ground was not left clean: \(error)")
        }
    }

    /// Rows as lines, without the last line's end.
    @discardableResult
    func psql(_ conninfo: Conninfo, _ sql: String) async throws -> String {
        let services = services
        let text = try await offLoop { try services.psql(conninfo, sql) }
        return text.last == "\n" ? String(text.dropLast()) : text
    }

    func session(_ conninfo: Conninfo) async throws -> SQLSession {
        let services = services
        return try await offLoop { try services.session(conninfo) }
    }

    /// As if the server of a shard were down: nothing answers where its connection file says.
    func takeDown(_ number: Int) throws {
        try Files.replace(
            "\(directory)/shards/\(id(number)).owner.conninfo",
            with: Array("host=\(directory) port=1 dbname=none user=hc_owner".utf8), mode: 0o600)
    }

    /// What a shard's ledger says, of each in their order.
    func versions() async throws -> [Int] {
        var versions: [Int] = []
        for shard in shards {
            versions.append(
                Int(try await psql(shard.owner, "SELECT max(version) FROM hc_schema")) ?? 0)
        }
        return versions
    }
}

/// Runs `body` on a ground of its own.
@LoopActor
func withWaveGround(
    shards: Int = 10,
    on servers: @escaping @Sendable () throws -> LocalServices = LocalServices.shared,
    _ body: @LoopActor (WaveGround) async throws -> Void
) async throws {
    let ground = try await WaveGround.make(shards: shards, on: servers)
    do {
        try await body(ground)
    } catch {
        await ground.close()
        throw error
    }
    await ground.close()
}

@LoopActor
func waveFailure(_ body: () async throws -> Void) async -> ControlError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? ControlError
    }
}
