import HCControl
import HCCore
import HCIO

struct TenantSetTier: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "set-tier"],
        summary: "Gives a clinic another tier, showing which limits change.",
        discussion: """
            At a terminal the change is shown and asked about. Running servers follow within a second; units
            that were used stay used. If somebody else changes the clinic meanwhile, nothing is changed
            (exit 5).
            """,
        arguments: [
            .init(name: "SLUG", help: "The clinic."),
            .init(name: "TIER", help: "Its new tier; see 'hc-admin tier list'."),
        ],
        options: [.reason, .yes], changes: true,
        examples: [
            "tenant set-tier sunrise enterprise --dry-run",
            "tenant set-tier sunrise enterprise --reason \"contract of May\" --json",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let reason = try invocation.reason()
        let tiers = TenantTier(plane: try environment.plane())
        let plan = try await tiers.plan(invocation.argument(0), tier: invocation.argument(1))
        let lines =
            ["~ \(plan.tenant.slug): \(plan.from.name) -> \(plan.to.name)"]
            + plan.differences.map { "    \($0)" } + plan.warnings.map { "warning: \($0)" }
        let isApplied = plan.isChange && !invocation.isDryRun
        if isApplied {
            try environment.confirm(lines, invocation)
            try await tiers.apply(plan, reason: reason)
        }
        return Report(
            json: plan.json.adding(["applied": .bool(isApplied)]),
            text: plan.isChange
                ? (lines + [isApplied ? "applied" : "nothing was changed (--dry-run)"])
                    .joined(separator: "\n")
                : "'\(plan.tenant.slug)' is in tier '\(plan.to.name)' already")
    }
}
