import HCCore
import HCIO
import HCPostgres

extension ShardRegistry {
    package enum Retirement: String, Sendable {
        case retired
        case unchanged
        case wouldRetire = "would-retire"
    }

    /// Takes an empty, draining shard out of use for good. Given again it changes nothing.
    ///
    /// - Parameter isLost: its server is gone: it is not asked whether it still serves a clinic.
    /// - Throws: `ControlError` (`shard-not-draining`, `shard-in-use`) with every reason why not.
    package func retire(
        _ id: String, isLost: Bool, reason: String?, dryRun: Bool
    ) async throws -> Retirement {
        let shard = try await find(id)
        guard shard.state != "closed" else { return .unchanged }
        guard shard.state == "draining" else {
            throw ControlError(
                .refused, code: "shard-not-draining", "shard \(id) is \(shard.state)",
                remedy: "Drain it first: hc-admin shard drain \(id)")
        }
        let served = isLost ? [] : try await servedClinics(on: shard)
        try await plane.attempt("shard \(id) cannot be retired") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                // Whoever is bringing something there is waited for; whoever comes later finds it closed.
                let state = try await transaction.execute(
                    Query("SELECT state FROM shard WHERE id = $1 FOR UPDATE", [.text(id)])
                ).single().text(0)
                let reasons = try await uses(of: id, isLost: isLost, transaction) + served
                guard reasons.isEmpty, state == "draining" else {
                    throw ControlError(
                        .refused, code: "shard-in-use",
                        "shard \(id) cannot be retired: "
                            + (reasons.isEmpty ? "it is \(state)" : reasons.joined(separator: "; "))
                    )
                }
                guard !dryRun else { return }
                _ = try await transaction.execute(final: [
                    Query(
                        "UPDATE shard SET state = 'closed', updated_at = now() WHERE id = $1",
                        [.text(id)]),
                    plane.audit(
                        "shard.retire", subject: id,
                        detail: ShardRegistry.detail(reason).adding([
                            "identity": .string(
                                "\(shard.systemIdentifier), timeline \(shard.timeline)"),
                            "isLost": .bool(isLost),
                        ])),
                ])
            }
        }
        return dryRun ? .wouldRetire : .retired
    }

    /// What the control database has on a shard, in words with the way out.
    private func uses(
        of id: String, isLost: Bool, _ transaction: PostgresTransaction
    ) async throws -> [String] {
        let results = try await transaction.execute([
            Query(
                """
                SELECT slug FROM placement JOIN tenant ON tenant.id = tenant_id
                WHERE shard_id = $1 AND tenant.state <> 'erased' ORDER BY slug
                """, [.text(id)]),
            Query(
                """
                SELECT slug, move.state FROM move JOIN tenant ON tenant.id = tenant_id
                WHERE $1 IN (source_shard, target_shard) AND move.state IN ('running', 'aborting', 'soaking')
                ORDER BY slug
                """, [.text(id)]),
            Query(
                "SELECT name FROM replica WHERE shard_id = $1 AND state = 'open' ORDER BY name",
                [.text(id)]),
        ])
        var reasons: [String] = []
        let slugs = try results[0].rows.map { try $0.text(0) }
        if !slugs.isEmpty {
            reasons.append(
                "\(slugs.count) clinics are placed on it (\(ShardRegistry.some(slugs))):"
                    + " hc-admin shard drain \(id)")
        }
        for row in results[1].rows {
            let slug = try row.text(0)
            guard !isLost else {
                reasons.append(
                    "the move of '\(slug)' is not over: hc-admin move finalize \(slug) --without \(id)"
                )
                continue
            }
            reasons.append(
                try row.text(1) == "soaking"
                    ? "the way back of '\(slug)' is kept: hc-admin move finalize \(slug)"
                    : "'\(slug)' is on the move: hc-admin move show \(slug) --wait")
        }
        for row in results[2].rows {
            let name = try row.text(0)
            reasons.append(
                "replica \(name) is read from: hc-admin shard replica remove \(id) \(name)")
        }
        return reasons
    }

    /// Clinics that the server itself would still serve, in words.
    private func servedClinics(on shard: Shard) async throws -> [String] {
        let ids = try await plane.attempt("the clinics of shard \(shard.id) cannot be read") {
            try await plane.shard(reference: shard.reference, .mover).execute(
                Query(
                    """
                    SELECT tenant_id::text FROM hc_tenant
                    WHERE state NOT IN ('absent', 'moved') ORDER BY 1
                    """), deadline: plane.deadline
            ).rows.map { try $0.text(0) }
        }
        guard !ids.isEmpty else { return [] }
        return [
            "its server has open doors for \(ids.count) clinics (\(ShardRegistry.some(ids))):"
                + " see hc-admin doctor"
        ]
    }

    static func some(_ names: [String], _ separator: String = ", ") -> String {
        names.prefix(5).joined(separator: separator) + (names.count > 5 ? "\(separator)…" : "")
    }
}
