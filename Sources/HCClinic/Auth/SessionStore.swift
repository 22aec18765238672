import HCCore
import HCPostgres
import HCTenancy

/// The SQL of sessions.
struct SessionStore {
    let tenant: TenantID

    func insert(
        _ id: SessionID, account: AccountID, refreshHash: [UInt8], at now: Timestamp,
        expiresAt: Timestamp
    ) -> Query {
        Query(
            """
            INSERT INTO session (tenant_id, id, account_id, family, refresh_hash, created_at,
                last_used_at, expires_at)
            VALUES ($1, $2, $3, $2, $4, $5, $5, $6)
            """,
            [
                .id(tenant), .id(id), .id(account), .bytes(refreshHash), .timestamp(now),
                .timestamp(expiresAt),
            ])
    }

    /// Sessions over for a week go, a few with each login, so that the table stays as large as its use.
    func deleteOld(of account: AccountID, at now: Timestamp) -> Query {
        Query(
            """
            DELETE FROM session
            WHERE tenant_id = $1 AND account_id = $2 AND expires_at < $3
            """,
            [.id(tenant), .id(account), .timestamp(now - .seconds(7 * 86_400))])
    }

    /// What admits a request. Columns: account, expiry, roles.
    func findActive(_ id: SessionID, at now: Timestamp) -> Query {
        Query(
            """
            SELECT session.account_id, session.expires_at, account.roles
            FROM session
            JOIN account ON account.tenant_id = $1 AND account.id = session.account_id
            WHERE session.tenant_id = $1 AND session.id = $2 AND session.revoked_at IS NULL
                AND session.expires_at > $3 AND account.status = 'active'
                AND account.deleted_at IS NULL
            """,
            [.id(tenant), .id(id), .timestamp(now)])
    }

    /// The same for several. A fourth column has the session.
    func findActive(_ ids: [SessionID], at now: Timestamp) -> Query {
        Query(
            """
            SELECT session.account_id, session.expires_at, account.roles, session.id
            FROM session
            JOIN account ON account.tenant_id = $1 AND account.id = session.account_id
            WHERE session.tenant_id = $1 AND session.id = ANY($2) AND session.revoked_at IS NULL
                AND session.expires_at > $3 AND account.status = 'active'
                AND account.deleted_at IS NULL
            """,
            [.id(tenant), .uuids(ids.map(\.uuid)), .timestamp(now)])
    }

    /// Locks the session: of two who exchange the same token, one comes second and is seen to.
    func findForRefresh(_ id: SessionID) -> Query {
        Query(
            """
            SELECT session.account_id, session.family, session.refresh_hash,
                session.refresh_generation, session.last_used_at, session.expires_at,
                session.revoked_at IS NOT NULL, account.roles,
                account.status = 'active' AND account.deleted_at IS NULL, account.patient_id
            FROM session
            JOIN account ON account.tenant_id = $1 AND account.id = session.account_id
            WHERE session.tenant_id = $1 AND session.id = $2
            FOR UPDATE OF session
            """,
            [.id(tenant), .id(id)])
    }

    static func refreshRow(_ row: PostgresRow) throws -> RefreshRow {
        RefreshRow(
            account: try row.id(0), family: try row.uuid(1), hash: try row.bytes(2),
            generation: Int32(try row.int(3)), lastUsedAt: try row.timestamp(4),
            expiresAt: try row.timestamp(5), isRevoked: try row.bool(6),
            roles: RoleSet(names: try row.texts(7)), isAccountActive: try row.bool(8),
            patient: try row.idIfPresent(9))
    }

    /// Of a row that the transaction has locked.
    func rotate(_ id: SessionID, to token: RefreshToken, at now: Timestamp) -> Query {
        Query(
            """
            UPDATE session SET previous_hash = refresh_hash, refresh_hash = $3,
                refresh_generation = $4, last_used_at = $5
            WHERE tenant_id = $1 AND id = $2
            """,
            [
                .id(tenant), .id(id), .bytes(token.hash), .int4(token.generation),
                .timestamp(now),
            ])
    }

    /// The account's sessions that are not over, newest first; a person has few.
    func list(of account: AccountID, at now: Timestamp) -> Query {
        Query(
            """
            SELECT id, created_at, last_used_at, expires_at FROM session
            WHERE tenant_id = $1 AND account_id = $2 AND revoked_at IS NULL AND expires_at > $3
            ORDER BY created_at DESC, id DESC LIMIT 200
            """,
            [.id(tenant), .id(account), .timestamp(now)])
    }

    static func session(_ row: PostgresRow, current: SessionID?) throws -> Session {
        let id: SessionID = try row.id(0)
        return Session(
            id: id, createdAt: try row.timestamp(1), lastUsedAt: try row.timestamp(2),
            expiresAt: try row.timestamp(3), isCurrent: id == current)
    }

    // MARK: Ending. Each gives back the ids of those it ended.

    func revoke(
        _ id: SessionID, of account: AccountID, _ reason: RevocationReason, at now: Timestamp
    ) -> Query {
        Query(
            """
            UPDATE session SET revoked_at = $4, revoked_reason = $5
            WHERE tenant_id = $1 AND account_id = $2 AND id = $3 AND revoked_at IS NULL
            RETURNING id
            """,
            [.id(tenant), .id(account), .id(id), .timestamp(now), .text(reason.rawValue)])
    }

    /// - Parameter kept: a session that goes on.
    func revokeAll(
        of account: AccountID, except kept: SessionID? = nil, _ reason: RevocationReason,
        at now: Timestamp
    ) -> Query {
        Query(
            """
            UPDATE session SET revoked_at = $4, revoked_reason = $5
            WHERE tenant_id = $1 AND account_id = $2 AND id <> $3 AND revoked_at IS NULL
            RETURNING id
            """,
            [
                .id(tenant), .id(account), .uuid(kept?.uuid ?? .zero), .timestamp(now),
                .text(reason.rawValue),
            ])
    }

    func revokeFamily(_ family: UUID, _ reason: RevocationReason, at now: Timestamp) -> Query {
        Query(
            """
            UPDATE session SET revoked_at = $3, revoked_reason = $4
            WHERE tenant_id = $1 AND family = $2 AND revoked_at IS NULL
            RETURNING id
            """,
            [.id(tenant), .uuid(family), .timestamp(now), .text(reason.rawValue)])
    }

    /// Sessions whose roles may be cached.
    func listLiving(of account: AccountID, at now: Timestamp) -> Query {
        Query(
            """
            SELECT id FROM session
            WHERE tenant_id = $1 AND account_id = $2 AND revoked_at IS NULL AND expires_at > $3
            """,
            [.id(tenant), .id(account), .timestamp(now)])
    }

    static func ids(_ result: PostgresResult) throws -> [SessionID] {
        try result.rows.map { try $0.id(0) }
    }
}
