import HCCore
import HCPostgres
import HCTenancy

/// What is booked around a time.
///
/// Under row-level security an index is searched only by operators that are leakproof (PostgreSQL, CREATE FUNCTION), and
/// `&&` of ranges is none: the index of `booking_slot` alone would give all that a practitioner ever had. So bookings are
/// found by when their appointments begin. An appointment lasts 24 hours at most and its buffers 4 (the tables' checks),
/// so what overlaps a span began less than 28 hours before it, and begins less than 4 hours after.
struct BookedTime {
    let tenant: TenantID

    /// What keeps a practitioner busy in a span, in order of time. Columns: lane, from, to.
    ///
    /// - Parameter max: rows; nil for all of them.
    func busy(
        _ practitioner: PractitionerID, in span: Range<Timestamp>, except: AppointmentID? = nil,
        max: Int64? = nil
    ) -> Query {
        Query(
            """
            SELECT lane::integer, lower(busy), upper(busy)
            FROM appointment
            JOIN booking ON booking.tenant_id = $1 AND booking.appointment_id = appointment.id
                AND booking.resource_id = $2
            WHERE appointment.tenant_id = $1 AND appointment.practitioner_id = $2
                AND appointment.starts_at > $3::timestamptz - interval '28 hours'
                AND appointment.starts_at < $4::timestamptz + interval '4 hours'
                AND appointment.id <> $5 AND blocking AND busy && tstzrange($3, $4)
            ORDER BY busy LIMIT $6
            """,
            [
                .id(tenant), .id(practitioner), .timestamp(span.lowerBound),
                .timestamp(span.upperBound), .uuid(except?.uuid ?? .zero), .optional(max),
            ])
    }

    /// Takes the time, with the practitioner's buffers or else the clinic's, in the first lane that this
    /// statement sees free: one of the practitioner's, or with `isOverbooked` one beyond. Sees it none, it takes
    /// the first and fails on the constraint `booking_slot`; so do all but one of those who took a lane at once.
    func book(_ id: UUID, for appointment: Appointment, isOverbooked: Bool) -> Query {
        Query(
            """
            WITH resource AS MATERIALIZED (
                SELECT coalesce(p.lanes, 1) + $8::integer AS lanes, tstzrange(
                    $5::timestamptz - make_interval(
                        mins => coalesce(p.buffer_before_minutes, c.buffer_before_minutes)),
                    $6::timestamptz + make_interval(
                        mins => coalesce(p.buffer_after_minutes, c.buffer_after_minutes))) AS busy
                FROM clinic c
                LEFT JOIN practitioner p ON p.tenant_id = $1 AND p.id = $4
                WHERE c.tenant_id = $1
            )
            INSERT INTO booking (tenant_id, id, appointment_id, resource_id, lane, busy, blocking)
            SELECT $1, $2, $3, $4, coalesce((
                SELECT min(candidate) FROM generate_series(0, resource.lanes - 1) AS candidate
                WHERE NOT EXISTS (
                    SELECT FROM appointment AS near
                    JOIN booking AS other ON other.tenant_id = $1
                        AND other.appointment_id = near.id AND other.resource_id = $4
                    WHERE near.tenant_id = $1 AND near.practitioner_id = $4
                        AND near.starts_at > $5::timestamptz - interval '32 hours'
                        AND near.starts_at < $6::timestamptz + interval '8 hours'
                        AND other.lane = candidate AND other.busy && resource.busy
                        AND other.blocking)
            ), 0), resource.busy, $7
            FROM resource
            """,
            [
                .id(tenant), .uuid(id), .id(appointment.id), .id(appointment.practitionerID),
                .timestamp(appointment.startsAt), .timestamp(appointment.endsAt),
                .bool(appointment.state.isBlocking),
                .int4(isOverbooked ? Int32(AppointmentStore.overbookedLanesMax) : 0),
            ])
    }
}
