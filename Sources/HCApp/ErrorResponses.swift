import HCClinic
import HCCore
import HCHTTP
import HCIO
import HCPostgres
import HCTenancy

/// The one table from errors to what a client is told.
enum ErrorResponses {
    /// - Returns: nil for an error that no client can do anything about: a bug, logged and answered with 500.
    static func problem(for error: any Error) -> Problem? {
        switch error {
        case let error as Problem: error
        case let error as ClinicError: problem(error)
        case let error as TenancyError: problem(error)
        case is DeadlineExceeded: unavailable("deadline-exceeded", retryAfter: .seconds(1))
        case is CancellationError: unavailable("cancelled", retryAfter: .seconds(1))
        case let error as PostgresError: problem(error)
        case is RequestBodyError:
            Problem(.badRequest, code: "incomplete-content", title: "Bad Request")
        default: nil
        }
    }

    // MARK: The clinic

    static func status(of code: ClinicError.Code) -> HTTPStatus {
        switch code {
        case .invalidInput, .idempotencyKeyReused: .unprocessableContent
        case .invalidCursor, .invalidIdempotencyKey, .invalidPrecondition: .badRequest
        case .unauthenticated, .invalidCredentials, .invalidRefreshToken, .refreshTokenReused,
            .invalidTicket:
            .unauthorized
        case .forbidden: .forbidden
        case .notFound, .tenantMismatch: .notFound
        case .slotTaken, .mrnTaken, .emailTaken, .alreadyLinked, .illegalTransition,
            .futureAppointments,
            .lastOwner, .practitionerInactive, .idempotencyKeyInFlight:
            .conflict
        case .accountLocked, .tooManySockets: .tooManyRequests
        case .preconditionFailed: .preconditionFailed
        case .preconditionRequired: .preconditionRequired
        case .busy: .serviceUnavailable
        }
    }

    private static func problem(_ error: ClinicError) -> Problem {
        let status = status(of: error.code)
        // An unknown id, another clinic's id and an unknown path are one and the same answer.
        if status == .notFound { return .notFound }
        var problem = Problem(
            status, code: error.code.rawValue, title: "\(status.reason)",
            detail: "\(error.summary)",
            errors: error.fields.map { FieldProblem($0.field, code: $0.code.rawValue, $0.message) })
        problem.extensions = error.data
        if status == .unauthorized { problem.headers.append(.wwwAuthenticate, challenge) }
        if let retryAfter = error.retryAfter {
            problem.headers.append(.retryAfter, "\(max(1, retryAfter.inSecondsRoundedUp))")
        }
        return problem
    }

    private static let challenge: StaticString = "Bearer"

    // MARK: The tenant and its shard

    private static func problem(_ error: TenancyError) -> Problem {
        switch error {
        case .tenantUnknown: .notFound
        case .suspended:
            Problem(
                .forbidden, code: error.code, title: "Forbidden", detail: "The clinic is suspended."
            )
        case .readOnly:
            unavailable(
                error.code, retryAfter: .seconds(30), "The clinic can be read but not changed now.")
        case .keyUnavailable:
            Problem(
                423, code: error.code, title: "Locked",
                detail: "The clinic's keys are not available.")
        case .sealBroken: .internalError
        case .schemaUnsupported(let time):
            unavailable(
                error.code, retryAfter: time, "The clinic's database is being upgraded.")
        case .outcomeUnknown:
            unavailable(
                error.code, retryAfter: .seconds(1),
                "It is not known whether the change was made. Send it again with its Idempotency-Key."
            )
        default:
            unavailable(error.code, retryAfter: error.retryAfter ?? .seconds(1))
        }
    }

    /// What the tenancy room does not translate: the clinic's own statements met something unexpected.
    private static func problem(_ error: PostgresError) -> Problem? {
        switch error.kind {
        case .deadlineExceeded, .cancelled:
            unavailable("deadline-exceeded", retryAfter: .seconds(1))
        case .connectionLost, .connectFailed:
            unavailable("shard-unavailable", retryAfter: .seconds(1))
        case .commitUnknown: problem(TenancyError.outcomeUnknown)
        case .server(let server) where error.isRetryable || server.sqlstate == .lockNotAvailable:
            unavailable("busy", retryAfter: .seconds(1))
        case .server, .decode, .encode, .misuse: nil
        }
    }

    static func unavailable(
        _ code: String, retryAfter: Duration, _ detail: String? = nil
    ) -> Problem {
        var problem = Problem(
            .serviceUnavailable, code: code, title: "Service Unavailable", detail: detail)
        problem.headers.append(.retryAfter, "\(max(1, retryAfter.inSecondsRoundedUp))")
        return problem
    }
}
