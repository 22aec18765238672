package import HCCore

/// Lends resources that are dear to open. The rules are `PoolStateMachine`'s; this runs its actions.
///
/// `start()` opens what is kept warm; without it the first lease does. `shutDown()` ends it, or use it as a
/// `Service`.
@LoopActor package final class Pool<Resource: PoolResource>: Service {
    /// Opens a resource, by the deadline.
    package typealias Connect = @LoopActor (Deadline) async throws -> Resource

    package let name: String
    private var machine: PoolStateMachine
    private let connect: Connect
    private let metrics: PoolMetrics?
    private var random: any RandomNumberGenerator
    private var resources: [PoolStateMachine.ResourceID: Resource] = [:]
    private var tries: [PoolStateMachine.ResourceID: Task<Void, Never>] = [:]
    private var waiters: [PoolStateMachine.WaiterID: Waiter<Lease>] = [:]
    private var timer: Timer?
    private var lastFailure: (any Error)?
    private var shown = PoolStateMachine.Statistics()
    private let end = Gate()

    /// One resource, lent. Goes from the machine to `withLease` and back, and nowhere else.
    private struct Lease: Sendable {
        let id: PoolStateMachine.ResourceID
        let resource: Resource
    }

    /// - Parameter random: gives the jitter of the waits between tries.
    package init(
        name: String, configuration: PoolConfiguration, metrics: PoolMetrics? = nil,
        random: any RandomNumberGenerator = SystemRandomNumberGenerator(),
        connect: @escaping Connect
    ) {
        self.name = name
        self.machine = PoolStateMachine(configuration)
        self.metrics = metrics
        self.random = random
        self.connect = connect
    }

    package var serviceName: String { "pool \(name)" }
    package var configuration: PoolConfiguration { machine.configuration }
    package var state: PoolStateMachine.State { machine.state }
    package var statistics: PoolStateMachine.Statistics { machine.statistics }

    /// Opens what is to be kept warm. May be called again.
    package func start() {
        perform(machine.start(now: Loop.now))
    }

    // MARK: Leases

    /// Runs `body` with a resource that is nobody else's meanwhile, and takes it back however `body` ends.
    /// A resource that is not usable then is closed.
    ///
    /// - Parameter deadline: bounds the wait for a resource, not `body`.
    /// - Throws: PoolError or CancellationError, and `body` was not begun; else what `body` throws.
    package func withLease<Value>(
        deadline: Deadline, _ body: @LoopActor (Resource) async throws -> Value
    ) async throws -> Value {
        let lease = try await lease(deadline)
        defer { giveBack(lease) }
        return try await body(lease.resource)
    }

    private func lease(_ deadline: Deadline) async throws -> Lease {
        let (answer, actions) = machine.lease(deadline: deadline, now: Loop.now)
        switch answer {
        case .lease(let id):
            perform(actions)
            return Lease(id: id, resource: resource(id))
        case .refuse(let refusal):
            perform(actions)
            throw error(refusal)
        case .wait(let id):
            let waiter = Waiter<Lease>()
            waiters[id] = waiter
            perform(actions)
            defer { waiters[id] = nil }
            do {
                return try await waiter.wait(until: deadline)
            } catch is DeadlineExceeded {
                leave(id)
                throw PoolError(
                    pool: name, code: .deadlineExceeded, retryAfter: nil, cause: lastFailure)
            } catch {
                leave(id)
                throw error
            }
        }
    }

    private func leave(_ id: PoolStateMachine.WaiterID) {
        if machine.waiterLeft(id) { show() }
    }

    private func giveBack(_ lease: Lease) {
        perform(
            machine.release(lease.id, isUsable: lease.resource.isUsable, now: Loop.now))
    }

    // MARK: The end

    /// Refuses new leases and waits for those that are out. When the deadline passes, their resources are
    /// closed under them.
    package func shutDown(deadline: Deadline) async {
        perform(machine.shutDown())
        do {
            try await end.wait(until: deadline)
        } catch {
            // In the order of opening, so that the end is the same every time.
            for (_, resource) in resources.sorted(by: { $0.key < $1.key }) { resource.close() }
        }
    }

    package func run() async throws {
        start()
        do {
            try await end.wait(until: .never)
        } catch {
            perform(machine.shutDown())
            for (_, resource) in resources.sorted(by: { $0.key < $1.key }) { resource.close() }
            throw error
        }
    }

    package func shutDown(_ running: RunningService) {
        perform(machine.shutDown())
    }

    // MARK: Actions

    private func perform(_ actions: PoolStateMachine.Actions) {
        for id in actions.closes { close(id) }
        for grant in actions.grants { hand(grant) }
        if let refusal = actions.refusal {
            for id in actions.refused { waiters[id]?.fail(error(refusal)) }
        }
        for id in actions.cancels { tries[id]?.cancel() }
        for id in actions.connects { open(id) }
        for id in actions.checks { check(id) }
        if actions.isShutDown { end.open() }
        show()
        setTimer()
    }

    private func hand(_ grant: PoolStateMachine.Actions.Grant) {
        metrics?.waitTime.observe(grant.waited)
        let lease = Lease(id: grant.resource, resource: resource(grant.resource))
        // He may have been cancelled in this tick; then the next in the queue gets it.
        if waiters[grant.waiter]?.succeed(lease) != true { giveBack(lease) }
    }

    private func open(_ id: PoolStateMachine.ResourceID) {
        let deadline = Deadline.after(machine.configuration.connectTimeout, from: Loop.now)
        let connect = connect
        let task = Loop.shared.spawn {
            do {
                let resource = try await withDeadline(deadline) { try await connect(deadline) }
                self.opened(id, resource)
            } catch {
                self.lastFailure = error
                self.tries[id] = nil
                self.perform(
                    self.machine.connectFailed(id, now: Loop.now, using: &self.random))
            }
        }
        // The try may be over already.
        if machine.isConnecting(id) { tries[id] = task }
    }

    private func opened(_ id: PoolStateMachine.ResourceID, _ resource: Resource) {
        tries[id] = nil
        resources[id] = resource
        lastFailure = nil
        resource.onClose = { [weak self] in
            guard let self else { return }
            perform(machine.closed(id, now: Loop.now))
        }
        perform(machine.connected(id, now: Loop.now))
    }

    private func close(_ id: PoolStateMachine.ResourceID) {
        guard let resource = resources.removeValue(forKey: id) else { return }
        resource.onClose = nil
        resource.close()
    }

    private func check(_ id: PoolStateMachine.ResourceID) {
        let resource = resource(id)
        let deadline = Deadline.after(machine.configuration.connectTimeout, from: Loop.now)
        Loop.shared.spawn {
            var isAlive = true
            do {
                try await withDeadline(deadline) { try await resource.check(deadline: deadline) }
            } catch {
                isAlive = false
            }
            self.perform(
                self.machine.checked(
                    id, isAlive: isAlive && resource.isUsable, now: Loop.now))
        }
    }

    private func setTimer() {
        guard let next = machine.nextTick else {
            timer?.cancel()
            timer = nil
            return
        }
        let deadline = Deadline(next)
        // A timer that comes too early does no harm: it looks, and is set anew.
        if let timer, timer.isPending, timer.deadline <= deadline { return }
        timer?.cancel()
        timer = Loop.shared.schedule(at: deadline) { [weak self] in
            guard let self else { return }
            perform(machine.tick(now: Loop.now))
        }
    }

    private func show() {
        guard let metrics else { return }
        let statistics = machine.statistics
        metrics.update(from: shown, to: statistics)
        shown = statistics
    }

    private func resource(_ id: PoolStateMachine.ResourceID) -> Resource {
        guard let resource = resources[id] else {
            preconditionFailure("pool \(name) lends resource \(id), which is not open")
        }
        return resource
    }

    private func error(_ refusal: PoolStateMachine.Refusal) -> PoolError {
        switch refusal {
        case .circuitOpen(let retryAfter):
            PoolError(pool: name, code: .circuitOpen, retryAfter: retryAfter, cause: lastFailure)
        case .queueFull:
            PoolError(pool: name, code: .queueFull, retryAfter: nil, cause: lastFailure)
        case .shutDown:
            PoolError(pool: name, code: .shutDown, retryAfter: nil, cause: nil)
        }
    }
}
