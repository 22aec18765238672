import HCCore
import HCPostgres
import HCTenancy

/// The SQL of practitioners.
struct PractitionerStore {
    let tenant: TenantID

    static func practitioner(_ row: PostgresRow) throws -> Practitioner {
        Practitioner(
            id: try row.id(0), accountID: try row.idIfPresent(1), name: try row.text(2),
            specialities: try row.texts(3), bufferBeforeMinutes: try row.intIfPresent(4),
            bufferAfterMinutes: try row.intIfPresent(5), capacity: try row.int(6),
            isActive: try row.bool(7), version: Int64(try row.int(8)),
            createdAt: try row.timestamp(9), updatedAt: try row.timestamp(10))
    }

    func find(_ id: PractitionerID) -> Query {
        Query(
            """
            SELECT id, account_id, name, specialities, buffer_before_minutes, buffer_after_minutes,
                lanes, active, version, created_at, updated_at
            FROM practitioner WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id)])
    }

    func findForUpdate(_ id: PractitionerID) -> Query {
        Query(
            """
            SELECT id, account_id, name, specialities, buffer_before_minutes, buffer_after_minutes,
                lanes, active, version, created_at, updated_at
            FROM practitioner WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            FOR UPDATE
            """,
            [.id(tenant), .id(id)])
    }

    /// - Parameter isActive: nil for both.
    func list(isActive: Bool?, after: PractitionerID?, limit: Int) -> Query {
        Query(
            """
            SELECT id, account_id, name, specialities, buffer_before_minutes, buffer_after_minutes,
                lanes, active, version, created_at, updated_at
            FROM practitioner
            WHERE tenant_id = $1 AND id > $2 AND deleted_at IS NULL
                AND ($3::boolean IS NULL OR active = $3)
            ORDER BY id LIMIT $4
            """,
            [
                .id(tenant), .uuid(after?.uuid ?? .zero), isActive.map { .bool($0) } ?? .null,
                .int8(Int64(limit)),
            ])
    }

    func insert(_ practitioner: Practitioner) -> Query {
        Query(
            """
            INSERT INTO practitioner (tenant_id, id, account_id, name, specialities,
                buffer_before_minutes, buffer_after_minutes, lanes, active, version, updated_at,
                created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
            """,
            binds(practitioner) + [.timestamp(practitioner.createdAt)])
    }

    func update(_ practitioner: Practitioner) -> Query {
        Query(
            """
            UPDATE practitioner SET account_id = $3, name = $4, specialities = $5,
                buffer_before_minutes = $6, buffer_after_minutes = $7, lanes = $8, active = $9,
                version = $10, updated_at = $11
            WHERE tenant_id = $1 AND id = $2
            """,
            binds(practitioner))
    }

    private func binds(_ practitioner: Practitioner) -> [PostgresValue] {
        [
            .id(tenant), .id(practitioner.id), .optional(practitioner.accountID),
            .text(practitioner.name), .texts(practitioner.specialities),
            PractitionerStore.minutes(practitioner.bufferBeforeMinutes),
            PractitionerStore.minutes(practitioner.bufferAfterMinutes),
            .int2(Int16(practitioner.capacity)), .bool(practitioner.isActive),
            .int8(practitioner.version), .timestamp(practitioner.updatedAt),
        ]
    }

    private static func minutes(_ value: Int?) -> PostgresValue {
        value.map { .int2(Int16($0)) } ?? .null
    }
}
