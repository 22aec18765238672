import HCCore

/// Timeouts of many connections, cheap because they are coarse and lazy.
///
/// A connection writes down its next timeout and is armed here only if that comes before the tick that it is
/// already armed for. When a tick comes, the owner looks whether the timeout has moved on, and arms again: a
/// connection that serves a thousand requests a second is touched once per timeout, not once per request.
struct TimeoutWheel: Sendable {
    /// No tick: a connection that is not armed.
    static let unarmed = Int64.max

    struct Entry: Sendable {
        let connection: Int
        let tick: Int64
    }

    private let resolution: Int64
    private var slots: [[Entry]]
    private var current: Int64

    init(resolution: Duration, slotCount: Int = 128, now: MonotonicTime) {
        self.resolution = max(1, resolution.inNanoseconds)
        slots = Array(repeating: [], count: slotCount)
        current = now.nanoseconds / self.resolution
    }

    /// Entries that are still to come up.
    var count: Int { slots.reduce(0) { $0 + $1.count } }

    /// The tick at which `time` has passed: never early.
    func tick(of time: MonotonicTime) -> Int64 {
        time.nanoseconds / resolution + 1
    }

    /// Arms for the tick of `time`, or for the last that the wheel reaches.
    /// - Returns: the tick that was armed.
    mutating func arm(_ connection: Int, at time: MonotonicTime) -> Int64 {
        let tick = min(max(tick(of: time), current + 1), current + Int64(slots.count) - 1)
        slots[Int(tick % Int64(slots.count))].append(Entry(connection: connection, tick: tick))
        return tick
    }

    /// Takes out every entry whose tick has come. The owner drops those that are not its connection's armed tick.
    mutating func advance(to now: MonotonicTime) -> [Entry] {
        let target = now.nanoseconds / resolution
        guard target > current else { return [] }
        var due: [Entry] = []
        let steps = min(target - current, Int64(slots.count))
        for step in 1...steps {
            let slot = Int((current + step) % Int64(slots.count))
            if !slots[slot].isEmpty {
                due.append(contentsOf: slots[slot])
                slots[slot] = []
            }
        }
        current = target
        return due
    }
}
