import HCCore

/// Runs a migration over imagined shards in imagined time: the waves of `MigrationWaves`, the order of `RolloutMachine`, the
/// patience of `LockRetry`, as `WaveRunner` uses them, and shards that behave as `RolloutProfile` has recorded.
package struct RolloutSimulation: Sendable {
    package struct Settings: Sendable {
        package var shards = 1000
        package var seed: UInt64 = 1
        package var percents = MigrationWaves.percentsDefault
        package var parallel = 8
        package var locks = LockRetry()
        package var profile = RolloutProfile()

        package init() {}

        package var assumptions: [String] {
            [
                "\(shards) shards, \(parallel) at once, waves of 1 shard, then \(percents.map { "\($0) %" }.joined(separator: ", "))",
                "locks are asked for \(locks.timeout.inMilliseconds) ms at a time, up to \(locks.attemptsMax) times or"
                    + " \(locks.total.inMilliseconds / 1000) s",
            ] + profile.assumptions
        }
    }

    /// What goes wrong.
    package enum Trouble: Sendable, Equatable {
        case none
        /// The migration is bad: it fails wherever it is run.
        case bad
        /// It fails at one shard: the one that is begun as the so many-th, from 1.
        case one(position: Int)
        /// Somebody holds a lock at that shard for longer than the run has patience.
        case locked(position: Int)
        /// The wave's shards come out otherwise than they should; the gate sees it.
        case gate(wave: Int)
        /// Each shard fails with this probability.
        case random(Double)
        /// So many shards have no server when the run is planned; it goes on without them when they are left out.
        case down(Int)
    }

    /// Of one wave.
    package struct Wave: Sendable {
        package var shards: Int
        package var milliseconds: Int64
        package var gateMilliseconds: Int64
        /// Of the shard that took longest.
        package var slowestMilliseconds: Int64
    }

    package struct Outcome: Sendable {
        package var ending: RolloutMachine.Ending?
        /// Shards that stand in the way of a beginning; nothing was touched then.
        package var refused: [String] = []
        package var planMilliseconds: Int64 = 0
        package var waves: [Wave] = []
        package var milliseconds: Int64 = 0
        package var done: Set<String> = []
        package var failed: [String] = []
        package var untouched = 0
        /// Attempts that did not get their locks.
        package var lockedOut = 0
        /// What a request had to wait at most because of the migration.
        package var longestRequestWait = Duration.zero
        /// As they were begun.
        package var begun: [String] = []
    }

    private struct Work {
        var shard: String
        var end: Duration
        var took: Duration
        var isDone: Bool
    }

    private let settings: Settings
    private let shards: [String]
    private var random: SplitMix

    package init(_ settings: Settings) {
        self.settings = settings
        let width = String(settings.shards).count
        shards = (1...settings.shards).map { number in
            let digits = String(number)
            return "s" + String(repeating: "0", count: width - digits.count) + digits
        }
        random = SplitMix(seed: settings.seed)
    }

    /// - Parameters:
    ///   - done: shards that have it already, of a run that halted.
    ///   - except: shards that are left out.
    /// - Throws: `ControlError` (`bad-waves`).
    package mutating func run(
        _ trouble: Trouble, done: Set<String> = [], except: Set<String> = []
    ) throws(ControlError) -> Outcome {
        let taken = shards.filter { !except.contains($0) }
        var outcome = Outcome()
        outcome.done = done
        outcome.untouched = shards.count - done.count
        var now = parallelTime(taken.map { _ in look() })
        outcome.planMilliseconds = now.inMilliseconds
        outcome.milliseconds = now.inMilliseconds
        if case .down(let count) = trouble, count > 0, except.isEmpty {
            outcome.refused = Array(shards.suffix(count))
            return outcome
        }
        let waves = try MigrationWaves(
            shards: taken, canary: taken[0], percents: settings.percents)
        var machine = RolloutMachine(waves: waves.waves)
        while machine.ending == nil {
            let (number, start) = (machine.wave, now)
            let slowest = work(&machine, trouble, done: done, now: &now, &outcome)
            let gateStart = now
            if machine.mayGoOn {
                let wave = waves.waves[number]
                now += parallelTime(wave.map { _ in look() })
                machine.verified(failing: trouble == .gate(wave: number) ? [wave[0]] : [])
            }
            outcome.waves.append(
                Wave(
                    shards: waves.waves[number].count,
                    milliseconds: (now - start).inMilliseconds,
                    gateMilliseconds: (now - gateStart).inMilliseconds,
                    slowestMilliseconds: slowest.inMilliseconds))
        }
        outcome.ending = machine.ending
        outcome.failed = machine.failed
        outcome.milliseconds = now.inMilliseconds
        return outcome
    }

    /// Workers take shards until there are none to begin and none under way.
    ///
    /// - Returns: what the slowest took.
    private mutating func work(
        _ machine: inout RolloutMachine, _ trouble: Trouble, done: Set<String>,
        now: inout Duration, _ outcome: inout Outcome
    ) -> Duration {
        var underWay: [Work] = []
        var slowest = Duration.zero
        while true {
            while underWay.count < settings.parallel, let shard = machine.next() {
                underWay.append(
                    done.contains(shard)
                        ? Work(shard: shard, end: now, took: .zero, isDone: true)
                        : begin(shard, trouble, now: now, &outcome))
            }
            guard let first = underWay.indices.min(by: { underWay[$0].end < underWay[$1].end })
            else { return slowest }
            let work = underWay.remove(at: first)
            now = max(now, work.end)
            slowest = max(slowest, work.took)
            if work.isDone {
                machine.migrated(work.shard)
                outcome.done.insert(work.shard)
            } else {
                machine.failed(work.shard)
            }
        }
    }

    private mutating func begin(
        _ shard: String, _ trouble: Trouble, now: Duration, _ outcome: inout Outcome
    ) -> Work {
        outcome.begun.append(shard)
        outcome.untouched -= 1
        let position = outcome.begun.count
        var took = control() + look()
        var blockedFor = Duration.zero
        if Double.random(in: 0...1, using: &random) < settings.profile.longShare {
            blockedFor = settings.profile.long.sample(using: &random)
        }
        if trouble == .locked(position: position) { blockedFor = settings.locks.total * 2 }
        var isDone = attempt(blockedFor, took: &took, &outcome)
        switch trouble {
        case .bad: isDone = false
        case .one(let bad) where bad == position: isDone = false
        case .random(let share):
            if Double.random(in: 0...1, using: &random) < share { isDone = false }
        default: break
        }
        // The history's end, what was seen of the shard, and how far the run is.
        took += control() + control() + control()
        return Work(shard: shard, end: now + took, took: took, isDone: isDone)
    }

    /// Asks for the locks as the runner does.
    ///
    /// - Parameter blockedFor: for how long nobody gets them.
    private mutating func attempt(
        _ blockedFor: Duration, took: inout Duration, _ outcome: inout Outcome
    ) -> Bool {
        let (locks, profile) = (settings.locks, settings.profile)
        var elapsed = Duration.zero
        for attempt in 1... {
            let wait = max(profile.wait.sample(using: &random), blockedFor - elapsed)
            if wait <= locks.timeout {
                let apply = profile.apply.sample(using: &random)
                let hold = min(apply, profile.hold.sample(using: &random))
                outcome.longestRequestWait = max(outcome.longestRequestWait, wait + hold)
                took += elapsed + wait + apply
                return true
            }
            elapsed += locks.timeout
            outcome.lockedOut += 1
            outcome.longestRequestWait = max(outcome.longestRequestWait, locks.timeout)
            let pause = locks.next(after: attempt, elapsed: elapsed, using: &random)
            guard let pause else {
                took += elapsed
                return false
            }
            elapsed += pause
        }
        preconditionFailure("attempts end with the last")
    }

    // MARK: Times

    private mutating func look() -> Duration { settings.profile.look.sample(using: &random) }
    private mutating func control() -> Duration { settings.profile.control.sample(using: &random) }

    /// What it takes when so many work at once and each takes the next.
    private func parallelTime(_ times: [Duration]) -> Duration {
        var workers = Array(repeating: Duration.zero, count: settings.parallel)
        for time in times {
            guard let first = workers.indices.min(by: { workers[$0] < workers[$1] }) else { break }
            workers[first] += time
        }
        return workers.max() ?? .zero
    }
}
