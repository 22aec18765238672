import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// `schema.sql` of a set of migrations: what all of them make, as one script, for people to read and for tests to compare.
///
/// The migrations are applied to a scratch database, and pg_dump writes down what is there.
@LoopActor
package struct MigrationSchema {
    let plane: ControlPlane
    let catalog: MigrationCatalog
    /// Of pg_dump.
    let program: String

    private static let dumpTimeout = Duration.seconds(120)
    private static let bytesMax = 16 << 20
    private static let head = """
        -- Everything that the migrations beside this file make together, as pg_dump tells it.
        -- Written by 'hc-admin migrate schema --write' and never by hand; CI compares.

        SET check_function_bodies = false;
        SELECT pg_catalog.set_config('search_path', '', false);


        """

    package init(plane: ControlPlane, catalog: MigrationCatalog, program: String) {
        self.plane = plane
        self.catalog = catalog
        self.program = program
    }

    /// Where pg_dump is, by `PATH`; nil if nowhere.
    package static func findProgram(path: String?) -> String? {
        (path ?? "/usr/bin:/bin").split(separator: ":").map { "\($0)/pg_dump" }
            .first { Files.isExecutable($0) }
    }

    /// - Parameter server: on which the scratch database is made: `control` or `shards/REFERENCE`.
    /// - Throws: `ControlError`, when there is no server, or pg_dump fails.
    package func text(
        of set: MigrationLint.DatabaseSet, server: String = "control"
    ) async throws -> String {
        let scratch = try await LintScratch.make(plane: plane, server: server, watches: false)
        let text: String
        do {
            var runner = MigrationRunner(plane: plane, catalog: catalog)
            runner.asksServers = false
            let migrations = set == .control ? catalog.control : catalog.shard
            for step in migrations.flatMap(\.steps) {
                _ = try await runner.take(
                    step,
                    at: .init(
                        connection: scratch.owner, database: set.rawValue, reference: nil))
            }
            text = try await dump(scratch)
        } catch {
            try await scratch.remove()
            throw error
        }
        try await scratch.remove()
        return MigrationSchema.head + MigrationSchema.plain(text)
    }

    private func dump(_ scratch: LintScratch) async throws -> String {
        guard let environment = scratch.access.clientEnvironment else {
            preconditionFailure("the scratch database was connected to")
        }
        let file = "\(plane.configuration.stateDirectory)/schema.\(scratch.name).sql"
        defer { Files.remove(file) }
        do {
            let child = try ChildProcess.spawn(
                path: program,
                arguments: [
                    program, "--schema-only", "--no-owner", "--no-password", "--file", file,
                ],
                environment: environment.reveal())
            let status: ChildProcess.ExitStatus
            do {
                status = try await child.exit(
                    deadline: .after(
                        MigrationSchema.dumpTimeout, from: plane.clocks.monotonic()))
            } catch {
                child.signal(9)
                throw error
            }
            guard status.isSuccess else {
                throw ControlError(
                    .failed, code: "dump-failed", "\(program) ended with \(status)",
                    remedy: "Its own words are above.")
            }
            return String(
                decoding: try Files.read(file, bytesMax: MigrationSchema.bytesMax), as: UTF8.self)
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(
                .failed, code: "dump-failed", "\(program) could not be run", cause: error)
        }
    }

    /// Without what another pg_dump would write otherwise: its version, its settings, its comments, blank lines.
    static func plain(_ text: String) -> String {
        var lines: [Substring] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let isNoise = ["--", "SET ", "SELECT pg_catalog.set_config", "\\"]
                .contains { line.hasPrefix($0) }
            guard !isNoise, !(line.isEmpty && lines.last?.isEmpty != false) else { continue }
            lines.append(line)
        }
        return lines.joined(separator: "\n")
    }
}
