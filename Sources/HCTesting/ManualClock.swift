package import HCCore
import Synchronization

/// Time that passes only when a test says so; wall clock and steady clock move together.
package final class ManualClock: Sendable {
    private struct Reading {
        var now: Timestamp
        var monotonic: MonotonicTime
    }

    private let reading: Mutex<Reading>

    /// Begins at 2026-01-15T09:00:00Z unless told otherwise, with the steady clock at one hour.
    package init(
        now: Timestamp = Timestamp(seconds: 1_768_467_600),
        monotonic: MonotonicTime = MonotonicTime(nanoseconds: 3_600_000_000_000)
    ) {
        reading = Mutex(Reading(now: now, monotonic: monotonic))
    }

    package var now: Timestamp { reading.withLock { $0.now } }
    package var monotonic: MonotonicTime { reading.withLock { $0.monotonic } }

    package func advance(by duration: Duration) {
        precondition(duration >= .zero, "the steady clock never goes back")
        reading.withLock { reading in
            reading.now = reading.now + duration
            reading.monotonic = reading.monotonic + duration
        }
    }

    /// Sets the wall clock alone, either way, as an operator or NTP would.
    package func setWallClock(to time: Timestamp) {
        reading.withLock { $0.now = time }
    }

    /// What a room takes.
    package var clocks: Clocks {
        Clocks(now: { self.now }, monotonic: { self.monotonic })
    }
}
