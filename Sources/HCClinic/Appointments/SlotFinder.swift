package import HCCore

/// Free time between bookings: what a client is offered when a slot is taken. Pure.
package struct SlotFinder: Sendable {
    package struct Slot: Sendable, Hashable {
        package let startsAt: Timestamp
        package let endsAt: Timestamp
    }

    /// What is taken: a lane of the practitioner for a span, buffers included.
    package struct Busy: Sendable {
        package let lane: Int
        package let span: Range<Timestamp>

        package init(lane: Int = 0, span: Range<Timestamp>) {
            self.lane = lane
            self.span = span
        }
    }

    /// How far a slot may begin after the one before it was tried.
    static let step = Duration.seconds(15 * 60)
    static let slotsMax = 5

    let duration: Duration
    let bufferBefore: Duration
    let bufferAfter: Duration

    package init(duration: Duration, bufferBefore: Duration, bufferAfter: Duration) {
        self.duration = duration
        self.bufferBefore = bufferBefore
        self.bufferAfter = bufferAfter
    }

    /// The next free slots that begin after `wanted`, at whole steps from it, and before `end`.
    ///
    /// - Parameters:
    ///   - busy: in any order.
    ///   - capacity: lanes that may be used.
    package func slots(
        after wanted: Timestamp, until end: Timestamp, busy: [Busy], capacity: Int
    ) -> [Slot] {
        let taken = TakenTime(busy, capacity: capacity)
        var slots: [Slot] = []
        var start = wanted + SlotFinder.step
        while start < end, slots.count < SlotFinder.slotsMax {
            if isFree(start, taken) {
                slots.append(Slot(startsAt: start, endsAt: start + duration))
            }
            start = start + SlotFinder.step
        }
        return slots
    }

    /// Whether a lane is free from buffer to buffer for a slot that begins then.
    package func isFree(_ start: Timestamp, busy: [Busy], capacity: Int) -> Bool {
        isFree(start, TakenTime(busy, capacity: capacity))
    }

    /// The same, where it is asked again and again.
    func isFree(_ start: Timestamp, _ taken: TakenTime) -> Bool {
        taken.hasRoom(for: (start - bufferBefore)..<(start + duration + bufferAfter))
    }
}
