import HCCore

/// A fleet in a simulation: where its clinics are while plans of one kind are made and carried out.
struct SimulatedFleet {
    enum Kind: Sendable {
        /// Every clinic stays where it is.
        case still
        /// As `rebalance plan` does it.
        case planned
        /// Counts bytes and nothing else (`SizeGreedy`).
        case bySize
        /// Moves cost nothing, take no time and no rest, and there may be as many as help.
        case free
    }

    private struct Running {
        var clinic: Int
        var source: Int
        var target: Int
        var ends: Double
    }

    let kind: Kind
    private let settings: RebalanceSimulation.Settings
    private(set) var fleet: RebalanceFleet
    private var queue: [RebalancePlan.Move] = []
    private var running: [Running] = []
    private var atShard: [Int]
    /// When a clinic was moved last, and what it left when.
    private var movedAt: [Int: Double] = [:]
    private var left: [Int: [(shard: Int, at: Double)]] = [:]
    private(set) var course: RebalanceSimulation.Course

    private static let pingPongSeconds = 28 * 86_400.0

    init(
        _ kind: Kind, _ fleet: RebalanceFleet, _ settings: RebalanceSimulation.Settings, weeks: Int
    ) {
        self.kind = kind
        self.settings = settings
        self.fleet = fleet
        atShard = Array(repeating: 0, count: fleet.shards.count)
        course = RebalanceSimulation.Course(weeks: weeks)
    }

    // MARK: Plans

    /// - Parameter planned: what each clinic is planned to use.
    mutating func plan(
        at second: Int, _ planned: [LoadVector], isCounted: Bool, now: () -> MonotonicTime
    ) {
        let rest = Double(settings.rules.cooldown.components.seconds)
        var seen = fleet.bearing(planned)
        for (index, at) in movedAt where Double(second) - at < rest {
            seen.clinics[index].isResting = true
        }
        if isCounted { course.known.note(sums(planned), on: fleet.shards, hours: 0) }
        for move in running {
            seen.clinics[move.clinic].shard = move.target
            seen.clinics[move.clinic].isFixed = true
        }
        let start = now()
        let plan: RebalancePlan
        switch kind {
        case .still: return
        case .planned: plan = RebalancePlanner.plan(seen, rules: settings.rules)
        case .bySize: plan = SizeGreedy.plan(seen, rules: settings.rules)
        case .free: plan = RebalancePlanner.plan(seen, rules: SimulatedFleet.free(settings.rules))
        }
        course.longestPlanning = max(course.longestPlanning, now() - start)
        course.plans += 1
        if kind == .free {
            for move in plan.moves {
                course.bytes += planned[move.clinic][.disk]
                course.note(at: Double(second))
            }
            fleet = plan.applied(to: fleet)
        } else {
            queue = plan.moves.reversed()
        }
    }

    private static func free(_ rules: RebalanceRules) -> RebalanceRules {
        var rules = rules
        rules.movesMax = RebalanceRules.movesMaxMost
        (rules.tolerance, rules.floor) = (0.05, 0)
        (rules.moveCost, rules.copyCost) = (1e-12, 0)
        return rules
    }

    // MARK: Moves

    mutating func move(from start: Double, to end: Double, _ loads: [LoadVector]) {
        var time = start
        while true {
            begin(at: time, loads)
            guard let next = running.min(by: { $0.ends < $1.ends }), next.ends < end else { return }
            time = max(time, next.ends)
            running.removeAll { $0.clinic == next.clinic }
            finish(next, at: time)
        }
    }

    private mutating func begin(at time: Double, _ loads: [LoadVector]) {
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
            course.bytes += bytes
        }
    }

    private mutating func finish(_ move: Running, at time: Double) {
        atShard[move.source] -= 1
        atShard[move.target] -= 1
        fleet.clinics[move.clinic].shard = move.target
        movedAt[move.clinic] = time
        course.note(at: time)
        let before = left[move.clinic] ?? []
        if before.contains(where: {
            $0.shard == move.target && time - $0.at < SimulatedFleet.pingPongSeconds
        }) {
            course.pingPong += 1
        }
        if before.count == 1 { course.movedAgain += 1 }
        left[move.clinic] = before + [(move.source, time)]
    }

    // MARK: Looks

    mutating func look(_ loads: [LoadVector]) {
        course.seen.note(sums(loads), on: fleet.shards, hours: Double(settings.step) / 3600)
    }

    private func sums(_ loads: [LoadVector]) -> [SIMD8<Double>] {
        var sums = Array(repeating: SIMD8<Double>.zero, count: fleet.shards.count)
        for (index, clinic) in fleet.clinics.enumerated() {
            sums[clinic.shard] += loads[index].lanes
        }
        return sums
    }
}
