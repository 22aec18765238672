import HCControl
import HCCore
import HCIO

struct TenantShow: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "show"], summary: "Shows one clinic: where it is and what it may use.",
        arguments: [.init(name: "SLUG", help: "The clinic.")],
        examples: ["tenant show sunrise", "tenant show sunrise --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let tenant = try await TenantRegistry(plane: try environment.plane()).find(
            invocation.argument(0))
        return Report(
            json: tenant.json,
            text: HelpText.columns([
                ("id", "\(tenant.id.uuid)"), ("slug", tenant.slug), ("name", tenant.name),
                ("host", tenant.host), ("state", tenant.state), ("tier", tenant.tier),
                ("shard", "\(tenant.shard), epoch \(tenant.epoch)"),
                ("created", tenant.createdAt.rfc3339),
                (
                    "origins",
                    tenant.origins.isEmpty ? "none" : tenant.origins.joined(separator: " ")
                ),
            ]).trimmedFinalNewline)
    }
}
