package import HCCore

/// Plays a trace twice, with every clinic left where it is and with plans at intervals, and compares.
package struct RebalanceSimulation: Sendable {
    package struct Settings: Sendable {
        /// Between two looks at the load. Seconds.
        package var step = 3600
        package var planEvery = 6 * 3600
        /// Moves that are under way at once, in all and at one shard.
        package var movesAtOnce = 16
        package var movesPerShard = 2
        /// Of one move.
        package var copyBytesPerSecond = 50_000_000.0
        /// What a move takes beside copying: streams, verification, the pause. Seconds.
        package var moveSeconds = 60.0
        package var rules = RebalanceRules()
        /// Plans as if nothing but bytes counted, and copying them cost nothing: for comparison.
        package var isBySize = false

        package init() {}

        package var assumptions: [String] {
            [
                "load is looked at every \(step) s, a plan made every \(planEvery) s with at most \(rules.movesMax) moves;"
                    + " what is not begun when the next is made is dropped",
                "\(movesAtOnce) moves at once, \(movesPerShard) at one shard, each \(Int(moveSeconds)) s and"
                    + " \(Int(copyBytesPerSecond / 1_000_000)) MB/s",
                isBySize ? "plans count bytes and nothing else" : "plans count every dimension",
                "a clinic is not moved for balance again within \(rules.cooldown.components.seconds / 86_400) days",
            ]
        }
    }

    /// How even a fleet was, over a trace.
    package struct Evenness: Sendable, Equatable {
        /// The highest use of any shard in any dimension, in each step.
        fileprivate var highest: [Double] = []
        /// By how much that is above the mean of its dimension.
        fileprivate var skews: [Double] = []
        /// What all but one of a hundred shards stay below, in each step.
        fileprivate var ninetyNine: [Double] = []
        /// Shards times hours in which one was above 80 % and above all of what it can do.
        package fileprivate(set) var hoursAbove80 = 0.0
        package fileprivate(set) var hoursAbove100 = 0.0

        /// Of the busier quarter of the steps: at night nothing is short.
        package var busySkew: Double { median(of: busy(skews)) }
        package var busyUse: Double { median(of: busy(highest)) }
        package var busyNinetyNine: Double { median(of: busy(ninetyNine)) }
        package var mostUse: Double { highest.max() ?? 0 }

        private func busy(_ values: [Double]) -> [Double] {
            highest.indices.sorted { highest[$0] > highest[$1] }
                .prefix(max(1, highest.count / 4)).map { values[$0] }
        }

        private func median(of values: [Double]) -> Double {
            let sorted = values.sorted()
            return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
        }
    }

    package struct Outcome: Sendable {
        package fileprivate(set) var without = Evenness()
        package fileprivate(set) var with = Evenness()
        package fileprivate(set) var plans = 0
        package var moves: Int { movesByWeek.reduce(0, +) }
        package fileprivate(set) var movesByWeek: [Int] = []
        package fileprivate(set) var bytes = 0.0
        /// Moves to a shard that the clinic had left in the four weeks before.
        package fileprivate(set) var pingPong = 0
        /// Clinics that moved more than once.
        package fileprivate(set) var movedAgain = 0
        package fileprivate(set) var longestPlanning = Duration.zero
    }

    private struct Running {
        var clinic: Int
        var source: Int
        var target: Int
        var ends: Double
    }

    private let settings: Settings
    private var fleet: RebalanceFleet
    private let firstPlaces: [Int]
    private var loads: [LoadVector]
    private var histories: [LoadHistory]
    private var queue: [RebalancePlan.Move] = []
    private var running: [Running] = []
    private var atShard: [Int]
    /// When a clinic was moved last, and what it left when.
    private var movedAt: [Int: Double] = [:]
    private var left: [Int: [(shard: Int, at: Double)]] = [:]
    private var outcome = Outcome()

    private static let pingPongSeconds = 28 * 86_400.0
    /// The first hours, in which nobody can know the load: not counted for either.
    private static let warmUp = LoadHistory.weekSeconds

    /// - Parameter now: measures how long planning takes.
    package static func run(
        _ trace: inout some LoadTrace, _ settings: Settings, now: () -> MonotonicTime
    ) -> Outcome {
        var simulation = RebalanceSimulation(trace.fleet, settings)
        simulation.outcome.movesByWeek = Array(
            repeating: 0, count: max(1, (trace.seconds - 1) / LoadHistory.weekSeconds + 1))
        var nextPlan = settings.planEvery
        for second in stride(from: 0, to: trace.seconds, by: settings.step) {
            trace.play(second, step: settings.step, into: &simulation.loads)
            if second >= nextPlan {
                simulation.plan(at: second, now: now)
                nextPlan += settings.planEvery
            }
            simulation.move(from: Double(second), to: Double(second + settings.step))
            simulation.look(second, isCounted: second >= min(warmUp, trace.seconds / 4))
        }
        simulation.outcome.movedAgain = simulation.left.values.count { $0.count > 1 }
        return simulation.outcome
    }

    private init(_ fleet: RebalanceFleet, _ settings: Settings) {
        self.settings = settings
        self.fleet = fleet
        firstPlaces = fleet.clinics.map(\.shard)
        loads = Array(repeating: LoadVector(), count: fleet.clinics.count)
        histories = Array(repeating: LoadHistory(), count: fleet.clinics.count)
        atShard = Array(repeating: 0, count: fleet.shards.count)
    }

    // MARK: Plans

    private mutating func plan(at second: Int, now: () -> MonotonicTime) {
        let rest = Double(settings.rules.cooldown.components.seconds)
        let moving = Dictionary(uniqueKeysWithValues: running.map { ($0.clinic, $0.target) })
        var seen = fleet
        for index in seen.clinics.indices {
            let load = histories[index].planned(settings.rules)
            seen.clinics[index].load = load
            seen.clinics[index].bytes = load[.disk]
            seen.clinics[index].isResting =
                movedAt[index].map { Double(second) - $0 < rest } ?? false
        }
        var rules = settings.rules
        if settings.isBySize {
            rules.copyCost = 0
            for index in seen.shards.indices {
                let disk = seen.shards[index].capacity[.disk]
                seen.shards[index].capacity = LoadVector { $0 == .disk ? disk : 0 }
            }
        }
        for (clinic, target) in moving {
            seen.clinics[clinic].shard = target
            seen.clinics[clinic].isFixed = true
        }
        let start = now()
        let plan = RebalancePlanner.plan(seen, rules: rules)
        outcome.longestPlanning = max(outcome.longestPlanning, now() - start)
        outcome.plans += 1
        queue = plan.moves.reversed()
    }

    // MARK: Moves

    private mutating func move(from start: Double, to end: Double) {
        var time = start
        while true {
            begin(at: time)
            guard let next = running.min(by: { $0.ends < $1.ends }), next.ends < end else { return }
            time = max(time, next.ends)
            running.removeAll { $0.clinic == next.clinic }
            finish(next, at: time)
        }
    }

    private mutating func begin(at time: Double) {
        while running.count < settings.movesAtOnce {
            // The next whose shards have a place: the queue is reversed.
            guard
                let index = queue.lastIndex(where: {
                    atShard[$0.source] < settings.movesPerShard
                        && atShard[$0.target] < settings.movesPerShard
                })
            else { return }
            let move = queue.remove(at: index)
            let bytes = loads[move.clinic][.disk]
            running.append(
                Running(
                    clinic: move.clinic, source: move.source, target: move.target,
                    ends: time + settings.moveSeconds + bytes / settings.copyBytesPerSecond))
            atShard[move.source] += 1
            atShard[move.target] += 1
            outcome.bytes += bytes
        }
    }

    private mutating func finish(_ move: Running, at time: Double) {
        atShard[move.source] -= 1
        atShard[move.target] -= 1
        fleet.clinics[move.clinic].shard = move.target
        movedAt[move.clinic] = time
        outcome.movesByWeek[
            min(outcome.movesByWeek.count - 1, Int(time) / LoadHistory.weekSeconds)] += 1
        let before = left[move.clinic] ?? []
        if before.contains(where: {
            $0.shard == move.target && time - $0.at < RebalanceSimulation.pingPongSeconds
        }) {
            outcome.pingPong += 1
        }
        left[move.clinic] = before + [(move.source, time)]
    }

    // MARK: Looks

    private mutating func look(_ second: Int, isCounted: Bool) {
        let step = Double(settings.step)
        let shares = LoadHistory.Shares(elapsed: step, seen: Double(second) + step)
        let week = (second + settings.step) / LoadHistory.weekSeconds
        var with = Array(repeating: SIMD8<Double>.zero, count: fleet.shards.count)
        var without = with
        for index in loads.indices {
            let load = loads[index]
            histories[index].note(load, shares, elapsed: step, week: week)
            with[fleet.clinics[index].shard] += load.lanes
            without[firstPlaces[index]] += load.lanes
        }
        guard isCounted else { return }
        judge(with, &outcome.with)
        judge(without, &outcome.without)
    }

    private func judge(_ loads: [SIMD8<Double>], _ evenness: inout Evenness) {
        var (total, capacity, most) = (
            SIMD8<Double>.zero, SIMD8<Double>.zero, SIMD8<Double>.zero
        )
        let hours = Double(settings.step) / 3600
        var uses: [Double] = []
        for (shard, load) in zip(fleet.shards, loads) {
            let use = load * shard.capacity.inverse
            total += load
            capacity += shard.capacity.lanes
            most = pointwiseMax(most, use)
            uses.append(use.max())
            if use.max() > 0.8 { evenness.hoursAbove80 += hours }
            if use.max() > 1 { evenness.hoursAbove100 += hours }
        }
        let mean = total * LoadVector(lanes: capacity).inverse
        let worst = most.max()
        guard let lane = most.indices.first(where: { most[$0] == worst }), mean[lane] > 0 else {
            return
        }
        uses.sort()
        evenness.ninetyNine.append(uses[(uses.count - 1) * 99 / 100])
        evenness.highest.append(worst)
        evenness.skews.append(worst / mean[lane] - 1)
    }
}
