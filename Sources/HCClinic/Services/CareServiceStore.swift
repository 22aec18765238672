import HCCore
import HCPostgres
import HCTenancy

/// The SQL of services.
struct CareServiceStore {
    let tenant: TenantID

    static func service(_ row: PostgresRow) throws -> CareService {
        CareService(
            id: try row.id(0), name: try row.text(1), description: try row.textIfPresent(2),
            durationMinutes: try row.int(3), priceMinor: try row.intIfPresent(4).map { Int64($0) },
            practitionerIDs: try row.uuids(5).map { PractitionerID($0) },
            isActive: try row.bool(6), version: Int64(try row.int(7)),
            createdAt: try row.timestamp(8), updatedAt: try row.timestamp(9))
    }

    func find(_ id: ServiceID) -> Query {
        Query(
            """
            SELECT id, name, description, duration_minutes, price_minor, ARRAY(
                    SELECT practitioner_id FROM service_practitioner AS link
                    WHERE link.tenant_id = $1 AND link.service_id = service.id
                    ORDER BY practitioner_id),
                active, version, created_at, updated_at
            FROM service WHERE tenant_id = $1 AND id = $2
            """,
            [.id(tenant), .id(id)])
    }

    func findForUpdate(_ id: ServiceID) -> Query {
        Query(
            """
            SELECT id, name, description, duration_minutes, price_minor, ARRAY(
                    SELECT practitioner_id FROM service_practitioner AS link
                    WHERE link.tenant_id = $1 AND link.service_id = service.id
                    ORDER BY practitioner_id),
                active, version, created_at, updated_at
            FROM service WHERE tenant_id = $1 AND id = $2
            FOR UPDATE
            """,
            [.id(tenant), .id(id)])
    }

    /// - Parameter isActive: nil for both.
    func list(isActive: Bool?, after: ServiceID?, limit: Int) -> Query {
        Query(
            """
            SELECT id, name, description, duration_minutes, price_minor, ARRAY(
                    SELECT practitioner_id FROM service_practitioner AS link
                    WHERE link.tenant_id = $1 AND link.service_id = service.id
                    ORDER BY practitioner_id),
                active, version, created_at, updated_at
            FROM service
            WHERE tenant_id = $1 AND id > $2 AND ($3::boolean IS NULL OR active = $3)
            ORDER BY id LIMIT $4
            """,
            [
                .id(tenant), .uuid(after?.uuid ?? .zero), isActive.map { .bool($0) } ?? .null,
                .int8(Int64(limit)),
            ])
    }

    func insert(_ service: CareService) -> [Query] {
        [
            Query(
                """
                INSERT INTO service (tenant_id, id, name, description, duration_minutes, price_minor,
                    active, version, updated_at, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                """,
                binds(service) + [.timestamp(service.createdAt)]),
            link(service),
        ]
    }

    /// Of a row that the transaction has locked.
    func update(_ service: CareService) -> [Query] {
        [
            Query(
                """
                UPDATE service SET name = $3, description = $4, duration_minutes = $5,
                    price_minor = $6, active = $7, version = $8, updated_at = $9
                WHERE tenant_id = $1 AND id = $2
                """,
                binds(service)),
            Query(
                """
                DELETE FROM service_practitioner
                WHERE tenant_id = $1 AND service_id = $2 AND practitioner_id <> ALL ($3::uuid[])
                """,
                [
                    .id(tenant), .id(service.id), .uuids(service.practitionerIDs.map(\.uuid)),
                ]),
            link(service),
        ]
    }

    private func link(_ service: CareService) -> Query {
        Query(
            """
            INSERT INTO service_practitioner (tenant_id, service_id, practitioner_id)
            SELECT $1, $2, id FROM unnest($3::uuid[]) AS id
            ON CONFLICT DO NOTHING
            """,
            [.id(tenant), .id(service.id), .uuids(service.practitionerIDs.map(\.uuid))])
    }

    private func binds(_ service: CareService) -> [PostgresValue] {
        [
            .id(tenant), .id(service.id), .text(service.name), .optional(service.description),
            .int2(Int16(service.durationMinutes)), service.priceMinor.map { .int8($0) } ?? .null,
            .bool(service.isActive), .int8(service.version), .timestamp(service.updatedAt),
        ]
    }
}
