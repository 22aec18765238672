import HCCore
import HCTesting
import Testing

@testable import HCTenancy

/// One process: the machine and a real ledger, in simulated time.
private struct Process: ~Copyable {
    var machine = CacheMachine(
        memory: MemoryCache(MemoryCache.Limits(bytesMax: 1 << 20, entriesMax: 1000)),
        waitingMax: 100)
    var ledger = CopyLedger(limits: CoherenceLimits())
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    var voids = 0

    static let tenant = Sample.tenant(1)
    static let spec = CacheKey("key", tags: [CacheTag("a"), CacheTag("b")])
    static let key = CacheMachine.Key(tenant: tenant, epoch: 1, name: "key")

    /// With a lease, and counted among those who are told.
    init(hasLease: Bool = true) {
        if hasLease { lease() }
    }

    mutating func lease() {
        ledger.extended(askedAt: now)
        guard !ledger.mayUse(Process.tenant, at: now) else { return }
        _ = ledger.takeWanted(at: now)
        ledger.registered(Process.tenant, [], era: ledger.era, at: now)
    }

    mutating func agreement() -> CacheAgreement {
        let (ledger, now, names) = (ledger, now, Process.spec.tagNames)
        return CacheAgreement(
            mayUse: self.ledger.mayUse(Process.tenant, at: now)
                && !names.contains { ledger.isHeld(Process.tenant, $0, at: now) },
            ticket: {
                var ledger = ledger
                return ledger.ticket(Process.tenant, at: now)
            },
            isCurrent: { ledger.isCurrent($0, Process.tenant, names, at: now) })
    }

    mutating func next(_ since: CacheMachine.Arrival) -> CacheMachine.Step {
        let agreement = agreement()
        return machine.next(
            Process.key, since: since, agreement, now: now, wallClock: .epoch)
    }

    mutating func arrive() -> CacheMachine.Arrival { machine.arrive() }

    mutating func lead() throws -> CacheMachine.FlightID {
        guard case .lead(let flight) = next(arrive()) else { throw FixtureError("no leader") }
        return flight
    }

    mutating func land(_ flight: CacheMachine.FlightID, _ text: String) -> CacheMachine.Landing {
        let agreement = agreement()
        return machine.land(
            flight, Process.key, Process.spec,
            .value(CachedValue(bytes: Array(text.utf8), entityTag: "\"\(text)\"")), agreement,
            quota: MemoryCache.Quota(bytesMax: 1 << 20, entriesMax: 100), now: now,
            expiresAt: now + .seconds(300))
    }

    mutating func hold(_ name: String = "a", for life: Duration = .seconds(10)) -> VoidID {
        voids += 1
        let id = VoidID(text: "\(voids)")
        let names = VoidedNames([name])
        _ = ledger.voided(
            Process.tenant, CopyLedger.Hold(id: id, names: names, left: life), at: now)
        machine.void(Process.tenant, names)
        return id
    }

    mutating func release(_ id: VoidID) { ledger.released(Process.tenant, id) }

    /// What it would answer from memory.
    mutating func copy() -> String? {
        guard case .copy(let answer) = next(arrive()), let value = answer.value else { return nil }
        return String(decoding: value.bytes, as: UTF8.self)
    }
}

@Suite("What a process may answer from copies")
struct CacheMachineTests {
    @Test("what was read with nothing in between is kept and given out")
    func kept() throws {
        var process = Process()
        let flight = try process.lead()
        #expect(process.land(flight, "1") == .kept)
        #expect(process.copy() == "1")
        #expect(process.machine.flightCount == 0)
    }

    @Test("a hold after the source was read: not kept")
    func holdBeforeLanding() throws {
        var process = Process()
        let flight = try process.lead()
        _ = process.hold()
        #expect(process.land(flight, "1") == .refused(.changed))
        #expect(process.copy() == nil)
    }

    @Test("a hold that has come and gone while the source was read: not kept")
    func holdAndRelease() throws {
        var process = Process()
        let flight = try process.lead()
        process.release(process.hold())
        #expect(process.land(flight, "1") == .refused(.changed))
    }

    @Test("read while held, landed after the release: not kept")
    func readWhileHeld() throws {
        var process = Process()
        let hold = process.hold()
        let flight = try process.lead()
        process.release(hold)
        #expect(process.land(flight, "1") == .refused(.lease))
        #expect(process.copy() == nil)
    }

    @Test(
        "a hold drops the copy; it may be made anew after the release, and not before the last of two"
    )
    func twoHolds() throws {
        var process = Process()
        #expect(process.land(try process.lead(), "1") == .kept)
        let (one, two) = (process.hold("a"), process.hold("b"))
        process.release(one)
        let flight = try process.lead()
        #expect(process.land(flight, "2") == .refused(.lease))
        process.release(two)
        #expect(process.land(try process.lead(), "3") == .kept)
        #expect(process.copy() == "3")
    }

    @Test("a hold whose writer died runs out by itself")
    func expiredHold() throws {
        var process = Process()
        _ = process.hold(for: .seconds(10))
        process.now += .seconds(9)
        process.lease()
        #expect(process.land(try process.lead(), "1") == .refused(.lease))
        process.now += .seconds(1)
        process.lease()
        #expect(process.land(try process.lead(), "2") == .kept)
    }

    @Test("another tag's hold is nobody's business")
    func otherTag() throws {
        var process = Process()
        let flight = try process.lead()
        _ = process.hold("c")
        #expect(process.land(flight, "1") == .kept)
        _ = process.hold("c")
        #expect(process.copy() == "1")
    }

    @Test("without a lease nothing is used, nothing kept")
    func noLease() throws {
        var process = Process()
        #expect(process.land(try process.lead(), "1") == .kept)
        process.now += .seconds(3)
        let flight = try process.lead()
        #expect(process.land(flight, "2") == .refused(.lease))
        process.lease()
        #expect(process.copy() == "1", "nothing was missed: the lease was only late")
    }

    @Test("a lost lease ends what was copied and what was being read")
    func lostLease() throws {
        var process = Process()
        #expect(process.land(try process.lead(), "1") == .kept)
        _ = process.hold("b", for: .zero)
        let flight = try process.lead()
        process.ledger.lost()
        process.machine.void(nil, .all)
        process.lease()
        #expect(process.land(flight, "2") == .refused(.changed))
        #expect(process.copy() == nil)
    }

    @Test("a lost lease drops what was copied before it, for a change may have been missed")
    func droppedWithLease() throws {
        var process = Process()
        #expect(process.land(try process.lead(), "1") == .kept)
        process.ledger.lost()
        process.machine.void(nil, .all)
        process.lease()
        #expect(process.copy() == nil)
    }

    @Test("a void of everything drops all that the clinic has, and nobody else's")
    func voidOfAll() throws {
        var process = Process()
        #expect(process.land(try process.lead(), "1") == .kept)
        process.machine.void(Sample.tenant(2), .all)
        #expect(process.copy() == "1")
        process.machine.void(Process.tenant, .all)
        #expect(process.copy() == nil)
    }

    @Test("lives are shortened, each by another part, so that copies do not end together")
    func jitter() {
        var random = SeededRandom(seed: 1)
        let configuration = CacheConfiguration()
        let lives = (0..<100).map { _ in
            configuration.jittered(.seconds(300), using: &random)
        }
        #expect(lives.allSatisfy { (.seconds(270)...(.seconds(300))).contains($0) })
        #expect(Set(lives).count > 90)
        #expect((lives.max() ?? .zero) - (lives.min() ?? .zero) > .seconds(20))
        // Nothing to shorten.
        let instant = configuration.jittered(.milliseconds(1), using: &random)
        #expect(instant == .milliseconds(1))
    }

    @Test("readers share a flight while nothing has changed")
    func join() throws {
        var process = Process()
        let flight = try process.lead()
        guard case .join(flight) = process.next(process.arrive()) else {
            Issue.record("did not join")
            return
        }
        #expect(process.machine.waiting == 1)
        _ = process.land(flight, "1")
        #expect(process.machine.waiting == 0)
    }

    @Test("who arrives after a change does not join a flight from before it, but the next")
    func joinAfterChange() throws {
        var process = Process()
        let flight = try process.lead()
        process.release(process.hold())
        let (early, late) = (process.arrive(), process.arrive())
        for reader in [early, late] {
            guard case .wait(flight) = process.next(reader) else {
                Issue.record("joined what may be old")
                return
            }
        }
        #expect(process.land(flight, "1") == .refused(.changed))
        guard case .lead(let second) = process.next(late) else {
            Issue.record("nobody leads")
            return
        }
        guard case .join(second) = process.next(early) else {
            Issue.record("the next flight began after it arrived")
            return
        }
        #expect(process.land(second, "2") == .kept)
    }

    @Test(
        "without a lease who arrives during a flight takes the next one's outcome, not this one's")
    func singleFlightWithoutLease() throws {
        var process = Process(hasLease: false)
        let flight = try process.lead()
        let reader = process.arrive()
        guard case .wait(flight) = process.next(reader) else {
            Issue.record("joined without a lease")
            return
        }
        _ = process.land(flight, "1")
        let other = process.arrive()
        guard case .lead(let second) = process.next(other) else {
            Issue.record("nobody leads")
            return
        }
        guard case .join(second) = process.next(reader) else {
            Issue.record("a flight for each reader")
            return
        }
    }

    @Test("those who wait are bounded")
    func bounded() throws {
        var process = Process()
        _ = try process.lead()
        for _ in 0..<100 { _ = process.next(process.arrive()) }
        guard case .refuse = process.next(process.arrive()) else {
            Issue.record("waits without bound")
            return
        }
    }
}

/// Processes, writers and readers of two things in random steps; messages and answers take their time.
private final class CacheSimulation {
    private final class Node {
        var process = Process()
        var inbox: [Message] = []
        var reads: [Read] = []
        /// In true time: what the writers wait for. The process itself believes in less.
        var leaseEnds = 0
        var isStopped = false
    }

    private enum Message {
        case void(Int, String)
        case release(Int)
    }

    private struct Read {
        var flight: CacheMachine.FlightID
        var floors: [Int]
        var seen: Int?
    }

    private struct Writer {
        var id: Int
        var tag: String
        var waitsFor: [Int: Int]
        var holdEnds: Int
        var hasCommitted = false
    }

    private var random: SeededRandom
    private var nodes: [Node] = (0..<3).map { _ in Node() }
    private var writers: [Writer] = []
    private var now = 1000
    private var version = 0
    private var ids = 0
    /// Readers that joined or wait, by node: when they arrived, and what had been committed then.
    private var readers:
        [(node: Int, since: CacheMachine.Arrival, floor: Int, flight: CacheMachine.FlightID?)] = []
    private(set) var fromMemory = 0
    private(set) var commits = 0
    private(set) var stale: [String] = []
    private let holdLife = 8000

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    func run(steps: Int) {
        for node in nodes { node.leaseEnds = now + 2000 }
        for _ in 0..<steps { step() }
    }

    private func step() {
        now += Int.random(in: 1...60, using: &random)
        for node in nodes {
            node.process.now = MonotonicTime(nanoseconds: Int64(now) * 1_000_000)
        }
        let index = Int.random(in: 0..<nodes.count, using: &random)
        let node = nodes[index]
        let chance = node.isStopped ? 10 : 200
        if Int.random(in: 0..<chance, using: &random) == 0 { node.isStopped.toggle() }
        if !node.isStopped { act(index, node) }
        write()
    }

    private func act(_ index: Int, _ node: Node) {
        switch Int.random(in: 0..<12, using: &random) {
        case 0...3: read(index, node)
        case 4...5: seeSource(node)
        case 6...7: land(index, node)
        case 8...9: take(node)
        default: renew(node)
        }
    }

    private func renew(_ node: Node) {
        // Late: others have not waited for this process.
        if now > node.leaseEnds {
            node.process.ledger.lost()
            node.process.machine.void(nil, .all)
            node.inbox = []
            node.leaseEnds = now + 2000
            node.process.ledger.extended(askedAt: node.process.now)
            _ = node.process.ledger.mayUse(Process.tenant, at: node.process.now)
            _ = node.process.ledger.takeWanted(at: node.process.now)
            let holds = writers.filter { $0.holdEnds > now }.map {
                CopyLedger.Hold(
                    id: VoidID(text: "\($0.id)"), names: VoidedNames([$0.tag]),
                    left: .milliseconds($0.holdEnds - now))
            }
            node.process.ledger.registered(
                Process.tenant, holds, era: node.process.ledger.era, at: node.process.now)
            return
        }
        while !node.inbox.isEmpty { take(node) }
        node.leaseEnds = now + 2000
        node.process.ledger.extended(askedAt: node.process.now)
    }

    private func take(_ node: Node) {
        guard !node.inbox.isEmpty, let index = nodes.firstIndex(where: { $0 === node }) else {
            return
        }
        switch node.inbox.removeFirst() {
        case .void(let id, let tag):
            let left = (writers.first { $0.id == id }?.holdEnds ?? now) - now
            let names = VoidedNames([tag])
            _ = node.process.ledger.voided(
                Process.tenant,
                CopyLedger.Hold(
                    id: VoidID(text: "\(id)"), names: names, left: .milliseconds(max(0, left))),
                at: node.process.now)
            node.process.machine.void(Process.tenant, names)
            if let writer = writers.firstIndex(where: { $0.id == id }) {
                writers[writer].waitsFor[index] = nil
            }
        case .release(let id):
            node.process.ledger.released(Process.tenant, VoidID(text: "\(id)"))
        }
    }

    // MARK: Readers

    private func read(_ index: Int, _ node: Node) {
        let since = node.process.arrive()
        go(index, node, since, floor: version)
    }

    private func go(_ index: Int, _ node: Node, _ since: CacheMachine.Arrival, floor: Int) {
        switch node.process.next(since) {
        case .copy(let answer):
            fromMemory += 1
            check(answer, floor, "copy")
        case .lead(let flight): node.reads.append(Read(flight: flight, floors: [floor]))
        case .join(let flight): readers.append((index, since, floor, flight))
        case .wait: readers.append((index, since, floor, nil))
        case .refuse: break
        }
    }

    private func seeSource(_ node: Node) {
        guard let index = node.reads.indices.randomElement(using: &random) else { return }
        if node.reads[index].seen == nil { node.reads[index].seen = version }
    }

    private func land(_ index: Int, _ node: Node) {
        guard let place = node.reads.indices.randomElement(using: &random),
            let seen = node.reads[place].seen
        else { return }
        let read = node.reads.remove(at: place)
        if Int.random(in: 0..<10, using: &random) == 0 {
            node.process.machine.fail(read.flight, Process.key)
        } else {
            _ = node.process.land(read.flight, "\(seen)")
            for floor in read.floors { check(seen, floor, "leader") }
        }
        let mine = readers.filter { $0.node == index }
        readers.removeAll { $0.node == index }
        for reader in mine {
            if reader.flight == read.flight {
                check(seen, reader.floor, "joined")
            } else {
                go(index, node, reader.since, floor: reader.floor)
            }
        }
    }

    private func check(_ answer: CacheAnswer, _ floor: Int, _ how: String) {
        let seen = answer.value.flatMap { Int(String(decoding: $0.bytes, as: UTF8.self)) } ?? -1
        check(seen, floor, how)
    }

    private func check(_ seen: Int, _ floor: Int, _ how: String) {
        guard seen < floor, stale.count < 3 else { return }
        stale.append("at \(now) \(how): \(seen), but \(floor) was committed before")
    }

    // MARK: Writers

    private func write() {
        if writers.count < 2, Int.random(in: 0..<60, using: &random) == 0 { begin() }
        for writer in writers {
            guard let index = writers.firstIndex(where: { $0.id == writer.id }) else { continue }
            if writer.hasCommitted {
                guard Int.random(in: 0..<4, using: &random) == 0 || now >= writer.holdEnds else {
                    continue
                }
                writers.remove(at: index)
                // Some die before they release: the hold runs out.
                if now < writer.holdEnds, Int.random(in: 0..<6, using: &random) > 0 {
                    for node in nodes { node.inbox.append(.release(writer.id)) }
                } else if now < writer.holdEnds {
                    writers.append(writer)
                }
            } else if now > writer.holdEnds - 1000 {
                // Too late to commit: the hold runs out.
                if now >= writer.holdEnds { writers.remove(at: index) }
            } else if writer.waitsFor.values.allSatisfy({ $0 <= now }),
                Int.random(in: 0..<3, using: &random) == 0
            {
                version += 1
                commits += 1
                writers[index].hasCommitted = true
            }
        }
    }

    private func begin() {
        ids += 1
        var waitsFor: [Int: Int] = [:]
        for (index, node) in nodes.enumerated() where node.leaseEnds > now {
            waitsFor[index] = node.leaseEnds
            node.inbox.append(.void(ids, "a"))
        }
        writers.append(
            Writer(
                id: ids, tag: ["a", "a", "b"].randomElement(using: &random) ?? "a",
                waitsFor: waitsFor, holdEnds: now + holdLife))
        // The message names the tag that the writer holds.
        let tag = writers[writers.count - 1].tag
        for node in nodes {
            node.inbox = node.inbox.map {
                if case .void(ids, _) = $0 { .void(ids, tag) } else { $0 }
            }
        }
    }
}

@Suite("Random interleavings of readers, writers, lost leases and dead writers")
struct CacheModelTests {
    @Test("no read that begins after a commit sees a value from before it", arguments: 0..<40)
    func model(_ run: Int) {
        let seed = 0xCAC4_0000 + UInt64(run)
        let simulation = CacheSimulation(seed: seed)
        simulation.run(steps: 20_000)
        #expect(simulation.stale == [], "seed \(seed)")
        #expect(simulation.commits > 20, "seed \(seed)")
        #expect(simulation.fromMemory > 100, "seed \(seed)")
    }
}
