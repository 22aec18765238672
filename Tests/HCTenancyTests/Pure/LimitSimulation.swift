import HCCore
import HCTesting
import Testing

@testable import HCTenancy

/// Many processes and one Redis, in a time of the test's own: their clocks run apart, messages take their time and get
/// lost, processes die and are replaced, Redis hangs, goes away and loses its data.
final class LimitSimulation {
    struct World {
        var processes: Int
        var plan: LimitPlan
        /// Requests of all processes together, per second.
        var demand: Int
        var seconds: Int
        var hasFaults: Bool
    }

    private final class Process {
        let machine: LimitMachine
        /// Parts in a thousand by which its clock is fast.
        let drift: Int64
        let offset: Int64
        var birth = RedisBirth()
        var isAlive = true
        var isConnected = false
        /// Of the connection: what was sent on another one has no answer.
        var connection = 0
        /// Requests that wait for Redis.
        var pending: [PendingLimit] = []

        init(_ machine: LimitMachine, drift: Int64, offset: Int64) {
            self.machine = machine
            self.drift = drift
            self.offset = offset
        }

        func clock(_ now: Int64) -> MonotonicTime {
            MonotonicTime(nanoseconds: (offset + now + now * drift / 1000) * 1000)
        }
    }

    private struct Event {
        var at: Int64
        var number: Int
        var action: () -> Void
    }

    let world: World
    private var random: SeededRandom
    private var redis = LimitLedger()
    private var isHanging = false
    private var isDown = false
    private var processes: [Process] = []
    private var events: [Event] = []
    private var number = 0
    /// Microseconds.
    private var now: Int64 = 0
    private static let begin: Int64 = 1_800_000_000_000
    private var rule: LimitRule { world.plan.rules[0] }

    // What is observed.
    private(set) var shared: Int64 = 0
    private(set) var alone: Int64 = 0
    private(set) var refused = 0
    private(set) var losses: Int64 = 0
    /// The most that was admitted beyond what Redis could have allowed, and what is allowed beyond it.
    private(set) var worst: Int64 = .min
    private var least: Int64 = .max
    /// For windows: what was admitted in each.
    private(set) var byWindow: [Int64: Int64] = [:]
    private(set) var aloneMost: Int64 = 0

    init(_ world: World, seed: UInt64) {
        self.world = world
        random = SeededRandom(seed: seed)
        for _ in 0..<world.processes { processes.append(makeProcess()) }
        for process in processes { connect(process, after: 0) }
    }

    private func makeProcess() -> Process {
        Process(
            LimitMachine(
                processes: world.processes, metrics: LimitMetrics(MetricsRegistry())),
            drift: Int64.random(in: -20...20, using: &random),
            offset: Int64.random(in: 1_000_000...1_000_000_000, using: &random))
    }

    private var redisTime: Int64 { LimitSimulation.begin + now / 1000 }

    private func schedule(after delay: Int64, _ action: @escaping () -> Void) {
        number += 1
        let event = Event(at: now + delay, number: number, action: action)
        // Sorted, the next one last.
        var low = 0
        var high = events.count
        while low < high {
            let middle = (low + high) / 2
            let other = events[middle]
            if (other.at, other.number) > (event.at, event.number) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        events.insert(event, at: low)
    }

    // MARK: The life of it

    func run() {
        let end = Int64(world.seconds) * 1_000_000
        scheduleRequest()
        scheduleSweep()
        if world.hasFaults { scheduleFault() }
        while let event = events.popLast(), event.at <= end {
            now = event.at
            event.action()
        }
        aloneMost = processes.reduce(0) { $0 + shareBound($1) }
    }

    private func scheduleRequest() {
        let mean = Int64(1_000_000 / world.demand)
        schedule(after: Int64.random(in: 0...2 * mean, using: &random)) { [self] in
            request()
            scheduleRequest()
        }
    }

    private func scheduleSweep() {
        schedule(after: 250_000) { [self] in
            for process in processes where process.isAlive {
                process.machine.sweep(now: process.clock(now))
                send(process)
            }
            scheduleSweep()
        }
    }

    private func request() {
        // Some processes have most of the clinic's traffic.
        let chosen = min(
            Int.random(in: 0..<processes.count, using: &random),
            Int.random(in: 0..<processes.count, using: &random))
        let process = processes[chosen]
        guard process.isAlive else { return }
        let request = BenchRequest(
            request: LimitRequest(
                kind: .default, units: [1, 1, 1, 10, 20].randomElement(using: &random) ?? 1,
                isExact: Int.random(in: 0..<10, using: &random) == 0),
            clinic: .make(world.plan))
        let local = process.clock(now)
        if let decision = process.machine.decide(
            request, now: local, isConnected: process.isConnected)
        {
            observe(decision, request.request)
        } else {
            process.pending.append(process.machine.ask(request, now: local))
        }
        send(process)
    }

    private func observeDecided(_ process: Process) {
        process.pending.removeAll { pending in
            if let decision = pending.decision { observe(decision, pending.request) }
            return pending.isDone
        }
    }

    private func observe(_ decision: RateDecision, _ request: LimitRequest) {
        guard decision.isAllowed else {
            refused += 1
            return
        }
        let units = Int64(request.units)
        if decision.isLocal {
            alone += units
            return
        }
        let shape = rule.shape
        if shape.algorithm == .tokenBucket {
            // In units times microseconds, so that nothing is rounded.
            let scale = shape.window * 1000
            least = min(least, shared * scale - now * shape.rate)
            shared += units
            worst = max(worst, (shared * scale - now * shape.rate - least) / scale)
        } else {
            shared += units
            byWindow[redisTime / shape.milliseconds(shape.window), default: 0] += units
        }
    }

    // MARK: Messages

    private func send(_ process: Process) {
        observeDecided(process)
        for flight in process.machine.takeOutbox() {
            let connection = process.connection
            guard process.isConnected else {
                process.machine.failed(flight, .unavailable, now: process.clock(now))
                send(process)
                continue
            }
            var isOver = false
            schedule(after: 100_000) { [self] in
                guard !isOver, process.isAlive else { return }
                isOver = true
                process.machine.failed(flight, .timeout, now: process.clock(now))
                send(process)
            }
            schedule(after: Int64.random(in: 50...2000, using: &random)) { [self] in
                guard process.connection == connection, !isDown, !isHanging else { return }
                let answer = redis.decide(
                    Array(zip(flight.questions.names, flight.questions.parts)).map {
                        (name: $0.0, part: $0.1)
                    },
                    lane: flight.lane, birth: process.birth.since, now: redisTime)
                if world.hasFaults, Int.random(in: 0..<200, using: &random) == 0 { return }
                schedule(after: Int64.random(in: 50...2000, using: &random)) { [self] in
                    guard !isOver, process.isAlive, process.connection == connection else { return }
                    isOver = true
                    process.machine.answered(flight, answer, now: process.clock(now))
                    send(process)
                }
            }
        }
    }

    private func connect(_ process: Process, after delay: Int64) {
        schedule(after: delay) { [self] in
            guard process.isAlive, !process.isConnected else { return }
            guard !isDown, redis.mark != nil || !process.birth.isFirst || losses == 0 else {
                return connect(process, after: 10_000)
            }
            process.isConnected = true
            process.connection += 1
            let mark = redis.birth(
                isFirst: process.birth.isFirst, random: "\(number)", now: redisTime)
            expectEqual(process.birth.learn(mark, now: redisTime), true)
        }
    }

    // MARK: Faults

    private func scheduleFault() {
        schedule(after: Int64.random(in: 100_000...3_000_000, using: &random)) { [self] in
            switch Int.random(in: 0..<5, using: &random) {
            case 0:
                isHanging = true
                schedule(after: Int64.random(in: 50_000...2_000_000, using: &random)) { [self] in
                    isHanging = false
                }
            case 1: restart(losing: true)
            case 2: restart(losing: false)
            case 3: cut(processes[Int.random(in: 0..<processes.count, using: &random)])
            default: replace(Int.random(in: 0..<processes.count, using: &random))
            }
            scheduleFault()
        }
    }

    private func restart(losing: Bool) {
        guard !isDown else { return }
        isDown = true
        for process in processes { cut(process) }
        if losing {
            redis.loseEverything()
            losses += 1
        }
        schedule(after: Int64.random(in: 10_000...1_000_000, using: &random)) { [self] in
            isDown = false
        }
    }

    private func cut(_ process: Process) {
        process.isConnected = false
        process.connection += 1
        connect(process, after: Int64.random(in: 5000...200_000, using: &random))
    }

    /// Killed, with what it held; another one takes its place.
    private func replace(_ index: Int) {
        graveyard += shareBound(processes[index])
        processes[index].isAlive = false
        processes[index] = makeProcess()
        connect(processes[index], after: Int64.random(in: 0...100_000, using: &random))
    }

    private var graveyard: Int64 = 0

    // MARK: Bounds

    /// What one process may hold.
    var chunk: Int64 { max(rule.chunkMax, 20) }

    /// With what the buckets began again that Redis had lost.
    var afterLosses: Int64 { losses * (rule.shape.reserve + rule.shape.floor) }

    /// What a process may have admitted without Redis: its share of the time of its outages, all of the rate while it
    /// was in its grace, and what a share holds.
    private func shareBound(_ process: Process) -> Int64 {
        let outage = process.machine.outage.clock(at: process.clock(now)).inNanoseconds
        let graced = min(outage, 30_000_000_000)
        let perSecond = rule.nanosPerSecond / LocalShare.unit
        let fixed = LocalShare.Measure(rule, processes: world.processes, before: nil)
        let held = max(perSecond, fixed.capacity / LocalShare.unit) + rule.shape.reserve + 1
        return outage / 1000 * (fixed.perSecond / 1_000_000) / 1_000_000_000
            + perSecond * graced / 1_000_000_000 + held
    }

    var aloneBound: Int64 { aloneMost + graveyard }
}

@Suite("Limits of many processes")
struct LimitSimulationTests {
    private func world(_ random: inout SeededRandom, _ algorithm: RateAlgorithm, hasFaults: Bool)
        -> LimitSimulation.World
    {
        let isBucket = algorithm == .tokenBucket
        let perSecond = Int.random(in: 20...2000, using: &random)
        let seconds = isBucket ? 1 : Int.random(in: 1...3, using: &random)
        let rule = RateRule(
            name: "tenant", scope: .tenant, algorithm: algorithm,
            units: max(500, perSecond * seconds), per: .seconds(seconds),
            burst: isBucket ? Int.random(in: 500...4000, using: &random) : nil)
        return LimitSimulation.World(
            processes: Int.random(in: 1...16, using: &random), plan: .make(rule),
            demand: Int.random(in: 50...1000, using: &random), seconds: 20, hasFaults: hasFaults)
    }

    @Test(
        "live processes x chunk is the most that is admitted beyond a bucket, whatever fails",
        arguments: 1...24 as ClosedRange<UInt64>)
    func bucket(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let world = world(&random, .tokenBucket, hasFaults: seed > 8)
        let simulation = LimitSimulation(world, seed: seed)
        simulation.run()
        let shape = world.plan.rules[0].shape
        let bound =
            shape.capacity + Int64(world.processes) * simulation.chunk + simulation.afterLosses
            // Redis counts whole milliseconds.
            + shape.rate / 1000 + 1
        #expect(simulation.worst <= bound, "seed \(seed): \(world)")
        #expect(simulation.alone <= simulation.aloneBound, "seed \(seed): \(world)")
        #expect(simulation.shared > 0, "seed \(seed)")
    }

    @Test(
        "the same holds of windows", arguments: 1...16 as ClosedRange<UInt64>)
    func windows(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let world = world(
            &random, seed % 2 == 0 ? .fixedWindow : .slidingWindow, hasFaults: seed > 6)
        let simulation = LimitSimulation(world, seed: seed)
        simulation.run()
        let shape = world.plan.rules[0].shape
        let bound =
            shape.capacity + Int64(world.processes) * simulation.chunk + simulation.afterLosses
        for (window, units) in simulation.byWindow {
            #expect(units <= bound, "seed \(seed) window \(window): \(world)")
        }
        #expect(simulation.alone <= simulation.aloneBound, "seed \(seed): \(world)")
        #expect(simulation.shared > 0, "seed \(seed)")
    }

    @Test("what a clinic has paid for it gets, however many processes serve it")
    func noLoss() {
        for seed in 1...4 as ClosedRange<UInt64> {
            let plan = LimitPlan.make(.bucket(units: 1000, burst: 1000))
            let simulation = LimitSimulation(
                LimitSimulation.World(
                    processes: 8, plan: plan, demand: 600, seconds: 20, hasFaults: false),
                seed: seed)
            simulation.run()
            // 6.6 units a request: four times the rate is asked for. Little of it runs out in leases.
            #expect(simulation.shared > 18_000, "seed \(seed)")
            #expect(simulation.alone == 0)
        }
    }
}
