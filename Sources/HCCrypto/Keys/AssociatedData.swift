package import HCCore

/// Builds the associated data of sealed bytes: what they are, so that they open nowhere else.
///
/// Each part is preceded by its length, so no two lists of parts give the same bytes: `("ab", "c")`
/// and `("a", "bc")` differ. By convention: tenant, table, column, row, key version.
package struct AssociatedData: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {
        bytes.reserveCapacity(96)
    }

    package init(tenant: UUID, table: StaticString, column: StaticString, row: UUID) {
        self.init()
        append(tenant)
        append(table)
        append(column)
        append(row)
    }

    package mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { append(UnsafeRawBufferPointer($0)) }
    }

    package mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    package mutating func append(_ id: UUID) {
        withUnsafeBytes(of: (id.high.bigEndian, id.low.bigEndian)) { append($0) }
    }

    package mutating func append(_ number: UInt32) {
        withUnsafeBytes(of: number.bigEndian) { append($0) }
    }

    package mutating func append(_ number: Int64) {
        withUnsafeBytes(of: number.bigEndian) { append($0) }
    }

    package mutating func append(_ part: UnsafeRawBufferPointer) {
        withUnsafeBytes(of: UInt32(part.count).bigEndian) { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: part)
    }
}
