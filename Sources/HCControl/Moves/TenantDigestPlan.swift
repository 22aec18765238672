/// A piece of a clinic's rows in one table: those whose keys are in one range of a ``TenantDigestPlan``.
package struct TenantChunk: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let table: String
    /// From 0, in the order of the keys.
    package let index: Int

    package init(table: String, index: Int) {
        self.table = table
        self.index = index
    }

    package static func < (left: TenantChunk, right: TenantChunk) -> Bool {
        (left.table, left.index) < (right.table, right.index)
    }

    package var description: String { "\(table)[\(index)]" }
}

/// What is read of a clinic on both sides of a move so that the answers can be compared: the tables, their columns in
/// one order, and where each table is cut into chunks.
///
/// The cuts are keys of rows that the source had when the plan was made, and they stay what they are: a row belongs to
/// the same chunk on both sides and at all times, whatever came and went since. New rows have new keys (UUIDv7), so the
/// last chunk of a table is the one that grows: a plan is best made when the copy is done, not before it.
package struct TenantDigestPlan: Hashable, Sendable {
    package struct Column: Hashable, Sendable {
        package let name: String
        /// As the catalogue prints it, with its modifier: `character varying(40)`.
        package let type: String
        /// The type is PostgreSQL's own: it has the same number in every database.
        package let isBuiltIn: Bool
    }

    /// A column of the primary key behind tenant_id.
    package struct KeyColumn: Hashable, Sendable {
        package let name: String
        /// Without modifier.
        package let type: String
        /// It is ordered by a collation, which two servers may not agree on.
        package let isCollated: Bool
    }

    package struct Table: Hashable, Sendable {
        package let name: String
        /// All but generated ones, by name.
        package let columns: [Column]
        package let key: [KeyColumn]
        /// The first key of each chunk but the first, in the types' text form.
        package internal(set) var cuts: [[String]] = []
        /// On the source when the plan was made.
        package internal(set) var rows = 0

        package var chunkCount: Int { cuts.count + 1 }

        func holdsSameColumns(as other: Table) -> Bool {
            name == other.name && columns == other.columns && key == other.key
        }
    }

    /// From `lower` to before `upper`; nil has no end on that side.
    package struct KeyRange: Hashable, Sendable, CustomStringConvertible {
        package let lower: [String]?
        package let upper: [String]?

        package var description: String {
            "[\(lower.map { $0.joined(separator: " ") } ?? ""),"
                + " \(upper.map { $0.joined(separator: " ") } ?? ""))"
        }
    }

    /// By name.
    package let tables: [Table]
    package let rowsPerChunk: Int

    /// Rows of the clinic on the source when the plan was made.
    package var rows: Int { tables.reduce(0) { $0 + $1.rows } }

    package var chunks: [TenantChunk] {
        tables.flatMap { table in
            (0..<table.chunkCount).map { TenantChunk(table: table.name, index: $0) }
        }
    }

    func find(_ chunk: TenantChunk) -> Table? {
        guard let table = tables.first(where: { $0.name == chunk.table }),
            (0..<table.chunkCount).contains(chunk.index)
        else { return nil }
        return table
    }

    /// Nil for a chunk of another plan.
    package func range(of chunk: TenantChunk) -> KeyRange? {
        guard let table = find(chunk) else { return nil }
        return KeyRange(
            lower: chunk.index == 0 ? nil : table.cuts[chunk.index - 1],
            upper: chunk.index == table.cuts.count ? nil : table.cuts[chunk.index])
    }

    /// How many rows the chunk had when the plan was made.
    func rows(of chunk: TenantChunk) -> Int {
        guard let table = find(chunk) else { return 0 }
        return chunk.index < table.cuts.count
            ? rowsPerChunk : table.rows - table.cuts.count * rowsPerChunk
    }

    /// Pieces that are read in one round trip each, of about `rowsMax` rows or, of many small ones, `chunksMax`.
    func batches(
        of chunks: [TenantChunk], rowsMax: Int, chunksMax: Int
    ) -> [[TenantChunk]] {
        var batches: [[TenantChunk]] = []
        var rows = 0
        for chunk in chunks {
            let size = self.rows(of: chunk)
            if let last = batches.last, last.count < chunksMax, rows + size <= rowsMax {
                batches[batches.count - 1].append(chunk)
                rows += size
            } else {
                batches.append([chunk])
                rows = size
            }
        }
        return batches
    }
}

/// What was counted and summed up of some rows.
///
/// Two sums modulo 2^64 over the rows, of two hashes of each row's bytes. Sums do not depend on an order, so nothing is
/// sorted and no collation matters, and those of the chunks add up to that of the table however it was cut.
package struct RowDigest: Hashable, Sendable, CustomStringConvertible {
    package let rows: Int
    package let first: UInt64
    package let second: UInt64

    package static let zero = RowDigest(rows: 0, first: 0, second: 0)

    package static func + (left: RowDigest, right: RowDigest) -> RowDigest {
        RowDigest(
            rows: left.rows + right.rows, first: left.first &+ right.first,
            second: left.second &+ right.second)
    }

    /// 32 digits.
    package var hex: String { RowDigest.hex(first) + RowDigest.hex(second) }
    package var description: String { "\(rows) rows \(hex)" }

    private static func hex(_ word: UInt64) -> String {
        let digits = String(word, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
