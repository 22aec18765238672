package import HCTenancy

/// The digests of a clinic's chunks on one side, all of one snapshot.
package struct TenantDigests: Hashable, Sendable {
    package struct Table: Hashable, Sendable {
        package let name: String
        package let digest: RowDigest
    }

    /// Where the server's log ended once the snapshot was taken: whatever the snapshot shows is before it.
    package let position: LogPosition
    package private(set) var chunks: [TenantChunk: RowDigest]

    package init(position: LogPosition, chunks: [TenantChunk: RowDigest]) {
        self.position = position
        self.chunks = chunks
    }

    package var rows: Int { chunks.values.reduce(0) { $0 + $1.rows } }

    /// By name; of the whole table only if all of its chunks were read.
    package var tables: [Table] {
        var sums: [String: RowDigest] = [:]
        for (chunk, digest) in chunks {
            sums[chunk.table] = sums[chunk.table, default: .zero] + digest
        }
        return sums.keys.sorted().map { Table(name: $0, digest: sums[$0, default: .zero]) }
    }

    /// With what was read of some chunks later.
    package func updated(by later: TenantDigests) -> TenantDigests {
        TenantDigests(
            position: later.position, chunks: chunks.merging(later.chunks) { _, new in new })
    }
}

/// The digests of single rows of a clinic on one side, all of one snapshot.
struct TenantRows: Hashable, Sendable {
    /// Where the server's log ended once the snapshot was taken.
    let position: LogPosition
    let snapshot: TransactionSnapshot
    /// Of those that were there.
    let digests: [TenantRowKey: RowDigest]
}

/// A chunk of which the two sides do not have the same rows.
package struct ChunkDifference: Hashable, Sendable, CustomStringConvertible {
    package let chunk: TenantChunk
    package let range: TenantDigestPlan.KeyRange
    /// Nil: was not read there.
    package let source: RowDigest?
    package let target: RowDigest?

    package var table: String { chunk.table }

    /// The range consists of ids and tokens: nothing that says who a patient is.
    package var description: String {
        func text(_ digest: RowDigest?) -> String { digest.map { "\($0)" } ?? "nothing read" }
        return "\(chunk) \(range): source \(text(source)), target \(text(target))"
    }
}

extension TenantDigestPlan {
    /// Where the sides differ, in order of the chunks; empty: every chunk of `chunks` (of the plan) was read on both
    /// sides and is equal.
    package func differences(
        source: TenantDigests, target: TenantDigests, chunks: [TenantChunk]? = nil
    ) -> [ChunkDifference] {
        (chunks ?? self.chunks).sorted().compactMap { chunk in
            let (here, there) = (source.chunks[chunk], target.chunks[chunk])
            guard here == nil || here != there else { return nil }
            return ChunkDifference(
                chunk: chunk, range: range(of: chunk) ?? KeyRange(lower: nil, upper: nil),
                source: here, target: there)
        }
    }
}
