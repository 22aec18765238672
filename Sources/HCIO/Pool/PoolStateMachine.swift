package import HCCore

/// The rules of a pool, without resources, tasks or clocks: events and the time go in, actions come out.
///
/// Who waits is served in order. The resource that was used last is lent first, so that those which are not
/// needed come to rest and are closed. When opening fails, there is a wait; when it fails again and again
/// and nothing is open, the circuit opens: everybody is refused at once, until one try (the probe) succeeds.
package struct PoolStateMachine: ~Copyable {
    package typealias ResourceID = Int
    package typealias WaiterID = Int

    package enum State: Equatable, Sendable {
        /// Can transition to: connectFailing, circuitOpen (if one failure is enough), shuttingDown, shutDown.
        case running
        /// Opening failed; the next try is at `retryAt`, one at a time. Leases wait.
        /// Can transition to: running, circuitOpen, shuttingDown, shutDown.
        case connectFailing(retryAt: MonotonicTime)
        /// Nothing is open and nothing can be opened: leases are refused until `until`.
        /// Can transition to: halfOpen, running (a slow try succeeded), shuttingDown, shutDown.
        case circuitOpen(until: MonotonicTime)
        /// The probe is under way, or is begun by the next who asks. Leases wait for its outcome.
        /// Can transition to: running, circuitOpen, shuttingDown, shutDown.
        case halfOpen
        /// No new leases; waits for those that are out and for tries under way.
        /// Can transition to: shutDown.
        case shuttingDown
        /// Nothing is left.
        case shutDown
    }

    package enum Refusal: Equatable, Sendable {
        case circuitOpen(retryAfter: Duration)
        case queueFull
        case shutDown
    }

    package enum LeaseAnswer: Equatable {
        case lease(ResourceID)
        case wait(WaiterID)
        case refuse(Refusal)
    }

    /// What the shell has to do now, in any order.
    package struct Actions: Equatable {
        package struct Grant: Equatable {
            package let waiter: WaiterID
            package let resource: ResourceID
            package let waited: Duration
        }

        /// Hand the resource to who waits. If he has gone, `release` it at once.
        package var grants: [Grant] = []
        package var refused: [WaiterID] = []
        package var refusal: Refusal?
        /// Open a resource; answer with `connected` or `connectFailed`.
        package var connects: [ResourceID] = []
        /// Give up opening; still to be answered.
        package var cancels: [ResourceID] = []
        /// Close and forget. No answer.
        package var closes: [ResourceID] = []
        /// Ask whether it works; answer with `checked`.
        package var checks: [ResourceID] = []
        /// The last resource has gone after `shutDown`. Once.
        package var isShutDown = false

        package init() {}
    }

    /// Counts since the start, and how many there are now.
    package struct Statistics: Equatable, Sendable {
        package var total = 0
        package var active = 0
        package var idle = 0
        package var connecting = 0
        package var checking = 0
        package var waiting = 0
        package var connects = 0
        package var connectFailures = 0
        package var leases = 0
        package var refusals = 0
        package var circuitOpenings = 0
        package var idleCloses = 0
        package var brokenCloses = 0
        package var checkFailures = 0
    }

    private enum ResourceState: Equatable {
        case connecting
        case idle
        case leased
        /// It broke while it was out: to be closed on return.
        case leasedBroken
        case checking(idleSince: MonotonicTime)
        case checkingBroken
    }

    private struct Idle {
        let id: ResourceID
        let since: MonotonicTime
        let checkedAt: MonotonicTime
    }

    package let configuration: PoolConfiguration
    package private(set) var state = State.running
    private var resources: [ResourceID: ResourceState] = [:]
    /// By `since`, the longest at rest first.
    private var idle: [Idle] = []
    private var waiters = PoolWaiterQueue()
    private var nextResource: ResourceID = 1
    private var nextWaiter: WaiterID = 1
    private var connecting = 0
    private var checking = 0
    private var leased = 0
    private var failures = 0
    private var backoff: Backoff
    /// When the resources at rest have to be looked at next; nil while there is none.
    private var idleCheckAt: MonotonicTime?
    private var counts = Statistics()

    package init(_ configuration: PoolConfiguration) {
        self.configuration = configuration
        backoff = Backoff(
            initial: configuration.backoffInitial, maximum: configuration.backoffMaximum)
    }

    package var statistics: Statistics {
        var statistics = counts
        statistics.total = resources.count
        statistics.active = leased
        statistics.idle = idle.count
        statistics.connecting = connecting
        statistics.checking = checking
        statistics.waiting = waiters.count
        return statistics
    }

    /// When `tick` has to be called next; nil: not before another event.
    package var nextTick: MonotonicTime? {
        var next = idleCheckAt
        switch state {
        // One try at a time: the end of the one under way looks again. A server that takes connections and says nothing
        // keeps it for long, and its time is gone by meanwhile.
        case .connectFailing(let retryAt) where wanted > 0 && connecting == 0:
            next = min(next ?? retryAt, retryAt)
        case .circuitOpen(let until) where wanted > 0:
            next = min(next ?? until, until)
        default:
            break
        }
        return next
    }

    package func isConnecting(_ id: ResourceID) -> Bool { resources[id] == .connecting }

    // MARK: Leases

    /// Somebody wants a resource.
    package mutating func lease(
        deadline: Deadline, now: MonotonicTime
    ) -> (answer: LeaseAnswer, actions: Actions) {
        var actions = Actions()
        if case .circuitOpen(let until) = state {
            guard now >= until else {
                counts.refusals += 1
                return (.refuse(.circuitOpen(retryAfter: until - now)), actions)
            }
            state = .halfOpen
        }
        if state == .shuttingDown || state == .shutDown {
            counts.refusals += 1
            return (.refuse(.shutDown), actions)
        }
        if let resting = idle.popLast() {
            if idle.isEmpty { idleCheckAt = nil }
            resources[resting.id] = .leased
            leased += 1
            counts.leases += 1
            return (.lease(resting.id), actions)
        }
        guard waiters.count < configuration.waitersMax else {
            counts.refusals += 1
            return (.refuse(.queueFull), actions)
        }
        let waiter = nextWaiter
        nextWaiter += 1
        waiters.append(.init(id: waiter, since: now, deadline: deadline))
        connectAsNeeded(now, &actions)
        return (.wait(waiter), actions)
    }

    /// Who waited has gone: its deadline passed or its task was cancelled.
    ///
    /// - Returns: false if it did not wait any more.
    @discardableResult
    package mutating func waiterLeft(_ id: WaiterID) -> Bool {
        waiters.remove(id)
    }

    /// A lease ends.
    ///
    /// - Parameter isUsable: false if it must not be lent again.
    package mutating func release(
        _ id: ResourceID, isUsable: Bool, now: MonotonicTime
    ) -> Actions {
        var actions = Actions()
        let before = resources[id]
        precondition(
            before == .leased || before == .leasedBroken, "a lease is returned exactly once")
        leased -= 1
        if isUsable && before == .leased {
            place(id, since: now, checkedAt: now, now, &actions)
        } else {
            counts.brokenCloses += 1
            remove(id, now, &actions)
        }
        return actions
    }

    // MARK: Opening

    /// Opens what is to be kept warm.
    package mutating func start(now: MonotonicTime) -> Actions {
        var actions = Actions()
        connectAsNeeded(now, &actions)
        return actions
    }

    package mutating func connected(_ id: ResourceID, now: MonotonicTime) -> Actions {
        var actions = Actions()
        precondition(resources[id] == .connecting, "resource \(id) is not being opened")
        connecting -= 1
        if state != .shuttingDown {
            failures = 0
            backoff.reset()
            state = .running
        }
        place(id, since: now, checkedAt: now, now, &actions)
        connectAsNeeded(now, &actions)
        return actions
    }

    package mutating func connectFailed(
        _ id: ResourceID, now: MonotonicTime, using generator: inout some RandomNumberGenerator
    ) -> Actions {
        var actions = Actions()
        precondition(resources[id] == .connecting, "resource \(id) is not being opened")
        connecting -= 1
        counts.connectFailures += 1
        resources[id] = nil
        switch state {
        case .running, .halfOpen:
            countFailure(now, &generator, &actions)
        case .connectFailing(let retryAt) where now >= retryAt:
            countFailure(now, &generator, &actions)
        case .connectFailing, .circuitOpen:
            // Another try of the same round: it has been counted.
            break
        case .shuttingDown:
            finishShutDown(&actions)
        case .shutDown:
            preconditionFailure("a pool that is shut down opens nothing")
        }
        connectAsNeeded(now, &actions)
        return actions
    }

    private mutating func countFailure(
        _ now: MonotonicTime, _ generator: inout some RandomNumberGenerator,
        _ actions: inout Actions
    ) {
        failures += 1
        let retryAt = now + backoff.next(using: &generator)
        let isOpenElsewhere = leased + idle.count + checking > 0
        guard !isOpenElsewhere, state == .halfOpen || failures >= configuration.failuresUntilOpen
        else {
            state = .connectFailing(retryAt: retryAt)
            return
        }
        counts.circuitOpenings += 1
        state = .circuitOpen(until: retryAt)
        refuseAll(.circuitOpen(retryAfter: retryAt - now), &actions)
    }

    // MARK: Resources

    /// A resource closed by itself, for example because the server went away.
    package mutating func closed(_ id: ResourceID, now: MonotonicTime) -> Actions {
        var actions = Actions()
        switch resources[id] {
        case .idle:
            idle.removeAll { $0.id == id }
            if idle.isEmpty { idleCheckAt = nil }
            counts.brokenCloses += 1
            remove(id, now, &actions)
        case .leased:
            resources[id] = .leasedBroken
        case .checking:
            resources[id] = .checkingBroken
        case .leasedBroken, .checkingBroken:
            break
        case .connecting, nil:
            preconditionFailure("resource \(id) was not open")
        }
        return actions
    }

    package mutating func checked(
        _ id: ResourceID, isAlive: Bool, now: MonotonicTime
    ) -> Actions {
        var actions = Actions()
        checking -= 1
        switch resources[id] {
        case .checking(let idleSince) where isAlive:
            place(id, since: idleSince, checkedAt: now, now, &actions)
        case .checking, .checkingBroken:
            counts.checkFailures += 1
            remove(id, now, &actions)
        default:
            preconditionFailure("resource \(id) is not being checked")
        }
        careForIdle(now, &actions)
        return actions
    }

    /// Time has passed.
    package mutating func tick(now: MonotonicTime) -> Actions {
        var actions = Actions()
        careForIdle(now, &actions)
        connectAsNeeded(now, &actions)
        return actions
    }

    /// Gives a usable resource to whom waits first, or lets it rest.
    private mutating func place(
        _ id: ResourceID, since: MonotonicTime, checkedAt: MonotonicTime, _ now: MonotonicTime,
        _ actions: inout Actions
    ) {
        if state == .shuttingDown {
            remove(id, now, &actions)
            return
        }
        if let waiter = waiters.popFirst(at: now) {
            resources[id] = .leased
            leased += 1
            counts.leases += 1
            actions.grants.append(
                .init(waiter: waiter.id, resource: id, waited: now - waiter.since))
            return
        }
        resources[id] = .idle
        let index = idle.lastIndex { $0.since <= since }.map { $0 + 1 } ?? 0
        idle.insert(Idle(id: id, since: since, checkedAt: checkedAt), at: index)
        // What rested before is due before: only the first to rest sets the time.
        if idleCheckAt == nil { idleCheckAt = nextIdleCheck() }
    }

    private mutating func remove(
        _ id: ResourceID, _ now: MonotonicTime, _ actions: inout Actions
    ) {
        resources[id] = nil
        actions.closes.append(id)
        if state == .shuttingDown {
            finishShutDown(&actions)
        } else {
            connectAsNeeded(now, &actions)
        }
    }

    /// Closes what has rested too long above the soft limit, and has one resource checked at a time, so
    /// that a check never empties the pool.
    private mutating func careForIdle(_ now: MonotonicTime, _ actions: inout Actions) {
        while let oldest = idle.first, resources.count > configuration.softLimit,
            oldest.since + configuration.idleTimeout <= now
        {
            idle.removeFirst()
            counts.idleCloses += 1
            resources[oldest.id] = nil
            actions.closes.append(oldest.id)
        }
        if let keepAliveAfter = configuration.keepAliveAfter, checking == 0,
            let due = idle.firstIndex(where: { $0.checkedAt + keepAliveAfter <= now })
        {
            let resting = idle.remove(at: due)
            resources[resting.id] = .checking(idleSince: resting.since)
            checking += 1
            actions.checks.append(resting.id)
        }
        idleCheckAt = nextIdleCheck()
    }

    private func nextIdleCheck() -> MonotonicTime? {
        var next: MonotonicTime?
        if let oldest = idle.first, resources.count > configuration.softLimit {
            next = oldest.since + configuration.idleTimeout
        }
        // The end of the check under way looks at the others.
        guard let keepAliveAfter = configuration.keepAliveAfter, checking == 0 else { return next }
        for resting in idle {
            let due = resting.checkedAt + keepAliveAfter
            next = min(next ?? due, due)
        }
        return next
    }

    // MARK: Demand

    /// Resources that are missing, whether or not they may be opened now.
    private var wanted: Int {
        let missing = max(
            configuration.softLimit - resources.count, waiters.count - connecting)
        return max(0, min(missing, configuration.hardLimit - resources.count))
    }

    private mutating func connectAsNeeded(_ now: MonotonicTime, _ actions: inout Actions) {
        let wanted = wanted
        guard wanted > 0 else { return }
        let allowed: Int
        switch state {
        case .running:
            allowed = configuration.connectsInFlightMax
        case .connectFailing(let retryAt):
            allowed = now >= retryAt ? 1 : 0
        case .circuitOpen(let until):
            guard now >= until else { return }
            state = .halfOpen
            allowed = 1
        case .halfOpen:
            allowed = 1
        case .shuttingDown, .shutDown:
            return
        }
        for _ in 0..<max(0, min(wanted, allowed - connecting)) {
            let id = nextResource
            nextResource += 1
            resources[id] = .connecting
            connecting += 1
            counts.connects += 1
            actions.connects.append(id)
        }
    }

    // MARK: Shutting down

    /// Lends nothing more. What is out comes back in its own time, and is closed.
    package mutating func shutDown() -> Actions {
        var actions = Actions()
        guard state != .shuttingDown, state != .shutDown else { return actions }
        state = .shuttingDown
        refuseAll(.shutDown, &actions)
        for resting in idle {
            resources[resting.id] = nil
            actions.closes.append(resting.id)
        }
        idle = []
        idleCheckAt = nil
        actions.cancels = resources.filter { $0.value == .connecting }.map(\.key).sorted()
        finishShutDown(&actions)
        return actions
    }

    private mutating func finishShutDown(_ actions: inout Actions) {
        guard resources.isEmpty else { return }
        state = .shutDown
        actions.isShutDown = true
    }

    private mutating func refuseAll(_ refusal: Refusal, _ actions: inout Actions) {
        actions.refused = waiters.removeAll()
        actions.refusal = refusal
        counts.refusals += actions.refused.count
    }

    // MARK: What always holds

    /// Ends the process if a rule of the pool is broken. For tests: costs O(n).
    package func checkInvariants() {
        precondition(resources.count <= configuration.hardLimit, "above the hard limit")
        precondition(connecting <= configuration.connectsInFlightMax, "too many tries at once")
        precondition(waiters.count <= configuration.waitersMax, "too many wait")
        precondition(idle.isEmpty || waiters.isEmpty, "somebody waits beside a free resource")
        precondition(
            connecting + checking + leased + idle.count == resources.count, "miscounted")
        precondition(checking <= 1, "more than one check at once")
        if case .circuitOpen = state {
            precondition(leased + idle.count + checking == 0, "the circuit is open, a resource too")
        }
        if state == .shutDown { precondition(resources.isEmpty, "shut down with resources") }
    }
}
