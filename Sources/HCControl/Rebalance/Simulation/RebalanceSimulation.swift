package import HCCore

/// Plays a trace with every clinic left where it is, with plans at intervals, with plans by size alone, and with moves that cost
/// nothing, and compares.
package struct RebalanceSimulation: Sendable {
    package struct Settings: Sendable {
        /// Between two looks at the load. Seconds.
        package var step = 3600
        package var planEvery = 6 * 3600
        /// The first plan: who plans at night from a few hours of load moves what need not move.
        package var planFrom = 24 * 3600
        /// Moves that are under way at once, in all and at one shard.
        package var movesAtOnce = 16
        package var movesPerShard = 2
        /// Of one move.
        package var copyBytesPerSecond = 50_000_000.0
        /// What a move takes beside copying: streams, verification, the pause. Seconds.
        package var moveSeconds = 60.0
        package var rules = RebalanceRules()

        package init() {}

        package var assumptions: [String] {
            [
                "load is looked at every \(step) s, a plan made every \(planEvery) s from \(planFrom) s on with at most"
                    + " \(rules.movesMax) moves;"
                    + " what is not begun when the next is made is dropped",
                "\(movesAtOnce) moves at once, \(movesPerShard) at one shard, each \(Int(moveSeconds)) s and"
                    + " \(Int(copyBytesPerSecond / 1_000_000)) MB/s",
                "a clinic is not moved for balance again within \(rules.cooldown.components.seconds / 86_400) days",
            ]
        }
    }

    /// How it went with plans of one kind.
    package struct Course: Sendable {
        /// As the clinics had it, in each step.
        package internal(set) var seen = Evenness()
        /// As the plans knew it, when each was made.
        package internal(set) var known = Evenness()
        package internal(set) var plans = 0
        package internal(set) var movesByWeek: [Int]
        package internal(set) var bytes = 0.0
        /// Moves to a shard that the clinic had left in the four weeks before.
        package internal(set) var pingPong = 0
        /// Clinics that moved more than once.
        package internal(set) var movedAgain = 0
        package internal(set) var longestPlanning = Duration.zero

        package var moves: Int { movesByWeek.reduce(0, +) }

        init(weeks: Int) {
            movesByWeek = Array(repeating: 0, count: weeks)
        }

        mutating func note(at time: Double) {
            movesByWeek[min(movesByWeek.count - 1, Int(time) / LoadHistory.weekSeconds)] += 1
        }
    }

    package struct Outcome: Sendable {
        /// Every clinic stays where it is.
        package fileprivate(set) var without: Course
        /// As `rebalance plan` does it.
        package fileprivate(set) var with: Course
        /// Plans count bytes and nothing else.
        package fileprivate(set) var bySize: Course
        /// Moves cost nothing and take no time: what is left is what nobody knew when the plan was made.
        package fileprivate(set) var free: Course
        /// When the load was known for the first time.
        package fileprivate(set) var comparison: RebalanceComparison?
    }

    /// The first hours, in which nobody can know the load: not counted for any.
    private static let warmUp = LoadHistory.weekSeconds

    private let settings: Settings
    private let warmUp: Int
    private var fleets: [SimulatedFleet]
    private var loads: [LoadVector]
    private var histories: [LoadHistory]
    private var comparison: RebalanceComparison?

    private init(_ trace: some LoadTrace, _ settings: Settings) {
        self.settings = settings
        warmUp = min(RebalanceSimulation.warmUp, trace.seconds / 4)
        let weeks = max(1, (trace.seconds - 1) / LoadHistory.weekSeconds + 1)
        fleets = [SimulatedFleet.Kind.still, .planned, .bySize, .free].map {
            SimulatedFleet($0, trace.fleet, settings, weeks: weeks)
        }
        loads = Array(repeating: LoadVector(), count: trace.fleet.clinics.count)
        histories = Array(repeating: LoadHistory(), count: loads.count)
    }

    /// - Parameter now: measures how long planning takes.
    package static func run(
        _ trace: inout some LoadTrace, _ settings: Settings, now: () -> MonotonicTime
    ) -> Outcome {
        var simulation = RebalanceSimulation(trace, settings)
        var nextPlan = max(settings.step, min(settings.planFrom, trace.seconds / 4))
        for second in stride(from: 0, to: trace.seconds, by: settings.step) {
            trace.play(second, step: settings.step, into: &simulation.loads)
            if second >= nextPlan {
                simulation.plan(at: second, trace.fleet, now)
                nextPlan += settings.planEvery
            }
            simulation.pass(second)
        }
        return Outcome(
            without: simulation.fleets[0].course, with: simulation.fleets[1].course,
            bySize: simulation.fleets[2].course, free: simulation.fleets[3].course,
            comparison: simulation.comparison)
    }

    private mutating func plan(
        at second: Int, _ first: RebalanceFleet, _ now: () -> MonotonicTime
    ) {
        let planned = histories.map { $0.planned(settings.rules) }
        if second >= warmUp, comparison == nil {
            comparison = RebalanceComparison(
                first.bearing(planned), rules: settings.rules, now: now)
        }
        for index in fleets.indices {
            fleets[index].plan(at: second, planned, isCounted: second >= warmUp, now: now)
        }
    }

    /// A step of time.
    private mutating func pass(_ second: Int) {
        for index in fleets.indices {
            fleets[index].move(from: Double(second), to: Double(second + settings.step), loads)
            if second >= warmUp { fleets[index].look(loads) }
        }
        let step = Double(settings.step)
        let shares = LoadHistory.Shares(elapsed: step, seen: Double(second) + step)
        let week = (second + settings.step) / LoadHistory.weekSeconds
        for index in loads.indices {
            histories[index].note(loads[index], shares, elapsed: step, week: week)
        }
    }
}

extension RebalanceFleet {
    /// With what its clinics use.
    func bearing(_ loads: [LoadVector]) -> RebalanceFleet {
        var fleet = self
        for index in fleet.clinics.indices {
            fleet.clinics[index].load = loads[index]
            fleet.clinics[index].bytes = loads[index][.disk]
        }
        return fleet
    }
}
