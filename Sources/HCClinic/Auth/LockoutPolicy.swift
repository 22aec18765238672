import HCCore

/// When an account stops looking at passwords, and for how long.
///
/// An attempt is counted before the password is looked at, in one UPDATE, so that any number of guesses at
/// once is not more than as many in a row. A login that succeeds forgets the count, and so does `memory` without an
/// attempt: of an address without an account nobody remembers more for ever.
package struct LockoutPolicy: Sendable {
    /// Counted from the end of the last lock. So long that whoever waits for it guesses less often than who goes on.
    static let memory = Duration.seconds(6 * 3600)

    /// Attempts that are looked at without any wait.
    package var attemptsFree: Int
    /// The wait after the last free attempt; doubled with each one after.
    package var first: Duration
    package var maximum: Duration

    package init(
        attemptsFree: Int = 10, first: Duration = .seconds(1), maximum: Duration = .seconds(900)
    ) {
        precondition(attemptsFree > 0 && first > .zero && maximum >= first)
        self.attemptsFree = attemptsFree
        self.first = first
        self.maximum = maximum
    }

    package static let `default` = LockoutPolicy()

    /// - Parameter attempts: those counted, with the present one.
    /// - Returns: how long after it no other is looked at; zero for none.
    package func wait(after attempts: Int) -> Duration {
        guard attempts >= attemptsFree else { return .zero }
        var wait = first
        for _ in 0..<(attempts - attemptsFree) {
            if wait >= maximum { break }
            wait += wait
        }
        return min(wait, maximum)
    }

    /// The waits after the 1st, 2nd, … attempt, up to the first that is the longest.
    var waits: [Duration] {
        var waits: [Duration] = []
        repeat { waits.append(wait(after: waits.count + 1)) } while waits.last != maximum
        return waits
    }
}

/// The lockout of those who do not exist: what is answered must not tell them from those who do.
///
/// They have no row in which all processes could count, so Redis counts (`TenantRedis.countAttempt`); this does while
/// Redis is away, by process. Bounded; who is pushed out starts anew, as one who waited a while would.
struct PhantomLockouts {
    /// Redis is asked within this time or not at all.
    static let patience = Duration.milliseconds(100)

    private struct Entry {
        var attempts = 0
        var lockedUntil = Timestamp.epoch
    }

    /// A clinic and the token of an email address.
    struct Key: Hashable {
        let tenant: UUID
        let token: Int64

        /// Of the clinic's keys in Redis.
        var name: String { "attempts:\(token)" }
    }

    private let policy: LockoutPolicy
    private var entries = LRUCache<Key, Entry>(capacityMax: 4096)

    init(policy: LockoutPolicy) {
        self.policy = policy
    }

    /// Counts an attempt.
    ///
    /// - Returns: nil if it is looked at, else how long to wait.
    mutating func attempt(_ key: Key, at now: Timestamp) -> Duration? {
        var entry = entries.find(key) ?? Entry()
        if entry.lockedUntil > now { return entry.lockedUntil - now }
        if now - entry.lockedUntil >= LockoutPolicy.memory { entry.attempts = 0 }
        entry.attempts = min(entry.attempts + 1, 1000)
        entry.lockedUntil = now + policy.wait(after: entry.attempts)
        entries.insert(entry, for: key)
        return nil
    }
}
