import HCControl
import HCCore
import HCIO

struct MigrateSchema: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "schema"],
        summary: "Compares schema.sql with what the migrations make, or writes it.",
        discussion: """
            The migrations are applied to a scratch database on the control database's server, as 'migrate lint' does it,
            and pg_dump says what came of them. Exit status 3 if a schema.sql is not that.
            """,
        options: [
            .value("migrations", "DIR", "Directory of migrations."),
            .value("pg-dump", "PATH", "The program; else the first of PATH."),
            .flag("write", "Write control/schema.sql and shard/schema.sql."),
        ],
        examples: ["migrate schema", "migrate schema --write --migrations migrations"])

    private static let bytesMax = 16 << 20

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let directory = try environment.migrationsDirectory(invocation.option("migrations"))
        guard
            let program = invocation.option("pg-dump")
                ?? MigrationSchema.findProgram(path: environment.programPath)
        else {
            throw ControlError(
                .failed, code: "dump-missing", "pg_dump is not in PATH",
                remedy: "Install postgresql-client, or say where it is with --pg-dump.")
        }
        let schema = MigrationSchema(
            plane: try environment.plane(),
            catalog: try environment.catalog(invocation.option("migrations")), program: program)
        var lines: [(file: String, isCurrent: Bool)] = []
        for set in [MigrationLint.DatabaseSet.control, .shard] {
            let file = "\(directory)/\(set.rawValue)/schema.sql"
            let bytes = Array(try await schema.text(of: set).utf8)
            let isCurrent = try MigrateSchema.contents(of: file) == bytes
            if !isCurrent, invocation.flag("write") {
                try Files.replace(file, with: bytes, mode: 0o644)
            }
            lines.append((file, isCurrent))
        }
        let isWritten = invocation.flag("write")
        return Report(
            json: [
                "schemas": .array(
                    lines.map { ["file": .string($0.file), "isCurrent": .bool($0.isCurrent)] }),
                "isWritten": .bool(isWritten),
            ],
            text: lines.map { line in
                line.isCurrent
                    ? "\(line.file) is current"
                    : isWritten
                        ? "\(line.file) was written"
                        : "\(line.file) is not what the migrations make: 'hc-admin migrate schema --write'"
            }.joined(separator: "\n"),
            status: isWritten || lines.allSatisfy(\.isCurrent) ? .done : .refused)
    }

    /// - Returns: nil if it is not there.
    private static func contents(of file: String) throws -> [UInt8]? {
        do {
            return try Files.read(file, bytesMax: bytesMax)
        } catch {
            if error.isMissing { return nil }
            throw error
        }
    }
}
