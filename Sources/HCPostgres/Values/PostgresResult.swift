package import HCCore

/// What one query gave back. The rows stay in libpq's memory until the last reference is gone.
///
/// Immutable once made, so it may be read on any thread (libpq 34.20: a `PGresult` is a passive read-only object).
package final class PostgresResult: @unchecked Sendable {
    // Unchecked: `handle` is a `let`, and every function called on it only reads the PGresult.
    private let handle: PGResultHandle
    package let count: Int
    package let columnCount: Int

    init(_ handle: consuming PGResultHandle) {
        count = handle.rowCount
        columnCount = handle.columnCount
        self.handle = handle
    }

    /// Rows inserted, updated, deleted or selected.
    package var affectedRows: Int { handle.affectedRows }
    package var commandTag: String { handle.commandTag }
    /// Whether the statement was one that inserts, updates, deletes or merges.
    var isChange: Bool { handle.isChange }
    package var isEmpty: Bool { count == 0 }
    package var rows: Rows { Rows(result: self) }

    /// - Precondition: `row` is in `0..<count`.
    package subscript(row: Int) -> PostgresRow {
        precondition(row >= 0 && row < count, "row \(row) of \(count)")
        return PostgresRow(result: self, index: row)
    }

    package var first: PostgresRow? { count == 0 ? nil : self[0] }

    /// The only row.
    /// - Throws: `.decode(.rowCount)` for none or several.
    package func single() throws(PostgresError) -> PostgresRow {
        guard count == 1 else { throw rowCountError() }
        return self[0]
    }

    /// The only row, or nil for none.
    /// - Throws: `.decode(.rowCount)` for several.
    package func singleIfPresent() throws(PostgresError) -> PostgresRow? {
        guard count <= 1 else { throw rowCountError() }
        return first
    }

    private func rowCountError() -> PostgresError {
        PostgresError(.decode(.init(column: "", reason: .rowCount(expected: 1, actual: count))))
    }

    package func columnName(_ column: Int) -> String { handle.columnName(column) }
    package func columnType(_ column: Int) -> PostgresType { handle.columnType(column) }

    /// Bytes of memory that the rows hold.
    package var memoryBytes: Int { handle.memoryBytes }

    fileprivate func withBytes<Result, Failure: Error>(
        row: Int, column: Int, _ body: (UnsafeRawBufferPointer?) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try handle.withBytes(row: row, column: column, body)
    }
}

extension PostgresResult {
    package struct Rows: RandomAccessCollection, Sendable {
        let result: PostgresResult
        package var startIndex: Int { 0 }
        package var endIndex: Int { result.count }
        package subscript(position: Int) -> PostgresRow { result[position] }
    }
}

/// One row. Columns are named by position, from 0; every getter checks the column's type and names it when
/// it is another. A null where a value is expected is an error: see the `…IfPresent` forms.
package struct PostgresRow: Sendable {
    let result: PostgresResult
    let index: Int

    package func isNull(_ column: Int) throws(PostgresError) -> Bool {
        try check(column)
        return result.withBytes(row: index, column: column) { $0 == nil }
    }

    package func bool(_ column: Int) throws(PostgresError) -> Bool {
        try required(column, try boolIfPresent(column))
    }
    package func boolIfPresent(_ column: Int) throws(PostgresError) -> Bool? {
        try decode(column, as: "bool", [.bool]) { reader throws(BinaryReader.Failure) in
            try reader.integer(UInt8.self) != 0
        }
    }

    /// An int2, int4 or int8.
    package func int(_ column: Int) throws(PostgresError) -> Int {
        try required(column, try intIfPresent(column))
    }
    package func intIfPresent(_ column: Int) throws(PostgresError) -> Int? {
        try check(column)
        switch result.columnType(column) {
        case .int8:
            return try decode(column, as: "integer", [.int8]) { r throws(BinaryReader.Failure) in
                Int(try r.integer(Int64.self))
            }
        case .int2:
            return try decode(column, as: "integer", [.int2]) { r throws(BinaryReader.Failure) in
                Int(try r.integer(Int16.self))
            }
        default:
            return try decode(column, as: "integer", [.int4]) { r throws(BinaryReader.Failure) in
                Int(try r.integer(Int32.self))
            }
        }
    }

    /// An oid, xid or xid8.
    package func unsigned(_ column: Int) throws(PostgresError) -> UInt64 {
        try check(column)
        if result.columnType(column) == .xid8 {
            return try required(
                column,
                try decode(column, as: "xid8", [.xid8]) { r throws(BinaryReader.Failure) in
                    try r.integer(UInt64.self)
                })
        }
        return try required(
            column,
            try decode(column, as: "oid", [.oid, .xid]) { r throws(BinaryReader.Failure) in
                UInt64(try r.integer(UInt32.self))
            })
    }

    package func double(_ column: Int) throws(PostgresError) -> Double {
        try required(column, try doubleIfPresent(column))
    }
    package func doubleIfPresent(_ column: Int) throws(PostgresError) -> Double? {
        try check(column)
        if result.columnType(column) == .float4 {
            return try decode(column, as: "float", [.float4]) { r throws(BinaryReader.Failure) in
                Double(Float(bitPattern: try r.integer(UInt32.self)))
            }
        }
        return try decode(column, as: "float", [.float8]) { r throws(BinaryReader.Failure) in
            Double(bitPattern: try r.integer(UInt64.self))
        }
    }

    /// A text, varchar, bpchar, name or "char".
    package func text(_ column: Int) throws(PostgresError) -> String {
        try required(column, try textIfPresent(column))
    }
    package func textIfPresent(_ column: Int) throws(PostgresError) -> String? {
        try decode(column, as: "text", Self.textTypes) { r throws(BinaryReader.Failure) in r.text()
        }
    }
    private static let textTypes: [PostgresType] = [
        .text, .varchar, .bpchar, .name, .internalChar, .unknown,
    ]

    package func bytes(_ column: Int) throws(PostgresError) -> [UInt8] {
        try required(column, try bytesIfPresent(column))
    }
    package func bytesIfPresent(_ column: Int) throws(PostgresError) -> [UInt8]? {
        try decode(column, as: "bytea", [.bytea]) { r throws(BinaryReader.Failure) in
            [UInt8](r.rest())
        }
    }

    /// The value as the server sent it, without a copy and without a look at its type; nil for a null.
    /// The pointer is valid within `body` only.
    package func withBytes<Result>(
        _ column: Int, _ body: (UnsafeRawBufferPointer?) throws -> Result
    ) throws -> Result {
        try check(column)
        return try result.withBytes(row: index, column: column, body)
    }

    package func uuid(_ column: Int) throws(PostgresError) -> UUID {
        try required(column, try uuidIfPresent(column))
    }
    package func uuidIfPresent(_ column: Int) throws(PostgresError) -> UUID? {
        try decode(column, as: "uuid", [.uuid]) { r throws(BinaryReader.Failure) in try r.uuid() }
    }

    package func id<Kind>(
        _ column: Int, _ kind: Kind.Type = Kind.self
    ) throws(PostgresError) -> Identifier<Kind> {
        Identifier(try uuid(column))
    }
    package func idIfPresent<Kind>(
        _ column: Int, _ kind: Kind.Type = Kind.self
    ) throws(PostgresError) -> Identifier<Kind>? {
        try uuidIfPresent(column).map { Identifier($0) }
    }

    package func timestamp(_ column: Int) throws(PostgresError) -> Timestamp {
        try required(column, try timestampIfPresent(column))
    }
    package func timestampIfPresent(_ column: Int) throws(PostgresError) -> Timestamp? {
        try decode(column, as: "timestamptz", [.timestamptz]) { r throws(BinaryReader.Failure) in
            try r.timestamp()
        }
    }

    package func date(_ column: Int) throws(PostgresError) -> CalendarDate {
        try required(column, try dateIfPresent(column))
    }
    package func dateIfPresent(_ column: Int) throws(PostgresError) -> CalendarDate? {
        try decode(column, as: "date", [.date]) { r throws(BinaryReader.Failure) in try r.date() }
    }

    /// The text of a jsonb document, in UTF-8.
    package func json(_ column: Int) throws(PostgresError) -> [UInt8] {
        try required(column, try jsonIfPresent(column))
    }
    package func jsonIfPresent(_ column: Int) throws(PostgresError) -> [UInt8]? {
        try decode(column, as: "jsonb", [.jsonb]) { r throws(BinaryReader.Failure) in
            guard try r.integer(UInt8.self) == 1 else { throw .malformed }
            return [UInt8](r.rest())
        }
    }

    /// A `[lower, upper)` range; nil for a null and for the empty range.
    package func timestampRangeIfPresent(
        _ column: Int
    ) throws(PostgresError) -> TimestampRange? {
        let range: TimestampRange?? = try decode(column, as: "tstzrange", [.tstzrange]) {
            r throws(BinaryReader.Failure) in
            try r.timestampRange()
        }
        return range ?? nil
    }

    package func uuids(_ column: Int) throws(PostgresError) -> [UUID] {
        try array(column, "uuid[]", .uuidArray, of: .uuid) { r throws(BinaryReader.Failure) in
            try r.uuid()
        }
    }
    package func texts(_ column: Int) throws(PostgresError) -> [String] {
        try array(column, "text[]", .textArray, of: .text) { r throws(BinaryReader.Failure) in
            r.text()
        }
    }
    package func int8s(_ column: Int) throws(PostgresError) -> [Int64] {
        try array(column, "int8[]", .int8Array, of: .int8) { r throws(BinaryReader.Failure) in
            try r.integer(Int64.self)
        }
    }
    package func byteas(_ column: Int) throws(PostgresError) -> [[UInt8]] {
        try array(column, "bytea[]", .byteaArray, of: .bytea) { r throws(BinaryReader.Failure) in
            [UInt8](r.rest())
        }
    }
    package func timestamps(_ column: Int) throws(PostgresError) -> [Timestamp] {
        try array(column, "timestamptz[]", .timestamptzArray, of: .timestamptz) {
            r throws(BinaryReader.Failure) in
            try r.timestamp()
        }
    }
}

extension PostgresRow {
    private func problem(
        _ column: Int, _ reason: PostgresError.DecodeProblem.Reason
    ) -> PostgresError {
        let name =
            column >= 0 && column < result.columnCount ? result.columnName(column) : "\(column)"
        return PostgresError(.decode(.init(column: name, reason: reason)))
    }

    private func check(_ column: Int) throws(PostgresError) {
        guard column >= 0, column < result.columnCount else { throw problem(column, .noSuchColumn) }
    }

    private func required<Value>(_ column: Int, _ value: Value?) throws(PostgresError) -> Value {
        guard let value else { throw problem(column, .unexpectedNull) }
        return value
    }

    private func decode<Value>(
        _ column: Int, as expected: PostgresError.StaticName, _ types: [PostgresType],
        _ read: (inout BinaryReader) throws(BinaryReader.Failure) -> Value
    ) throws(PostgresError) -> Value? {
        try check(column)
        let actual = result.columnType(column)
        guard types.contains(actual) else {
            throw problem(column, .wrongType(expected: expected, actual: actual))
        }
        do throws(BinaryReader.Failure) {
            return try result.withBytes(row: index, column: column) {
                bytes throws(BinaryReader.Failure) -> Value? in
                guard let bytes else { return nil }
                var reader = BinaryReader(bytes)
                let value = try read(&reader)
                guard reader.isAtEnd else { throw .malformed }
                return value
            }
        } catch {
            throw problem(column, error.reason)
        }
    }

    private func array<Element>(
        _ column: Int, _ expected: PostgresError.StaticName, _ type: PostgresType,
        of element: PostgresType,
        _ read: (inout BinaryReader) throws(BinaryReader.Failure) -> Element
    ) throws(PostgresError) -> [Element] {
        let value = try decode(column, as: expected, [type]) { r throws(BinaryReader.Failure) in
            try r.array(of: element, read)
        }
        return try required(column, value)
    }
}
