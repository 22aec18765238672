import HCCore

/// Who a request is to a bucket with a reserve.
package enum LimitLane: Int, CaseIterable, Sendable {
    case ordinary
    /// Clinical safety: may also take what others must leave.
    case safety
}

/// What a bucket is like: a rule's numbers as Swift and the script count with them.
///
/// Time is in ticks of one millisecond, or of one second for windows above an hour, so that every product stays below
/// 2^53, which is what Lua counts exactly: at most 10^9 units times 3.6 x 10^6 ticks.
struct BucketShape: Hashable, Sendable {
    let algorithm: RateAlgorithm
    /// Units that can be there at once.
    let capacity: Int64
    /// Of the capacity, for the safety lane only.
    let reserve: Int64
    /// Units per window.
    let rate: Int64
    /// In ticks.
    let window: Int64
    /// In milliseconds.
    let tick: Int64
    /// With what a bucket begins whose past Redis has lost, beside its reserve.
    let floor: Int64

    static let hour = Duration.seconds(3600)

    init(_ rule: RateRule, reservePercent: Int) {
        algorithm = rule.algorithm
        capacity = Int64(rule.capacity)
        reserve = rule.scope == .tenant ? capacity * Int64(reservePercent) / 100 : 0
        rate = Int64(rule.units)
        let milliseconds = max(1, rule.window.inMilliseconds)
        tick = rule.window > BucketShape.hour ? 1000 : 1
        window = (milliseconds + tick - 1) / tick
        floor = min(
            capacity - reserve,
            max(
                Int64(rule.largestCost),
                BucketShape.tenth(rate: rate, milliseconds: milliseconds)))
    }

    init(
        algorithm: RateAlgorithm, capacity: Int64, reserve: Int64, rate: Int64, window: Int64,
        tick: Int64 = 1, floor: Int64 = 0
    ) {
        self.algorithm = algorithm
        self.capacity = capacity
        self.reserve = reserve
        self.rate = rate
        self.window = window
        self.tick = tick
        self.floor = floor
    }

    /// What a tenth of a second brings: the most that a process may hold on its own.
    static func tenth(rate: Int64, milliseconds: Int64) -> Int64 { rate * 100 / milliseconds }

    /// What a lane may use of a full bucket.
    func usable(_ lane: LimitLane) -> Int64 { lane == .safety ? capacity : capacity - reserve }

    /// What a request is charged: one that is dearer than all that there can be takes all of it, for otherwise it
    /// would never pass.
    func charge(_ units: Int, _ lane: LimitLane) -> Int64 { min(Int64(units), usable(lane)) }

    /// As the script knows it.
    var code: Int64 {
        switch algorithm {
        case .tokenBucket: 1
        case .slidingWindow: 2
        case .fixedWindow: 3
        }
    }

    /// Whether a state of one is a state of the other.
    func countsAlike(_ other: BucketShape) -> Bool {
        algorithm == other.algorithm && window == other.window && tick == other.tick
    }

    func milliseconds(_ ticks: Int64) -> Int64 { ticks * tick }
    func ticks(_ milliseconds: Int64) -> Int64 { milliseconds / tick }
}
