import HCControl
import HCCore
import HCIO

struct MigrateDrift: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "drift"],
        summary: "Says which shards have another schema than most of them, and in what.",
        discussion: """
            A line with '+' is there and at most shards not, one with '-' the other way round. Exit status 3 if a
            shard differs, 1 if one could not be looked at.
            """,
        examples: ["migrate drift", "migrate drift --json"])

    /// So many facts of a shard are shown; `--json` has all.
    private static let factsMax = 20

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let lines = try await SchemaDrift(plane: try environment.plane()).run()
        let table = Table(
            header: ["SHARD", "VERSION", "FINGERPRINT", "DIFFERS"],
            rows: lines.map {
                [
                    $0.shard, "\($0.version)", String($0.fingerprint.prefix(16)),
                    $0.problem != nil ? "unknown" : $0.isDifferent ? "yes" : "no",
                ]
            })
        let details = lines.flatMap { line in
            let facts = line.extra.map { "+ \($0)" } + line.missing.map { "- \($0)" }
            let shown = facts.prefix(MigrateDrift.factsMax).map { fact in
                "\(line.shard): \(fact.split(separator: "\n").first ?? "")"
            }
            let rest = facts.count - shown.count
            return (line.problem.map { ["\(line.shard): \($0)"] } ?? []) + shown
                + (rest > 0 ? ["\(line.shard): and \(rest) more"] : [])
        }
        return Report(
            json: [
                "shards": .array(
                    lines.map { line in
                        [
                            "id": .string(line.shard), "version": .integer(Int64(line.version)),
                            "fingerprint": .string(line.fingerprint),
                            "isDifferent": .bool(line.isDifferent),
                            "extra": .array(line.extra.map { .string($0) }),
                            "missing": .array(line.missing.map { .string($0) }),
                            "problem": line.problem.map { .string($0) } ?? .null,
                        ]
                    })
            ],
            text: ([table.render()] + details).joined(separator: "\n"),
            status: lines.contains { $0.isDifferent }
                ? .refused : lines.contains { $0.problem != nil } ? .failed : .done)
    }
}
