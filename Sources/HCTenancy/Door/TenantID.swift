package import HCCore

/// Marks the ids of clinics.
package enum TenantKind {}

/// A clinic.
package typealias TenantID = Identifier<TenantKind>

/// A shard: a database that holds clinics. Also the first part of their Redis keys.
package struct ShardID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let text: String

    package init(_ text: String) {
        self.text = text
    }

    package var description: String { text }

    package static func < (left: ShardID, right: ShardID) -> Bool { left.text < right.text }
}
