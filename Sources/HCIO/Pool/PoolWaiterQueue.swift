import HCCore

/// The leases that are waited for, in the order in which they were asked for.
///
/// Who leaves from the middle leaves a gap, which is closed when it comes up or when the gaps are the
/// greater part: leaving costs O(log n), and the memory stays within twice the waiters.
struct PoolWaiterQueue {
    struct Entry {
        let id: PoolStateMachine.WaiterID
        let since: MonotonicTime
        let deadline: Deadline
        var hasLeft = false
    }

    /// By `id`, which grows.
    private var entries: [Entry] = []
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    mutating func append(_ entry: Entry) {
        entries.append(entry)
        count += 1
    }

    /// The next who still waits. Those whose deadline has passed are skipped and forgotten: they are told
    /// by their own timers.
    mutating func popFirst(at now: MonotonicTime) -> Entry? {
        defer { closeGaps() }
        while head < entries.count {
            let entry = entries[head]
            head += 1
            if entry.hasLeft { continue }
            count -= 1
            if !entry.deadline.isExpired(at: now) { return entry }
        }
        return nil
    }

    /// - Returns: false if it does not wait, or not any more.
    mutating func remove(_ id: PoolStateMachine.WaiterID) -> Bool {
        var low = head
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].id < id { low = middle + 1 } else { high = middle }
        }
        guard low < entries.count, entries[low].id == id, !entries[low].hasLeft else {
            return false
        }
        entries[low].hasLeft = true
        count -= 1
        closeGaps()
        return true
    }

    mutating func removeAll() -> [PoolStateMachine.WaiterID] {
        let waiting = entries[head...].filter { !$0.hasLeft }.map(\.id)
        self = PoolWaiterQueue()
        return waiting
    }

    private mutating func closeGaps() {
        guard entries.count > 64, count < entries.count / 2 else { return }
        entries.removeSubrange(..<head)
        entries.removeAll { $0.hasLeft }
        head = 0
    }
}
