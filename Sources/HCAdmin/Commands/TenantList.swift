import HCControl
import HCCore
import HCIO

struct TenantList: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "list"], summary: "Lists clinics by slug.",
        options: [
            .value("shard", "ID", "Only those on this shard."),
            .value("state", "STATE", "Only those in this state, such as active or provisioning."),
            .value("tier", "TIER", "Only those of this tier."),
            .value("limit", "N", "At most so many, 1 to 100000; 1000."),
        ],
        examples: ["tenant list", "tenant list --shard s1 --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let limit = try invocation.integer("limit", in: 1...100_000) ?? 1000
        let tenants = try await TenantRegistry(plane: try environment.plane()).list(
            shard: invocation.option("shard"), state: invocation.option("state"),
            tier: invocation.option("tier"), limit: limit)
        let table = Table(
            header: ["SLUG", "STATE", "TIER", "SHARD", "EPOCH", "HOST", "NAME"],
            rows: tenants.map {
                [$0.slug, $0.state, $0.tier, $0.shard, "\($0.epoch)", $0.host, $0.name]
            })
        return Report(
            json: ["tenants": .array(tenants.map(\.json))],
            text: tenants.isEmpty ? "no clinic" : table.render())
    }
}
