import HCCore

/// Goes along one clinic's stream and says what each entry is. Pure.
///
/// Invariant: everything up to `position` was either told or is covered by a gap that was told.
struct FeedMachine {
    enum Step: Equatable {
        case event(TenantEvent)
        /// Something between the last entry and this one is missing; the entry itself may be an event.
        case gap(then: TenantEvent?)
        /// Was seen before, or says nothing to us.
        case nothing
    }

    /// The last entry that was taken.
    private(set) var position: EventSequence
    private var recent: RecentIDs

    init(position: EventSequence, recentMax: Int) {
        self.position = position
        recent = RecentIDs(capacityMax: recentMax)
    }

    mutating func take(_ entry: StreamEntry) -> Step {
        guard entry.sequence > position else { return .nothing }
        let isNext = entry.previous == position.number
        position = entry.sequence
        // An id that comes again is the same event: its row was published twice and Redis had forgotten the first.
        let event = entry.event.flatMap { recent.insert($0.id) ? $0 : nil }
        guard isNext else { return .gap(then: event) }
        return event.map { .event($0) } ?? .nothing
    }
}

/// The last so many ids.
struct RecentIDs {
    private var order: RingBuffer<UUID>
    private var known: Set<UUID> = []

    init(capacityMax: Int) {
        order = RingBuffer(capacityMax: capacityMax)
    }

    /// - Returns: false if it is there already.
    mutating func insert(_ id: UUID) -> Bool {
        guard known.insert(id).inserted else { return false }
        if let dropped = order.appendDroppingFirst(id) { known.remove(dropped) }
        return true
    }
}
