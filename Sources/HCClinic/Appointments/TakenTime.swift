import HCCore

/// What is taken of a practitioner, by lane: asked for each of hundreds of slots, on the thread that serves all clinics,
/// so a look costs a binary search of each lane and not a walk over every booking. Pure.
struct TakenTime {
    /// Of each lane in order of time; none overlap.
    private let lanes: [[Range<Timestamp>]]

    /// - Parameters:
    ///   - busy: in any order; may overlap.
    ///   - capacity: lanes that may be used; what is taken of others does not matter.
    init(_ busy: [SlotFinder.Busy], capacity: Int) {
        var lanes = [[Range<Timestamp>]](repeating: [], count: capacity)
        for taken in busy.sorted(by: { $0.span.lowerBound < $1.span.lowerBound })
        where lanes.indices.contains(taken.lane) && !taken.span.isEmpty {
            if let last = lanes[taken.lane].last, taken.span.lowerBound < last.upperBound {
                lanes[taken.lane][lanes[taken.lane].count - 1] =
                    last.lowerBound..<max(last.upperBound, taken.span.upperBound)
            } else {
                lanes[taken.lane].append(taken.span)
            }
        }
        self.lanes = lanes
    }

    /// Whether one lane is free from beginning to end.
    func hasRoom(for span: Range<Timestamp>) -> Bool {
        lanes.contains { TakenTime.isFree($0, span) }
    }

    private static func isFree(_ lane: [Range<Timestamp>], _ span: Range<Timestamp>) -> Bool {
        // The first that ends after the span begins: those before it do not matter, and it is the first that could.
        var (low, high) = (0, lane.count)
        while low < high {
            let middle = (low + high) / 2
            if lane[middle].upperBound > span.lowerBound { high = middle } else { low = middle + 1 }
        }
        return low == lane.count || !lane[low].overlaps(span)
    }
}
