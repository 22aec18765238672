import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy

/// A database of the linter's own: made on a server that holds others, and removed again.
///
/// Its name is new, so no database that is there can be meant. One that a killed linter left behind is removed by the next.
@LoopActor
final class LintScratch {
    let owner: PostgresConnection
    /// How `owner` was reached.
    let access: PostgresConfiguration
    private let maintenance: PostgresConnection
    let name: String
    private let plane: ControlPlane

    /// How a left-over is told from somebody's database of the same name.
    private static let comment = "hc-admin migrate lint: may be dropped at any time"
    /// Linters of one server take turns: a left-over is then nobody's.
    private static let turnTimeout = Duration.seconds(120)

    /// - Parameters:
    ///   - server: `control` or `shards/REFERENCE`: whose connection files are used.
    ///   - watches: whether PostgreSQL is asked to tell which tables are written anew.
    static func make(
        plane: ControlPlane, server: String, watches: Bool = true
    ) async throws -> LintScratch {
        let maintenance = try await connect(plane, "\(server).superuser", to: "postgres")
        do {
            try await maintenance.executeScript(
                "SET statement_timeout = 0; SELECT pg_advisory_lock(2, 0)",
                deadline: .after(turnTimeout, from: plane.clocks.monotonic()))
            try await removeLeftovers(plane, maintenance)
            let suffix = (0..<8).map { _ in UInt8.random(in: .min ... .max) }
            let name = "hc_lint_\(Hex.encode(suffix))"
            for statement in [
                "CREATE DATABASE \(name) OWNER hc_owner TEMPLATE template0",
                "COMMENT ON DATABASE \(name) IS '\(comment)'",
                "REVOKE ALL ON DATABASE \(name) FROM PUBLIC",
                "ALTER DATABASE \(name) SET track_counts = on",
            ] {
                try await maintenance.executeScript(statement, deadline: plane.deadline)
            }
            do {
                if watches { try await watchRewrites(plane, server, in: name) }
                let access = try configuration(plane, "\(server).owner", to: name)
                let owner = try await connect(plane, "\(server).owner", to: name)
                return LintScratch(plane, maintenance, owner, access, name)
            } catch {
                try await drop(name, plane, maintenance)
                throw error
            }
        } catch {
            maintenance.close()
            guard let error = error as? PostgresError else { throw error }
            throw ControlPlane.failure(error, attempting: "no scratch database could be made")
        }
    }

    private init(
        _ plane: ControlPlane, _ maintenance: PostgresConnection, _ owner: PostgresConnection,
        _ access: PostgresConfiguration, _ name: String
    ) {
        self.plane = plane
        self.access = access
        self.maintenance = maintenance
        self.owner = owner
        self.name = name
    }

    func remove() async throws {
        owner.close()
        defer { maintenance.close() }
        try await plane.attempt("the scratch database \(name) could not be dropped") {
            try await LintScratch.drop(name, plane, maintenance)
        }
    }

    // MARK: Details

    private static func drop(
        _ name: String, _ plane: ControlPlane, _ maintenance: PostgresConnection
    ) async throws(PostgresError) {
        try await maintenance.executeScript(
            "DROP DATABASE IF EXISTS \(name) WITH (FORCE)", deadline: plane.deadline)
    }

    private static func removeLeftovers(
        _ plane: ControlPlane, _ maintenance: PostgresConnection
    ) async throws {
        let left = try await maintenance.execute(
            Query(
                """
                SELECT datname::text FROM pg_database
                WHERE datname ~ '^hc_lint_[0-9a-f]{16}$' AND shobj_description(oid, 'pg_database') = $1
                """, [.text(comment)]), deadline: plane.deadline)
        for row in left.rows {
            try await drop(try row.text(0), plane, maintenance)
        }
    }

    /// PostgreSQL tells event triggers, and nobody else, why ALTER TABLE writes a table anew.
    private static func watchRewrites(
        _ plane: ControlPlane, _ server: String, in name: String
    ) async throws {
        let superuser = try await connect(plane, "\(server).superuser", to: name)
        defer { superuser.close() }
        try await superuser.executeScript(
            """
            CREATE SCHEMA hc_lint;
            CREATE FUNCTION hc_lint.note_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_catalog.set_config('hc_lint.rewrites', pg_catalog.concat(
                    pg_catalog.current_setting('hc_lint.rewrites', true),
                    pg_catalog.pg_event_trigger_table_rewrite_oid(), ':',
                    pg_catalog.pg_event_trigger_table_rewrite_reason(), ' '), true);
            END $$;
            CREATE EVENT TRIGGER hc_lint ON table_rewrite EXECUTE FUNCTION hc_lint.note_rewrite();
            """, deadline: plane.deadline)
    }

    private static func configuration(
        _ plane: ControlPlane, _ file: String, to database: String
    ) throws -> PostgresConfiguration {
        var configuration = PostgresConfiguration(
            connectionString: try plane.configuration.conninfo(file),
            applicationName: "hc-admin lint")
        configuration.database = database
        return configuration
    }

    private static func connect(
        _ plane: ControlPlane, _ file: String, to database: String
    ) async throws -> PostgresConnection {
        do {
            return try await PostgresConnection.connect(
                configuration(plane, file, to: database),
                deadline: .after(ControlPlane.connectTimeout, from: plane.clocks.monotonic()))
        } catch {
            throw ControlError(
                .failed, code: "server-unreachable",
                "the server of \(file).conninfo cannot be reached, or has no database \(database)",
                remedy:
                    "Name a shard with --shard whose superuser.conninfo and owner.conninfo are here.",
                cause: error)
        }
    }
}
