package import HCCore

/// What can go wrong between HC and a PostgreSQL server.
package struct PostgresError: Error, Sendable {
    package enum Kind: Sendable {
        /// The server refused a statement; its transaction is rolled back.
        case server(ServerError)
        /// The session is gone and nothing of this call was or will be committed.
        case connectionLost
        /// The session is gone after the server may have been asked to commit: nobody knows whether it did.
        case commitUnknown
        /// No session could be opened.
        case connectFailed(ConnectFailure)
        /// The deadline passed; the work was cancelled on the server, or never sent. Nothing is committed.
        case deadlineExceeded
        /// The task was cancelled; the rest as for `deadlineExceeded`.
        case cancelled
        /// A result does not have the type that the code expects.
        case decode(DecodeProblem)
        /// A value cannot be sent: nothing was.
        case encode(EncodeProblem)
        /// The connection was used against its rules, which is a bug of the caller: nothing was sent.
        case misuse(StaticString)
    }

    package var kind: Kind
    /// Which query of the call failed, from 0. Nil when none did by itself, as in a failing COMMIT.
    package var queryIndex: Int?
    /// The deadline or cancellation that ended the wait, when the outcome is `commitUnknown` because of it.
    package var interruption: Interruption?

    package enum Interruption: Sendable {
        case deadline
        case cancellation
    }

    package init(_ kind: Kind, queryIndex: Int? = nil, interruption: Interruption? = nil) {
        self.kind = kind
        self.queryIndex = queryIndex
        self.interruption = interruption
    }

    static let connectionLost = PostgresError(.connectionLost)
    static let deadlineExceeded = PostgresError(.deadlineExceeded)
    static let cancelled = PostgresError(.cancelled)
}

extension PostgresError {
    /// The fields of an ErrorResponse (PostgreSQL manual, 55.8).
    package struct ServerError: Sendable {
        package var sqlstate: SQLState
        /// May quote values: for code that knows its own statements, never for users or logs.
        package var message: Sensitive<String>
        package var detail: Sensitive<String>?
        package var hint: String?
        package var schema: String?
        package var table: String?
        package var column: String?
        package var constraint: String?
        /// The server's C function that raised it.
        package var routine: String?
        /// FATAL and PANIC: the server ends the session with it.
        package var isFatal: Bool

        package init(sqlstate: SQLState, message: String, isFatal: Bool = false) {
            self.sqlstate = sqlstate
            self.message = Sensitive(message)
            self.isFatal = isFatal
        }
    }

    package enum ConnectFailure: Hashable, Sendable {
        /// Nobody answers, or the name does not resolve.
        case unreachable
        /// The server does not accept this role and password: it will not do so by trying again.
        case authentication
        /// The server is starting, stopping or in recovery (57P03): try again soon.
        case startingUp
        case tooManyConnections
        case unknownDatabase
        /// The connection string is not one.
        case invalidConfiguration
        /// The server answered, and is not the one that it should be: for a pool's `identify` to throw.
        case identityRefused
        case other(SQLState?)

        init(sqlstate: SQLState?) {
            switch sqlstate {
            case .invalidPassword, .invalidAuthorization: self = .authentication
            case .cannotConnectNow: self = .startingUp
            case .tooManyConnections: self = .tooManyConnections
            case .unknownDatabase: self = .unknownDatabase
            case nil: self = .unreachable
            case let state: self = .other(state)
            }
        }
    }

    package struct DecodeProblem: Hashable, Sendable {
        package enum Reason: Hashable, Sendable {
            case wrongType(expected: StaticName, actual: PostgresType)
            case unexpectedNull
            case malformed
            /// A value that our type cannot hold: `infinity`, a range with other bounds, a null in an array.
            case unrepresentable
            case noSuchColumn
            case rowCount(expected: Int, actual: Int)
        }
        package var column: String
        package var reason: Reason
    }

    /// A name out of the program's text; made into a String only when somebody asks.
    package struct StaticName: Hashable, Sendable, CustomStringConvertible,
        ExpressibleByStringLiteral
    {
        private let text: StaticString
        package init(stringLiteral value: StaticString) { text = value }
        package var description: String { text.description }
        package static func == (left: StaticName, right: StaticName) -> Bool {
            left.description == right.description
        }
        package func hash(into hasher: inout Hasher) { hasher.combine(description) }
    }

    package enum EncodeProblem: Hashable, Sendable {
        /// Parameter number, from 1.
        case nulInText(parameter: Int)
        case outOfRange(parameter: Int)
        case tooLarge(parameter: Int)
        case tooManyParameters(Int)
        case nulInSQL
    }
}

extension PostgresError {
    package var server: ServerError? {
        if case .server(let error) = kind { error } else { nil }
    }

    package var sqlstate: SQLState? { server?.sqlstate }

    package var constraint: String? { server?.constraint }

    /// Nothing was committed, and the same transaction may well succeed when it is run again from its start.
    package var isRetryable: Bool {
        guard let server else { return false }
        return switch server.sqlstate {
        case .serializationFailure, .deadlockDetected: true
        default: server.showsStaleStatement
        }
    }

    /// Whether the server may have committed what this call asked for.
    package var outcomeIsUnknown: Bool {
        if case .commitUnknown = kind { true } else { false }
    }

    /// The database is not there for us at the moment: what a 503 is for.
    package var isUnavailability: Bool {
        switch kind {
        case .connectionLost, .commitUnknown, .connectFailed: true
        case .server(let error): error.isFatal || error.sqlstate == .cannotConnectNow
        default: false
        }
    }
}

extension PostgresError.ServerError {
    /// The server no longer knows a statement that we prepared (DISCARD, a pooler in between), or a schema
    /// change altered its columns. The routine is compared, since messages are translated.
    var showsStaleStatement: Bool {
        switch sqlstate {
        case .unknownStatement: true
        case .featureNotSupported: routine == "RevalidateCachedQuery"
        default: false
        }
    }
}

extension PostgresError: CustomStringConvertible {
    /// Without any text of the server that may quote a value.
    package var description: String {
        var text = "postgres: "
        switch kind {
        case .server(let error):
            text += "server error \(error.sqlstate)"
            if let constraint = error.constraint { text += " constraint \(constraint)" }
            if let table = error.table { text += " table \(table)" }
        case .connectionLost: text += "connection lost"
        case .commitUnknown: text += "connection lost, outcome of the commit unknown"
        case .connectFailed(let failure): text += "connect failed: \(failure)"
        case .deadlineExceeded: text += "deadline exceeded"
        case .cancelled: text += "cancelled"
        case .decode(let problem): text += "column \(problem.column): \(problem.reason)"
        case .encode(let problem): text += "cannot bind: \(problem)"
        case .misuse(let rule): text += "misuse: \(rule)"
        }
        if let queryIndex { text += " (query \(queryIndex))" }
        return text
    }
}
