import HCCore

/// Bounds of the agreement on copies.
package struct CoherenceLimits: Sendable {
    /// What a process' lease lasts in Redis' time. Whoever changes something waits for a process that does not
    /// answer for so long at most.
    package var leaseLife = Duration.seconds(2)
    /// What a process itself believes of it, on its own clock. That may run slower than Redis' by the difference
    /// and no more: one tenth, where real clocks differ by one in ten thousand.
    package var trust = Duration.milliseconds(1800)
    /// The lease is renewed when it is this old.
    package var renewAfter = Duration.milliseconds(500)

    /// Clinics that a process has copies of. Those used last are kept.
    package var tenantsMax = 16_384
    /// A clinic is registered anew after this long: less than the life of its key in Redis.
    package var registrationLife = Duration.seconds(12 * 3600)
    package var keyLife = Duration.seconds(24 * 3600)
    /// Clinics registered in one round trip, and waiting to be.
    package var batchMax = 256
    package var wantedMax = 4096

    /// Holds of one clinic at once; with more, its copies are not used until they are over.
    package var holdsMax = 256
    /// Voids of one clinic that are remembered for copies that are being made.
    package var recentMax = 64
    /// Processes that one void waits for, and messages in one inbox.
    package var holdersMax = 4096
    /// Messages taken in one round trip.
    package var readMax = 128

    /// Voids that wait for Redis to come back.
    package var untoldMax = 10_000

    /// Redis is asked within this time.
    package var redisTimeout = Duration.milliseconds(250)

    /// The longest time from the call of `hold` to the end of its commit. When Redis has forgotten everything, no copies
    /// are made for so long.
    package static let holdLifeMax = Duration.seconds(10)
    /// Names in one void, and bytes of each.
    package static let namesMax = 16
    package static let nameBytesMax = 128
    /// Stands for every name.
    package static let everything = "*"

    package init() {}
}
