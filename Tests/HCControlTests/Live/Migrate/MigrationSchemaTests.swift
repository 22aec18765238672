import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("schema.sql is what the migrations make", .onLoop, .serialized)
@LoopActor
struct MigrationSchemaTests {
    @Test(
        "as a text: 'hc-admin migrate schema --write' writes it",
        arguments: [
            MigrationLint.DatabaseSet.control, .shard,
        ])
    func text(set: MigrationLint.DatabaseSet) async throws {
        let services = try await offLoop { try LocalServices.shared() }
        let secrets = services.secretsDirectory
        let configuration = try PlatformConfiguration.load(
            Array(
                """
                {"stateDirectory":"\(secrets)","secretsDirectory":"\(secrets)",
                 "masterKeyFile":"\(secrets)/master.key","tokenKeyFile":"\(secrets)/token.key",
                 "redis":{"socket":"\(secrets)/redis"}}
                """.utf8), source: "test", sections: { _ in }
        ).platform
        let plane = ControlPlane(
            configuration: configuration, clocks: .system, operatorName: "schema",
            progress: { _ in })
        let program = try await offLoop { try services.program("pg_dump") }
        let schema = MigrationSchema(
            plane: plane,
            catalog: try MigrationCatalog.load(directory: Repository.path("migrations")),
            program: program)
        let text = try await schema.text(of: set)
        await plane.close()
        let file = try Repository.contents(
            of: Repository.path("migrations/\(set.rawValue)/schema.sql"))
        #expect(file == text, "run 'deploy/local/hc-admin migrate schema --write'")
    }

    @Test("as a database: what it makes has the facts of one that was migrated")
    func database() async throws {
        let services = try await offLoop { try LocalServices.shared() }
        let (made, migrated) = try await offLoop {
            let (empty, shard) = (
                try services.makeEmptyDatabase(), try services.makeShardDatabase()
            )
            try services.psql(empty.owner, try Self.schema("shard"))
            return (try Self.facts(services, empty.owner), try Self.facts(services, shard.owner))
        }
        #expect(made.count > 500 && made == migrated)
    }

    @Test("as a database: the control database's, too")
    func control() async throws {
        let services = try await offLoop { try LocalServices.shared() }
        let (made, migrated) = try await offLoop {
            let empty = try services.makeEmptyDatabase()
            let control = try services.makeControlDatabase()
            try services.psql(empty.owner, try Self.schema("control"))
            return (try Self.facts(services, empty.owner), try Self.facts(services, control.owner))
        }
        #expect(made.count > 300 && made == migrated)
    }

    private nonisolated static func schema(_ set: String) throws -> String {
        try Repository.contents(of: Repository.path("migrations/\(set)/schema.sql"))
    }

    /// What the fingerprint is made of, without parentheses: PostgreSQL leaves some of them out when it reads an
    /// expression that it has written itself.
    private nonisolated static func facts(
        _ services: LocalServices, _ conninfo: Conninfo
    ) throws -> Set<String> {
        let source = try services.psql(
            conninfo,
            "SELECT split_part(prosrc, 'SELECT encode(sha256(', 1) FROM pg_proc WHERE proname = 'hc_schema_fingerprint'"
        )
        let facts = try services.psql(
            conninfo,
            "SET search_path = pg_catalog, pg_temp; \(source) SELECT line FROM fact WHERE line IS NOT NULL"
        )
        return Set(
            facts.filter { $0 != "(" && $0 != ")" }.split(separator: "\n").map(String.init))
    }
}
