import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// What clinics may use, by tier: the file `tenants/tiers.json` is applied to the control database.
///
/// A change is made in two steps, and a person may think between them: `plan` reads and compares, `apply` writes if
/// nobody else has written since. Of two operators the later one is told, and has changed nothing.
@LoopActor
package struct TierRegistry {
    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// Reads and validates the file: every problem in it is named at once.
    package static func load(file: String) throws -> [TierDefinition] {
        let bytes: [UInt8]
        do {
            bytes = try Files.read(file, bytesMax: 1 << 20)
        } catch {
            throw ControlError(
                .invalid, code: "bad-tiers", "the tiers cannot be read",
                remedy: "Name the file with --file FILE.", cause: error)
        }
        do {
            return try TierDefinition.parseFile(bytes)
        } catch {
            throw ControlError(
                .invalid, code: "bad-tiers",
                "\(file) is not a file of tiers:\n" + error.problems.joined(separator: "\n"),
                remedy:
                    "Mend it and try again; nothing was changed. tenants/README.md has the bounds.")
        }
    }

    private static let query = Query(
        """
        SELECT name, version, definition, coalesce(used.tenants, 0)::int4
        FROM tier
        LEFT JOIN (
            SELECT tier, count(*) AS tenants FROM tenant WHERE state <> 'erased' GROUP BY tier
        ) AS used ON used.tier = tier.name
        ORDER BY name
        """)

    private static func tiers(_ result: PostgresResult) throws -> [Tier] {
        try result.rows.map { row in
            Tier(
                name: try row.text(0), version: Int64(try row.int(1)), tenants: try row.int(3),
                stored: try JSONReader.parse(try row.json(2)))
        }
    }

    package func list() async throws -> [Tier] {
        try await plane.attempt("the tiers cannot be read") {
            try TierRegistry.tiers(
                try await plane.control().execute([TierRegistry.query], deadline: plane.deadline)[0]
            )
        }
    }

    /// - Throws: `ControlError` of kind `notFound`.
    package func find(_ name: String) async throws -> Tier {
        let tiers = try await list()
        if let tier = tiers.first(where: { $0.name == name }) { return tier }
        throw ControlError(
            .notFound, code: "tier-unknown", "there is no tier '\(name)'",
            remedy: tiers.isEmpty
                ? "Apply tenants/tiers.json first: hc-admin tier apply"
                : "Tiers: " + tiers.map(\.name).joined(separator: ", "))
    }

    /// - Throws: `ControlError` as `TierPlan` does, and `refused` when connections that clinics would have for
    ///   themselves do not fit.
    package func plan(
        _ wanted: [TierDefinition], removals: Set<String> = []
    ) async throws -> TierPlan {
        let plan = try TierPlan(present: try await list(), wanted: wanted, removals: removals)
        try await FleetInspection(plane: plane).requireRoom(
            before: plan.present,
            after: wanted.map { Tier(name: $0.name, version: 0, tenants: 0, stored: $0.json) })
        return plan
    }

    /// Applies a plan in one transaction, with a line for each change in the operators' audit. Every process follows
    /// within a second through the directory's feed.
    ///
    /// - Throws: `ControlError`: `conflict` when the tiers are not those of the plan any more, `refused` when a clinic
    ///   was placed in a tier that is to go.
    package func apply(_ plan: TierPlan, reason: String?) async throws {
        guard !plan.changes.isEmpty else { return }
        try await plane.attempt("the tiers cannot be applied") {
            do {
                try await plane.control().transaction(deadline: plane.deadline) { transaction in
                    // The lock lets clinics be served and placed, and other operators wait.
                    let results = try await transaction.execute([
                        Query("LOCK TABLE tier IN SHARE ROW EXCLUSIVE MODE"), TierRegistry.query,
                    ])
                    let present = try TierRegistry.tiers(results[1])
                    if let name = plan.overtaken(by: present) {
                        throw try await TierRegistry.conflict(over: name, transaction)
                    }
                    let going = plan.changes.filter { $0.kind == .remove }.map(\.tier)
                    try TierPlan.refuseInUse(present.filter { going.contains($0.name) })
                    _ = try await transaction.execute(
                        plan.changes.flatMap { queries($0, reason: reason) })
                }
            } catch let error as PostgresError where error.sqlstate == .foreignKeyViolation {
                throw ControlError(
                    .refused, code: "tier-in-use",
                    "a clinic is just being placed in a tier that was to be removed",
                    remedy: "Nothing was changed. See 'hc-admin tier list'.")
            }
        }
    }

    private func queries(_ change: TierPlan.Change, reason: String?) -> [Query] {
        var queries: [Query] = []
        if change.kind == .remove {
            queries.append(
                Query(
                    "UPDATE tenant SET tier = NULL WHERE tier = $1 AND state = 'erased'",
                    [.text(change.tier)]))
            queries.append(Query("DELETE FROM tier WHERE name = $1", [.text(change.tier)]))
        } else if let definition = change.after {
            queries.append(
                Query(
                    """
                    INSERT INTO tier (name, definition) VALUES ($1, $2)
                    ON CONFLICT (name) DO UPDATE SET
                        definition = excluded.definition, version = tier.version + 1, updated_at = now()
                    """, [.text(change.tier), .json(definition.serialized)]))
        }
        queries.append(
            plane.audit(
                "tier.\(change.kind.rawValue)", subject: change.tier,
                detail: [
                    "reason": reason.map { .string($0) } ?? .null,
                    "before": change.before ?? .null, "after": change.after ?? .null,
                    "tenants": .integer(Int64(change.tenants)),
                ]))
        return queries
    }

    /// Who was faster, as the audit has it.
    private static func conflict(
        over name: String, _ transaction: PostgresTransaction
    ) async throws -> ControlError {
        let rows = try await transaction.execute([
            Query(
                """
                SELECT operator_name, at FROM operator_audit
                WHERE subject = $1 AND action LIKE 'tier.%' ORDER BY seq DESC LIMIT 1
                """, [.text(name)])
        ])[0].rows
        var by = ""
        if let row = rows.first {
            by = " by \(try row.text(0)) at \(try row.timestamp(1).rfc3339)"
        }
        return ControlError(
            .conflict, code: "tiers-changed",
            "tier '\(name)' was changed\(by), after this change was planned; nothing was changed",
            remedy:
                "Look at the tiers as they are now and give the command again: hc-admin tier list")
    }

    /// What a clinic of the tier counts for in placement; 1 unless the tier says otherwise.
    nonisolated static func weight(of tier: Tier) -> Int { tier.definition?.weight ?? 1 }
}
