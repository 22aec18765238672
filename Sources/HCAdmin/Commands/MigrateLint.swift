import HCControl
import HCCore
import HCIO

struct MigrateLint: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "lint"],
        summary: "Checks migrations before they are run anywhere.",
        discussion: """
            They are applied to scratch databases, made on the control database's server or that of a shard and dropped
            again; no database that is there is touched. The files SERVER.superuser.conninfo and SERVER.owner.conninfo
            must be in the secrets directory. A finding is refused (exit 3). Rules: migrations/README.md.
            """,
        options: [
            .value("migrations", "DIR", "Directory of migrations."),
            .value("shard", "ID", "Use this shard's server."),
        ],
        examples: ["migrate lint", "migrate lint --migrations migrations --shard s1 --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let lint = MigrationLint(
            plane: try environment.plane(),
            catalog: try environment.catalog(invocation.option("migrations")))
        let findings = try await lint.run(shard: invocation.option("shard"))
        return Report(
            json: [
                "findings": .array(
                    findings.map {
                        [
                            "file": .string($0.file), "line": .integer(Int64($0.line)),
                            "rule": .string($0.rule.rawValue), "object": .string($0.object),
                            "reason": .string($0.rule.reason),
                            "safeForm": .string($0.rule.safeForm),
                        ]
                    })
            ],
            text: findings.isEmpty
                ? "every migration is safe"
                : findings.map {
                    """
                    \($0.file):\($0.line): \($0.rule.rawValue): \($0.object)
                        \($0.rule.reason)
                        instead: \($0.rule.safeForm)
                    """
                }.joined(separator: "\n"),
            status: findings.isEmpty ? .done : .refused)
    }
}
