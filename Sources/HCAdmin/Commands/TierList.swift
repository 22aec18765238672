import HCControl
import HCCore
import HCIO

struct TierList: Command {
    static let specification = CommandSpecification(
        path: ["tier", "list"], summary: "Lists the tiers and how many clinics use each.",
        examples: ["tier list", "tier list --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let tiers = try await TierRegistry(plane: try environment.plane()).list()
        let json: [JSONValue] = tiers.map { tier in
            [
                "name": .string(tier.name), "version": .integer(Int64(tier.version)),
                "tenants": .integer(Int64(tier.tenants)), "definition": tier.definition,
            ]
        }
        let table = Table(
            header: ["TIER", "VERSION", "CLINICS", "DEFINITION"],
            rows: tiers.map {
                [
                    $0.name, "\($0.version)", "\($0.tenants)",
                    String(decoding: $0.definition.serialized, as: UTF8.self),
                ]
            })
        return Report(
            json: ["tiers": .array(json)],
            text: tiers.isEmpty ? "no tier; apply some: hc-admin tier apply" : table.render())
    }
}
