import HCCore
import HCTesting
import Testing

@testable import HCTenancy

/// A shard whose connections take as long as each request says. Time goes from one end of a request to the next.
private struct Simulation: ~Copyable {
    typealias Queue = FairQueue<Int>

    struct Running {
        let ticket: Queue.Ticket
        let flow: Int
        let end: MonotonicTime
        let start: MonotonicTime
    }

    var queue: Queue
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    var running: [Running] = []
    /// Cost and flow by ticket, of those that wait.
    var waiting: [Queue.Ticket: (flow: Int, cost: Duration, since: MonotonicTime)] = [:]
    var used: [Int: Duration] = [:]
    var served: [Int: Int] = [:]
    var waits: [Int: [Duration]] = [:]
    var refused: [Int: Int] = [:]
    var retryAfter: [Duration] = []

    init(
        connections: Int, waitingMax: Int = 10_000,
        _ change: (inout Queue.Limits) -> Void = { _ in }
    ) {
        var limits = Queue.Limits(connections: connections, waitingMax: waitingMax)
        change(&limits)
        queue = Queue(limits)
    }

    @discardableResult
    mutating func ask(
        _ flow: Int, _ terms: Queue.Terms, cost: Duration, isUrgent: Bool = false
    ) -> Queue.Ticket? {
        switch queue.ask(flow, terms, isUrgent: isUrgent, now: now) {
        case .grant(let ticket):
            waits[flow, default: []].append(.zero)
            begin(ticket, flow, cost)
            pump()
            return ticket
        case .wait(let ticket):
            waiting[ticket] = (flow, cost, now)
            pump()
            return ticket
        case .refuse(let wait):
            refused[flow, default: 0] += 1
            pump()
            retryAfter.append(wait)
            return nil
        }
    }

    private mutating func begin(_ ticket: Queue.Ticket, _ flow: Int, _ cost: Duration) {
        served[flow, default: 0] += 1
        running.append(Running(ticket: ticket, flow: flow, end: now + cost, start: now))
    }

    mutating func pump() {
        while let ticket = queue.next(now: now) {
            guard let (flow, cost, since) = waiting.removeValue(forKey: ticket) else {
                Issue.record("served who does not wait")
                return
            }
            waits[flow, default: []].append(now - since)
            begin(ticket, flow, cost)
        }
    }

    /// Ends what ends next.
    /// - Returns: its flow; nil when nothing runs.
    mutating func step() -> Int? {
        guard let index = running.indices.min(by: { running[$0].end < running[$1].end }) else {
            return nil
        }
        let ended = running.remove(at: index)
        now = max(now, ended.end)
        used[ended.flow, default: .zero] += now - ended.start
        queue.finish(ended.ticket, now: now)
        pump()
        return ended.flow
    }
}

private func terms(
    _ weight: Int = 1, inFlight: Int = 100, waiting: Int = 10_000, own: Int = 0
) -> FairQueue<Int>.Terms {
    FairQueue<Int>.Terms(
        weight: weight, inFlightMax: inFlight, waitingMax: waiting, dedicated: own)
}

@Suite("Connections are shared by weight")
struct FairQueueTests {
    private let millisecond = Duration.milliseconds(1)

    /// Keeps every flow waiting until so much connection time was used.
    private func saturate(
        _ simulation: inout Simulation, _ flows: [(terms: FairQueue<Int>.Terms, cost: Duration)],
        for total: Duration, using random: inout SeededRandom
    ) {
        func ask(_ flow: Int) {
            // Half to one and a half times the mean.
            let cost = flows[flow].cost * Double.random(in: 0.5...1.5, using: &random)
            simulation.ask(flow, flows[flow].terms, cost: cost)
        }
        for flow in flows.indices { for _ in 0..<20 { ask(flow) } }
        while simulation.used.values.reduce(.zero, +) < total, let ended = simulation.step() {
            if ended < flows.count { ask(ended) }
        }
    }

    @Test("the time that saturated clinics get converges to their weights", arguments: 1...12)
    func shares(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let count = Int.random(in: 8...30, using: &random)
        let connections = Int.random(in: 4...16, using: &random)
        var flows: [(terms: FairQueue<Int>.Terms, cost: Duration)] = []
        for _ in 0..<count {
            // None so heavy that its cap decides.
            flows.append(
                (
                    terms([1, 2, 4, 8].randomElement(using: &random) ?? 1),
                    .microseconds(Int64.random(in: 200...20_000, using: &random))
                ))
        }
        // What is looked at here is the share alone: nobody is out for as long as this.
        var simulation = Simulation(connections: connections) { $0.boostAfter = .seconds(3600) }
        saturate(&simulation, flows, for: .seconds(200), using: &random)
        simulation.queue.checkInvariants()
        let total = simulation.used.values.reduce(.zero, +) / .seconds(1)
        let weights = Double(flows.map(\.terms.weight).reduce(0, +))
        for (flow, (terms, cost)) in flows.enumerated() {
            let share = (simulation.used[flow] ?? .zero) / .seconds(1) / total
            let due = Double(terms.weight) / weights
            #expect(
                abs(share / due - 1) < 0.03,
                "seed \(seed), flow \(flow) of weight \(terms.weight), cost \(cost): \(share) of \(due)"
            )
        }
    }

    @Test("slow statements do not win over many quick ones: it is time that is shared")
    func time() {
        var random = SeededRandom(seed: 1)
        var simulation = Simulation(connections: 4) { $0.boostAfter = .seconds(3600) }
        saturate(
            &simulation,
            [
                (terms(), .milliseconds(50)), (terms(), .milliseconds(1)),
                (terms(), .milliseconds(1)),
            ],
            for: .seconds(60), using: &random)
        let used = (0..<3).map { (simulation.used[$0] ?? .zero) / .seconds(1) }
        for flow in 1...2 { #expect(abs(used[flow] / used[0] - 1) < 0.1, "\(used)") }
    }

    @Test(
        "whatever happens, no connection rests while somebody may have it, and all bounds hold",
        arguments: 1...40)
    func workConserving(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let connections = Int.random(in: 1...12, using: &random)
        var simulation = Simulation(
            connections: connections, waitingMax: Int.random(in: 1...200, using: &random)
        ) {
            $0.restingMax = 8
            $0.roundsMax = 64
            $0.boostAfter = .milliseconds(Int64.random(in: 0...100, using: &random))
        }
        let flows = (0..<Int.random(in: 1...40, using: &random)).map { _ in
            terms(
                Int.random(in: 1...100, using: &random),
                inFlight: Int.random(in: 1...8, using: &random),
                waiting: Int.random(in: 1...50, using: &random),
                own: Int.random(in: 0...9, using: &random) == 0 ? 2 : 0)
        }
        for _ in 0..<2000 {
            let flow = Int.random(in: flows.indices, using: &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<9:
                simulation.ask(
                    flow, flows[flow],
                    cost: .microseconds(Int64.random(in: 0...50_000, using: &random)),
                    isUrgent: Bool.random(using: &random))
            case 9..<16: _ = simulation.step()
            case 16:
                // A tier changes in mid-burst.
                simulation.ask(
                    flow, terms(Int.random(in: 1...1000, using: &random)), cost: millisecond)
            case 17:
                simulation.queue.forget(flow)
                simulation.pump()
            case 18:
                simulation.now =
                    simulation.now + .milliseconds(Int64.random(in: 0...5, using: &random))
            default:
                guard let ticket = simulation.waiting.keys.randomElement(using: &random) else {
                    continue
                }
                simulation.waiting[ticket] = nil
                let hasLeft = simulation.queue.leave(
                    ticket, isRejected: Bool.random(using: &random), now: simulation.now)
                #expect(hasLeft)
                let leavesTwice = simulation.queue.leave(
                    ticket, isRejected: true, now: simulation.now)
                #expect(!leavesTwice)
                simulation.pump()
            }
            simulation.queue.checkInvariants()
            #expect(simulation.queue.waitingCount == simulation.waiting.count, "seed \(seed)")
            #expect(simulation.queue.activeCount == simulation.running.count, "seed \(seed)")
        }
        while simulation.step() != nil { simulation.queue.checkInvariants() }
        #expect(
            simulation.queue.waitingCount == 0 && simulation.waiting.isEmpty, "seed \(seed): lost")
    }

    @Test(
        "a quiet clinic does not wait behind the thousand requests of a loud one", arguments: 1...5)
    func noStarvation(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var simulation = Simulation(connections: 8)
        for _ in 0..<1000 { simulation.ask(0, terms(), cost: .milliseconds(10)) }
        for _ in 0..<500 {
            guard let ended = simulation.step() else { break }
            if ended == 0 { simulation.ask(0, terms(), cost: .milliseconds(10)) }
            if Int.random(in: 0..<20, using: &random) == 0 {
                simulation.ask(Int.random(in: 1...20, using: &random), terms(), cost: millisecond)
            }
        }
        for flow in 1...20 {
            for wait in simulation.waits[flow] ?? [] {
                // The loud one leaves two of the eight connections to others.
                #expect(wait <= .milliseconds(10), "seed \(seed), flow \(flow)")
            }
        }
    }

    /// The share of a flow in the connection time that is used from now on, while all of them wait.
    private func share(
        of flow: Int, _ simulation: inout Simulation, flows: [FairQueue<Int>.Terms],
        within time: Duration
    ) -> Double {
        let before = simulation.used
        for (flow, terms) in flows.enumerated() {
            for _ in 0..<20 { simulation.ask(flow, terms, cost: millisecond) }
        }
        var total = Duration.zero
        while total < time, let ended = simulation.step() {
            simulation.ask(ended, flows[ended], cost: millisecond)
            total += millisecond
        }
        return (simulation.used[flow, default: .zero] - before[flow, default: .zero]) / total
    }

    @Test("who rested comes back with no credit, and gets its share, not more")
    func noCredit() {
        var random = SeededRandom(seed: 7)
        var simulation = Simulation(connections: 4) { $0.boostAfter = .seconds(3600) }
        // The last one asks once and then rests, while the others use ten seconds.
        simulation.ask(2, terms(), cost: millisecond)
        let busy = (terms: terms(), cost: millisecond)
        saturate(&simulation, [busy, busy], for: .seconds(10), using: &random)
        let share = share(
            of: 2, &simulation, flows: [terms(), terms(), terms()], within: .milliseconds(120))
        #expect(abs(share - 1.0 / 3) < 0.1, "it got \(share)")
    }

    @Test("who waited at its cap while others went on has little of that to its credit")
    func boundedCredit() {
        var random = SeededRandom(seed: 8)
        var simulation = Simulation(connections: 4) { $0.boostAfter = .seconds(3600) }
        // Eight ninths are its due, three quarters are the most it may have.
        let large = (terms: terms(8), cost: millisecond)
        let small = (terms: terms(), cost: millisecond)
        saturate(&simulation, [large, small], for: .seconds(10), using: &random)
        // Many others come: eight of thirty-two are its due.
        let flows = [terms(8)] + Array(repeating: terms(), count: 24)
        let share = share(of: 0, &simulation, flows: flows, within: .seconds(4))
        #expect(share > 0.24 && share < 0.35, "it got \(share)")
    }

    @Test("a debt is repaid while others wait, and is nothing to who is alone")
    func debt() {
        var simulation = Simulation(connections: 1) { $0.boostAfter = .seconds(3600) }
        simulation.ask(0, terms(), cost: .seconds(1))
        for flow in [0, 1] {
            for _ in 0..<300 { simulation.ask(flow, terms(), cost: .milliseconds(4)) }
        }
        _ = simulation.step()
        for _ in 0..<200 { _ = simulation.step() }
        #expect(simulation.served[0] == 1, "one second is 250 requests of the other")
        #expect((simulation.served[1] ?? 0) >= 200)
        // Alone, it is served at once.
        var alone = Simulation(connections: 1)
        alone.ask(0, terms(), cost: .seconds(3))
        alone.ask(0, terms(), cost: millisecond)
        _ = alone.step()
        #expect(alone.served[0] == 2)
    }

    @Test("a debt of more rounds than are remembered is forgiven")
    func forgiven() {
        var simulation = Simulation(connections: 1) {
            $0.boostAfter = .seconds(3600)
            $0.roundsMax = 64
        }
        simulation.ask(0, terms(), cost: .seconds(60))
        for _ in 0..<200 { simulation.ask(1, terms(), cost: .milliseconds(4)) }
        _ = simulation.step()
        simulation.ask(0, terms(), cost: .milliseconds(4))
        while simulation.served[0] == 1, simulation.step() != nil {}
        let others = simulation.served[1] ?? 0
        // It is put off once as far as there are rounds, and once more with what is left of its debt.
        #expect((60...130).contains(others), "\(others)")
    }

    @Test("who changes its weight owes as much time as before", arguments: [(4, 1), (1, 4)])
    func changedWeight(old: Int, new: Int) {
        var simulation = Simulation(connections: 1) { $0.boostAfter = .seconds(3600) }
        simulation.ask(0, terms(old), cost: .seconds(1))
        for _ in 0..<300 { simulation.ask(1, terms(), cost: .milliseconds(4)) }
        _ = simulation.step()
        simulation.ask(0, terms(new), cost: .milliseconds(4))
        while simulation.served[0] == 1, simulation.step() != nil {}
        // One second is 250 requests of the other; of four times its weight, a quarter of that.
        let others = simulation.served[1] ?? 0
        #expect(abs(others - 250 / new) <= 4, "\(others)")
    }

    @Test("what runs is charged while it runs")
    func running() {
        var simulation = Simulation(connections: 8) { $0.boostAfter = .seconds(3600) }
        // Three statements that will take a minute; the clinic may have more at once.
        for _ in 0..<3 { simulation.ask(0, terms(), cost: .seconds(60)) }
        for flow in 1...2 {
            for _ in 0..<400 { simulation.ask(flow, terms(), cost: .milliseconds(10)) }
        }
        for _ in 0..<100 { _ = simulation.step() }
        simulation.ask(0, terms(), cost: .milliseconds(10))
        for _ in 0..<100 { _ = simulation.step() }
        #expect(simulation.served[0] == 3, "it has used far more than the others")
    }

    @Test("what has gone on running since its clinic began to wait is charged when its turn comes")
    func runningOn() {
        var simulation = Simulation(connections: 2) { $0.boostAfter = .seconds(3600) }
        simulation.ask(0, terms(), cost: .seconds(60))
        for _ in 0..<300 { simulation.ask(1, terms(4), cost: .milliseconds(4)) }
        simulation.ask(0, terms(), cost: .milliseconds(4))
        for _ in 0..<200 { _ = simulation.step() }
        #expect(simulation.served[0] == 1, "the other uses a quarter of its share")
    }

    @Test("what becomes free at one moment is shared by weight, before anybody has used anything")
    func atOnce() {
        var simulation = Simulation(connections: 8) {
            $0.boostAfter = .seconds(3600)
            $0.quantum = .microseconds(100)
        }
        for flow in [2, 3] {
            for _ in 0..<4 { simulation.ask(flow, terms(), cost: .seconds(1)) }
        }
        for _ in 0..<20 {
            simulation.ask(0, terms(1), cost: .seconds(1))
            simulation.ask(1, terms(3), cost: .seconds(1))
        }
        for _ in 0..<8 { _ = simulation.step() }
        #expect(simulation.served[0] == 2)
        #expect(simulation.served[1] == 6)
    }

    @Test("a clinic in debt that has no connection is served after a while all the same")
    func age() {
        for boost in [Duration.milliseconds(50), .seconds(3600)] {
            var simulation = Simulation(connections: 1) { $0.boostAfter = boost }
            simulation.ask(0, terms(), cost: .seconds(3))
            for _ in 0..<1000 { simulation.ask(1, terms(), cost: .milliseconds(4)) }
            _ = simulation.step()
            simulation.ask(0, terms(), cost: .milliseconds(4))
            let since = simulation.now
            while simulation.served[0] == 1, simulation.step() != nil {}
            let waited = simulation.now - since
            if boost < .seconds(1) {
                #expect(waited >= boost && waited < .milliseconds(100))
            } else {
                #expect(waited > .seconds(2), "it was the boost that helped")
            }
        }
    }

    @Test("the boost is for few: the weights still decide")
    func boostIsBounded() {
        var random = SeededRandom(seed: 3)
        var simulation = Simulation(connections: 2) { $0.boostAfter = .zero }
        // The light one is always alone with its requests and always has waited long enough.
        let flows = [
            (terms: terms(100), cost: millisecond),
            (terms: terms(1, inFlight: 1), cost: millisecond),
        ]
        saturate(&simulation, flows, for: .seconds(20), using: &random)
        let share =
            simulation.used[1, default: .zero]
            / (simulation.used[0, default: .zero] + simulation.used[1, default: .zero])
        #expect(share < 0.3, "at most one decision in four: \(share)")
    }

    // MARK: Caps and bounds

    @Test("a clinic has at most what its tier says at once, and leaves a quarter to others")
    func caps() {
        var simulation = Simulation(connections: 8)
        for _ in 0..<10 { simulation.ask(0, terms(inFlight: 3), cost: millisecond) }
        #expect(simulation.running.count == 3)
        for _ in 0..<10 { simulation.ask(1, terms(), cost: millisecond) }
        #expect(simulation.running.count == 8)
        var alone = Simulation(connections: 8)
        for _ in 0..<10 { alone.ask(0, terms(), cost: millisecond) }
        #expect(alone.running.count == 6)
        alone.ask(1, terms(), cost: millisecond)
        #expect(alone.served[1] == 1, "it does not wait")
        // Connections of its own count.
        var owner = Simulation(connections: 8)
        for _ in 0..<10 { owner.ask(0, terms(inFlight: 3, own: 2), cost: millisecond) }
        #expect(owner.running.count == 3)
    }

    @Test("terms that would let nobody in are as the least that let in")
    func leastTerms() {
        var simulation = Simulation(connections: 8)
        for _ in 0..<3 {
            simulation.ask(0, terms(0, inFlight: 0, waiting: 0, own: -1), cost: millisecond)
        }
        #expect(simulation.running.count == 1)
        #expect(simulation.waiting.count == 1)
        #expect(simulation.refused[0] == 1)
        while simulation.step() != nil {}
        #expect(simulation.served[0] == 2)
    }

    @Test("so many of a clinic may wait; when to come again is by what its requests cost")
    func waitingMax() throws {
        var simulation = Simulation(connections: 1)
        for _ in 0..<20 { simulation.ask(0, terms(waiting: 4), cost: .seconds(1)) }
        #expect(simulation.waiting.count == 4)
        #expect(simulation.refused[0] == 15)
        for _ in 0..<5 { _ = simulation.step() }
        for _ in 0..<20 { simulation.ask(0, terms(waiting: 4), cost: .seconds(1)) }
        // The mean has come near a second; four wait before it, and one more is its own.
        let wait = try #require(simulation.retryAfter.last)
        #expect(wait > .seconds(1) && wait <= .seconds(5), "\(wait)")
    }

    @Test("who asks much leaves room for who comes next, however small the queue")
    func roomForOthers() {
        var simulation = Simulation(connections: 1, waitingMax: 64)
        for _ in 0..<1000 { for flow in 0..<4 { simulation.ask(flow, terms(), cost: .seconds(1)) } }
        #expect(simulation.waiting.count < 64)
        let quiet = simulation.ask(9, terms(), cost: millisecond)
        #expect(quiet != nil, "room for the quiet one")
    }

    @Test("ten thousand clinics in turn leave no more behind than is remembered")
    func memory() {
        var simulation = Simulation(connections: 4, waitingMax: 100) { $0.restingMax = 50 }
        for flow in 0..<10_000 {
            simulation.ask(flow, terms(), cost: millisecond)
            simulation.ask(flow, terms(), cost: millisecond)
            _ = simulation.step()
        }
        while simulation.step() != nil {}
        simulation.queue.checkInvariants()
        #expect(simulation.queue.flowCount <= 50)
        #expect(simulation.queue.entryCount <= 104)
        var requests = simulation.queue.forgottenUse.requests
        simulation.queue.forEach(at: simulation.now) { requests += $0.use.requests }
        #expect(requests == 20_000, "what was forgotten is still counted")
    }

    @Test("what completes work goes before the clinic's other work, not before other clinics'")
    func urgent() {
        var simulation = Simulation(connections: 1)
        simulation.ask(0, terms(), cost: millisecond)
        for _ in 0..<3 { simulation.ask(0, terms(), cost: millisecond) }
        let other = simulation.ask(1, terms(), cost: millisecond)
        let urgent = simulation.ask(0, terms(), cost: millisecond, isUrgent: true)
        var order: [FairQueue<Int>.Ticket] = []
        while simulation.step() != nil { order += simulation.running.map(\.ticket) }
        #expect(order.firstIndex { $0 == urgent } ?? 9 <= 1)
        #expect(order.firstIndex { $0 == other } ?? 9 <= 1)
    }

    // MARK: Own connections

    @Test("connections of its own are a clinic's alone, free while others saturate the rest")
    func dedicated() {
        var simulation = Simulation(connections: 8)
        simulation.ask(0, terms(own: 2), cost: millisecond)
        #expect(simulation.queue.reservedCount == 2)
        _ = simulation.step()
        for flow in 1...5 {
            for _ in 0..<50 { simulation.ask(flow, terms(), cost: .milliseconds(10)) }
        }
        #expect(simulation.running.count == 6)
        for _ in 0..<20 {
            simulation.ask(0, terms(own: 2), cost: millisecond)
            simulation.ask(0, terms(own: 2), cost: millisecond)
            for _ in 0..<2 { while simulation.step() != 0 {} }
        }
        #expect(simulation.waits[0]?.allSatisfy { $0 == .zero } == true, "never waited")
        simulation.queue.checkInvariants()
        // The tier is changed, or the clinic is served elsewhere.
        simulation.queue.forget(0)
        simulation.pump()
        #expect(simulation.queue.reservedCount == 0)
        #expect(simulation.running.count == 8)
    }

    @Test("own connections are taken as they become free, and one always stays for all")
    func dedicatedUnderLoad() {
        var simulation = Simulation(connections: 4)
        for flow in 1...4 { for _ in 0..<20 { simulation.ask(flow, terms(), cost: millisecond) } }
        simulation.ask(0, terms(own: 100), cost: millisecond)
        #expect(simulation.queue.reservedCount == 0, "nothing is taken from who uses it")
        for _ in 0..<30 {
            _ = simulation.step()
            simulation.ask(0, terms(own: 100), cost: millisecond)
            simulation.queue.checkInvariants()
        }
        #expect(simulation.queue.reservedCount == 3)
        while simulation.step() != nil {}
        #expect(simulation.waiting.isEmpty, "the others were served by the one that is left")
    }
}
