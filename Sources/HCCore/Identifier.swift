/// A UUID that names one kind of thing, so that a patient's id cannot be passed for a tenant's.
///
/// `Kind` is never instantiated: `package enum TenantKind {}`, `typealias TenantID = Identifier<TenantKind>`.
@usableFromInline
package struct Identifier<Kind>: Hashable, Comparable, Sendable,
    LosslessStringConvertible
{
    @usableFromInline package let uuid: UUID

    package init(_ uuid: UUID) {
        self.uuid = uuid
    }

    /// - Returns: nil unless `text` is a UUID in its canonical form, of either case.
    @usableFromInline package init?(_ text: String) {
        guard let uuid = UUID(text) else { return nil }
        self.uuid = uuid
    }

    /// A new version 7 id.
    package static func make(
        at time: Timestamp, using generator: inout some RandomNumberGenerator
    ) -> Identifier {
        Identifier(UUID.v7(at: time, using: &generator))
    }

    @usableFromInline package var description: String { uuid.description }

    @usableFromInline package static func < (left: Identifier, right: Identifier) -> Bool {
        left.uuid < right.uuid
    }

    // Written out, as those of `UUID`.

    @inlinable package static func == (left: Identifier, right: Identifier) -> Bool {
        left.uuid == right.uuid
    }

    @inlinable package func hash(into hasher: inout Hasher) {
        uuid.hash(into: &hasher)
    }
}
