/// What is remembered of a clinic's load: averages that forget, and the highest of the last week. Pure.
///
/// What is sampled and what is simulated is added up by the same arithmetic.
package struct LoadHistory: Sendable, Equatable {
    /// Averages with a time constant of an hour and of a day (exponentially weighted; the plain mean until as much
    /// has been seen).
    package private(set) var hour = LoadVector()
    package private(set) var day = LoadVector()
    /// The highest `hour` of the present week, and of the week before it.
    private(set) var peakNow = LoadVector()
    private(set) var peakBefore = LoadVector()
    private(set) var week = 0
    /// For how long it was observed, seconds.
    private(set) var seen = 0.0

    package static let hourSeconds = 3600.0
    package static let daySeconds = 86_400.0
    package static let weekSeconds = 604_800

    package init() {}

    /// As it was kept.
    init(
        hour: LoadVector, day: LoadVector, peakNow: LoadVector, peakBefore: LoadVector, week: Int,
        seen: Double
    ) {
        self.hour = hour
        self.day = day
        self.peakNow = peakNow
        self.peakBefore = peakBefore
        self.week = week
        self.seen = seen
    }

    /// The highest hour of the last one to two weeks.
    package var peak: LoadVector {
        LoadVector(lanes: pointwiseMax(peakNow.lanes, peakBefore.lanes))
    }

    /// What a plan counts on.
    package func planned(_ rules: RebalanceRules) -> LoadVector {
        var load = LoadVector.planned(average: day, peak: peak, peakShare: rules.peakShare)
        load[.disk] = day[.disk] + rules.baseBytes
        return load
    }

    /// - Parameters:
    ///   - load: the mean of the time that passed.
    ///   - elapsed: that time, seconds. Above 0.
    ///   - now: its end, in seconds of any calendar that always has the same.
    package mutating func note(_ load: LoadVector, elapsed: Double, now: Int) {
        note(
            load, Shares(elapsed: elapsed, seen: seen + elapsed), elapsed: elapsed,
            week: now / LoadHistory.weekSeconds)
    }

    /// How far the averages go towards a new value: the same for all clinics that were seen alike.
    package struct Shares: Sendable {
        var hour: Double
        var day: Double

        package init(elapsed: Double, seen: Double) {
            // The exponential average in its implicit form: x / (1 + x) in place of 1 - exp(-x), which stays between
            // 0 and 1 however long nobody looked, and needs no library.
            func share(_ constant: Double) -> Double {
                let x = elapsed / constant
                return max(x / (1 + x), min(1, elapsed / seen))
            }
            hour = share(LoadHistory.hourSeconds)
            day = share(LoadHistory.daySeconds)
        }
    }

    mutating func note(_ load: LoadVector, _ shares: Shares, elapsed: Double, week now: Int) {
        seen += elapsed
        hour.lanes += (load.lanes - hour.lanes) * shares.hour
        day.lanes += (load.lanes - day.lanes) * shares.day
        // Disks do not breathe: what is there now.
        hour[.disk] = load[.disk]
        day[.disk] = load[.disk]
        if now != week {
            peakBefore = now == week + 1 ? peakNow : LoadVector()
            peakNow = LoadVector()
            week = now
        }
        peakNow.lanes = pointwiseMax(peakNow.lanes, hour.lanes)
    }
}
