package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// A process that serves, as it has last reported itself.
package struct ServingProcess: Sendable {
    /// At the end of its sessions' names: `ProcessReport.sessionName`.
    let id: UUID
    package let name: String
    package let host: String
    package let processIdentifier: Int
    /// The release.
    package let version: String
    /// With which schemas it works.
    package let control: SchemaRange
    package let shard: SchemaRange
    /// Shards that it does not serve, with reasons.
    package let refused: [(shard: String, reason: String)]
    /// Since its last report.
    package let silence: Duration

    package var isLive: Bool { silence < ProcessRegistry.silenceMax }

    package var json: JSONValue {
        func range(_ range: SchemaRange) -> JSONValue {
            [
                "lowest": .integer(Int64(range.lowest)),
                "highest": .integer(Int64(range.highest)),
            ]
        }
        return [
            "name": .string(name), "host": .string(host),
            "pid": .integer(Int64(processIdentifier)), "version": .string(version),
            "control": range(control), "shard": range(shard),
            "refused": .array(
                refused.map { ["shard": .string($0.shard), "reason": .string($0.reason)] }),
            "silentSeconds": .integer(silence.inMilliseconds / 1000),
        ]
    }
}

/// Who serves now, and for whom a contract has to wait: the table `program_process`.
@LoopActor
package struct ProcessRegistry {
    package enum Database: Sendable {
        case control
        case shard
    }

    /// A process that has been silent for so long is gone. One that only cannot report looks at the ledger of each of its
    /// shards every second by then (`SchemaMachine`), and refuses those that it does not know. What it has under way there,
    /// or would begin before it looks, a contract ends with its sessions (`MigrationRunner.endSessions`).
    package nonisolated static let silenceMax = Duration.seconds(30)

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// By host and number.
    package func live() async throws -> [ServingProcess] {
        try await reported().filter(\.isLive)
    }

    /// Those too of which nothing was heard lately: they ended without a word, or cannot report. After a day they are
    /// forgotten. None if the control database has no table for them yet: then no program that looks at ledgers has ever
    /// served.
    func reported() async throws -> [ServingProcess] {
        try await plane.attempt("the processes that serve cannot be read") {
            let connection = try await plane.control()
            let exists = try await connection.execute(
                Query("SELECT to_regclass('public.program_process') IS NOT NULL"),
                deadline: plane.deadline
            ).single().bool(0)
            guard exists else { return [] }
            return try await connection.execute(
                Query(
                    """
                    SELECT name, host, process_id, version, control_lowest, control_highest, shard_lowest, shard_highest,
                        refused, (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::int8, id
                    FROM program_process ORDER BY host, process_id
                    """), deadline: plane.deadline
            ).rows.map { try ServingProcess($0) }
        }
    }

    /// Those that go on serving through a contract.
    ///
    /// - Parameter version: the migration that a program must know from then on.
    func survivors(of version: Int) async throws -> [ServingProcess] {
        try await live().filter { $0.shard.highest >= version }
    }

    /// Those that would not survive a contract.
    ///
    /// - Parameter version: the migration that a program must know from then on.
    package func blockers(
        of version: Int, in database: Database
    ) async throws -> [ServingProcess] {
        try await live().filter { process in
            switch database {
            case .control: process.control.highest < version
            case .shard: process.shard.highest < version
            }
        }
    }
}

extension ServingProcess {
    fileprivate init(_ row: PostgresRow) throws {
        id = try row.uuid(10)
        name = try row.text(0)
        host = try row.text(1)
        processIdentifier = try row.int(2)
        version = try row.text(3)
        control = SchemaRange(lowest: try row.int(4), highest: try row.int(5))
        shard = SchemaRange(lowest: try row.int(6), highest: try row.int(7))
        refused = (try JSONReader.parse(try row.json(8)).asArray ?? []).compactMap { entry in
            guard let shard = entry["shard"]?.asString, let reason = entry["reason"]?.asString
            else { return nil }
            return (shard, reason)
        }
        silence = .milliseconds(try row.int(9))
    }
}
