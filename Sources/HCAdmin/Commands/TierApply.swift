import HCControl
import HCCore
import HCIO
import HCTenancy

struct TierApply: Command {
    static let specification = CommandSpecification(
        path: ["tier", "apply"], summary: "Makes the tiers those of a file, showing what changes.",
        discussion: """
            The file is validated as a whole before anything is changed. At a terminal the changes are shown
            and asked about. Running servers follow within a second. A tier that clinics use cannot be
            removed; one that nobody uses is removed if it is named with --remove. If somebody else changes
            the tiers meanwhile, nothing is changed (exit 5).
            """,
        options: [
            .value("file", "FILE", "The tiers; tiers.json of the tenants directory unless given."),
            .values("remove", "TIER", "Lets it go: it is not in the file; may be given again."),
            .reason, .yes,
        ],
        changes: true,
        examples: [
            "tier apply --dry-run",
            "tier apply --file tenants/tiers.json --reason \"agreed with the clinics of May\"",
            "tier apply --remove trial --yes",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let reason = try invocation.reason()
        let plane = try environment.plane()
        let file = invocation.option("file") ?? "\(plane.configuration.tenantsDirectory)/tiers.json"
        let wanted = try TierRegistry.load(file: file)
        let registry = TierRegistry(plane: plane)
        let plan = try await registry.plan(wanted, removals: Set(invocation.values("remove")))
        let lines = plan.changes.flatMap(TierApply.lines)
        if !invocation.isDryRun, !plan.changes.isEmpty {
            try environment.confirm(lines, invocation)
            try await registry.apply(plan, reason: reason)
        }
        let isApplied = !invocation.isDryRun && !plan.changes.isEmpty
        return Report(
            json: [
                "applied": .bool(isApplied), "changes": .array(plan.changes.map(\.json)),
            ],
            text: plan.changes.isEmpty
                ? "the tiers are as in \(file) already"
                : (lines + [isApplied ? "applied" : "nothing was changed (--dry-run)"])
                    .joined(separator: "\n"))
    }

    static func lines(_ change: TierPlan.Change) -> [String] {
        let clinics = change.tenants == 1 ? "1 clinic" : "\(change.tenants) clinics"
        let head =
            switch change.kind {
            case .add: "+ \(change.tier)"
            case .remove: "- \(change.tier)"
            case .change: "~ \(change.tier) (\(clinics))"
            }
        return [head] + change.differences.map { "    \($0)" }
    }
}
