import CLibPQ
import Glibc
import HCCore

/// Owns one `PGresult`: `PQclear` runs in deinit.
struct PGResultHandle: ~Copyable {
    private let pointer: OpaquePointer

    /// Takes over a result that `PQgetResult` gave.
    init(owning pointer: OpaquePointer) { self.pointer = pointer }

    deinit { PQclear(pointer) }

    enum Kind {
        case completed
        case failed
        case aborted
        case sync
        case copyIn
        case copyOut
        case copyBoth
        case other
    }

    var kind: Kind {
        switch PQresultStatus(pointer) {
        case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: .completed
        case PGRES_FATAL_ERROR: .failed
        case PGRES_PIPELINE_ABORTED: .aborted
        case PGRES_PIPELINE_SYNC: .sync
        case PGRES_COPY_IN: .copyIn
        case PGRES_COPY_OUT: .copyOut
        case PGRES_COPY_BOTH: .copyBoth
        default: .other
        }
    }

    var rowCount: Int { Int(PQntuples(pointer)) }
    var columnCount: Int { Int(PQnfields(pointer)) }
    /// Bytes that libpq holds for it.
    var memoryBytes: Int { PQresultMemorySize(pointer) }

    func columnName(_ column: Int) -> String {
        guard let name = PQfname(pointer, Int32(column)) else { return "\(column)" }
        return String(cString: name)
    }

    func columnType(_ column: Int) -> PostgresType {
        PostgresType(oid: PQftype(pointer, Int32(column)))
    }

    /// Rows that an INSERT, UPDATE, DELETE, MERGE, COPY or SELECT touched, by its command tag.
    var affectedRows: Int {
        guard let digits = PQcmdTuples(pointer) else { return 0 }
        return Int(strtoll(digits, nil, 10))
    }

    /// `INSERT 0 1`, `COMMIT`, …
    var commandTag: String {
        guard let tag = PQcmdStatus(pointer) else { return "" }
        return String(cString: tag)
    }

    /// Whether the statement was one that inserts, updates, deletes or merges.
    var isChange: Bool {
        guard let tag = PQcmdStatus(pointer) else { return false }
        switch UInt8(bitPattern: tag.pointee) {
        case UInt8(ascii: "I"), UInt8(ascii: "U"), UInt8(ascii: "D"), UInt8(ascii: "M"): return true
        default: return false
        }
    }

    /// Compares without making a String: once per COMMIT.
    func hasCommandTag(_ tag: StaticString) -> Bool {
        guard let own = PQcmdStatus(pointer) else { return false }
        return tag.withUTF8Buffer { tag in
            UnsafeRawBufferPointer(start: own, count: strlen(own)).elementsEqual(tag)
        }
    }

    /// The value's bytes, or nil for a null; valid within `body` only.
    func withBytes<Result, Failure: Error>(
        row: Int, column: Int, _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        if PQgetisnull(pointer, Int32(row), Int32(column)) != 0 { return try body(nil) }
        return try body(
            UnsafeRawBufferPointer(
                start: PQgetvalue(pointer, Int32(row), Int32(column)),
                count: Int(PQgetlength(pointer, Int32(row), Int32(column)))))
    }

    private func field(_ code: UInt8) -> String? {
        guard let text = PQresultErrorField(pointer, Int32(code)) else { return nil }
        return String(cString: text)
    }

    /// The error's fields, when the status is `PGRES_FATAL_ERROR` (or a notice).
    /// - Returns: nil when libpq made the error itself, which it does when the connection fails.
    func serverError() -> PostgresError.ServerError? {
        guard let code = field(UInt8(ascii: "C")), let sqlstate = SQLState(code) else { return nil }
        let severity = field(UInt8(ascii: "V"))  // PG_DIAG_SEVERITY_NONLOCALIZED
        var error = PostgresError.ServerError(
            sqlstate: sqlstate, message: field(UInt8(ascii: "M")) ?? "",
            isFatal: severity == "FATAL" || severity == "PANIC")
        error.detail = field(UInt8(ascii: "D")).map { Sensitive($0) }
        error.hint = field(UInt8(ascii: "H"))
        error.schema = field(UInt8(ascii: "s"))
        error.table = field(UInt8(ascii: "t"))
        error.column = field(UInt8(ascii: "c"))
        error.constraint = field(UInt8(ascii: "n"))
        error.routine = field(UInt8(ascii: "R"))
        return error
    }
}
