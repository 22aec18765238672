package import HCCore

/// What a service refuses, and why. HCApp has the one table from `code` to an HTTP status.
///
/// Nothing in here quotes what a client sent: values could be patient data.
package struct ClinicError: Error, Sendable, Equatable {
    package enum Code: String, CaseIterable, Sendable {
        /// A field is missing, unknown or wrong; `fields` names each one.
        case invalidInput = "invalid-input"
        case invalidCursor = "invalid-cursor"
        case invalidIdempotencyKey = "invalid-idempotency-key"
        /// If-Match is there but is no list of entity tags.
        case invalidPrecondition = "invalid-precondition"

        /// No access token, or none that is ours and still good.
        case unauthenticated
        /// The email or the password is wrong: which of them is not told.
        case invalidCredentials = "invalid-credentials"
        /// Too many wrong passwords: `retryAfter` says when the next is looked at.
        case accountLocked = "account-locked"
        case invalidRefreshToken = "invalid-refresh-token"
        /// A refresh token came a second time; all its sessions are ended.
        case refreshTokenReused = "refresh-token-reused"
        /// The ticket for a socket is unknown, used or too old, or its session is over.
        case invalidTicket = "invalid-ticket"
        case forbidden

        case notFound = "not-found"
        /// The token belongs to another clinic. Answered exactly as `notFound`; the difference is for the audit.
        case tenantMismatch = "tenant-mismatch"

        case slotTaken = "slot-taken"
        case mrnTaken = "mrn-taken"
        case emailTaken = "email-taken"
        case alreadyLinked = "already-linked"
        /// `data.allowed` lists what may be done instead.
        case illegalTransition = "illegal-transition"
        case futureAppointments = "future-appointments"
        case lastOwner = "last-owner"
        case practitionerInactive = "practitioner-inactive"
        /// Another request with this Idempotency-Key is running.
        case idempotencyKeyInFlight = "idempotency-key-in-flight"
        /// The Idempotency-Key was used for another request.
        case idempotencyKeyReused = "idempotency-key-reused"

        case preconditionFailed = "precondition-failed"
        case preconditionRequired = "precondition-required"

        /// The session, or the clinic, has as many sockets open as it may.
        case tooManySockets = "too-many-sockets"
        /// The queue of slow work is full: `retryAfter` says when to come back.
        case busy
    }

    package var code: Code
    package var fields: [InvalidField]
    /// Members for the answer beside the standard ones: alternatives, allowed transitions.
    package var data: JSONObject
    package var retryAfter: Duration?

    package init(
        _ code: Code, fields: [InvalidField] = [], data: JSONObject = JSONObject(),
        retryAfter: Duration? = nil
    ) {
        self.code = code
        self.fields = fields
        self.data = data
        self.retryAfter = retryAfter
    }

    /// One wrong field.
    package static func invalid(
        _ field: String, _ code: InvalidField.Code, _ message: String
    ) -> ClinicError {
        ClinicError(.invalidInput, fields: [InvalidField(field, code, message)])
    }

    static let notFound = ClinicError(.notFound)
    static let forbidden = ClinicError(.forbidden)
}

extension ClinicError {
    /// A sentence for people, constant per code.
    package var summary: StaticString {
        switch code {
        case .invalidInput: "The request has fields that are missing, unknown or wrong."
        case .invalidCursor: "The cursor was not made by this clinic for this list."
        case .invalidIdempotencyKey: "An Idempotency-Key has 1 to 255 visible ASCII characters."
        case .invalidPrecondition: "If-Match is a list of entity tags, or *."
        case .unauthenticated: "A valid access token is required."
        case .invalidCredentials: "The email or the password is wrong."
        case .accountLocked: "Too many failed logins. Try again later."
        case .invalidRefreshToken: "The refresh token is not valid. Log in again."
        case .refreshTokenReused:
            "The refresh token was used before; its sessions are ended. Log in again."
        case .invalidTicket: "The ticket is not valid. Ask for a new one."
        case .forbidden: "This account may not do that."
        case .notFound, .tenantMismatch: "There is nothing here."
        case .slotTaken: "The time is taken."
        case .mrnTaken: "Another patient has this medical record number."
        case .emailTaken: "Another account has this email."
        case .alreadyLinked: "It is linked to another account already."
        case .illegalTransition: "The appointment's status does not allow that."
        case .futureAppointments: "The patient has appointments to come. Cancel them first."
        case .lastOwner: "A clinic keeps at least one active owner."
        case .practitionerInactive: "The practitioner takes no appointments."
        case .idempotencyKeyInFlight: "A request with this Idempotency-Key is running."
        case .idempotencyKeyReused: "This Idempotency-Key was used for another request."
        case .preconditionFailed: "It has changed since. Read it again, then try again."
        case .preconditionRequired: "If-Match with the entity tag is required."
        case .tooManySockets: "Too many sockets are open."
        case .busy: "The server is busy. Try again shortly."
        }
    }
}

/// One field of a request that is not as it must be. It never carries the value.
package struct InvalidField: Error, Sendable, Equatable {
    package enum Code: String, CaseIterable, Sendable {
        case missing
        case unknown
        case wrongType = "wrong-type"
        case blank
        case tooShort = "too-short"
        case tooLong = "too-long"
        case tooMany = "too-many"
        case invalidCharacters = "invalid-characters"
        case invalidFormat = "invalid-format"
        case outOfRange = "out-of-range"
        case notAllowed = "not-allowed"
        /// It names something that is not there.
        case notFound = "not-found"
        case tooCommon = "too-common"
    }

    /// The name in the JSON text or the query.
    package var field: String
    package var code: Code
    package var message: String

    package init(_ field: String, _ code: Code, _ message: String) {
        self.field = field
        self.code = code
        self.message = message
    }
}
