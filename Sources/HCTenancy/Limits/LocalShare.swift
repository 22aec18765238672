import HCCore

/// A bucket of one process' own, for the time without Redis: never all of the limit and never nothing.
///
/// It gains `rate / processes`, in the grace what the process had used before if that is more, and holds one second of
/// that, but at least what the dearest request costs, or that would never pass. It gains by the clock of outages
/// (`OutageMachine.clock`), so that an outage that follows another at once finds it as it was left. All processes
/// together admit in an outage of t seconds at most `rate x t + processes x max(rate / processes, dearest request)` and the safety
/// lane's part beside it, and in the grace what they used before instead of `rate x t`, where each counts for `rate` at most.
struct LocalShare {
    /// Billionths of a unit.
    private var level: Int64 = 0
    private var at = Int64.min
    private var era = -1

    static let unit: Int64 = 1_000_000_000

    /// How fast it gains and how much it holds, in billionths of a unit, now.
    struct Measure: Equatable {
        var perSecond: Int64
        var capacity: Int64
        /// Of the capacity, for the safety lane only.
        var kept: Int64

        /// - Parameter before: units per second that the process used before, if there is a grace.
        init(_ rule: LimitRule, processes: Int, before: Int64?) {
            let fixed = max(1, rule.nanosPerSecond / Int64(processes))
            let grace = before.map {
                min(rule.nanosPerSecond, $0.multipliedReportingOverflow(by: unit).partialValue)
            }
            perSecond = max(fixed, grace ?? 0)
            let shape = rule.shape
            let ordinary = max(
                perSecond, shape.charge(rule.rule.largestCost, .ordinary) * unit)
            kept = ordinary / max(1, shape.capacity - shape.reserve) * shape.reserve
            capacity = ordinary + kept
        }
    }

    /// - Parameters:
    ///   - clock: the time spent in outages, in nanoseconds.
    ///   - era: of `OutageMachine`; another one begins full.
    mutating func advance(_ measure: Measure, clock: Int64, era: Int) {
        if era != self.era {
            self.era = era
            level = measure.capacity
            at = clock
            return
        }
        guard clock > at else {
            level = min(level, measure.capacity)
            return
        }
        let elapsed = (clock - at) / 1_000_000
        at += elapsed * 1_000_000
        let (gained, overflow) = elapsed.multipliedReportingOverflow(by: measure.perSecond)
        let thousandth = gained / 1000
        level =
            overflow || thousandth >= measure.capacity - level
            ? measure.capacity : level + thousandth
    }

    /// Whole units that a lane may take, of a share that has been advanced.
    func available(_ measure: Measure, _ lane: LimitLane) -> Int64 {
        max(0, level - (lane == .safety ? 0 : measure.kept)) / LocalShare.unit
    }

    /// Milliseconds until so many units are there.
    func wait(for units: Int64, _ measure: Measure, _ lane: LimitLane) -> Int64 {
        let kept = lane == .safety ? 0 : measure.kept
        let missing = min(units * LocalShare.unit + kept, measure.capacity) - level
        guard missing > 0 else { return 0 }
        let (scaled, overflow) = missing.multipliedReportingOverflow(by: 1000)
        if overflow { return (missing / measure.perSecond + 1) * 1000 }
        return scaled / measure.perSecond + 1
    }

    mutating func take(_ units: Int64) { level -= units * LocalShare.unit }
}
