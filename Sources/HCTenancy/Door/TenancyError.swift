/// Why a clinic's data cannot be had. Codes are stable: clients and tests may compare them.
///
/// None of the cases says which shard: a clinic has no business knowing.
package enum TenancyError: Error, Hashable, Sendable {
    /// No clinic answers to this host or id, as far as the newest map says.
    case tenantUnknown
    /// The clinic exists and nobody may use it.
    case suspended
    /// The clinic can be read but not written.
    case readOnly
    /// The clinic is on its way to another shard and did not arrive before the deadline.
    case moving(retryAfter: Duration)
    /// The clinic's database does not answer, or is not the one that the map names.
    case shardUnavailable(retryAfter: Duration)
    /// The clinic's database has a schema that this program does not work with: nothing was begun.
    case schemaUnsupported(retryAfter: Duration)
    /// A bounded queue is full: nothing was begun.
    case overloaded(retryAfter: Duration)
    /// The connection was lost while a commit was under way: it may have happened, it may not. Never
    /// retried here; a client with an `Idempotency-Key` can find out by asking again.
    case outcomeUnknown
    /// The request's time is up. Nothing was committed.
    case deadlineExceeded
    /// A statement or transaction took longer than the clinic's tier lets it. Nothing was committed.
    case timeLimitExceeded
    /// The caller is gone. Nothing was committed.
    case cancelled
    /// The clinic's keys are revoked, or wrapped under a master key that this process does not have.
    case keyUnavailable
    /// Sealed bytes that do not open: altered, or out of another row, column or clinic.
    case sealBroken
    /// The access could not be recorded, so what was read is not given away.
    case auditUnavailable(retryAfter: Duration)
    /// This process has no map yet: neither from the control database nor from disk.
    case directoryUnavailable(retryAfter: Duration)
    /// Redis is away: no events can be followed, no tickets issued or redeemed.
    case eventsUnavailable(retryAfter: Duration)

    package var code: String {
        switch self {
        case .tenantUnknown: "tenant-unknown"
        case .suspended: "tenant-suspended"
        case .readOnly: "tenant-read-only"
        case .moving: "tenant-moving"
        case .shardUnavailable: "shard-unavailable"
        case .schemaUnsupported: "schema-unsupported"
        case .overloaded: "overloaded"
        case .outcomeUnknown: "outcome-unknown"
        case .deadlineExceeded: "deadline-exceeded"
        case .timeLimitExceeded: "time-limit-exceeded"
        case .cancelled: "cancelled"
        case .keyUnavailable: "key-unavailable"
        case .sealBroken: "seal-broken"
        case .auditUnavailable: "audit-unavailable"
        case .directoryUnavailable: "directory-unavailable"
        case .eventsUnavailable: "events-unavailable"
        }
    }

    /// After this long the same request may well succeed. Nil where waiting does not help by itself.
    package var retryAfter: Duration? {
        switch self {
        case .moving(let time), .shardUnavailable(let time), .schemaUnsupported(let time),
            .overloaded(let time), .auditUnavailable(let time), .directoryUnavailable(let time),
            .eventsUnavailable(let time):
            time
        case .tenantUnknown, .suspended, .readOnly, .outcomeUnknown, .deadlineExceeded,
            .timeLimitExceeded, .cancelled,
            .keyUnavailable, .sealBroken:
            nil
        }
    }
}

extension TenancyError: CustomStringConvertible {
    package var description: String { "tenancy: \(code)" }
}
