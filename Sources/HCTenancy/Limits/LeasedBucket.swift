import HCCore

/// Units that were taken from a bucket in Redis in advance, to be used by this process within a second.
struct Lease {
    var units: Int64 = 0
    /// Nanoseconds of the steady clock.
    var expiresAt: Int64 = 0
    /// `at` of the bucket when they were taken: for giving back.
    var since: Int64 = 0

    @inline(__always)
    func living(_ now: Int64) -> Int64 { now < expiresAt ? units : 0 }

    /// Takes it away if it has run out, or in any case.
    ///
    /// - Returns: it, if it was living and has something.
    mutating func drop(_ now: Int64, all: Bool) -> Lease? {
        guard units > 0, all || now >= expiresAt else { return nil }
        let dropped = self
        units = 0
        return now < dropped.expiresAt ? dropped : nil
    }
}

/// One bucket as a process sees it: what it holds of it, how fast it uses it, and what Redis last said about it.
///
/// Invariant: what is held beyond what requests wait for is at most one chunk (`chunk`), and each unit held was charged
/// in Redis no longer than `leaseLife` ago. So all processes together are never ahead of Redis, and behind it by at
/// most `processes x chunk`: that much may be admitted later than it was charged.
///
/// Numbers only: it is looked at several times for each request, and nobody counts a reference for that.
struct LeasedBucket {
    let shape: BucketShape
    /// Of its rule.
    private let chunkMax: Int64

    // MARK: Leases

    /// Used first. A refill that comes before it is used up waits in `next`.
    private(set) var current = Lease()
    private(set) var next = Lease()
    /// Taken by the safety lane from what only it may take.
    private(set) var safety = Lease()
    /// A question to Redis is under way that will fill it.
    var isInFlight = false
    private(set) var usedAt: Int64 = 0

    // MARK: Use

    private var usedSinceMark: Int64 = 0
    private var markedAt: Int64 = 0
    /// Units per second, thousandths: of the last moments, for the chunk.
    private var quick: Int64 = 0
    /// The same of the last ten seconds or so, for the grace.
    private var slow: Int64 = 0

    // MARK: Knowledge

    private(set) var known: BucketState?
    private var knownTime: Int64 = 0
    private var knownFree: (ordinary: Int64, safety: Int64) = (0, 0)
    /// Nanoseconds of the steady clock.
    private(set) var knownAt = Int64.min / 2
    /// A lane that got less than it wanted does not ask before this.
    private var notBefore: (ordinary: Int64, safety: Int64) = (0, 0)

    var share = LocalShare()

    init(_ rule: LimitRule) {
        shape = rule.shape
        chunkMax = rule.chunkMax
    }

    // MARK: Taking

    @inline(__always)
    func balance(_ lane: LimitLane, _ now: Int64) -> Int64 {
        let ordinary = current.living(now) + next.living(now)
        return lane == .safety ? ordinary + safety.living(now) : ordinary
    }

    /// - Precondition: the balance is enough.
    mutating func take(_ units: Int64, _ now: Int64) {
        use(units, now)
        if current.expiresAt > now, current.units >= units {
            current.units -= units
            return
        }
        var left = units
        if now < current.expiresAt { left -= current.units }
        current = next
        next = Lease()
        let second = min(left, current.living(now))
        current.units -= second
        safety.units -= left - second
    }

    /// Counts what was admitted without a lease.
    mutating func use(_ units: Int64, _ now: Int64) {
        usedSinceMark += units
        usedAt = now
    }

    // MARK: Asking

    /// What a process would like to hold now: 100 ms of what it uses, a tenth of a second of the rate at most.
    var chunk: Int64 { min(chunkMax, quick / 10_000) }

    /// How much to ask for, for a request of `units` and others that wait.
    func want(_ units: Int64, waiting: Int64, _ lane: LimitLane, _ now: Int64) -> Int64 {
        max(units, max(chunk, waiting) - balance(lane, now))
    }

    /// Whether to ask for more before it is used up: half a chunk is left, and Redis is thought to have some.
    func wantsRefill(_ now: Int64) -> Bool {
        guard !isInFlight, next.units == 0, chunk >= 2, current.living(now) * 2 <= chunk,
            now >= notBefore.ordinary
        else { return false }
        return (available(.ordinary, now) ?? 1) > 0
    }

    /// Nanoseconds for which it is useless to ask for `units` more; 0 if Redis may have them, as far as is known.
    ///
    /// - Parameter life: how long an answer of Redis is believed.
    func dryFor(_ units: Int64, _ lane: LimitLane, _ now: Int64, life: Int64) -> Int64 {
        let pause = (lane == .safety ? notBefore.safety : notBefore.ordinary) - now
        guard now - knownAt <= life, let state = state(now) else { return max(0, pause) }
        let ticks = state.wait(for: units, shape, lane, at: time(now))
        return max(pause, 0, nanoseconds(ticks, now))
    }

    /// Nanoseconds until Redis should have `units`, if nobody takes any and nothing is given back; 0 if it has, as far
    /// as is known.
    func waitFor(_ units: Int64, _ lane: LimitLane, _ now: Int64) -> Int64 {
        guard let state = state(now) else { return 0 }
        return nanoseconds(state.wait(for: units, shape, lane, at: time(now)), now)
    }

    /// A tick begins at a whole one of Redis' clock, and knowledge is a millisecond coarse: so one more.
    private func nanoseconds(_ ticks: Int64, _ now: Int64) -> Int64 {
        guard ticks > 0 else { return 0 }
        let begins = shape.milliseconds(time(now) + ticks)
        return (begins - redisTime(now) + 1) * 1_000_000
    }

    // MARK: Knowing

    /// Milliseconds of Redis' clock, as it went on since its last answer.
    private func redisTime(_ now: Int64) -> Int64 { knownTime + max(0, now - knownAt) / 1_000_000 }

    private func time(_ now: Int64) -> Int64 { shape.ticks(redisTime(now)) }

    private func state(_ now: Int64) -> BucketState? {
        guard var state = known else { return nil }
        state.advance(shape, to: time(now))
        return state
    }

    /// What Redis should have for a lane; nil before it was asked.
    func available(_ lane: LimitLane, _ now: Int64) -> Int64? {
        state(now)?.available(shape, lane, at: time(now))
    }

    /// Units, and milliseconds until nothing counts as used.
    typealias Outlook = (left: Int64, untilFull: Int64)

    /// What there should be for a lane, here and in Redis, if nobody takes any; nil before Redis was asked.
    @inline(__always)
    func outlook(_ lane: LimitLane, _ now: Int64) -> Outlook? {
        guard let state = state(now) else { return nil }
        let time = time(now)
        return (
            state.available(shape, lane, at: time) + balance(lane, now),
            shape.milliseconds(state.untilFull(shape, at: time))
        )
    }

    /// What Redis had for a lane at its last answer, and what is held: good enough to find the tightest of several.
    @inline(__always)
    func roughlyLeft(_ lane: LimitLane, _ now: Int64) -> Int64 {
        (lane == .safety ? knownFree.safety : knownFree.ordinary) + balance(lane, now)
    }

    mutating func learn(_ state: BucketState, redisTime: Int64, _ now: Int64) {
        let time = shape.ticks(redisTime)
        knownFree = (
            state.available(shape, .ordinary, at: time), state.available(shape, .safety, at: time)
        )
        known = state
        knownTime = redisTime
        knownAt = now
    }

    // MARK: Getting

    /// Redis has given `units`, of `wanted`, to a question that was sent at `sentAt`.
    mutating func deposit(
        _ units: Int64, wanted: Int64, _ lane: LimitLane, since: Int64, sentAt: Int64, life: Int64,
        spacing: Int64, _ now: Int64
    ) {
        mark(now)
        if units < wanted { pause(lane, until: now + spacing) }
        guard units > 0 else { return }
        let lease = Lease(units: units, expiresAt: sentAt + life, since: since)
        switch lane {
        case .safety: safety = merged(safety, lease, now)
        case .ordinary where current.living(now) == 0: current = lease
        case .ordinary: next = merged(next, lease, now)
        }
    }

    private func merged(_ old: Lease, _ new: Lease, _ now: Int64) -> Lease {
        guard old.living(now) > 0 else { return new }
        return Lease(
            units: old.units + new.units, expiresAt: min(old.expiresAt, new.expiresAt),
            since: new.since)
    }

    mutating func pause(_ lane: LimitLane, until: Int64) {
        switch lane {
        case .ordinary: notBefore.ordinary = until
        case .safety: notBefore.safety = until
        }
    }

    /// Takes away what is held: of leases that have run out, or of all.
    ///
    /// - Returns: what is left of living ones.
    mutating func empty(_ now: Int64, all: Bool) -> [Lease] {
        var left: [Lease] = []
        if let lease = current.drop(now, all: all) { left.append(lease) }
        if let lease = next.drop(now, all: all) { left.append(lease) }
        if let lease = safety.drop(now, all: all) { left.append(lease) }
        return left
    }

    /// Gives up what is held of living leases above `most`.
    mutating func shed(to most: Int64, _ now: Int64) -> [Lease] {
        var above = balance(.safety, now) - most
        var given: [Lease] = []
        func cut(_ lease: Lease) -> Lease {
            let units = min(above, lease.living(now))
            guard units > 0 else { return lease }
            given.append(Lease(units: units, expiresAt: lease.expiresAt, since: lease.since))
            above -= units
            return Lease(
                units: lease.units - units, expiresAt: lease.expiresAt, since: lease.since)
        }
        safety = cut(safety)
        next = cut(next)
        current = cut(current)
        return given
    }

    var heldUnits: Int64 { current.units + next.units + safety.units }
    var isHolding: Bool { current.units > 0 || next.units > 0 || safety.units > 0 }

    // MARK: Measuring

    private static let markAfter: Int64 = 5_000_000
    private static let slowTime: Int64 = 10_000_000_000

    private mutating func mark(_ now: Int64) {
        let elapsed = now - markedAt
        guard elapsed >= LeasedBucket.markAfter else { return }
        if markedAt == 0 {
            markedAt = now
            usedSinceMark = 0
            return
        }
        let present = usedSinceMark * 1_000_000_000 / (elapsed / 1000)
        quick = (quick + present) / 2
        slow += (present - slow) / max(1, LeasedBucket.slowTime / elapsed)
        usedSinceMark = 0
        markedAt = now
    }

    /// Units per second that were used before Redis went away.
    var lastShare: Int64 { slow / 1000 }
}
