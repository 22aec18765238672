import HCCore
import HCTesting
import Testing

@testable import HCIO

/// The machine with a clock and a generator, so that a test reads as a story.
final class PoolStory {
    private var machine: PoolStateMachine
    let clock = ManualClock()
    private var random = SeededRandom(seed: 1)

    init(_ configuration: PoolConfiguration) { machine = PoolStateMachine(configuration) }

    var now: MonotonicTime { clock.monotonic }
    var statistics: PoolStateMachine.Statistics { machine.statistics }

    var state: PoolStateMachine.State { machine.state }
    var nextTick: MonotonicTime? { machine.nextTick }

    func checkInvariants() { machine.checkInvariants() }

    func start() -> PoolStateMachine.Actions { machine.start(now: now) }

    func waiterLeft(_ id: Int) -> Bool { machine.waiterLeft(id) }

    func closed(_ id: Int) -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.closed(id, now: now)
    }

    func checked(_ id: Int, isAlive: Bool) -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.checked(id, isAlive: isAlive, now: now)
    }

    func shutDown() -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.shutDown()
    }

    func pass(_ duration: Duration) { clock.advance(by: duration) }

    func lease(
        within: Duration = .seconds(1)
    ) -> (answer: PoolStateMachine.LeaseAnswer, actions: PoolStateMachine.Actions) {
        defer { machine.checkInvariants() }
        return machine.lease(deadline: .after(within, from: now), now: now)
    }

    func connected(_ id: Int) -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.connected(id, now: now)
    }

    func connectFailed(_ id: Int) -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.connectFailed(id, now: now, using: &random)
    }

    func release(_ id: Int, isUsable: Bool = true) -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.release(id, isUsable: isUsable, now: now)
    }

    func tick() -> PoolStateMachine.Actions {
        defer { machine.checkInvariants() }
        return machine.tick(now: now)
    }

    /// Lets time pass until the machine wants to be called.
    func tickWhenDue() throws -> PoolStateMachine.Actions {
        let next = try #require(nextTick)
        if next > now { pass(next - now) }
        return tick()
    }

    /// A pool with one resource at rest.
    func openOne() throws -> Int {
        let actions = lease().actions
        let id = try #require(actions.connects.first)
        _ = connected(id)
        _ = release(id)
        return id
    }
}

struct PoolStateMachineTests {
    private typealias Grant = PoolStateMachine.Actions.Grant

    @Test("the first lease opens a resource, waits for it and gets it; the next gets the same one")
    func firstLease() throws {
        let pool = PoolStory(.init(hardLimit: 2))
        let (answer, actions) = pool.lease()
        #expect(answer == .wait(1))
        #expect(actions.connects == [1])
        pool.pass(.milliseconds(3))
        #expect(
            pool.connected(1).grants
                == [Grant(waiter: 1, resource: 1, waited: .milliseconds(3))])
        #expect(pool.release(1) == .init())
        #expect(pool.lease().answer == .lease(1))
        #expect(pool.statistics.active == 1 && pool.statistics.leases == 2)
    }

    @Test("what is kept warm is opened at the start, a bounded number at a time")
    func warm() {
        let pool = PoolStory(.init(softLimit: 3, hardLimit: 5, connectsInFlightMax: 2))
        #expect(pool.start().connects == [1, 2])
        #expect(pool.connected(1).connects == [3])
        #expect(pool.connected(2).connects.isEmpty)
        #expect(pool.connected(3).connects.isEmpty)
        #expect(pool.statistics.idle == 3)
    }

    @Test("there are never more than the hard limit; who comes then waits in order")
    func hardLimit() {
        let pool = PoolStory(.init(hardLimit: 2))
        #expect(pool.lease().actions.connects == [1])
        #expect(pool.lease().actions.connects == [2])
        #expect(pool.lease().actions.connects.isEmpty)
        #expect(pool.lease().actions.connects.isEmpty)
        #expect(pool.connected(1).grants.map(\.waiter) == [1])
        #expect(pool.connected(2).grants.map(\.waiter) == [2])
        #expect(pool.release(2).grants.map(\.waiter) == [3])
        #expect(pool.release(1).grants.map(\.waiter) == [4])
    }

    @Test("too many waiters are refused")
    func queueBound() {
        let pool = PoolStory(.init(hardLimit: 1, waitersMax: 2))
        _ = pool.lease()
        _ = pool.lease()
        #expect(pool.lease().answer == .refuse(.queueFull))
        #expect(pool.waiterLeft(1))
        #expect(!pool.waiterLeft(1))
        #expect(pool.lease().answer == .wait(3))
    }

    @Test("who left, or whose deadline passed, is not served")
    func leaving() {
        let pool = PoolStory(.init(hardLimit: 1))
        _ = pool.lease()
        _ = pool.lease(within: .milliseconds(1))
        _ = pool.lease()
        #expect(pool.waiterLeft(1))
        pool.pass(.milliseconds(1))
        #expect(pool.connected(1).grants.map(\.waiter) == [3])
        #expect(!pool.waiterLeft(2))
        #expect(pool.statistics.waiting == 0)
    }

    @Test("the resource that was used last is lent first, so that the others can rest")
    func lastInFirstOut() {
        let pool = PoolStory(.init(hardLimit: 2))
        _ = pool.lease()
        _ = pool.lease()
        _ = pool.connected(1)
        _ = pool.connected(2)
        _ = pool.release(2)
        pool.pass(.seconds(1))
        _ = pool.release(1)
        #expect(pool.lease().answer == .lease(1))
    }

    @Test("above the soft limit a resource is closed after the idle timeout, below it is kept")
    func idleTimeout() throws {
        let pool = PoolStory(
            .init(
                softLimit: 1, hardLimit: 3, idleTimeout: .seconds(10), keepAliveAfter: nil))
        _ = pool.start()
        _ = pool.connected(1)
        for _ in 0..<3 { _ = pool.lease() }
        _ = pool.connected(2)
        _ = pool.connected(3)
        for id in [1, 2, 3] {
            _ = pool.release(id)
            pool.pass(.seconds(1))
        }
        #expect(try pool.tickWhenDue().closes == [1])
        #expect(try pool.tickWhenDue().closes == [2])
        #expect(pool.nextTick == nil)
        pool.pass(.seconds(1000))
        #expect(pool.tick() == .init())
        #expect(pool.statistics.total == 1 && pool.statistics.idleCloses == 2)
    }

    @Test("resources at rest are checked one at a time; a dead one is closed and replaced")
    func keepAlive() throws {
        let pool = PoolStory(
            .init(softLimit: 2, hardLimit: 2, keepAliveAfter: .seconds(30)))
        _ = pool.start()
        _ = pool.connected(1)
        _ = pool.connected(2)
        #expect(try pool.tickWhenDue().checks == [1])
        #expect(pool.statistics.checking == 1 && pool.statistics.idle == 1)
        // One is still free while the other is being checked.
        #expect(pool.lease().answer == .lease(2))
        _ = pool.release(2)
        #expect(pool.checked(1, isAlive: true) == .init())
        // The lease was as good as a check.
        #expect(try pool.tickWhenDue().checks == [1])
        let dead = pool.checked(1, isAlive: false)
        #expect(dead.closes == [1] && dead.connects == [3])
        #expect(dead.checks == [2])
    }

    @Test("who waits gets a resource that passed its check")
    func waitingForCheck() throws {
        let pool = PoolStory(.init(hardLimit: 1, keepAliveAfter: .seconds(30)))
        let id = try pool.openOne()
        #expect(try pool.tickWhenDue().checks == [id])
        #expect(pool.lease().answer == .wait(2))
        #expect(
            pool.checked(id, isAlive: true).grants.map(\.resource) == [id])
    }

    @Test("a resource that broke while it was out is closed on return and replaced for who waits")
    func broken() throws {
        let pool = PoolStory(.init(hardLimit: 1))
        let id = try pool.openOne()
        _ = pool.lease()
        #expect(pool.lease().answer == .wait(2))
        #expect(pool.closed(id) == .init())
        let actions = pool.release(id)
        #expect(actions.closes == [id] && actions.connects == [2])
        #expect(pool.connected(2).grants.map(\.waiter) == [2])
        #expect(pool.release(2, isUsable: false).closes == [2])
        #expect(pool.statistics.brokenCloses == 2)
    }

    @Test("a resource that closes at rest is forgotten, and replaced if it was kept warm")
    func closedAtRest() {
        let pool = PoolStory(.init(softLimit: 1, hardLimit: 1))
        _ = pool.start()
        _ = pool.connected(1)
        let actions = pool.closed(1)
        #expect(actions.closes == [1] && actions.connects == [2])
    }

    @Test("after a failed try there is a wait, then one try at a time; who waits keeps waiting")
    func connectFailing() throws {
        let pool = PoolStory(.init(hardLimit: 4, backoffInitial: .milliseconds(100)))
        _ = pool.lease()
        _ = pool.lease()
        // Both tries fail: that is one round.
        #expect(pool.connectFailed(1) == .init())
        #expect(pool.connectFailed(2) == .init())
        let retryAt = try #require(pool.nextTick)
        let wait = retryAt - pool.now
        #expect(wait >= .milliseconds(50) && wait <= .milliseconds(100))
        #expect(pool.lease().actions == .init())
        #expect(try pool.tickWhenDue().connects == [3])
        #expect(pool.tick().connects.isEmpty)
        // It works again: the others are opened at full speed.
        let actions = pool.connected(3)
        #expect(actions.grants.map(\.waiter) == [1])
        #expect(actions.connects == [4, 5])
        #expect(pool.state == .running)
    }

    @Test("while a try is under way, however long, nothing is due")
    func slowTry() throws {
        let pool = PoolStory(.init(hardLimit: 4, backoffInitial: .milliseconds(100)))
        _ = pool.lease(within: .seconds(60))
        _ = pool.connectFailed(1)
        #expect(try pool.tickWhenDue().connects == [2])
        #expect(pool.nextTick == nil)
        pool.pass(.seconds(10))
        _ = pool.lease(within: .seconds(60))
        #expect(pool.nextTick == nil)
        // Its end is looked at.
        _ = pool.connectFailed(2)
        #expect(try #require(pool.nextTick) > pool.now)
    }

    @Test("a try that is under way when the circuit opens is what it is kept warm with")
    func slowTryBesideCircuit() throws {
        let pool = PoolStory(.init(softLimit: 1, hardLimit: 4, failuresUntilOpen: 1))
        #expect(pool.start().connects == [1])
        _ = pool.lease()
        #expect(pool.lease().actions.connects == [2])
        #expect(pool.connectFailed(1).refused.count == 2)
        guard case .circuitOpen(let until) = pool.state else {
            Issue.record("\(pool.state)")
            return
        }
        pool.pass(until - pool.now)
        #expect(pool.tick() == .init())
        #expect(pool.nextTick == nil)
        // It fails, too: now one is missing.
        #expect(pool.connectFailed(2).connects == [3])
    }

    /// A pool whose circuit has just opened.
    private func openCircuit(_ configuration: PoolConfiguration) throws -> PoolStory {
        let pool = PoolStory(configuration)
        #expect(pool.lease().actions.connects == [1])
        #expect(pool.connectFailed(1) == .init())
        #expect(try pool.tickWhenDue().connects == [2])
        #expect(pool.connectFailed(2) == .init())
        #expect(try pool.tickWhenDue().connects == [3])
        let actions = pool.connectFailed(3)
        #expect(actions.refused == [1])
        guard case .circuitOpen(let until) = pool.state else {
            Issue.record("\(pool.state)")
            return pool
        }
        #expect(actions.refusal == .circuitOpen(retryAfter: until - pool.now))
        return pool
    }

    @Test("however long an outage lasts, one try a second finds its end")
    func longOutage() throws {
        let pool = PoolStory(.init(softLimit: 1, hardLimit: 4))
        var connects = pool.start().connects
        for round in 0..<40 {
            for id in connects { _ = pool.connectFailed(id) }
            let next = try #require(pool.nextTick)
            #expect(next - pool.now <= .seconds(1), "after \(round) failures")
            pool.pass(next - pool.now)
            connects = pool.tick().connects
            #expect(connects.count == 1)
        }
        _ = pool.connected(try #require(connects.first))
        guard case .lease = pool.lease().answer else {
            Issue.record("refused although the server is back")
            return
        }
    }

    @Test(
        "after some failed rounds the circuit opens: all are refused at once, with the time to come back"
    )
    func circuitOpens() throws {
        let pool = try openCircuit(.init(hardLimit: 4, failuresUntilOpen: 3))
        guard case .refuse(.circuitOpen(let retryAfter)) = pool.lease().answer else {
            Issue.record("not refused")
            return
        }
        #expect(retryAfter > .zero)
        // Nothing is kept warm, so nothing happens until somebody asks.
        #expect(pool.nextTick == nil)
        pool.pass(retryAfter)
        #expect(pool.lease() == (.wait(2), connecting(4)))
        #expect(pool.state == .halfOpen)
        // Others wait for the outcome of the probe.
        #expect(pool.lease() == (.wait(3), .init()))
        let actions = pool.connectFailed(4)
        #expect(actions.refused == [2, 3])
        guard case .circuitOpen = pool.state else {
            Issue.record("\(pool.state)")
            return
        }
    }

    @Test("a probe that succeeds closes the circuit")
    func probe() throws {
        let pool = try openCircuit(.init(softLimit: 1, hardLimit: 4, failuresUntilOpen: 3))
        // Something is to be kept warm, so the probe does not wait for a lease.
        #expect(try pool.tickWhenDue().connects == [4])
        #expect(pool.state == .halfOpen)
        _ = pool.connected(4)
        #expect(pool.state == .running)
        #expect(pool.lease().answer == .lease(4))
        #expect(pool.statistics.circuitOpenings == 1)
    }

    @Test("while one resource works, failing tries do not open the circuit")
    func degraded() throws {
        let pool = PoolStory(.init(hardLimit: 2, failuresUntilOpen: 1))
        let id = try pool.openOne()
        _ = pool.lease()
        #expect(pool.lease().actions.connects == [2])
        #expect(pool.connectFailed(2).refused.isEmpty)
        #expect(pool.lease().answer == .wait(3))
        #expect(pool.release(id).grants.map(\.resource) == [id])
        // The last one breaks, the next try fails: now it opens.
        _ = pool.release(id, isUsable: false)
        #expect(try pool.tickWhenDue().connects == [3])
        #expect(pool.connectFailed(3).refused == [3])
    }

    @Test("shutting down refuses, closes what rests, gives up tries and waits for what is out")
    func shutDown() {
        let pool = PoolStory(.init(hardLimit: 3))
        for _ in 0..<3 { _ = pool.lease() }
        _ = pool.connected(1)
        _ = pool.connected(2)
        _ = pool.release(2)
        // 1 and 2 are lent, for the third waiter got 2; the third try is under way.
        let actions = pool.shutDown()
        #expect(actions.cancels == [3])
        #expect(!actions.isShutDown)
        #expect(pool.lease().answer == .refuse(.shutDown))
        #expect(pool.connectFailed(3) == .init())
        #expect(pool.release(1).closes == [1])
        let last = pool.release(2)
        #expect(last.closes == [2] && last.isShutDown)
        #expect(pool.state == .shutDown)
        #expect(pool.shutDown() == .init())
    }

    @Test("a try that succeeds after all during the shutdown is closed")
    func lateConnect() {
        let pool = PoolStory(.init(hardLimit: 1))
        _ = pool.lease()
        let actions = pool.shutDown()
        #expect(actions.refused == [1] && actions.refusal == .shutDown)
        let late = pool.connected(1)
        #expect(late.closes == [1] && late.isShutDown)
    }

    @Test("an empty pool is shut down at once")
    func emptyShutDown() {
        let pool = PoolStory(.init(hardLimit: 1))
        #expect(pool.shutDown().isShutDown)
    }

    private func connecting(_ id: Int) -> PoolStateMachine.Actions {
        var actions = PoolStateMachine.Actions()
        actions.connects = [id]
        return actions
    }

    /// Random events that could happen, from a seed. After each the rules of the pool hold; at the end, when all
    /// is returned and the world works again, everybody who still waits has been served.
    @Test("whatever happens, the rules hold and nobody is forgotten", arguments: 1...60)
    func property(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let hard = Int.random(in: 1...6, using: &random)
        let pool = PoolStory(
            .init(
                softLimit: Int.random(in: 0...hard, using: &random), hardLimit: hard,
                connectsInFlightMax: Int.random(in: 1...3, using: &random),
                waitersMax: Int.random(in: 1...8, using: &random),
                idleTimeout: .milliseconds(Int64.random(in: 1...200, using: &random)),
                keepAliveAfter: Bool.random(using: &random)
                    ? .milliseconds(Int64.random(in: 1...200, using: &random)) : nil,
                failuresUntilOpen: Int.random(in: 1...3, using: &random),
                backoffInitial: .milliseconds(1), backoffMaximum: .milliseconds(50)))
        var world = PoolWorld()
        world.apply(pool.start())
        for _ in 0..<600 {
            pool.pass(.milliseconds(Int64.random(in: 0...10, using: &random)))
            if let next = pool.nextTick, next <= pool.now { world.apply(pool.tick()) }
            #expect(pool.nextTick.map { $0 > pool.now } != false, "seed \(seed)")
            world.step(pool, &random, isSound: false)
        }
        for _ in 0..<2000 where !world.isQuiet {
            pool.pass(.milliseconds(5))
            if let next = pool.nextTick, next <= pool.now { world.apply(pool.tick()) }
            world.step(pool, &random, isSound: true)
        }
        #expect(world.isQuiet, "seed \(seed)")
        #expect(pool.statistics.waiting == 0, "seed \(seed)")
        world.apply(pool.shutDown())
        for _ in 0..<200 where !world.isShutDown {
            world.step(pool, &random, isSound: true)
        }
        #expect(world.isShutDown && world.open.isEmpty, "seed \(seed)")
    }
}

/// What a shell and a server would know: checks every action against it.
private struct PoolWorld {
    var connecting: Set<Int> = []
    var open: Set<Int> = []
    var lent: Set<Int> = []
    var checking: Set<Int> = []
    var waiting: Set<Int> = []
    var isShutDown = false

    var isQuiet: Bool { waiting.isEmpty && lent.isEmpty && connecting.isEmpty }

    mutating func apply(_ actions: PoolStateMachine.Actions) {
        for id in actions.connects { #expect(connecting.insert(id).inserted) }
        for id in actions.closes {
            #expect(open.remove(id) != nil)
            #expect(!lent.contains(id))
            checking.remove(id)
        }
        for id in actions.checks {
            #expect(open.contains(id) && !lent.contains(id))
            checking.insert(id)
        }
        for grant in actions.grants {
            #expect(open.contains(grant.resource))
            #expect(lent.insert(grant.resource).inserted)
            #expect(waiting.remove(grant.waiter) != nil)
        }
        for waiter in actions.refused { #expect(waiting.remove(waiter) != nil) }
        for id in actions.cancels { #expect(connecting.contains(id)) }
        if actions.isShutDown {
            #expect(!isShutDown)
            isShutDown = true
        }
    }

    /// One random event. A sound world opens what it is asked to, breaks nothing and asks for nothing new.
    mutating func step(
        _ pool: PoolStory, _ random: inout SeededRandom, isSound: Bool
    ) {
        switch Int.random(in: 0..<8, using: &random) {
        case 0, 1:
            guard !isSound else { return }
            let (answer, actions) = pool.lease(within: .seconds(1_000_000))
            switch answer {
            case .lease(let id):
                #expect(open.contains(id) && lent.insert(id).inserted)
            case .wait(let id):
                waiting.insert(id)
            case .refuse:
                break
            }
            apply(actions)
        case 2, 3:
            guard let id = lent.sorted().randomElement(using: &random) else { return }
            lent.remove(id)
            apply(
                pool.release(id, isUsable: isSound || Int.random(in: 0..<10, using: &random) > 0))
        case 4, 5:
            guard let id = connecting.sorted().randomElement(using: &random) else { return }
            connecting.remove(id)
            if isSound || Int.random(in: 0..<3, using: &random) > 0 {
                open.insert(id)
                apply(pool.connected(id))
            } else {
                apply(pool.connectFailed(id))
            }
        case 6:
            guard let id = checking.sorted().randomElement(using: &random) else { return }
            checking.remove(id)
            apply(
                pool.checked(id, isAlive: isSound || Bool.random(using: &random)))
        default:
            guard !isSound else { return }
            if Bool.random(using: &random) {
                guard let id = waiting.sorted().randomElement(using: &random) else { return }
                waiting.remove(id)
                #expect(pool.waiterLeft(id))
            } else {
                guard let id = open.sorted().randomElement(using: &random) else { return }
                apply(pool.closed(id))
            }
        }
        pool.checkInvariants()
    }
}
