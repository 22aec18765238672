/// Collects what arrives while a commit is under way, and commits that together next. Pure.
///
/// Every element is in exactly one of: waiting, under way, done. Done means the commit that contained it has
/// ended, well or badly; an element never returns to waiting.
struct GroupCommitMachine<Element> {
    enum State {
        /// Nothing under way. Can transition to: gathering.
        case idle
        /// A commit is announced and takes what is waiting when it begins. Can transition to: committing.
        case gathering
        /// Can transition to: gathering, idle.
        case committing
    }

    enum Arrival: Equatable {
        /// Call `begin()` at the end of this tick.
        case announce
        /// A later commit takes it.
        case wait
        /// The queue is full; the element was not taken.
        case refuse
    }

    private(set) var state = State.idle
    private var waiting: [Element] = []
    private let waitingMax: Int
    private let batchMax: Int

    init(waitingMax: Int, batchMax: Int) {
        self.waitingMax = waitingMax
        self.batchMax = batchMax
    }

    var waitingCount: Int { waiting.count }

    mutating func add(_ element: Element) -> Arrival {
        guard waiting.count < waitingMax else { return .refuse }
        waiting.append(element)
        guard case .idle = state else { return .wait }
        state = .gathering
        return .announce
    }

    /// The elements of the commit that begins now; never empty.
    mutating func begin() -> [Element] {
        guard case .gathering = state, !waiting.isEmpty else {
            preconditionFailure("a commit that nobody announced")
        }
        state = .committing
        guard waiting.count > batchMax else {
            defer { waiting.removeAll(keepingCapacity: true) }
            return waiting
        }
        defer { waiting.removeFirst(batchMax) }
        return Array(waiting.prefix(batchMax))
    }

    /// The commit has ended.
    /// - Returns: whether another should begin at once.
    mutating func end() -> Bool {
        guard case .committing = state else { preconditionFailure("no commit is under way") }
        state = waiting.isEmpty ? .idle : .gathering
        return !waiting.isEmpty
    }
}
