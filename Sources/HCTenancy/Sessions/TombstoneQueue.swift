import HCCore

/// Revocations that Redis has not heard of yet. Bounded; pure.
///
/// One that is older than `ageMax` is moot: no entry from before the revocation can be left by then.
struct TombstoneQueue {
    struct Tombstone: Equatable {
        /// Of the session in Redis.
        var key: String
        var since: MonotonicTime
    }

    private var waiting: RingBuffer<Tombstone>
    private let ageMax: Duration

    init(capacityMax: Int, ageMax: Duration) {
        waiting = RingBuffer(capacityMax: capacityMax)
        self.ageMax = ageMax
    }

    var count: Int { waiting.count }
    var isEmpty: Bool { waiting.isEmpty }

    /// - Returns: the oldest, which was dropped to make room, if the queue was full.
    mutating func add(_ tombstone: Tombstone) -> Tombstone? {
        waiting.appendDroppingFirst(tombstone)
    }

    /// The next to deliver; those that are moot go.
    mutating func next(at now: MonotonicTime) -> Tombstone? {
        while let first = waiting.first {
            if now - first.since <= ageMax { return first }
            _ = waiting.popFirst()
        }
        return nil
    }

    /// The one that `next` gave was delivered. It may have been dropped meanwhile, to make room.
    mutating func delivered(_ tombstone: Tombstone) {
        if waiting.first == tombstone { _ = waiting.popFirst() }
    }
}
