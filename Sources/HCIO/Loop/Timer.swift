package import HCCore

/// One thing to do later. Made by `Loop.schedule`; runs once, on the loop.
@LoopActor package final class Timer {
    package let deadline: Deadline
    private var action: (@LoopActor () -> Void)?

    init(deadline: Deadline, action: @escaping @LoopActor () -> Void) {
        self.deadline = deadline
        self.action = action
    }

    /// Whether it is still to run.
    package var isPending: Bool { action != nil }

    /// After this the action does not run and what it captured is let go. Cancelling a timer that has
    /// run, or was cancelled, does nothing.
    package func cancel() {
        guard let dropped = action else { return }
        action = nil
        // What the action captured may end here, and its end may cancel this timer again.
        withExtendedLifetime(dropped) {}
        if deadline != .never { Loop.shared.timers.didCancel() }
    }

    func fire() {
        guard let action else { return }
        self.action = nil
        action()
    }
}

/// The timers by deadline, and by order of scheduling where deadlines are equal.
@LoopActor struct TimerQueue {
    struct Entry: Comparable {
        let deadline: Deadline
        let sequence: UInt64
        let timer: Timer

        nonisolated static func < (left: Entry, right: Entry) -> Bool {
            if left.deadline != right.deadline { return left.deadline < right.deadline }
            return left.sequence < right.sequence
        }

        nonisolated static func == (left: Entry, right: Entry) -> Bool {
            left.sequence == right.sequence
        }
    }

    private var heap = PriorityHeap<Entry>()
    private(set) var sequence: UInt64 = 0
    /// Of a tick that fires: what is set anew in it for a time gone by comes behind all that are due now. Otherwise one
    /// that does so in each tick would be the first for ever, and no other timer would run.
    var floor: Deadline?
    /// Cancelled timers that are still in the heap.
    private var cancelledCount = 0

    nonisolated init() {}

    var count: Int { heap.count - cancelledCount }
    var heapCount: Int { heap.count }

    mutating func insert(_ timer: Timer) {
        sequence += 1
        let deadline = floor.map { max($0, timer.deadline) } ?? timer.deadline
        heap.insert(Entry(deadline: deadline, sequence: sequence, timer: timer))
    }

    /// Cancelled timers leave when they come up, or all at once when they are the greater part: so a
    /// cancellation costs O(1) and the heap stays within twice the live timers.
    mutating func didCancel() {
        cancelledCount += 1
        guard cancelledCount > 64, cancelledCount > heap.count / 2 else { return }
        heap.removeAll { entry in LoopActor.assumeIsolated { !entry.timer.isPending } }
        cancelledCount = 0
    }

    /// The deadline of the first timer that is still to run.
    mutating func nextDeadline() -> Deadline? {
        while let first = heap.first {
            if first.timer.isPending { return first.deadline }
            _ = heap.popFirst()
            cancelledCount -= 1
        }
        return nil
    }

    /// Takes out a timer that is due and was scheduled before `sequence`.
    mutating func popDue(at now: MonotonicTime, upTo sequence: UInt64) -> Timer? {
        while let first = heap.first, first.deadline.isExpired(at: now) {
            if !first.timer.isPending {
                _ = heap.popFirst()
                cancelledCount -= 1
                continue
            }
            guard first.sequence <= sequence else { return nil }
            _ = heap.popFirst()
            return first.timer
        }
        return nil
    }
}
