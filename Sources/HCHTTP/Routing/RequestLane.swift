/// Who is refused first when not everybody can be served. In this order: the later a lane, the longer it is served.
package enum RequestLane: String, Sendable, CaseIterable, Comparable {
    /// Work that can wait and costs most: searches, lists, exports.
    case bulk
    /// Who is not in yet: logins.
    case entry
    /// Somebody waits at a screen.
    case interactive
    /// Care depends on it: a patient's record, who is in the waiting room, whether a booking stands.
    case safety

    package var index: Int {
        switch self {
        case .bulk: 0
        case .entry: 1
        case .interactive: 2
        case .safety: 3
        }
    }

    package static func < (left: RequestLane, right: RequestLane) -> Bool {
        left.index < right.index
    }
}
