import HCCore

/// What the output plugin `pgoutput` says of a change, in version 1 of its protocol (PostgreSQL 15 manual, 55.9).
package enum LogicalMessage: Hashable, Sendable {
    /// A table and its columns: comes before the first change of it, and again when it was altered.
    package struct Relation: Hashable, Sendable {
        package let id: UInt32
        package let schema: String
        package let name: String
        package let columns: [String]
    }

    /// The columns' text forms; nil: NULL, or a large value that the change has left as it was.
    package typealias Row = [String?]

    /// Everything up to its commit belongs to this transaction: its id without the epoch.
    case begin(transaction: UInt32)
    case commit
    case relation(Relation)
    case insert(relation: UInt32, new: Row)
    /// `old` is there only if the key has changed.
    case update(relation: UInt32, old: Row?, new: Row)
    case delete(relation: UInt32, old: Row)
    case truncate
    /// Types, origins, messages.
    case other

    /// - Throws: `BinaryReader.Failure` for what is none of them, or ends too soon.
    init(_ reader: inout BinaryReader) throws(BinaryReader.Failure) {
        switch Character(UnicodeScalar(try reader.integer(UInt8.self))) {
        case "B":
            // The place of its commit, and its time.
            _ = try reader.slice(16)
            self = .begin(transaction: try reader.integer(UInt32.self))
        case "C":
            self = .commit
        case "R":
            self = .relation(try Relation(&reader))
        case "I":
            let relation = try reader.integer(UInt32.self)
            guard try reader.integer(UInt8.self) == UInt8(ascii: "N") else { throw .malformed }
            self = .insert(relation: relation, new: try LogicalMessage.row(&reader))
        case "U":
            let relation = try reader.integer(UInt32.self)
            var kind = try reader.integer(UInt8.self)
            var old: Row?
            if kind == UInt8(ascii: "K") || kind == UInt8(ascii: "O") {
                old = try LogicalMessage.row(&reader)
                kind = try reader.integer(UInt8.self)
            }
            guard kind == UInt8(ascii: "N") else { throw .malformed }
            self = .update(relation: relation, old: old, new: try LogicalMessage.row(&reader))
        case "D":
            let relation = try reader.integer(UInt32.self)
            _ = try reader.integer(UInt8.self)
            self = .delete(relation: relation, old: try LogicalMessage.row(&reader))
        case "T":
            self = .truncate
        case "Y", "O", "M":
            self = .other
        default:
            throw .malformed
        }
    }

    private static func row(_ reader: inout BinaryReader) throws(BinaryReader.Failure) -> Row {
        let count = try reader.integer(UInt16.self)
        var row: Row = []
        row.reserveCapacity(Int(count))
        for _ in 0..<count {
            switch Character(UnicodeScalar(try reader.integer(UInt8.self))) {
            case "n", "u": row.append(nil)
            case "t":
                let length = Int(try reader.integer(Int32.self))
                row.append(String(decoding: try reader.slice(length), as: UTF8.self))
            default: throw .malformed
            }
        }
        return row
    }
}

extension LogicalMessage.Relation {
    init(_ reader: inout BinaryReader) throws(BinaryReader.Failure) {
        id = try reader.integer(UInt32.self)
        schema = try reader.cString()
        name = try reader.cString()
        // The replica identity.
        _ = try reader.integer(UInt8.self)
        let count = try reader.integer(UInt16.self)
        var columns: [String] = []
        columns.reserveCapacity(Int(count))
        for _ in 0..<count {
            _ = try reader.integer(UInt8.self)
            columns.append(try reader.cString())
            // Its type and its modifier.
            _ = try reader.slice(8)
        }
        self.columns = columns
    }
}
