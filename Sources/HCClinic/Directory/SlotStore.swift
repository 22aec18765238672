import HCCore
import HCPostgres
import HCTenancy

/// The SQL of free slots.
struct SlotStore {
    let tenant: TenantID

    /// What must be known of a practitioner to offer her time.
    struct Practice {
        var isActive: Bool
        var capacity: Int
        var bufferBefore: Duration
        var bufferAfter: Duration
        var zone: String

        init(_ row: PostgresRow) throws {
            isActive = try row.bool(0)
            capacity = try row.int(1)
            bufferBefore = .seconds(60 * (try row.int(2)))
            bufferAfter = .seconds(60 * (try row.int(3)))
            zone = try row.text(4)
        }
    }

    func practice(_ practitioner: PractitionerID) -> Query {
        Query(
            """
            SELECT p.active, p.lanes::integer,
                coalesce(p.buffer_before_minutes, c.buffer_before_minutes)::integer,
                coalesce(p.buffer_after_minutes, c.buffer_after_minutes)::integer, c.time_zone
            FROM clinic c
            JOIN practitioner p ON p.tenant_id = $1 AND p.id = $2 AND p.deleted_at IS NULL
            WHERE c.tenant_id = $1
            """,
            [.id(tenant), .id(practitioner)])
    }

    /// Of a service that is offered by the practitioner, or by everybody since it names nobody.
    func duration(of service: ServiceID, by practitioner: PractitionerID) -> Query {
        Query(
            """
            SELECT duration_minutes::integer FROM service
            WHERE tenant_id = $1 AND id = $2 AND active AND (
                EXISTS (SELECT FROM service_practitioner AS link
                    WHERE link.tenant_id = $1 AND link.service_id = $2
                        AND link.practitioner_id = $3)
                OR NOT EXISTS (SELECT FROM service_practitioner AS link
                    WHERE link.tenant_id = $1 AND link.service_id = $2))
            """,
            [.id(tenant), .id(service), .id(practitioner)])
    }
}
