import HCCore
import HCPostgres
import HCTenancy

/// The SQL of appointments and of the time they take.
struct AppointmentStore {
    static let table: StaticString = "appointment"
    static let column: StaticString = "sealed"

    /// Lanes beside those of the capacity, for overbooking.
    static let overbookedLanesMax = 16

    let tenant: TenantID
    let keys: TenantKeys

    // MARK: Rows

    func seal(_ notes: AppointmentNotes, id: AppointmentID) throws -> SealedValue {
        try keys.seal(
            notes.document, table: AppointmentStore.table, column: AppointmentStore.column,
            row: id.uuid)
    }

    /// Columns: id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at, sealed,
    /// created_by, version, created_at, updated_at.
    func appointment(_ row: PostgresRow) throws -> Appointment {
        let id: AppointmentID = try row.id(0)
        guard let status = AppointmentStatus(rawValue: try row.text(6)) else {
            throw UnknownStatus()
        }
        var notes = AppointmentNotes()
        if let sealed = try row.bytesIfPresent(8) {
            notes = try AppointmentNotes(
                document: try keys.open(
                    sealed, table: AppointmentStore.table, column: AppointmentStore.column,
                    row: id.uuid))
        }
        let startedAt = try row.timestampIfPresent(7)
        return Appointment(
            id: id, patientID: try row.id(1), practitionerID: try row.id(2),
            startsAt: try row.timestamp(3), endsAt: try row.timestamp(4), zone: try row.text(5),
            state: AppointmentState(status: status, isStarted: startedAt != nil),
            startedAt: startedAt, notes: notes, createdBy: try row.idIfPresent(9),
            version: Int64(try row.int(10)), createdAt: try row.timestamp(11),
            updatedAt: try row.timestamp(12))
    }

    struct UnknownStatus: Error {}

    // MARK: Reading

    func find(_ id: AppointmentID) -> Query {
        Query(
            """
            SELECT id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at,
                sealed, created_by, version, created_at, updated_at
            FROM appointment WHERE tenant_id = $1 AND id = $2
            """,
            [.id(tenant), .id(id)])
    }

    func findForUpdate(_ id: AppointmentID) -> Query {
        Query(
            """
            SELECT id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at,
                sealed, created_by, version, created_at, updated_at
            FROM appointment WHERE tenant_id = $1 AND id = $2
            FOR UPDATE
            """,
            [.id(tenant), .id(id)])
    }

    func practitioner(of id: AppointmentID) -> Query {
        Query(
            "SELECT practitioner_id FROM appointment WHERE tenant_id = $1 AND id = $2",
            [.id(tenant), .id(id)])
    }

    struct Position {
        var startsAt: Timestamp
        var id: UUID
    }

    /// One of three texts, so that each walks along its own index.
    func list(
        _ filter: AppointmentFilter, span: Range<Timestamp>, after: Position?, limit: Int
    ) -> Query {
        var binds: [PostgresValue] = [
            .id(tenant), .timestamp(span.lowerBound), .timestamp(span.upperBound),
            .timestamp(after?.startsAt ?? span.lowerBound), .uuid(after?.id ?? .zero),
            .optional(filter.status?.rawValue), .int8(Int64(limit)),
        ]
        if let patient = filter.patientID {
            binds += [.id(patient), .optional(filter.practitionerID)]
            return Query(
                """
                SELECT id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at,
                    sealed, created_by, version, created_at, updated_at
                FROM appointment
                WHERE tenant_id = $1 AND patient_id = $8 AND starts_at >= $2 AND starts_at < $3
                    AND (starts_at, id) > ($4, $5)
                    AND ($6::text IS NULL OR status = $6)
                    AND ($9::uuid IS NULL OR practitioner_id = $9)
                ORDER BY starts_at, id LIMIT $7
                """,
                binds)
        }
        if let practitioner = filter.practitionerID {
            binds += [.id(practitioner)]
            return Query(
                """
                SELECT id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at,
                    sealed, created_by, version, created_at, updated_at
                FROM appointment
                WHERE tenant_id = $1 AND practitioner_id = $8 AND starts_at >= $2 AND starts_at < $3
                    AND (starts_at, id) > ($4, $5)
                    AND ($6::text IS NULL OR status = $6)
                ORDER BY starts_at, id LIMIT $7
                """,
                binds)
        }
        return Query(
            """
            SELECT id, patient_id, practitioner_id, starts_at, ends_at, zone, status, started_at,
                sealed, created_by, version, created_at, updated_at
            FROM appointment
            WHERE tenant_id = $1 AND starts_at >= $2 AND starts_at < $3
                AND (starts_at, id) > ($4, $5)
                AND ($6::text IS NULL OR status = $6)
            ORDER BY starts_at, id LIMIT $7
            """,
            binds)
    }

    // MARK: Booking

    /// Writes the appointment if patient and practitioner are there, the practitioner takes appointments and
    /// the clinic still has the zone that the answer was written with. If not, no row is written, and the
    /// booking that follows fails on its foreign key: so the whole transaction does, in one round trip.
    ///
    /// The row locks are those that the foreign keys take anyway; taken here they also wait for somebody who
    /// is just deleting the patient or deactivating the practitioner.
    func insert(_ appointment: Appointment, sealed: SealedValue, clinicZone: String) -> Query {
        Query(
            """
            INSERT INTO appointment (tenant_id, id, patient_id, practitioner_id, starts_at, ends_at,
                zone, status, sealed, key_version, created_by, version, created_at, updated_at)
            SELECT $1, $2, patient.id, practitioner.id, $5, $6, $7, $8, $9, $10, $11, 1, $12, $12
            FROM practitioner, patient, clinic
            WHERE practitioner.tenant_id = $1 AND practitioner.id = $4 AND practitioner.active
                AND practitioner.deleted_at IS NULL
                AND patient.tenant_id = $1 AND patient.id = $3 AND patient.deleted_at IS NULL
                AND clinic.tenant_id = $1 AND clinic.time_zone = $13
            FOR KEY SHARE OF practitioner, patient
            """,
            [
                .id(tenant), .id(appointment.id), .id(appointment.patientID),
                .id(appointment.practitionerID), .timestamp(appointment.startsAt),
                .timestamp(appointment.endsAt), .text(appointment.zone),
                .text(appointment.status.rawValue), .bytes(sealed.bytes),
                .int4(sealed.keyVersion), .optional(appointment.createdBy),
                .timestamp(appointment.createdAt), .text(clinicZone),
            ])
    }

    /// Waits for others who are booking the same practitioner, until the transaction ends. To come right before
    /// what takes time: two who insert conflicting rows at once would each wait for the other until PostgreSQL
    /// finds the deadlock, a second later. Locks of the two-argument form; 1 and 2 have other uses.
    func awaitTurn(at practitioner: PractitionerID) -> Query {
        Query(
            "SELECT pg_advisory_xact_lock(3, hashtext($1::uuid::text || $2::uuid::text))",
            [.id(tenant), .id(practitioner)])
    }

    /// Gives the time back, before another is taken.
    func unbook(_ id: AppointmentID) -> Query {
        Query(
            "DELETE FROM booking WHERE tenant_id = $1 AND appointment_id = $2",
            [.id(tenant), .id(id)])
    }

    func setBlocking(_ id: AppointmentID, _ isBlocking: Bool) -> Query {
        Query(
            """
            UPDATE booking SET blocking = $3
            WHERE tenant_id = $1 AND appointment_id = $2 AND blocking <> $3
            """,
            [.id(tenant), .id(id), .bool(isBlocking)])
    }

    /// Of a row that the transaction has locked.
    func update(_ appointment: Appointment, sealed: SealedValue) -> Query {
        Query(
            """
            UPDATE appointment SET practitioner_id = $3, starts_at = $4, ends_at = $5, status = $6,
                started_at = $7, sealed = $8, key_version = $9, version = $10, updated_at = $11
            WHERE tenant_id = $1 AND id = $2
            """,
            [
                .id(tenant), .id(appointment.id), .id(appointment.practitionerID),
                .timestamp(appointment.startsAt), .timestamp(appointment.endsAt),
                .text(appointment.status.rawValue), .optional(appointment.startedAt),
                .bytes(sealed.bytes), .int4(sealed.keyVersion), .int8(appointment.version),
                .timestamp(appointment.updatedAt),
            ])
    }

    // MARK: Why a booking failed, and what is free instead

    /// Columns: the patient is there, the practitioner is there, takes appointments, account, lanes, buffers
    /// before and after; the clinic's zone. One row, unless the clinic has none.
    func circumstances(patient: PatientID, practitioner: PractitionerID) -> Query {
        Query(
            """
            SELECT
                EXISTS (SELECT FROM patient
                    WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL),
                p.id IS NOT NULL, coalesce(p.active, false), p.account_id,
                coalesce(p.lanes, 1)::integer,
                coalesce(p.buffer_before_minutes, c.buffer_before_minutes)::integer,
                coalesce(p.buffer_after_minutes, c.buffer_after_minutes)::integer,
                c.time_zone
            FROM clinic c
            LEFT JOIN practitioner p ON p.tenant_id = $1 AND p.id = $3 AND p.deleted_at IS NULL
            WHERE c.tenant_id = $1
            """,
            [.id(tenant), .id(patient), .id(practitioner)])
    }
}

extension SlotFinder.Busy {
    init(_ row: PostgresRow) throws {
        self.init(lane: try row.int(0), span: try row.timestamp(1)..<(try row.timestamp(2)))
    }
}

/// One row of `AppointmentStore.circumstances`.
struct BookingCircumstances {
    var hasPatient: Bool
    var hasPractitioner: Bool
    var isActive: Bool
    var practitionerAccount: AccountID?
    var capacity: Int
    var bufferBefore: Duration
    var bufferAfter: Duration
    var clinicZone: String

    init(_ row: PostgresRow) throws {
        hasPatient = try row.bool(0)
        hasPractitioner = try row.bool(1)
        isActive = try row.bool(2)
        practitionerAccount = try row.idIfPresent(3)
        capacity = try row.int(4)
        bufferBefore = .seconds(60 * (try row.int(5)))
        bufferAfter = .seconds(60 * (try row.int(6)))
        clinicZone = try row.text(7)
    }
}
