/// The five-character code of a server error (PostgreSQL manual, appendix A).
package struct SQLState: Hashable, Sendable {
    /// The five bytes, first character highest.
    private let packed: UInt64

    /// - Returns: nil unless `code` is five of `[0-9A-Z]`.
    package init?(_ code: some StringProtocol) {
        var packed: UInt64 = 0
        var count = 0
        for byte in code.utf8 {
            guard (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) else { return nil }
            packed = packed << 8 | UInt64(byte)
            count += 1
            guard count <= 5 else { return nil }
        }
        guard count == 5 else { return nil }
        self.packed = packed
    }

    private init(known code: StaticString) {
        guard let state = SQLState(code.description) else {
            preconditionFailure("not a SQLSTATE: \(code)")
        }
        self = state
    }

    package var code: String {
        var text = ""
        for shift in stride(from: 32, through: 0, by: -8) {
            text.unicodeScalars.append(
                Unicode.Scalar(UInt8(truncatingIfNeeded: packed >> UInt64(shift))))
        }
        return text
    }

    /// The first two characters: the class of the condition.
    package var category: String { String(code.prefix(2)) }

    /// The server ends the session with this: by an operator, a crash of a neighbour, or because it is starting.
    var endsSession: Bool {
        switch self {
        case .adminShutdown, .crashShutdown, .databaseDropped, .idleInTransactionTimeout,
            .idleSessionTimeout:
            true
        default: false
        }
    }
}

extension SQLState: CustomStringConvertible {
    package var description: String { code }
}

extension SQLState {
    // Raised by `hc_enter` and its kin in a shard (migrations/shard).
    package static let tenantMoved = SQLState(known: "HC001")
    package static let tenantDraining = SQLState(known: "HC002")
    package static let tenantSuspended = SQLState(known: "HC003")
    package static let tenantReadOnly = SQLState(known: "HC004")

    /// The control database's: a move is not the caller's to commit.
    package static let moveNotYours = SQLState(known: "HC010")

    package static let connectionFailure = SQLState(known: "08006")
    package static let featureNotSupported = SQLState(known: "0A000")
    package static let cardinalityViolation = SQLState(known: "21000")
    package static let stringTooLong = SQLState(known: "22001")
    package static let numericOutOfRange = SQLState(known: "22003")
    package static let invalidDatetime = SQLState(known: "22007")
    package static let divisionByZero = SQLState(known: "22012")
    package static let invalidText = SQLState(known: "22P02")
    package static let notNullViolation = SQLState(known: "23502")
    package static let foreignKeyViolation = SQLState(known: "23503")
    package static let uniqueViolation = SQLState(known: "23505")
    package static let checkViolation = SQLState(known: "23514")
    package static let exclusionViolation = SQLState(known: "23P01")
    package static let activeTransaction = SQLState(known: "25001")
    package static let readOnlyTransaction = SQLState(known: "25006")
    package static let failedTransaction = SQLState(known: "25P02")
    package static let idleInTransactionTimeout = SQLState(known: "25P03")
    package static let unknownStatement = SQLState(known: "26000")
    package static let invalidAuthorization = SQLState(known: "28000")
    package static let invalidPassword = SQLState(known: "28P01")
    package static let unknownDatabase = SQLState(known: "3D000")
    package static let serializationFailure = SQLState(known: "40001")
    package static let deadlockDetected = SQLState(known: "40P01")
    package static let insufficientPrivilege = SQLState(known: "42501")
    package static let syntaxError = SQLState(known: "42601")
    package static let undefinedColumn = SQLState(known: "42703")
    package static let undefinedFunction = SQLState(known: "42883")
    package static let undefinedTable = SQLState(known: "42P01")
    package static let duplicateTable = SQLState(known: "42P07")
    package static let tooManyConnections = SQLState(known: "53300")
    package static let objectInUse = SQLState(known: "55006")
    package static let lockNotAvailable = SQLState(known: "55P03")
    package static let queryCancelled = SQLState(known: "57014")
    package static let adminShutdown = SQLState(known: "57P01")
    package static let crashShutdown = SQLState(known: "57P02")
    package static let cannotConnectNow = SQLState(known: "57P03")
    package static let databaseDropped = SQLState(known: "57P04")
    package static let idleSessionTimeout = SQLState(known: "57P05")
    package static let raisedException = SQLState(known: "P0001")
}
