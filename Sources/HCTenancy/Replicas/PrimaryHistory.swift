import HCCore

/// Where the end of a primary's log was, and when: what turns a position that a replica has replayed into an age.
///
/// An entry says: every commit that anybody was told of before `at` ends at or before `position`. That holds because
/// the primary was asked after `at` and its log only grows. So a replica that has replayed up to `position` has every
/// commit from before `at`. One clock is compared with itself, and a primary at rest makes nobody look late: the
/// position that it still has is as good now as it was.
///
/// Both members grow from entry to entry: what is later and not further replaces what was before. (After a crash a log
/// ends earlier than was seen; what is gone was told to nobody.)
struct PrimaryHistory {
    struct Entry: Equatable {
        var at: MonotonicTime
        var position: LogPosition
    }

    static let entriesMax = 256
    private(set) var entries: [Entry] = []

    /// When the primary was last asked with success.
    var lastHeard: MonotonicTime? { entries.last?.at }
    var end: LogPosition? { entries.last?.position }

    /// - Parameter askedAt: before the question was sent.
    mutating func record(_ position: LogPosition, askedAt: MonotonicTime) {
        // Answers may overtake each other.
        if let last = entries.last, askedAt < last.at { return }
        while let last = entries.last, last.position >= position { entries.removeLast() }
        if entries.count == PrimaryHistory.entriesMax { entries.removeFirst() }
        entries.append(Entry(at: askedAt, position: position))
    }

    /// The last moment before which nothing is missing where the log was replayed up to `position`; nil: longer ago
    /// than is remembered.
    func freshness(of position: LogPosition) -> MonotonicTime? {
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].position <= position { low = middle + 1 } else { high = middle }
        }
        return low == 0 ? nil : entries[low - 1].at
    }
}
