import HCCore
import HCCrypto
import HCPostgres

/// Audit events as they are stored: with an id, a time and a sealed detail. Sealed once, so that a row that is
/// sent twice is the same row.
struct AuditRow: Sendable {
    let id: UUID
    let at: Timestamp
    let actor: UUID?
    let actorKind: String
    let action: String
    let entity: String
    let entityID: UUID?
    let outcome: String
    let requestID: String
    let sealed: SealedValue

    static let requestIDMax = 64

    init(_ event: AuditEvent, at now: Timestamp, keys: TenantKeys) throws(TenancyError) {
        var random = SystemRandom()
        id = UUID.v7(at: now, using: &random)
        at = now
        actor = event.actor.id
        actorKind = event.actor.kind
        action = "\(event.action)"
        entity = "\(event.entity)"
        entityID = event.entityID
        outcome = event.outcome.rawValue
        requestID =
            event.requestID.isEmpty ? "-" : String(event.requestID.prefix(AuditRow.requestIDMax))
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("purpose", "\(event.purpose)")
        writer.member("detail", .object(event.detail))
        writer.endObject()
        sealed = try keys.seal(
            writer.finish().bytes, table: "audit_event", column: "sealed", row: id)
    }
}

enum AuditRows {
    /// All rows in one statement of one shape, however many there are: one prepared statement. A row that is
    /// there already is left as it is, so the same rows can be sent again when nobody knows whether they were
    /// committed. The nil UUID stands for NULL, which an array of ours cannot hold.
    static func insert(_ rows: [AuditRow], tenant: TenantID) -> Query {
        Query(
            """
            INSERT INTO audit_event (tenant_id, id, at, actor_id, actor_kind, action, entity,
                entity_id, outcome, request_id, sealed, key_version)
            SELECT $1, id, at, nullif(actor_id, '00000000-0000-0000-0000-000000000000'), actor_kind,
                action, entity, nullif(entity_id, '00000000-0000-0000-0000-000000000000'), outcome,
                request_id, sealed, key_version::integer
            FROM unnest($2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::text[],
                $7::text[], $8::uuid[], $9::text[], $10::text[], $11::bytea[], $12::bigint[])
                AS event (id, at, actor_id, actor_kind, action, entity, entity_id, outcome,
                    request_id, sealed, key_version)
            ON CONFLICT (tenant_id, id) DO NOTHING
            """,
            [
                .id(tenant),
                .uuids(rows.map(\.id)),
                .timestamps(rows.map(\.at)),
                .uuids(rows.map { $0.actor ?? .zero }),
                .texts(rows.map(\.actorKind)),
                .texts(rows.map(\.action)),
                .texts(rows.map(\.entity)),
                .uuids(rows.map { $0.entityID ?? .zero }),
                .texts(rows.map(\.outcome)),
                .texts(rows.map(\.requestID)),
                .byteas(rows.map(\.sealed.bytes)),
                .int8s(rows.map { Int64($0.sealed.keyVersion) }),
            ])
    }
}
