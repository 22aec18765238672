package import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// One clinic as operators see it.
package struct TenantSummary: Sendable {
    package var id: TenantID
    package var slug: String
    package var name: String
    package var host: String
    package var tier: String
    package var state: String
    package var shard: String
    package var epoch: Int64
    package var createdAt: Timestamp
    /// Web origins whose pages may call its API.
    package var origins: [String]
    /// Counts changes of the clinic's row: what a change by compare-and-swap compares.
    var version: Int64

    package var json: JSONValue {
        [
            "id": .string("\(id.uuid)"), "slug": .string(slug), "name": .string(name),
            "host": .string(host), "tier": .string(tier), "state": .string(state),
            "shard": .string(shard), "epoch": .integer(epoch),
            "createdAt": .string(createdAt.rfc3339),
            "origins": .array(origins.map { .string($0) }),
        ]
    }
}

/// Reads clinics from the control database.
@LoopActor
package struct TenantRegistry {
    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Parameters:
    ///   - shard: only those placed on it.
    ///   - tier: only those of it.
    ///   - limit: at most so many, by slug.
    package func list(
        shard: String? = nil, state: String? = nil, tier: String? = nil, limit: Int
    ) async throws -> [TenantSummary] {
        try await fetch(slug: nil, shard: shard, state: state, tier: tier, limit: limit)
    }

    /// - Throws: `ControlError` of kind `notFound`.
    package func find(_ slug: String) async throws -> TenantSummary {
        guard let tenant = try await fetch(slug: slug, shard: nil, state: nil, limit: 1).first
        else {
            throw ControlError(
                .notFound, code: "tenant-unknown", "there is no clinic '\(slug)'",
                remedy: "See 'hc-admin tenant list'.")
        }
        return tenant
    }

    /// The clinic of a slug, if there is one in this state (nil: in any).
    func present(_ slug: String, state: String? = nil) async throws -> TenantSummary? {
        try await fetch(slug: slug, shard: nil, state: state, limit: 1).first
    }

    private func fetch(
        slug: String?, shard: String?, state: String?, tier: String? = nil, limit: Int
    ) async throws -> [TenantSummary] {
        try await plane.attempt("the clinics cannot be read") {
            let rows = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT tenant.id, slug, name, coalesce((
                                SELECT host FROM domain WHERE tenant_id = tenant.id
                                ORDER BY kind DESC, host LIMIT 1), ''),
                            tier, tenant.state, placement.shard_id, placement.epoch, tenant.created_at,
                            tenant.origins, tenant.version
                        FROM tenant
                        JOIN placement ON placement.tenant_id = tenant.id
                        WHERE tenant.state <> 'erased'
                            AND ($1::text IS NULL OR slug = $1)
                            AND ($2::text IS NULL OR placement.shard_id = $2)
                            AND ($3::text IS NULL OR tenant.state = $3)
                            AND ($4::text IS NULL OR tenant.tier = $4)
                        ORDER BY slug LIMIT $5
                        """,
                        [
                            .optional(slug), .optional(shard), .optional(state), .optional(tier),
                            .int8(Int64(limit)),
                        ])
                ], deadline: plane.deadline)[0]
            return try rows.rows.map { row in
                TenantSummary(
                    id: TenantID(try row.uuid(0)), slug: try row.text(1), name: try row.text(2),
                    host: try row.text(3), tier: try row.text(4), state: try row.text(5),
                    shard: try row.text(6), epoch: Int64(try row.int(7)),
                    createdAt: try row.timestamp(8), origins: try row.texts(9),
                    version: Int64(try row.int(10)))
            }
        }
    }
}
