/// A lock that a migration takes on a table that was there before it.
package struct TableLock: Sendable, Equatable {
    /// As `pg_locks` calls it, from the weakest to the strongest (PostgreSQL manual, 13.3.1).
    package enum Mode: String, CaseIterable, Comparable, Sendable {
        case accessShare = "AccessShareLock"
        case rowShare = "RowShareLock"
        case rowExclusive = "RowExclusiveLock"
        case shareUpdateExclusive = "ShareUpdateExclusiveLock"
        case share = "ShareLock"
        case shareRowExclusive = "ShareRowExclusiveLock"
        case exclusive = "ExclusiveLock"
        case accessExclusive = "AccessExclusiveLock"

        /// What of a clinic's requests waits behind it.
        package var keepsOut: String {
            switch self {
            case .accessShare, .rowShare, .rowExclusive, .shareUpdateExclusive: "nobody"
            case .share, .shareRowExclusive, .exclusive: "who writes"
            case .accessExclusive: "everybody"
            }
        }

        package static func < (left: Mode, right: Mode) -> Bool {
            (allCases.firstIndex(of: left) ?? 0) < (allCases.firstIndex(of: right) ?? 0)
        }
    }

    package let table: String
    package let mode: Mode
}
