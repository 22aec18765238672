/// What a request takes from its clinic's bucket, in units.
package enum RequestCost: Int, CaseIterable, Sendable {
    /// Answers that need no clinic's data.
    case nothing = 0
    case read = 1
    case search = 10
    case write = 20
    case export = 500

    /// A tier's burst must allow at least this, or such a request would never be admitted.
    package static let largest = RequestCost.allCases.map(\.rawValue).max() ?? 0

    package var units: Int { rawValue }
}
