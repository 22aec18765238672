import HCCore
import HCPostgres
import HCTenancy

/// The SQL of the clinic's one row of settings.
struct ClinicSettingsStore {
    let tenant: TenantID

    static func settings(_ row: PostgresRow) throws -> ClinicSettings {
        ClinicSettings(
            name: try row.text(0), timeZone: try row.text(1), locale: try row.text(2),
            currency: try row.text(3), bufferBeforeMinutes: try row.int(4),
            bufferAfterMinutes: try row.int(5), version: Int64(try row.int(6)),
            createdAt: try row.timestamp(7), updatedAt: try row.timestamp(8))
    }

    func find() -> Query {
        Query(
            """
            SELECT name, time_zone, locale, currency, buffer_before_minutes, buffer_after_minutes,
                version, created_at, updated_at
            FROM clinic WHERE tenant_id = $1
            """,
            [.id(tenant)])
    }

    func findForUpdate() -> Query {
        Query(
            """
            SELECT name, time_zone, locale, currency, buffer_before_minutes, buffer_after_minutes,
                version, created_at, updated_at
            FROM clinic WHERE tenant_id = $1
            FOR UPDATE
            """,
            [.id(tenant)])
    }

    /// Makes the row of a new clinic; what is there already stays.
    func insertIfMissing(_ settings: ClinicSettings) -> Query {
        Query(
            """
            INSERT INTO clinic (tenant_id, name, time_zone, locale, currency,
                buffer_before_minutes, buffer_after_minutes, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
            ON CONFLICT (tenant_id) DO NOTHING
            """,
            binds(settings) + [.timestamp(settings.createdAt)])
    }

    func update(_ settings: ClinicSettings) -> Query {
        Query(
            """
            UPDATE clinic SET name = $2, time_zone = $3, locale = $4, currency = $5,
                buffer_before_minutes = $6, buffer_after_minutes = $7, updated_at = $8, version = $9
            WHERE tenant_id = $1
            """,
            binds(settings) + [.timestamp(settings.updatedAt), .int8(settings.version)])
    }

    private func binds(_ settings: ClinicSettings) -> [PostgresValue] {
        [
            .id(tenant), .text(settings.name), .text(settings.timeZone), .text(settings.locale),
            .text(settings.currency), .int2(Int16(settings.bufferBeforeMinutes)),
            .int2(Int16(settings.bufferAfterMinutes)),
        ]
    }
}
