import HCCore
import HCPostgres
import HCTenancy

/// The SQL of patients and how their rows are read.
struct PatientStore {
    static let table: StaticString = "patient"
    static let column: StaticString = "sealed"

    let tenant: TenantID
    let keys: TenantKeys

    func seal(_ document: PatientDocument, id: PatientID) throws -> SealedValue {
        try keys.seal(
            document.bytes, table: PatientStore.table, column: PatientStore.column,
            row: id.uuid)
    }

    /// Columns: id, sealed, version, created_at, updated_at.
    func record(_ row: PostgresRow) throws -> PatientRecord {
        let id: PatientID = try row.id(0)
        let bytes = try keys.open(
            row, 1, table: PatientStore.table, column: PatientStore.column, id: id.uuid)
        return PatientRecord(
            id: id, document: PatientDocument(bytes: bytes), version: Int64(try row.int(2)),
            createdAt: try row.timestamp(3), updatedAt: try row.timestamp(4))
    }

    func find(_ id: PatientID) -> Query {
        Query(
            """
            SELECT id, sealed, version, created_at, updated_at FROM patient
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            """,
            [.id(tenant), .id(id)])
    }

    func findForUpdate(_ id: PatientID) -> Query {
        Query(
            """
            SELECT id, sealed, version, created_at, updated_at FROM patient
            WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
            FOR UPDATE
            """,
            [.id(tenant), .id(id)])
    }

    func insert(
        _ id: PatientID, sealed: SealedValue, terms: PatientTerms, at now: Timestamp
    ) -> [Query] {
        [
            Query(
                """
                INSERT INTO patient
                    (tenant_id, id, sealed, key_version, mrn_token, version, created_at, updated_at)
                VALUES ($1, $2, $3, $4, $5, 1, $6, $6)
                """,
                [
                    .id(tenant), .id(id), .bytes(sealed.bytes), .int4(sealed.keyVersion),
                    .optional(terms.mrnToken), .timestamp(now),
                ]),
            insertTokens(id, terms),
        ]
    }

    private func insertTokens(_ id: PatientID, _ terms: PatientTerms) -> Query {
        Query(
            """
            INSERT INTO patient_token (tenant_id, token, patient_id)
            SELECT $1, token, $2 FROM unnest($3::bigint[]) AS token
            """,
            [.id(tenant), .id(id), .int8s(terms.tokens)])
    }

    /// Of a row that the transaction has locked.
    func update(
        _ id: PatientID, sealed: SealedValue, terms: PatientTerms, version: Int64, at now: Timestamp
    ) -> [Query] {
        [
            Query(
                """
                UPDATE patient SET sealed = $3, key_version = $4, mrn_token = $5, version = $6,
                    updated_at = $7
                WHERE tenant_id = $1 AND id = $2
                """,
                [
                    .id(tenant), .id(id), .bytes(sealed.bytes), .int4(sealed.keyVersion),
                    .optional(terms.mrnToken), .int8(version), .timestamp(now),
                ]),
            Query(
                """
                DELETE FROM patient_token
                WHERE tenant_id = $1 AND patient_id = $2 AND token <> ALL ($3::bigint[])
                """,
                [.id(tenant), .id(id), .int8s(terms.tokens)]),
            Query(
                """
                INSERT INTO patient_token (tenant_id, token, patient_id)
                SELECT $1, token, $2 FROM unnest($3::bigint[]) AS token
                ON CONFLICT DO NOTHING
                """,
                [.id(tenant), .id(id), .int8s(terms.tokens)]),
        ]
    }

    /// Soft delete: the row stays, the tokens go, so that no search finds it; the number is free again.
    func delete(_ id: PatientID, version: Int64, at now: Timestamp) -> [Query] {
        [
            Query(
                """
                UPDATE patient SET deleted_at = $4, updated_at = $4, version = $3
                WHERE tenant_id = $1 AND id = $2
                """,
                [.id(tenant), .id(id), .int8(version), .timestamp(now)]),
            Query(
                "DELETE FROM patient_token WHERE tenant_id = $1 AND patient_id = $2",
                [.id(tenant), .id(id)]),
        ]
    }

    /// Whether the patient has appointments to come, in a row that the transaction has locked: a booking
    /// takes a key-share lock on the patient, so none can slip in.
    func hasFutureAppointments(_ id: PatientID, at now: Timestamp) -> Query {
        Query(
            """
            SELECT EXISTS (
                SELECT FROM appointment
                WHERE tenant_id = $1 AND patient_id = $2 AND ends_at > $3
                    AND status NOT IN ('fulfilled', 'cancelled', 'noshow', 'entered-in-error'))
            """,
            [.id(tenant), .id(id), .timestamp(now)])
    }

    /// All patients by id, which is by time of registration.
    func list(after: PatientID?, limit: Int) -> Query {
        Query(
            """
            SELECT id, sealed, version, created_at, updated_at FROM patient
            WHERE tenant_id = $1 AND id > $2 AND deleted_at IS NULL
            ORDER BY id LIMIT $3
            """,
            [.id(tenant), .uuid(after?.uuid ?? .zero), .int8(Int64(limit))])
    }

    /// Patients that have all tokens, by id. The first token is walked along its index; the others are
    /// looked up per candidate, so it should be the rarest. They are of different fields, so they differ.
    func search(tokens: [Int64], after: PatientID?, limit: Int) -> Query {
        Query(
            """
            SELECT patient.id, patient.sealed, patient.version, patient.created_at, patient.updated_at
            FROM patient_token AS found
            JOIN patient ON patient.tenant_id = $1 AND patient.id = found.patient_id
            WHERE found.tenant_id = $1 AND found.token = $2 AND found.patient_id > $4
                AND patient.deleted_at IS NULL
                AND (
                    SELECT count(*) FROM patient_token AS other
                    WHERE other.tenant_id = $1 AND other.token = ANY ($3::bigint[])
                        AND other.patient_id = found.patient_id) = cardinality($3::bigint[])
            ORDER BY found.patient_id LIMIT $5
            """,
            [
                .id(tenant), .int8(tokens[0]), .int8s(Array(tokens.dropFirst())),
                .uuid(after?.uuid ?? .zero), .int8(Int64(limit)),
            ])
    }
}
