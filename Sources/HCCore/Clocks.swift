/// Where a room gets the time from. HCCore reads no clock: programs pass the system's, tests a manual one.
package struct Clocks: Sendable {
    /// The wall clock, UTC, microseconds. May jump either way when the machine's clock is set.
    package let now: @Sendable () -> Timestamp

    /// The steady clock, nanoseconds. Never goes back.
    package let monotonic: @Sendable () -> MonotonicTime

    package init(
        now: @escaping @Sendable () -> Timestamp,
        monotonic: @escaping @Sendable () -> MonotonicTime
    ) {
        self.now = now
        self.monotonic = monotonic
    }
}
