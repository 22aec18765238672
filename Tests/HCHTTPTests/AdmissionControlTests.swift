import HCCore
import HCTesting
import Testing

@testable import HCHTTP

@Suite("admission under overload")
struct AdmissionControlTests {
    /// A worker that answers in the order of admission, so fast and no faster: its queueing is its backlog.
    private struct Worker {
        var control: AdmissionControl
        var random: SeededRandom
        var now = MonotonicTime.zero
        var queue: [RequestLane] = []
        var admitted = [0, 0, 0, 0]
        var refused = [0, 0, 0, 0]
        let perMillisecond: Int

        init(seed: UInt64, perMillisecond: Int, limits: AdmissionControl.Limits = .init()) {
            control = AdmissionControl(limits: limits, now: .zero)
            random = SeededRandom(seed: seed)
            self.perMillisecond = perMillisecond
        }

        var delay: Duration { .milliseconds(queue.count / perMillisecond) }

        /// One millisecond in which `arrivals` ask.
        mutating func run(_ arrivals: [RequestLane]) {
            now += .milliseconds(1)
            for lane in arrivals {
                if control.admit(lane, delay: delay, now: now, using: &random) == .admitted {
                    queue.append(lane)
                    admitted[lane.index] += 1
                } else {
                    refused[lane.index] += 1
                }
            }
            for lane in queue.prefix(perMillisecond) { control.finish(lane) }
            queue.removeFirst(min(queue.count, perMillisecond))
        }

        mutating func startCounting() {
            admitted = [0, 0, 0, 0]
            refused = [0, 0, 0, 0]
        }
    }

    private static func admit(
        _ control: inout AdmissionControl, _ lane: RequestLane, delay: Duration = .zero,
        at now: MonotonicTime = .zero
    ) -> Bool {
        var random = SeededRandom(seed: 1)
        return control.admit(lane, delay: delay, now: now, using: &random) == .admitted
    }

    @Test("lanes are refused one after the other as the worker fills, and care last")
    func order() {
        var limits = AdmissionControl.Limits()
        limits.inFlightMax = 100
        var control = AdmissionControl(limits: limits, now: .zero)
        var refusedAt: [RequestLane: Int] = [:]
        for count in 0..<100 {
            for lane in RequestLane.allCases where refusedAt[lane] == nil {
                var probe = control
                if !Self.admit(&probe, lane) { refusedAt[lane] = count }
            }
            #expect(Self.admit(&control, .safety))
        }
        #expect(refusedAt == [.bulk: 50, .entry: 65, .interactive: 80])
        #expect(!Self.admit(&control, .safety), "the hard limit is everybody's")
    }

    @Test("care has slots that others cannot take, whatever they hold when the limit falls")
    func reserve() {
        var limits = AdmissionControl.Limits()
        limits.inFlightMax = 100
        limits.inFlightMin = 20
        var control = AdmissionControl(limits: limits, now: .zero)
        while Self.admit(&control, .interactive) {}
        #expect(control.inFlight == 80)
        // The limit falls to its least; all slots below it are held by others.
        for round in 1...20 {
            let now = MonotonicTime.zero + .milliseconds(Int64(round) * 301)
            _ = Self.admit(&control, .interactive, delay: .seconds(1), at: now)
        }
        #expect(control.limit == 20)
        for _ in 0..<20 {
            #expect(Self.admit(&control, .safety, at: .zero + .seconds(6)))
        }
        #expect(!Self.admit(&control, .safety, at: .zero + .seconds(6)))
        #expect(control.inFlight == 100)
    }

    @Test("a burst that passes is no overload; a standing queue is")
    func burst() {
        var control = AdmissionControl(limits: .init(), now: .zero)
        for index in 0..<100 {
            // One in ten is not delayed at all.
            let delay: Duration = index % 10 == 0 ? .zero : .seconds(1)
            _ = Self.admit(
                &control, .bulk, delay: delay, at: .zero + .milliseconds(Int64(index) * 20))
            control.finish(.bulk)
        }
        #expect(control.limit == 2048)
        for index in 100..<200 {
            _ = Self.admit(
                &control, .bulk, delay: .milliseconds(101),
                at: .zero + .milliseconds(Int64(index) * 20))
            control.finish(.bulk)
        }
        #expect(control.limit == 64)
    }

    @Test("twice the load it can bear: queueing stays near the target, care is always served")
    func overload() {
        let seed = UInt64.random(in: .min ... .max)
        var worker = Worker(seed: seed, perMillisecond: 10)
        // 20 a millisecond where 10 can be answered; one in ten is care.
        let arrivals =
            [RequestLane](repeating: .bulk, count: 9)
            + [RequestLane](repeating: .interactive, count: 9) + [.safety, .safety]
        for _ in 0..<5000 { worker.run(arrivals.shuffled(using: &worker.random)) }
        worker.startCounting()
        var worst = Duration.zero
        for _ in 0..<20_000 {
            worker.run(arrivals.shuffled(using: &worker.random))
            worst = max(worst, worker.delay)
        }
        #expect(worst < .milliseconds(250), "seed \(seed): queueing is bounded")
        #expect(worker.refused[RequestLane.safety.index] == 0, "seed \(seed)")
        #expect(
            worker.admitted[RequestLane.interactive.index]
                > 2 * worker.admitted[RequestLane.bulk.index],
            "seed \(seed): bulk goes first")
        let served = worker.admitted.reduce(0, +)
        #expect(served > 190_000, "seed \(seed): the worker is not left idle")
    }

    @Test("when the load is gone the limit is back within seconds, also if nobody came meanwhile")
    func recovery() {
        for isQuiet in [true, false] {
            var worker = Worker(seed: 7, perMillisecond: 1)
            for _ in 0..<20_000 { worker.run([.interactive, .interactive, .interactive]) }
            #expect(worker.control.limit < 1000)
            while !worker.queue.isEmpty { worker.run([]) }
            if isQuiet {
                worker.now += .seconds(20)
                worker.run([.bulk])
            } else {
                for step in 0..<20_000 { worker.run(step % 10 == 0 ? [.bulk] : []) }
            }
            worker.startCounting()
            #expect(worker.control.limit == 2048)
            worker.run([.bulk])
            #expect(worker.refused == [0, 0, 0, 0])
        }
    }

    @Test("whatever comes: never above the hard limit, care is let in whenever anybody is")
    func properties() {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededRandom(seed: seed)
        for _ in 0..<50 {
            var limits = AdmissionControl.Limits()
            limits.inFlightMax = Int.random(in: 2...300, using: &random)
            limits.inFlightMin = Int.random(in: 1...limits.inFlightMax, using: &random)
            var control = AdmissionControl(limits: limits, now: .zero)
            var now = MonotonicTime.zero
            var running: [RequestLane] = []
            for _ in 0..<2000 {
                now += .milliseconds(Int64.random(in: 0...80, using: &random))
                if Bool.random(using: &random), let lane = running.popLast() {
                    control.finish(lane)
                    continue
                }
                let lane = RequestLane.allCases.randomElement(using: &random) ?? .bulk
                let delay = Duration.milliseconds(Int64.random(in: 0...300, using: &random))
                var forCare = control
                let care = forCare.admit(.safety, delay: delay, now: now, using: &random)
                let careBefore = control.inFlight(.safety)
                let decision = control.admit(lane, delay: delay, now: now, using: &random)
                if decision == .admitted {
                    running.append(lane)
                    #expect(care == .admitted, "seed \(seed)")
                } else if case .refused(_, let retryAfter) = decision {
                    #expect((.seconds(1)...(.seconds(33))).contains(retryAfter), "seed \(seed)")
                }
                if care != .admitted {
                    #expect(careBefore > 0, "seed \(seed): others never fill care's own slots")
                }
                #expect(control.inFlight <= limits.inFlightMax, "seed \(seed)")
                #expect(control.limit >= limits.inFlightMin, "seed \(seed)")
                #expect(control.limit <= limits.inFlightMax, "seed \(seed)")
                #expect(control.inFlight == running.count, "seed \(seed)")
            }
        }
    }

    @Test("the refused are told different times, longer for what can wait")
    func retryAfter() {
        var limits = AdmissionControl.Limits()
        limits.inFlightMax = 2
        limits.inFlightMin = 1
        var control = AdmissionControl(limits: limits, now: .zero)
        var random = SeededRandom(seed: 3)
        for _ in 0..<2 { _ = control.admit(.safety, delay: .zero, now: .zero, using: &random) }
        var longest: [RequestLane: Duration] = [:]
        var seen: Set<Int64> = []
        for _ in 0..<500 {
            for lane in RequestLane.allCases {
                guard
                    case .refused(.full, let retryAfter) = control.admit(
                        lane, delay: .zero, now: .zero, using: &random)
                else { continue }
                longest[lane] = max(longest[lane] ?? .zero, retryAfter)
                if lane == .bulk { seen.insert(retryAfter.inSecondsRoundedUp) }
            }
        }
        #expect(seen.count == 8)
        #expect((longest[.bulk] ?? .zero) > (longest[.entry] ?? .zero))
        #expect((longest[.entry] ?? .zero) > (longest[.interactive] ?? .zero))
        #expect((longest[.interactive] ?? .zero) > (longest[.safety] ?? .zero))
    }

    @Test("limits that cannot hold are named")
    func problems() {
        var limits = AdmissionControl.Limits()
        #expect(limits.problems().isEmpty)
        limits.inFlightMin = 4000
        limits.queueTarget = .zero
        limits.interval = .zero
        limits.fillPercent = [50, 40, 80, 100]
        #expect(limits.problems().count == 4)
    }
}
