/// What kind of request a rate rule speaks of. Every route belongs to exactly one class.
package enum LimitClass: String, CaseIterable, Sendable {
    case login
    /// One-time codes: asking for one, and showing one.
    case otp
    case booking
    /// Searching in charts.
    case search
    case export
    case upload
    /// Whatever is none of the others.
    case `default`

    /// Units of the dearest request of the class. A rule that allows less at once would refuse it for ever.
    package var largestCost: RequestCost {
        switch self {
        case .search: .search
        case .export: .export
        case .login, .otp, .booking, .upload, .default: .write
        }
    }
}
