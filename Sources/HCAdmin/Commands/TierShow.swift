import HCControl
import HCCore
import HCIO
import HCTenancy

struct TierShow: Command {
    static let specification = CommandSpecification(
        path: ["tier", "show"], summary: "Shows every limit of one tier.",
        arguments: [.init(name: "TIER", help: "Its name.")],
        examples: ["tier show standard", "tier show standard --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let tier = try await TierRegistry(plane: try environment.plane()).find(
            invocation.argument(0))
        return Report(json: TierList.json(tier), text: TierShow.text(tier))
    }

    private static func text(_ tier: Tier) -> String {
        var rows = [
            ("tier", "\(tier.name), version \(tier.version), \(tier.tenants) clinics")
        ]
        guard let definition = tier.definition else {
            rows.append(("definition", "cannot be read by this program: \(tier.stored.text)"))
            return HelpText.columns(rows).trimmedFinalNewline
        }
        let pool = definition.pool
        let timeouts = definition.timeouts
        rows.append(("weight", "\(definition.weight)"))
        for rule in definition.rates { rows.append(("rate \(rule.name)", text(rule))) }
        rows += [
            ("safety reserve", "\(definition.safetyReservePercent) percent"),
            (
                "pool",
                "\(pool.inFlightMax) in flight, \(pool.waitingMax) waiting up to"
                    + " \(Quantity.text(pool.queueTimeout)), \(pool.dedicatedConnections) dedicated"
            ),
            (
                "timeouts",
                "lock \(Quantity.text(timeouts.lock)), statement \(Quantity.text(timeouts.statement)),"
                    + " transaction \(Quantity.text(timeouts.transaction))"
            ),
            (
                "cache",
                "\(Quantity.text(bytes: definition.cache.bytesMax)),"
                    + " \(definition.cache.entriesMax) entries"
            ),
            ("parked requests", "\(definition.parkedRequestsMax)"),
        ]
        return HelpText.columns(rows).trimmedFinalNewline
    }

    private static func text(_ rule: RateRule) -> String {
        let classes = LimitClass.allCases.filter { rule.classes?.contains($0) ?? false }
        return "\(rule.units) units per \(Quantity.text(rule.window))"
            + (rule.burst.map { ", bursts of \($0)" } ?? "") + ", by \(rule.scope.rawValue), "
            + (classes.isEmpty ? "all" : classes.map(\.rawValue).joined(separator: ", "))
            + " (\(rule.algorithm.rawValue))"
    }
}
