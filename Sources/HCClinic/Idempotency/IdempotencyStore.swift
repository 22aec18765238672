import HCCore
import HCCrypto
import HCIO
import HCPostgres
import HCTenancy

/// One request that may come twice: its key and its content.
package struct IdempotentRequest: Sendable {
    let keyHash: [UInt8]
    let fingerprint: [UInt8]

    /// - Parameter body: the bytes as they came: the same request has the same.
    package init(key: IdempotencyKey, body: [UInt8]) throws {
        keyHash = try SHA256.hash(key.text).bytes
        fingerprint = try SHA256.hash(body).bytes
    }
}

/// Answers kept for `Idempotency-Key`: written in the transaction of what they answer, so that there is an
/// answer exactly if there is an effect. Scope: clinic, account, route.
struct IdempotencyStore {
    static let life = Duration.seconds(24 * 3600)
    static let constraint = "idempotency_pkey"
    private static let table: StaticString = "idempotency"
    private static let column: StaticString = "sealed"

    let tenant: TenantID
    let keys: TenantKeys
    let account: UUID
    let route: StaticString

    init(_ context: TenantContext, keys: TenantKeys, actor: Actor, route: StaticString) {
        tenant = context.id
        self.keys = keys
        account = actor.accountID?.uuid ?? .zero
        self.route = route
    }

    /// The first statements of the transaction. A request with the same key that runs at the same time makes
    /// the insertion wait for its end and then fail on `constraint`, before anything else is done.
    func claim(
        _ request: IdempotentRequest, reply: CreationReply, at now: Timestamp
    ) throws -> [Query] {
        let sealed = try keys.seal(
            reply.stored, table: IdempotencyStore.table, column: IdempotencyStore.column,
            row: row(of: request))
        return [
            Query(
                """
                DELETE FROM idempotency
                WHERE tenant_id = $1 AND account_id = $2 AND route = $3 AND key_hash = $4
                    AND expires_at <= $5
                """,
                identity(request) + [.timestamp(now)]),
            sweep(at: now),
            Query(
                """
                INSERT INTO idempotency (tenant_id, account_id, route, key_hash, fingerprint, status,
                    sealed, key_version, created_at, expires_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                """,
                identity(request) + [
                    .bytes(request.fingerprint), .int2(Int16(reply.status)), .bytes(sealed.bytes),
                    .int4(sealed.keyVersion), .timestamp(now),
                    .timestamp(now + IdempotencyStore.life),
                ]),
        ]
    }

    /// More answers go with each request than come, so the table is as large as a day's requests. Rows that
    /// somebody else is just sweeping are left to them.
    private func sweep(at now: Timestamp) -> Query {
        Query(
            """
            DELETE FROM idempotency WHERE (tenant_id, account_id, route, key_hash) IN (
                SELECT tenant_id, account_id, route, key_hash FROM idempotency
                WHERE tenant_id = $1 AND expires_at <= $2
                ORDER BY expires_at LIMIT 4 FOR UPDATE SKIP LOCKED)
            """,
            [.id(tenant), .timestamp(now)])
    }

    /// Columns: fingerprint, status, sealed.
    func find(_ request: IdempotentRequest) -> Query {
        Query(
            """
            SELECT fingerprint, status, sealed FROM idempotency
            WHERE tenant_id = $1 AND account_id = $2 AND route = $3 AND key_hash = $4
            """,
            identity(request))
    }

    /// - Throws: `idempotency-key-reused` if the answer is another request's.
    func reply(_ row: PostgresRow, to request: IdempotentRequest) throws -> CreationReply {
        guard try row.bytes(0) == request.fingerprint else {
            throw ClinicError(.idempotencyKeyReused)
        }
        guard let status = try row.intIfPresent(1), let sealed = try row.bytesIfPresent(2) else {
            throw ClinicError(.idempotencyKeyInFlight, retryAfter: .seconds(1))
        }
        let stored = try keys.open(
            sealed, table: IdempotencyStore.table, column: IdempotencyStore.column,
            row: self.row(of: request))
        guard let reply = CreationReply(stored: stored, status: status) else {
            throw TenancyError.sealBroken
        }
        return reply
    }

    private func identity(_ request: IdempotentRequest) -> [PostgresValue] {
        [.id(tenant), .uuid(account), .text(route.description), .bytes(request.keyHash)]
    }

    /// The row has no id of its own: what it is sealed to is made of its key, account and route.
    private func row(of request: IdempotentRequest) throws -> UUID {
        let parts = request.keyHash + account.bytes + Array(route.description.utf8)
        guard let row = UUID(bytes: try SHA256.hash(parts).bytes.prefix(16)) else {
            preconditionFailure("half of a digest is an id")
        }
        return row
    }
}

extension TenantContext {
    /// Gives the answer that was given before. What it says may be patient data, so it is recorded as read.
    @LoopActor
    func replay(
        _ request: IdempotentRequest, in store: IdempotencyStore, actor: Actor,
        entity: StaticString, deadline: Deadline
    ) async throws -> CreationReply {
        let rows = try await readAudited(
            [store.find(request)], audit: actor.event("replay", entity), deadline: deadline)
        guard let row = rows[0].first else {
            // The transaction that had the key was undone, or its answer expired, in between.
            throw ClinicError(.idempotencyKeyInFlight, retryAfter: .seconds(1))
        }
        return try store.reply(row, to: request)
    }
}
