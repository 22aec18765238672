import HCCore
import HCCrypto
import HCPostgres
import HCTenancy

/// The SQL of accounts.
struct AccountStore {
    static let table: StaticString = "account"
    static let column: StaticString = "sealed"

    let tenant: TenantID
    let keys: TenantKeys

    func emailToken(_ email: String) throws -> Int64 {
        try keys.token(kind: "account.email", value: SearchText.email(email))
    }

    func seal(_ person: AccountPerson, id: AccountID) throws -> SealedValue {
        try keys.seal(
            person.document, table: AccountStore.table, column: AccountStore.column, row: id.uuid)
    }

    /// Columns: id, sealed, roles, status, patient_id, last_login_at, version, created_at, updated_at.
    func account(_ row: PostgresRow) throws -> Account {
        let id: AccountID = try row.id(0)
        let document = try keys.open(
            row, 1, table: AccountStore.table, column: AccountStore.column, id: id.uuid)
        return Account(
            id: id, person: try AccountPerson(document: document),
            roles: RoleSet(names: try row.texts(2)),
            status: Account.Status(rawValue: try row.text(3)) ?? .disabled,
            patientID: try row.idIfPresent(4), lastLoginAt: try row.timestampIfPresent(5),
            version: Int64(try row.int(6)), createdAt: try row.timestamp(7),
            updatedAt: try row.timestamp(8))
    }

    func find(_ id: AccountID) -> Query {
        Query(
            """
            SELECT id, sealed, roles, status, patient_id, last_login_at, version, created_at,
                updated_at
            FROM account WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id)])
    }

    func findForUpdate(_ id: AccountID) -> Query {
        Query(
            """
            SELECT id, sealed, roles, status, patient_id, last_login_at, version, created_at,
                updated_at
            FROM account WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            FOR UPDATE
            """,
            [.id(tenant), .id(id)])
    }

    func find(emailToken: Int64) -> Query {
        Query(
            """
            SELECT id, sealed, roles, status, patient_id, last_login_at, version, created_at,
                updated_at
            FROM account WHERE tenant_id = $1 AND email_token = $2 AND deleted_at IS NULL
            """,
            [.id(tenant), .int8(emailToken)])
    }

    /// Staff by id: those whose account is no patient's.
    func listStaff(after: AccountID?, limit: Int) -> Query {
        Query(
            """
            SELECT id, sealed, roles, status, patient_id, last_login_at, version, created_at,
                updated_at
            FROM account
            WHERE tenant_id = $1 AND id > $2 AND deleted_at IS NULL AND patient_id IS NULL
            ORDER BY id LIMIT $3
            """,
            [.id(tenant), .uuid(after?.uuid ?? .zero), .int8(Int64(limit))])
    }

    func insert(_ account: Account, sealed: SealedValue, emailToken: Int64, passwordHash: String)
        -> Query
    {
        Query(
            """
            INSERT INTO account (tenant_id, id, email_token, sealed, key_version, password_hash,
                password_changed_at, roles, status, patient_id, version, created_at, updated_at)
            SELECT $1, $2, $3, $4, $5, $6, $10, $7, $8, $9, 1, $10, $10
            WHERE $9::uuid IS NULL OR EXISTS (
                SELECT FROM patient WHERE tenant_id = $1 AND id = $9 AND deleted_at IS NULL)
            """,
            [
                .id(tenant), .id(account.id), .int8(emailToken), .bytes(sealed.bytes),
                .int4(sealed.keyVersion), .text(passwordHash), .texts(account.roles.names),
                .text(account.status.rawValue), .optional(account.patientID),
                .timestamp(account.createdAt),
            ])
    }

    /// Of a row that the transaction has locked.
    func update(_ account: Account, sealed: SealedValue) -> Query {
        Query(
            """
            UPDATE account SET sealed = $3, key_version = $4, roles = $5, status = $6, version = $7,
                updated_at = $8
            WHERE tenant_id = $1 AND id = $2
            """,
            [
                .id(tenant), .id(account.id), .bytes(sealed.bytes), .int4(sealed.keyVersion),
                .texts(account.roles.names), .text(account.status.rawValue),
                .int8(account.version), .timestamp(account.updatedAt),
            ])
    }

    /// The active owners, locked in one order: two owners who depose each other do so one after the other.
    func lockActiveOwners() -> Query {
        Query(
            """
            SELECT id FROM account
            WHERE tenant_id = $1 AND 'owner' = ANY (roles) AND status = 'active'
                AND deleted_at IS NULL
            ORDER BY id FOR UPDATE
            """,
            [.id(tenant)])
    }

    // MARK: Passwords

    /// Counts an attempt and gives what is needed to look at the password, unless the account is locked.
    ///
    /// - Parameter waits: microseconds of lock after the 1st, 2nd, … attempt; the last one goes on.
    func countAttempt(emailToken: Int64, waits: [Int64], at now: Timestamp) -> Query {
        Query(
            """
            UPDATE account SET
                failed_logins = CASE WHEN locked_until <= $5 THEN 1
                    ELSE least(failed_logins + 1, 1000000) END,
                locked_until = $3::timestamptz + interval '1 microsecond' * ($4::bigint[])[
                    least(CASE WHEN locked_until <= $5 THEN 1 ELSE failed_logins + 1 END,
                        cardinality($4))]
            WHERE tenant_id = $1 AND email_token = $2 AND deleted_at IS NULL
                AND (locked_until IS NULL OR locked_until <= $3)
            RETURNING id, password_hash, roles, status, patient_id, failed_logins, locked_until
            """,
            [
                .id(tenant), .int8(emailToken), .timestamp(now), .int8s(waits),
                .timestamp(now - LockoutPolicy.memory),
            ])
    }

    /// Behind `countAttempt`: a commit waits for the disk only if something was written, and that wait would tell whether
    /// there is an account. Where none was counted a message goes into the log of the database, which nobody reads.
    func leaveTrace() -> Query {
        Query(
            """
            SELECT pg_logical_emit_message(true, 'hc.login', ''::text)::text
            WHERE pg_current_xact_id_if_assigned() IS NULL
            """)
    }

    func lock(emailToken: Int64) -> Query {
        Query(
            """
            SELECT id, locked_until FROM account
            WHERE tenant_id = $1 AND email_token = $2 AND deleted_at IS NULL
            """,
            [.id(tenant), .int8(emailToken)])
    }

    /// Forgets the failed attempts, unless the account or its password changed since it was looked at.
    func recordLogin(_ id: AccountID, passwordHash: String, at now: Timestamp) -> Query {
        Query(
            """
            UPDATE account SET failed_logins = 0, locked_until = NULL, last_login_at = $4
            WHERE tenant_id = $1 AND id = $2 AND password_hash = $3 AND status = 'active'
                AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id), .text(passwordHash), .timestamp(now)])
    }

    func passwordHash(of id: AccountID) -> Query {
        Query(
            """
            SELECT password_hash, sealed FROM account
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL AND status = 'active'
            """,
            [.id(tenant), .id(id)])
    }

    /// Replaces the password if it is still the one that was looked at.
    func changePassword(_ id: AccountID, from old: String, to new: String, at now: Timestamp)
        -> Query
    {
        Query(
            """
            UPDATE account SET password_hash = $4, password_changed_at = $5, failed_logins = 0,
                locked_until = NULL
            WHERE tenant_id = $1 AND id = $2 AND password_hash = $3 AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id), .text(old), .text(new), .timestamp(now)])
    }

    /// The same password under the parameters of today.
    func rehash(_ id: AccountID, from old: String, to new: String) -> Query {
        Query(
            """
            UPDATE account SET password_hash = $4
            WHERE tenant_id = $1 AND id = $2 AND password_hash = $3 AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id), .text(old), .text(new)])
    }

    /// Disables the account of a patient. Columns: id.
    func disable(patient: PatientID, at now: Timestamp) -> Query {
        Query(
            """
            UPDATE account SET status = 'disabled', version = version + 1, updated_at = $3
            WHERE tenant_id = $1 AND patient_id = $2 AND deleted_at IS NULL
            RETURNING id
            """,
            [.id(tenant), .id(patient), .timestamp(now)])
    }
}
