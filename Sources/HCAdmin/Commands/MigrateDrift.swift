import HCControl
import HCCore
import HCIO

struct MigrateDrift: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "drift"],
        summary: "Says which shards have another schema than most of them, and in what.",
        discussion: """
            A line with '+' is there and at most shards not, one with '-' the other way round. Behind it is what PostgreSQL
            knows of its origin: whose the object is, and since when it is as it is, if the server has
            track_commit_timestamp on. Who did it PostgreSQL does not keep: its log has that, with log_statement = 'ddl'.
            Exit status 3 if a shard differs, 1 if one could not be looked at.
            """,
        examples: ["migrate drift", "migrate drift --json"])

    private static func origin(_ origin: SchemaOrigin?) -> String {
        guard let origin else { return "  [nothing is kept of what is gone]" }
        return "  [\(origin.owner)" + (origin.changedAt.map { ", \($0)" } ?? "") + "]"
    }

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
            let facts = line.extra.map { ("+", $0) } + line.missing.map { ("-", $0) }
            var shown = facts.prefix(MigrateDrift.factsMax).map { sign, fact in
                "\(line.shard): \(sign) \(fact.split(separator: "\n").first ?? "")"
                    + MigrateDrift.origin(line.origins[fact])
            }
            let rest = facts.count - min(facts.count, MigrateDrift.factsMax)
            if line.isDifferent, !line.keepsTimes {
                shown.append(
                    "\(line.shard): since when is not known: track_commit_timestamp is off there")
            }
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
                            "origins": .array(
                                line.origins.sorted { $0.key < $1.key }.map { fact, origin in
                                    [
                                        "fact": .string(fact), "owner": .string(origin.owner),
                                        "changedAt": origin.changedAt.map { .string($0) } ?? .null,
                                    ]
                                }),
                            "keepsTimes": .bool(line.keepsTimes),
                            "problem": line.problem.map { .string($0) } ?? .null,
                        ]
                    })
            ],
            text: ([table.render()] + details).joined(separator: "\n"),
            status: lines.contains { $0.isDifferent }
                ? .refused : lines.contains { $0.problem != nil } ? .failed : .done)
    }
}
