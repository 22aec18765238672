/// Collects what arrives in a moment, or while earlier groups are under way, so that it goes together. Pure.
///
/// Every element is in exactly one of: waiting, under way, done. Done means that the group that contained it has
/// ended, well or badly; an element never returns to waiting.
struct GatheringMachine<Element> {
    enum Arrival: Equatable {
        /// Call `begin()` at the end of this tick: what else arrives until then joins.
        case announce
        /// An announced group takes it, or one that begins when another has ended.
        case wait
        /// The queue is full; the element was not taken.
        case refuse
    }

    private let waitingMax: Int
    private let groupMax: Int
    private let underWayMax: Int
    private var waiting: [Element] = []
    private(set) var underWayCount = 0
    private var isAnnounced = false

    /// - Parameter underWayMax: groups at a time; while there are so many, what arrives gathers for the next.
    init(waitingMax: Int, groupMax: Int, underWayMax: Int) {
        precondition(waitingMax > 0 && groupMax > 0 && underWayMax > 0)
        self.waitingMax = waitingMax
        self.groupMax = groupMax
        self.underWayMax = underWayMax
    }

    var waitingCount: Int { waiting.count }

    /// Nothing waits and nothing is under way.
    var isIdle: Bool { waiting.isEmpty && underWayCount == 0 }

    mutating func add(_ element: Element) -> Arrival {
        guard waiting.count < waitingMax else { return .refuse }
        waiting.append(element)
        return announce() ? .announce : .wait
    }

    /// The elements of the group that begins now, never empty.
    ///
    /// - Returns: and whether to call this again at once, for those who found no room in this group.
    mutating func begin() -> (elements: [Element], goesOn: Bool) {
        precondition(isAnnounced && !waiting.isEmpty, "a group that nobody announced")
        isAnnounced = false
        underWayCount += 1
        var group: [Element] = []
        if waiting.count <= groupMax {
            swap(&group, &waiting)
        } else {
            group = Array(waiting.prefix(groupMax))
            waiting.removeFirst(groupMax)
        }
        return (group, announce())
    }

    /// A group has ended.
    /// - Returns: whether to call `begin()` at once.
    mutating func end() -> Bool {
        precondition(underWayCount > 0, "no group is under way")
        underWayCount -= 1
        return announce()
    }

    private mutating func announce() -> Bool {
        guard !waiting.isEmpty, !isAnnounced, underWayCount < underWayMax else { return false }
        isAnnounced = true
        return true
    }
}
