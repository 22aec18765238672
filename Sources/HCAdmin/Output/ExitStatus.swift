/// The exit codes of `hc-admin`; scripts decide by them and never by text.
package enum ExitStatus: Int32, Sendable {
    case done = 0
    case failed = 1
    case usage = 2
    /// A check refused: nothing was changed.
    case refused = 3
    case notFound = 4
    case conflict = 5

    var name: String {
        switch self {
        case .done: "done"
        case .failed: "failed"
        case .usage: "usage"
        case .refused: "refused"
        case .notFound: "not-found"
        case .conflict: "conflict"
        }
    }
}
