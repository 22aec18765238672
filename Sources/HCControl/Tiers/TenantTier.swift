package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Gives a clinic another tier.
///
/// As with tiers themselves: `plan` reads and compares, `apply` swaps if the clinic is still as it was read. The
/// clinic's row carries the line of the feed by which every process learns of it within a second.
@LoopActor
package struct TenantTier {
    package struct Plan: Sendable {
        package let tenant: TenantSummary
        package let from: Tier
        package let to: Tier
        package let differences: [TierDifference]
        /// What the operator should know, and what is no reason to refuse.
        package let warnings: [String]

        package var isChange: Bool { tenant.tier != to.name }

        package var json: JSONValue {
            [
                "slug": .string(tenant.slug), "from": .string(from.name), "to": .string(to.name),
                "differences": .array(differences.map(\.json)),
                "warnings": .array(warnings.map { .string($0) }),
            ]
        }
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Throws: `ControlError`: `notFound` for a clinic or tier that there is not, `refused` for a clinic that is
    ///   being made or deleted, and when the connections that it would have for itself do not fit.
    package func plan(_ slug: String, tier name: String) async throws -> Plan {
        let tenant = try await TenantRegistry(plane: plane).find(slug)
        guard ["active", "readonly", "suspended"].contains(tenant.state) else {
            throw ControlError(
                .refused, code: "tenant-not-open",
                "'\(slug)' is \(tenant.state); only an open clinic is given another tier",
                remedy: "See 'hc-admin tenant show \(slug)'.")
        }
        let registry = TierRegistry(plane: plane)
        let to = try await registry.find(name)
        let from = try await registry.find(tenant.tier)
        // The name differs always, and is no limit.
        let differences = TierDifference.between(from.json, to.json).filter { $0.path != "name" }
        let shard = try await ShardRegistry(plane: plane).find(tenant.shard)
        try await FleetInspection(plane: plane).requireRoom(
            before: [from, to], after: [from, to], moving: (shard.id, from.name, to.name))
        return Plan(
            tenant: tenant, from: from, to: to, differences: differences,
            warnings: TenantTier.warnings(shard, from: from, to: to))
    }

    /// A shard that holds more than it was built for still serves, and a clinic that pays for more must get it.
    nonisolated static func warnings(_ shard: Shard, from: Tier, to: Tier) -> [String] {
        let used = shard.used + TierRegistry.weight(of: to) - TierRegistry.weight(of: from)
        guard used > shard.capacity, used > shard.used else { return [] }
        return [
            "shard \(shard.id) is built for clinics of a weight of \(shard.capacity) together and will have"
                + " \(used): move a clinic to another shard"
        ]
    }

    /// - Throws: `ControlError` of kind `conflict` when the clinic, or its new tier, was changed since it was planned.
    package func apply(_ plan: Plan, reason: String?) async throws {
        guard plan.isChange else { return }
        let tenant = plan.tenant
        let detail: JSONValue = [
            "reason": reason.map { .string($0) } ?? .null,
            "before": ["tier": .string(plan.from.name), "definition": plan.from.stored],
            "after": ["tier": .string(plan.to.name), "definition": plan.to.stored],
        ]
        let isDone = try await plane.attempt("the tier of '\(tenant.slug)' cannot be changed") {
            // One statement: the change and its line in the operators' audit, or neither.
            try await plane.control().execute(
                [
                    Query(
                        """
                        WITH changed AS (
                            UPDATE tenant SET tier = $3, version = version + 1, updated_at = now()
                            WHERE id = $1 AND version = $2 AND state <> 'erased'
                                AND EXISTS (SELECT FROM tier WHERE name = $3 AND version = $4)
                            RETURNING slug
                        )
                        INSERT INTO operator_audit (operator_name, action, subject, outcome, detail)
                        SELECT $5, 'tenant.set-tier', slug, 'success', $6 FROM changed
                        """,
                        [
                            .id(tenant.id), .int8(tenant.version), .text(plan.to.name),
                            .int8(plan.to.version), .text(plane.operatorName),
                            .json(detail.serialized),
                        ])
                ], deadline: plane.deadline)[0].affectedRows == 1
        }
        guard isDone else { throw try await conflict(tenant, plan.to) }
    }

    /// Who was faster, as the audit has it.
    private func conflict(_ tenant: TenantSummary, _ tier: Tier) async throws -> ControlError {
        let rows = try await plane.attempt("the operators' audit cannot be read") {
            try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT operator_name, action, at FROM operator_audit
                        WHERE subject IN ($1, $2) AND (action LIKE 'tenant.%' OR action LIKE 'tier.%')
                        ORDER BY seq DESC LIMIT 1
                        """, [.text(tenant.slug), .text(tier.name)])
                ], deadline: plane.deadline)[0].rows.map { row in
                    "\(try row.text(0)) (\(try row.text(1)), \(try row.timestamp(2).rfc3339))"
                }
        }
        let others = rows.first ?? "somebody else"
        return ControlError(
            .conflict, code: "tenant-changed",
            "'\(tenant.slug)' or tier '\(tier.name)' was changed by \(others) after this change was"
                + " planned; nothing was changed",
            remedy: "See 'hc-admin tenant show \(tenant.slug)' and give the command again.")
    }
}
