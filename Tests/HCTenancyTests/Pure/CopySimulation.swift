import HCCore
import HCIO
import HCTesting

@testable import HCTenancy

/// Processes, a Redis and a source in one thread and in simulated time, in steps of a millisecond: messages take their
/// time, processes stop for seconds and go on where they were, Redis forgets everything.
///
/// What is simulated of a process is what `Coherence` does around its ledger; the ledger is the real one.
struct CopySimulation {
    private final class Process {
        var name: String
        var ledger = CopyLedger(limits: CoherenceLimits())
        /// The version that was copied.
        var copy: Int?
        var pausedUntil = 0
        /// Something is on the connection of the inbox: it does one thing after the other.
        var isAsking = false
        var renewedAt = -1_000_000
        var isFirst = true

        init(_ name: String) { self.name = name }
    }

    private struct Pending {
        var missing: [String: Int]
        var notBefore: Int
    }

    private var random: SeededRandom
    private var now = 0
    private var events: [Int: [(process: Int?, run: (inout CopySimulation) -> Void)]] = [:]
    private var processes: [Process]
    private var names = 0
    private let tenant = TenantID(UUID(high: 1, low: 1))
    private let limits = CoherenceLimits()
    private let holdLife = 3000

    // Redis.
    private var leases: [String: Int] = [:]
    private var inboxes: [String: [CoherenceMessage]] = [:]
    private var registered: Set<String> = []
    private var holds: [VoidID: Int] = [:]
    private var born: Int?

    // The source, and what came of it.
    private var version = 0
    private var voids: [VoidID: Pending] = [:]
    private(set) var commits = 0
    private(set) var copiesUsed = 0
    private(set) var stale: [String] = []

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        processes = (0..<4).map { Process("p\($0)") }
    }

    mutating func run(milliseconds: Int) {
        for index in processes.indices { live(index) }
        while now < milliseconds {
            for (process, run) in events.removeValue(forKey: now) ?? [] {
                if let process, processes[process].pausedUntil > now {
                    at(processes[process].pausedUntil, process, run)
                } else {
                    run(&self)
                }
            }
            for index in processes.indices where processes[index].pausedUntil <= now { act(index) }
            if chance(30_000) { forgetEverything() }
            now += 1
        }
    }

    private var clock: MonotonicTime { MonotonicTime(nanoseconds: Int64(now) * 1_000_000) }
    private mutating func chance(_ one: Int) -> Bool {
        Int.random(in: 0..<one, using: &random) == 0
    }
    private mutating func latency() -> Int {
        chance(50)
            ? Int.random(in: 1...400, using: &random) : Int.random(in: 1...4, using: &random)
    }

    /// - Parameter process: nil for what happens in Redis.
    private mutating func at(
        _ time: Int, _ process: Int?, _ run: @escaping (inout CopySimulation) -> Void
    ) {
        events[max(time, now + 1), default: []].append((process, run))
    }

    /// A question to Redis: `serve` runs there, `answer` in the process. In a process' own order.
    private mutating func ask<Answer>(
        _ process: Int, _ serve: @escaping (inout CopySimulation) -> Answer,
        then answer: @escaping (inout CopySimulation, Answer) -> Void
    ) {
        let back = latency()
        at(now + latency(), nil) { simulation in
            let value = serve(&simulation)
            simulation.at(simulation.now + back, process) { answer(&$0, value) }
        }
    }

    private mutating func forgetEverything() {
        leases = [:]
        inboxes = [:]
        registered = []
        holds = [:]
        born = nil
    }

    // MARK: A process

    private mutating func act(_ index: Int) {
        let process = processes[index]
        if chance(6000) {
            process.pausedUntil = now + Int.random(in: 500...4000, using: &random)
            return
        }
        if process.ledger.mayUse(tenant, at: clock) {
            if let copy = process.copy, !process.ledger.isHeld(tenant, "a", at: clock) {
                copiesUsed += 1
                if copy != version, stale.count < 3 {
                    stale.append("at \(now) \(process.name) used \(copy), not \(version)")
                }
            } else if process.copy == nil, chance(5) {
                fill(index)
            }
        } else if process.ledger.hasWanted {
            register(index)
        }
        if chance(1200) { change(index) }
    }

    private mutating func fill(_ index: Int) {
        guard let ticket = processes[index].ledger.ticket(tenant, at: clock) else { return }
        let tenant = tenant
        ask(index) {
            $0.version
        } then: { simulation, version in
            let process = simulation.processes[index]
            guard process.ledger.isCurrent(ticket, tenant, ["a"], at: simulation.clock) else {
                return
            }
            process.copy = version
        }
    }

    private mutating func register(_ index: Int) {
        let process = processes[index]
        let (tenants, _) = process.ledger.takeWanted(at: clock)
        guard tenants == [tenant] else { return }
        let (name, era, tenant) = (process.name, process.ledger.era, tenant)
        ask(index) { simulation -> [CopyLedger.Hold]? in
            // What was held before Redis forgot it may still be held.
            let born = simulation.born ?? simulation.now
            simulation.born = born
            guard simulation.now - born >= simulation.holdLife else { return nil }
            simulation.registered.insert(name)
            return simulation.holds.filter { $0.value > simulation.now }.map {
                CopyLedger.Hold(
                    id: $0.key, names: .names(["a"]), left: .milliseconds($0.value - simulation.now)
                )
            }
        } then: { simulation, holds in
            guard let holds else { return }
            simulation.processes[index].ledger.registered(
                tenant, holds, era: era, at: simulation.clock)
        }
    }

    /// The connection of the inbox: pop or renew, one after the other.
    private mutating func live(_ index: Int) {
        let process = processes[index]
        let (name, askedAt) = (process.name, now)
        guard now - process.renewedAt >= 500 else {
            ask(index) { simulation -> [CoherenceMessage] in
                defer { simulation.inboxes[name] = nil }
                return simulation.inboxes[name] ?? []
            } then: { simulation, messages in
                simulation.take(messages, index)
                simulation.live(index)
            }
            return
        }
        let isFirst = process.isFirst
        let life = Int(limits.leaseLife.inMilliseconds)
        ask(index) { simulation -> [CoherenceMessage]? in
            guard isFirst || simulation.leases[name, default: 0] > simulation.now else {
                return nil
            }
            simulation.leases[name] = simulation.now + life
            defer { simulation.inboxes[name] = nil }
            return simulation.inboxes[name] ?? []
        } then: { simulation, messages in
            let process = simulation.processes[index]
            if let messages {
                process.renewedAt = askedAt
                process.isFirst = false
                simulation.take(messages, index)
                process.ledger.extended(
                    askedAt: MonotonicTime(nanoseconds: Int64(askedAt) * 1_000_000))
            } else {
                simulation.names += 1
                process.name = "p\(index).\(simulation.names)"
                process.ledger.lost()
                process.copy = nil
                process.isFirst = true
                process.renewedAt = -1_000_000
            }
            simulation.live(index)
        }
    }

    private mutating func take(_ messages: [CoherenceMessage], _ index: Int) {
        let process = processes[index]
        for message in messages {
            switch message {
            case .void(let tenant, let id, let names, let life, let other):
                let hold = CopyLedger.Hold(id: id, names: VoidedNames(names), left: life)
                if process.ledger.voided(tenant, hold, at: clock) { process.copy = nil }
                let name = process.name
                ask(index) { simulation in
                    if simulation.leases[other, default: 0] > simulation.now {
                        simulation.inboxes[other, default: []].append(
                            .acknowledgement(id, process: name))
                    }
                } then: { _, _ in
                }
            case .release(let tenant, let id): process.ledger.released(tenant, id)
            case .acknowledgement(let id, let other): voids[id]?.missing[other] = nil
            }
        }
    }

    // MARK: A change

    private mutating func change(_ index: Int) {
        let process = processes[index]
        names += 1
        let (id, name, tenant) = (VoidID(text: "v\(names)"), process.name, tenant)
        let (life, called) = (holdLife, now)
        let hold = CopyLedger.Hold(id: id, names: .names(["a"]), left: .milliseconds(life))
        if process.ledger.voided(tenant, hold, at: clock) { process.copy = nil }
        let leaseLife = Int(limits.leaseLife.inMilliseconds)
        ask(index) { simulation -> (born: Int, age: Int, others: [String]) in
            let born = simulation.born ?? simulation.now
            simulation.born = born
            simulation.holds[id] = simulation.now + life
            return (
                born, simulation.now - born, simulation.registered.filter { $0 != name }.sorted()
            )
        } then: { simulation, found in
            let process = simulation.processes[index]
            if process.ledger.voided(tenant, hold, at: simulation.clock) { process.copy = nil }
            let forgottenUntil = simulation.now + leaseLife - found.age
            simulation.voids[id] = Pending(missing: [:], notBefore: forgottenUntil)
            simulation.ask(index) { simulation -> [(String, Int)] in
                found.others.compactMap { other in
                    let left = simulation.leases[other, default: 0] - simulation.now
                    guard left > 0 else {
                        return simulation.born == found.born ? nil : (other, leaseLife)
                    }
                    simulation.inboxes[other, default: []].append(
                        .void(
                            tenant, id, names: ["a"], life: .milliseconds(life), process: name))
                    return (other, left)
                }
            } then: { simulation, told in
                for (other, left) in told {
                    simulation.voids[id]?.missing[other] = simulation.now + left
                }
                simulation.wait(index, id, told.map(\.0), until: called + life)
            }
        }
    }

    private mutating func wait(_ index: Int, _ id: VoidID, _ holders: [String], until end: Int) {
        guard let void = voids[id] else { return }
        guard void.missing.values.allSatisfy({ $0 <= now }), void.notBefore <= now else {
            at(now + 1, index) { $0.wait(index, id, holders, until: end) }
            return
        }
        voids[id] = nil
        let tenant = tenant
        ask(index) { simulation in
            // The deadline of the transaction: whoever was stopped for longer than the hold lasts commits nothing.
            guard simulation.now < end else { return }
            simulation.version += 1
            simulation.commits += 1
        } then: { simulation, _ in
            simulation.processes[index].ledger.released(tenant, id)
            simulation.ask(index) { simulation in
                simulation.holds[id] = nil
                for holder in holders where simulation.leases[holder, default: 0] > simulation.now {
                    simulation.inboxes[holder, default: []].append(.release(tenant, id))
                }
            } then: { _, _ in
            }
        }
    }
}
