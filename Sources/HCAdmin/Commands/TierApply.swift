import HCControl
import HCCore
import HCIO
import HCTenancy

struct TierApply: Command {
    static let specification = CommandSpecification(
        path: ["tier", "apply"], summary: "Makes the tiers those of a file, showing what changes.",
        discussion: """
            The file is validated as a whole before anything is changed. Running servers follow within a
            second. A tier that clinics use cannot be removed.
            """,
        options: [
            .value("file", "FILE", "The tiers; tiers.json of the tenants directory unless given.")
        ],
        changes: true, examples: ["tier apply --dry-run", "tier apply --file tenants/tiers.json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let file = invocation.option("file") ?? "\(plane.configuration.tenantsDirectory)/tiers.json"
        let wanted = try TierRegistry.load(file: file)
        let changes = try await TierRegistry(plane: plane).apply(
            wanted, dryRun: invocation.isDryRun)
        let lines = changes.flatMap { change in
            ["\(change.kind.rawValue) \(change.tier)"] + change.fields.map { "    \($0)" }
        }
        return Report(
            json: [
                "applied": .bool(!invocation.isDryRun),
                "changes": .array(
                    changes.map { change in
                        [
                            "kind": .string(change.kind.rawValue), "tier": .string(change.tier),
                            "fields": .array(change.fields.map { .string($0) }),
                        ]
                    }),
            ],
            text: changes.isEmpty
                ? "the tiers are as in \(file) already"
                : (lines + [invocation.isDryRun ? "nothing was changed (--dry-run)" : "applied"])
                    .joined(separator: "\n"))
    }
}
