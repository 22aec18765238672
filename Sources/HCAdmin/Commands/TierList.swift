import HCControl
import HCCore
import HCIO
import HCTenancy

struct TierList: Command {
    static let specification = CommandSpecification(
        path: ["tier", "list"], summary: "Lists the tiers and how many clinics use each.",
        examples: ["tier list", "tier list --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let tiers = try await TierRegistry(plane: try environment.plane()).list()
        let table = Table(
            header: [
                "TIER", "VERSION", "CLINICS", "WEIGHT", "UNITS/S", "BURST", "IN FLIGHT",
                "DEDICATED",
            ],
            rows: tiers.map { tier in
                let head = [tier.name, "\(tier.version)", "\(tier.tenants)"]
                guard let definition = tier.definition else {
                    return head + ["?", "?", "?", "?", "?"]
                }
                let rule = definition.rates.first { $0.scope == .tenant && $0.classes == nil }
                return head + [
                    "\(definition.weight)", rule.map { "\($0.unitsPerSecond)" } ?? "by class",
                    rule.map { "\($0.capacity)" } ?? "by class", "\(definition.pool.inFlightMax)",
                    "\(definition.pool.dedicatedConnections)",
                ]
            })
        return Report(
            json: ["tiers": .array(tiers.map(TierList.json))],
            text: tiers.isEmpty ? "no tier; apply some: hc-admin tier apply" : table.render())
    }

    static func json(_ tier: Tier) -> JSONValue {
        [
            "name": .string(tier.name), "version": .integer(tier.version),
            "tenants": .integer(Int64(tier.tenants)), "definition": tier.json,
        ]
    }
}
