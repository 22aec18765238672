import HCCore
import HCCrypto
import HCPostgres

/// A message of the outbox with the id that it keeps for good.
struct OutboxRow: Hashable, Sendable {
    let id: UUID
    let name: String
    let payload: String
    /// What the payload says, as far as the feed of events needs it.
    let topics: [String]
    let entity: UUID
    let version: Int64
    let at: Timestamp

    /// Whether there is anybody to tell: a message without topics is for others than sockets.
    var isEvent: Bool { !topics.isEmpty }

    init(_ message: OutboxMessage, at now: Timestamp) {
        var random = SystemRandom()
        self.init(
            id: UUID.v7(at: now, using: &random), name: "\(message.topic)",
            payload: message.payload, at: now)
    }

    init(id: UUID, name: String, payload: JSONObject, at: Timestamp) {
        self.id = id
        self.name = name
        self.payload = JSONValue.object(payload).text
        self.at = at
        topics = (payload["topics"]?.asArray ?? []).compactMap(\.asString)
        entity = payload["id"]?.asString.flatMap { UUID($0) } ?? .zero
        version = payload["version"]?.asInteger ?? 0
    }

    /// Columns: id, topic, payload as text, created_at.
    init(_ row: PostgresRow) throws {
        let payload = try JSONReader.parse(Array(try row.text(2).utf8)).asObject ?? JSONObject()
        self.init(
            id: try row.uuid(0), name: try row.text(1), payload: payload,
            at: try row.timestamp(3))
    }
}

/// The SQL of the outbox.
enum OutboxRows {
    static func insert(_ rows: [OutboxRow], tenant: TenantID) -> Query {
        Query(
            """
            INSERT INTO outbox (tenant_id, id, topic, payload)
            SELECT $1, id, topic, payload::jsonb
            FROM unnest($2::uuid[], $3::text[], $4::text[]) AS message (id, topic, payload)
            """,
            [
                .id(tenant), .uuids(rows.map(\.id)), .texts(rows.map(\.name)),
                .texts(rows.map(\.payload)),
            ])
    }

    /// What this transaction changes is bookkeeping: lost by a crash, it is done again, and nobody notices. So it
    /// waits for no flush of the log.
    static let withoutFlush = Query("SELECT set_config('synchronous_commit', 'off', true)")

    static func delete(_ ids: [UUID], tenant: TenantID) -> Query {
        Query(
            "DELETE FROM outbox WHERE tenant_id = $1 AND id = ANY($2)",
            [.id(tenant), .uuids(ids)])
    }

    /// The oldest rows that nobody else is just taking.
    static func lockLate(tenant: TenantID, age: Duration, limit: Int) -> Query {
        Query(
            """
            SELECT id, topic, payload::text, created_at
            FROM outbox
            WHERE tenant_id = $1 AND created_at < now() - make_interval(secs => $2)
            ORDER BY created_at, id
            LIMIT $3
            FOR UPDATE SKIP LOCKED
            """,
            [.id(tenant), .double(age / .seconds(1)), .int8(Int64(limit))])
    }

    /// Columns: clinic, number of late rows, the oldest one's time.
    static func backlog(age: Duration, limit: Int) -> Query {
        Query(
            "SELECT clinic, waiting, oldest FROM hc_outbox_backlog(make_interval(secs => $1), $2)",
            [.double(age / .seconds(1)), .int4(Int32(limit))])
    }
}
