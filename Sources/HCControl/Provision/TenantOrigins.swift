package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// The web origins whose pages may call a clinic's API (`migrations/control/0002_origins.sql`).
///
/// A change is a compare-and-swap on the clinic's row; the row's trigger writes the line of `placement_log` by which
/// every process learns of it, within about a second.
@LoopActor
package struct TenantOrigins {
    package struct Change: Sendable {
        package var before: [String]
        package var after: [String]

        package var added: [String] { after.filter { !before.contains($0) } }
        package var removed: [String] { before.filter { !after.contains($0) } }
    }

    /// As the table's own check has it: a request compares its origin with each.
    package nonisolated static let countMax = 32
    /// A change that meets another one begins anew.
    private static let attemptsMax = 4

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// Reads origins as a person writes them.
    ///
    /// - Throws: `ControlError` (`bad-origin`) that names the origin and the rule that it breaks.
    package func parse(_ texts: [String]) throws(ControlError) -> [WebOrigin] {
        var origins: [WebOrigin] = []
        for text in texts {
            let origin: WebOrigin
            do throws(WebOrigin.Problem) {
                origin = try WebOrigin(written: text)
            } catch {
                throw ControlError(
                    .invalid, code: "bad-origin", "'\(text)' cannot be allowed: \(error)",
                    remedy: "Write scheme, host and, if it is not the scheme's own, port:"
                        + " https://portal.example or https://portal.example:8443")
            }
            guard
                plane.configuration.profile == .local || origin.isSecure || origin.isLoopback
            else {
                throw ControlError(
                    .invalid, code: "bad-origin",
                    "'\(text)' cannot be allowed: whoever is on its network path can be that page",
                    remedy: "Serve the page over TLS and allow https://…;"
                        + " plain http is for localhost only.")
            }
            if !origins.contains(origin) { origins.append(origin) }
        }
        return origins
    }

    /// Allows and removes origins; what is allowed already, and what is not there, is passed over.
    ///
    /// - Throws: `ControlError` of kind `notFound`, `invalid`, or `conflict` when others keep changing the clinic.
    package func change(
        _ slug: String, allow: [WebOrigin], remove: [WebOrigin], dryRun: Bool
    ) async throws -> Change {
        for _ in 0..<TenantOrigins.attemptsMax {
            let tenant = try await TenantRegistry(plane: plane).find(slug)
            let change = try TenantOrigins.change(tenant.origins, allow: allow, remove: remove)
            if dryRun || change.after == change.before { return change }
            if try await swap(tenant, change) { return change }
        }
        throw ControlError(
            .conflict, code: "tenant-changed", "'\(slug)' is being changed by others right now",
            remedy: "Give the command again.")
    }

    /// What becomes of a list. Its order does not count: it is kept sorted.
    nonisolated static func change(
        _ present: [String], allow: [WebOrigin], remove: [WebOrigin]
    ) throws(ControlError) -> Change {
        if let both = allow.first(where: { remove.contains($0) }) {
            throw ControlError(
                .invalid, code: "bad-origin", "'\(both)' is to be allowed and removed at once")
        }
        var wanted = Set(present)
        for origin in remove { wanted.remove(origin.text) }
        for origin in allow { wanted.insert(origin.text) }
        guard wanted.count <= countMax else {
            throw ControlError(
                .invalid, code: "too-many-origins",
                "a clinic can have \(countMax) origins; these would be \(wanted.count)",
                remedy: "Remove those that are not used any more with --remove.")
        }
        return Change(before: present, after: wanted.sorted())
    }

    /// One statement: the change and its line in the operators' audit, or neither.
    private func swap(_ tenant: TenantSummary, _ change: Change) async throws -> Bool {
        let detail: JSONValue = [
            "added": .array(change.added.map { .string($0) }),
            "removed": .array(change.removed.map { .string($0) }),
        ]
        return try await plane.attempt("the origins cannot be changed") {
            try await plane.control().execute(
                [
                    Query(
                        """
                        WITH changed AS (
                            UPDATE tenant
                            SET origins = $3, version = version + 1, updated_at = now()
                            WHERE id = $1 AND version = $2 AND state <> 'erased'
                            RETURNING slug
                        )
                        INSERT INTO operator_audit (operator_name, action, subject, outcome, detail)
                        SELECT $4, 'tenant.cors', slug, 'success', $5 FROM changed
                        """,
                        [
                            .id(tenant.id), .int8(tenant.version), .texts(change.after),
                            .text(plane.operatorName), .json(detail.serialized),
                        ])
                ], deadline: plane.deadline)[0].affectedRows == 1
        }
    }
}
