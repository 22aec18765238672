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
        var queue: [AdmissionControl.Place] = []
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
                if let place = control.admit(lane, delay: delay, now: now, using: &random).place {
                    queue.append(place)
                    admitted[lane.index] += 1
                } else {
                    refused[lane.index] += 1
                }
            }
            for place in queue.prefix(perMillisecond) { control.finish(place) }
            queue.removeFirst(min(queue.count, perMillisecond))
        }

        mutating func startCounting() {
            admitted = [0, 0, 0, 0]
            refused = [0, 0, 0, 0]
        }
    }

    /// - Returns: nil if it was refused.
    private static func place(
        _ control: inout AdmissionControl, _ lane: RequestLane, delay: Duration = .zero,
        at now: MonotonicTime = .zero
    ) -> AdmissionControl.Place? {
        var random = SeededRandom(seed: 1)
        return control.admit(lane, delay: delay, now: now, using: &random).place
    }

    private static func admit(
        _ control: inout AdmissionControl, _ lane: RequestLane, delay: Duration = .zero,
        at now: MonotonicTime = .zero
    ) -> Bool {
        place(&control, lane, delay: delay, at: now) != nil
    }

    @Test("nobody exceeds the hard limit, however little a clinic has in flight")
    func hardLimit() {
        var limits = AdmissionControl.Limits()
        limits.inFlightMax = 8
        limits.inFlightMin = 2
        var random = SeededRandom(seed: 1)
        var control = AdmissionControl(limits: limits, now: .zero)
        for _ in 0..<limits.inFlightMax {
            let decision = control.admit(
                .safety, of: "large", delay: .zero, now: .zero, using: &random)
            #expect(decision.place != nil)
        }
        for lane in RequestLane.allCases {
            let decision = control.admit(
                lane, of: "small", delay: .zero, now: .zero, using: &random)
            guard case .refused(.full, _) = decision else {
                Issue.record("\(lane) was let in")
                continue
            }
        }
        #expect(control.inFlight == limits.inFlightMax)
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
    func burst() throws {
        var control = AdmissionControl(limits: .init(), now: .zero)
        for index in 0..<100 {
            // One in ten is not delayed at all.
            let delay: Duration = index % 10 == 0 ? .zero : .seconds(1)
            let place = Self.place(
                &control, .bulk, delay: delay, at: .zero + .milliseconds(Int64(index) * 20))
            control.finish(try #require(place))
        }
        #expect(control.limit == 2048)
        for index in 100..<200 {
            let place = Self.place(
                &control, .bulk, delay: .milliseconds(101),
                at: .zero + .milliseconds(Int64(index) * 20))
            control.finish(try #require(place))
        }
        #expect(control.limit == 64)
    }

    @Test("answers to those who came before the limit was cut do not cut it again")
    func cutOnce() {
        var control = AdmissionControl(limits: .init(), now: .zero)
        var places = (0..<1000).compactMap { _ in Self.place(&control, .interactive) }
        func answer(_ count: Int, at milliseconds: Int64) {
            for place in places.suffix(count) {
                control.answered(0, receivedAt: .zero, now: .zero + .milliseconds(milliseconds))
                control.finish(place)
            }
            places.removeLast(count)
        }
        answer(100, at: 200)
        _ = Self.admit(&control, .bulk, at: .zero + .milliseconds(300))
        #expect(control.limit == 500)
        answer(900, at: 500)
        _ = Self.admit(&control, .bulk, at: .zero + .milliseconds(600))
        #expect(control.limit >= 500)
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

    // MARK: A queue behind the worker

    /// Databases that answer one after the other, in front of which a worker's requests queue. The loop is never late.
    private struct Queueing {
        struct Request {
            var lane: RequestLane
            var place: AdmissionControl.Place
            var route: Int
            var receivedAt: MonotonicTime
        }

        var control: AdmissionControl
        var random: SeededRandom
        var now = MonotonicTime.zero
        var queue: [Request] = []
        /// Answered by nobody before this.
        var hung: [(until: MonotonicTime, request: Request)] = []
        var admitted: [RequestLane: Int] = [:]
        var refused: [RequestLane: Int] = [:]
        var refusedClinics: [String: Int] = [:]
        var times: [RequestLane: [Duration]] = [:]
        let perMillisecond: Int
        /// The numbers of routes.
        private var routes: [String: Int] = [:]

        init(seed: UInt64, perMillisecond: Int) {
            control = AdmissionControl(limits: .init(), now: .zero)
            random = SeededRandom(seed: seed)
            self.perMillisecond = perMillisecond
        }

        /// - Returns: whether it was let in.
        mutating func ask(
            _ lane: RequestLane, clinic: String = "a", route: String? = nil,
            hangsFor: Duration? = nil
        ) {
            let decision = control.admit(
                lane, of: clinic, delay: .zero, now: now, using: &random)
            guard let place = decision.place else {
                refused[lane, default: 0] += 1
                refusedClinics[clinic, default: 0] += 1
                return
            }
            let request = Request(
                lane: lane, place: place, route: number(of: route ?? lane.rawValue),
                receivedAt: now)
            admitted[lane, default: 0] += 1
            if let hangsFor {
                hung.append((now + hangsFor, request))
            } else {
                queue.append(request)
            }
        }

        mutating func number(of route: String) -> Int {
            let number = routes[route] ?? routes.count
            routes[route] = number
            return number
        }

        private mutating func end(_ request: Request) {
            control.answered(request.route, receivedAt: request.receivedAt, now: now)
            control.finish(request.place)
            times[request.lane, default: []].append(now - request.receivedAt)
        }

        mutating func tick() {
            now += .milliseconds(1)
            for request in queue.prefix(perMillisecond) { end(request) }
            queue.removeFirst(min(queue.count, perMillisecond))
            while let first = hung.first, first.until <= now {
                hung.removeFirst()
                end(first.request)
            }
        }

        mutating func startCounting() {
            (admitted, refused, refusedClinics, times) = ([:], [:], [:], [:])
        }

        func time(_ lane: RequestLane, _ share: Double) -> Duration {
            let sorted = (times[lane] ?? []).sorted()
            return sorted.isEmpty ? .zero : sorted[Int(Double(sorted.count - 1) * share)]
        }
    }

    @Test(
        "at any multiple of the capacity answers take little longer than the target, and as many are given as could be",
        arguments: [1.5, 2, 3, 10] as [Double], [1, 3, 20])
    func bounded(_ times: Double, _ perMillisecond: Int) {
        let seed = UInt64.random(in: .min ... .max)
        var worker = Queueing(seed: seed, perMillisecond: perMillisecond)
        // Care is a fifth of the capacity, whatever else comes.
        let care = Double(perMillisecond) / 5
        let rest = Double(perMillisecond) * times - care
        func run(_ milliseconds: Int) {
            for _ in 0..<milliseconds {
                for (lane, rate) in [
                    (RequestLane.safety, care), (.bulk, rest / 2), (.interactive, rest / 2),
                ] {
                    // So many on average, and bursts among them.
                    let count = Int(
                        rate * 2 * Double.random(in: 0...1, using: &worker.random) + 0.5)
                    let extra = Double.random(in: 0...1, using: &worker.random)
                    for _ in 0..<(rate < 0.5 ? (extra < rate ? 1 : 0) : count) { worker.ask(lane) }
                }
                worker.tick()
            }
        }
        run(5000)
        worker.startCounting()
        run(20_000)
        let served = worker.times.values.reduce(0) { $0 + $1.count }
        let label = Comment("seed \(seed)")
        #expect(worker.refused[.safety] == nil, label)
        #expect(served >= 18_000 * perMillisecond, label)
        for lane in [RequestLane.safety, .interactive] {
            // Where so little is answered that the least limit is a longer queue than the target, that is the bound.
            let least = Duration.milliseconds(64 / perMillisecond)
            #expect(worker.time(lane, 0.5) <= max(.milliseconds(150), least), label)
            #expect(worker.time(lane, 0.99) <= max(.milliseconds(250), least * 2), label)
        }
    }

    @Test(
        "care that is more than can be answered waits no longer than the target either",
        arguments: [1.1, 1.5, 3] as [Double], [1, 3])
    func careAlone(_ times: Double, _ perMillisecond: Int) {
        let seed = UInt64.random(in: .min ... .max)
        var worker = Queueing(seed: seed, perMillisecond: perMillisecond)
        func run(_ milliseconds: Int) {
            for _ in 0..<milliseconds {
                for lane in [RequestLane.safety, .bulk] {
                    let rate = Double(perMillisecond) * times
                    let count = Int(
                        rate * 2 * Double.random(in: 0...1, using: &worker.random) + 0.5)
                    for _ in 0..<count { worker.ask(lane) }
                }
                worker.tick()
            }
        }
        run(5000)
        worker.startCounting()
        run(20_000)
        let label = Comment("seed \(seed)")
        let served = worker.times[.safety]?.count ?? 0
        #expect(served >= 16_000 * perMillisecond, label)
        #expect(worker.time(.safety, 0.5) <= .milliseconds(150), label)
        #expect(worker.time(.safety, 0.99) <= .milliseconds(250), label)
    }

    @Test("a shard that hangs is no queue: nobody else is refused, and the limit stays")
    func hungShard() {
        var worker = Queueing(seed: 11, perMillisecond: 5)
        for step in 0..<20_000 {
            for _ in 0..<2 { worker.ask(.interactive) }
            // A part of the same routes, for two seconds each: as many as its clinics' caps let through.
            if step % 10 == 0 { worker.ask(.interactive, clinic: "b", hangsFor: .seconds(2)) }
            worker.tick()
        }
        #expect(worker.refused.isEmpty)
        #expect(worker.control.limit == 2048)
    }

    @Test("answers from memory do not hide a queue of the others, nor are a few slow ones a queue")
    func votes() {
        var worker = Queueing(seed: 12, perMillisecond: 2)
        func fromMemory(_ count: Int) {
            for _ in 0..<count {
                var random = worker.random
                let decision = worker.control.admit(
                    .interactive, of: "a", delay: .zero, now: worker.now, using: &random)
                guard let place = decision.place else { continue }
                worker.control.answered(
                    worker.number(of: "memory"), receivedAt: worker.now, now: worker.now)
                worker.control.finish(place)
            }
        }
        for _ in 0..<5000 {
            for _ in 0..<6 { worker.ask(.bulk) }
            fromMemory(2)
            worker.tick()
        }
        #expect(worker.control.limit < 700)
        #expect(worker.time(.bulk, 1) > .milliseconds(400), "at first there was no telling")
        worker.startCounting()
        for _ in 0..<5000 {
            for _ in 0..<6 { worker.ask(.bulk) }
            fromMemory(2)
            worker.tick()
        }
        #expect(worker.time(.bulk, 0.99) < .milliseconds(250))

        var quick = Queueing(seed: 13, perMillisecond: 5)
        for step in 0..<5000 {
            quick.ask(.interactive)
            if step % 4 == 0 { quick.ask(.bulk, route: "report", hangsFor: .milliseconds(700)) }
            quick.tick()
        }
        #expect(quick.control.limit == 2048 && quick.refused.isEmpty)
    }

    @Test("who made the queue waits for it: a clinic with little in flight is let in")
    func modest() {
        var worker = Queueing(seed: 14, perMillisecond: 2)
        for step in 0..<20_000 {
            for _ in 0..<10 { worker.ask(.bulk, clinic: "noisy") }
            for _ in 0..<10 { worker.ask(.interactive, clinic: "noisy") }
            if step % 50 == 0 {
                worker.ask(step % 100 == 0 ? .bulk : .interactive, clinic: "quiet")
            }
            worker.tick()
            // Nobody knew the first second for what it was.
            if step == 1000 { worker.startCounting() }
        }
        #expect(worker.refusedClinics["quiet"] == nil)
        #expect(worker.refusedClinics["noisy"] ?? 0 > 100_000)
        #expect(worker.control.inFlight <= worker.control.limit * 3 / 2 + 2)
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
            var running: [AdmissionControl.Place] = []
            for _ in 0..<2000 {
                now += .milliseconds(Int64.random(in: 0...80, using: &random))
                if Bool.random(using: &random), let place = running.popLast() {
                    control.finish(place)
                    continue
                }
                let lane = RequestLane.allCases.randomElement(using: &random) ?? .bulk
                let delay = Duration.milliseconds(Int64.random(in: 0...300, using: &random))
                var forCare = control
                let care = forCare.admit(.safety, delay: delay, now: now, using: &random)
                let careBefore = control.inFlight(.safety)
                let decision = control.admit(lane, delay: delay, now: now, using: &random)
                if let place = decision.place {
                    running.append(place)
                    #expect(care.place != nil, "seed \(seed)")
                } else if case .refused(_, let retryAfter) = decision {
                    #expect((.seconds(1)...(.seconds(33))).contains(retryAfter), "seed \(seed)")
                }
                if care.place == nil {
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
        limits.slowPercent = 0
        #expect(limits.problems().count == 5)
    }
}

extension AdmissionControl.Decision {
    /// Nil for a refusal.
    fileprivate var place: AdmissionControl.Place? {
        if case .admitted(let place) = self { place } else { nil }
    }
}
