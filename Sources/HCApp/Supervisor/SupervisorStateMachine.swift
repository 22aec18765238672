import HCCore

/// Decides which worker processes exist: one per slot, replaced when it dies, is stuck or grows too big.
///
/// Pure: events come in with the time, actions come out, and the `Supervisor` carries them out. A slot is a
/// listening socket; its `active` worker serves it, a `successor` is a worker being started to take the
/// slot over, and `retiring` workers finish what they accepted. During a hand-over two workers accept on
/// one socket, so no connection waits in a queue that nobody reads.
///
/// A roll is a number, the `generation`: every worker started from now on has it, and one slot after the other is
/// handed over until no worker has an older one. A roll that is asked for during a roll is thus no special case.
struct SupervisorStateMachine {
    struct Limits: Sendable {
        /// How long a worker may take from its start to its first `ready`.
        var startup: Duration = .seconds(30)
        /// Without a heartbeat for this long a worker counts as stuck (it beats every second).
        var stuckAfter: Duration = .seconds(10)
        /// What a draining worker gets before it is killed. Above the worker's own drain deadline.
        var drain: Duration = .seconds(35)
        /// Resident bytes above which a worker hands its slot over to a successor and drains.
        var memoryBytesMax: Int = 2 << 30
        /// How far above `memoryBytesMax` a worker is killed at the least: a ceiling that is low must leave room for
        /// a drain.
        var memoryBytesSlack: Int = 256 << 20
        /// A worker that lived this long was healthy: its slot's backoff starts again. One that is younger is not
        /// replaced for its memory either: a ceiling below what a worker needs to live must not make it spin.
        var stableAfter: Duration = .seconds(10)
        var restartBackoffFirst: Duration = .milliseconds(100)
        var restartBackoffMax: Duration = .seconds(30)

        /// Resident bytes above which a worker is killed at once, requests in progress and all: it grows faster than
        /// it can be replaced, and the machine goes before its clients.
        var memoryBytesKill: Int { max(2 * memoryBytesMax, memoryBytesMax + memoryBytesSlack) }
    }

    enum Action: Equatable {
        case spawn(slot: Int)
        /// SIGTERM: finish what was accepted, then exit.
        case drain(process: Int32)
        /// SIGKILL, with the reason that the log and the metrics name.
        case kill(process: Int32, reason: KillReason)
        /// Every slot is served by a worker of the latest generation.
        case rollFinished
        /// The other workers go on as they are.
        /// - Parameter isProven: whether any worker of the generation was ever ready. If none was, it is what they
        ///   are started with that does not work.
        case rollAbandoned(isProven: Bool)
        /// Every worker is gone after a `terminate`.
        case exit
    }

    enum KillReason: String, Equatable, CaseIterable {
        case stuck
        case startupTimeout = "startup-timeout"
        case drainTimeout = "drain-timeout"
        case memory
        case impatience
    }

    enum Health: Equatable, Sendable {
        /// Can transition to: ready, draining, killed.
        case starting(deadline: MonotonicTime)
        /// Can transition to: draining, killed.
        case ready(lastHeartbeat: MonotonicTime)
        /// Can transition to: killed.
        case draining(deadline: MonotonicTime)
        /// SIGKILL was sent; only its exit is awaited.
        case killed
    }

    struct Worker: Equatable, Sendable {
        let process: Int32
        let startedAt: MonotonicTime
        let generation: Int
        var health: Health
        /// Whether it was ever ready.
        var hasServed = false
    }

    /// What a worker is to its slot.
    enum Role: String, Sendable, CaseIterable {
        case active, successor, retiring
    }

    /// A worker and its place: what another supervisor needs to know of it to take it over.
    struct Member: Equatable, Sendable {
        var slot: Int
        var role: Role
        var worker: Worker
    }

    fileprivate struct Slot {
        var active: Worker?
        var successor: Worker?
        var retiring: [Worker] = []
        /// A spawn action was given out and its outcome is not known.
        var isSpawning = false
        /// Consecutive deaths of workers that were not stable.
        var failures = 0
        /// When the next worker may be started, while the slot has none.
        var restartAt: MonotonicTime?
    }

    private struct Roll {
        /// The slot that is being handed over.
        var slot: Int?
    }

    private enum Phase {
        /// Can transition to: stopping.
        case running
        /// Can transition to: stopped.
        case stopping(deadline: MonotonicTime)
        case stopped
    }

    /// May change while workers run; what was scheduled by the old ones stays.
    var limits: Limits
    private var slots: [Slot]
    private var phase = Phase.running
    private var roll: Roll?
    /// What a worker that is started now belongs to.
    private(set) var generation: Int
    /// Whether a worker of the present generation was ever ready.
    private(set) var isProven = false

    init(slots count: Int, limits: Limits = Limits()) {
        precondition(count > 0)
        self.limits = limits
        slots = Array(repeating: Slot(), count: count)
        generation = 1
    }

    /// Takes over from a supervisor that ran in this process before, with its workers.
    ///
    /// - Parameter members: each with a slot below `count`, and at most one active worker and one successor a slot.
    init(
        adopting members: [Member], slots count: Int, generation: Int, limits: Limits,
        now: MonotonicTime
    ) {
        self.init(slots: count, limits: limits)
        self.generation = generation
        for member in members {
            var worker = member.worker
            // Nobody listened for a moment: that is not its fault.
            if case .ready = worker.health { worker.health = .ready(lastHeartbeat: now) }
            switch member.role {
            case .active: slots[member.slot].active = worker
            case .successor: slots[member.slot].successor = worker
            case .retiring: slots[member.slot].retiring.append(worker)
            }
        }
    }

    var isRolling: Bool { roll != nil }
    var isRunning: Bool { if case .running = phase { true } else { false } }
    var readyCount: Int { slots.count { $0.active?.isReady ?? false } }
    var slotCount: Int { slots.count }

    /// The workers that can be asked for their metrics.
    var processes: [Int32] { members.map(\.worker.process) }

    var members: [Member] {
        slots.indices.flatMap { index in
            let slot = slots[index]
            return [(Role.active, slot.active), (.successor, slot.successor)].compactMap { entry in
                entry.1.map { Member(slot: index, role: entry.0, worker: $0) }
            } + slot.retiring.map { Member(slot: index, role: .retiring, worker: $0) }
        }
    }

    // MARK: Events

    mutating func start() -> [Action] {
        slots.indices.map { spawn(in: $0) }
    }

    /// After an adoption: workers where there are none, and then every other one is replaced by one of the program
    /// that runs now.
    mutating func resume(now: MonotonicTime) -> [Action] {
        for index in slots.indices where slots[index].active == nil {
            slots[index].restartAt = now
        }
        return hangup(now: now) + restartsDue(now: now)
    }

    mutating func spawned(process: Int32, slot index: Int, now: MonotonicTime) -> [Action] {
        slots[index].isSpawning = false
        let worker = Worker(
            process: process, startedAt: now, generation: generation,
            health: .starting(deadline: now + limits.startup))
        if slots[index].active == nil {
            slots[index].active = worker
        } else {
            slots[index].successor = worker
        }
        guard case .running = phase else { return drainAll(now: now) }
        return []
    }

    mutating func spawnFailed(slot index: Int, now: MonotonicTime) -> [Action] {
        slots[index].isSpawning = false
        if slots[index].active == nil {
            slots[index].failures += 1
            scheduleRestart(slot: index, now: now)
        }
        return startFailed(at: index, generation: generation)
    }

    /// The worker serves requests.
    mutating func ready(process: Int32, now: MonotonicTime) -> [Action] {
        guard let index = slot(of: process) else { return [] }
        if slots[index].active?.process == process {
            guard case .starting = slots[index].active?.health else { return [] }
            slots[index].active?.health = .ready(lastHeartbeat: now)
            slots[index].active?.hasServed = true
            noteReady(slots[index].active)
            return rollOn()
        }
        guard var successor = slots[index].successor, successor.process == process,
            case .starting = successor.health
        else { return [] }
        successor.health = .ready(lastHeartbeat: now)
        successor.hasServed = true
        noteReady(successor)
        slots[index].successor = nil
        var actions: [Action] = []
        if let old = slots[index].active {
            actions += retire(old, slot: index, now: now)
        }
        slots[index].active = successor
        return actions + rollOn()
    }

    mutating func heartbeat(process: Int32, residentBytes: Int, now: MonotonicTime) -> [Action] {
        guard let index = slot(of: process) else { return [] }
        slots[index].update(process) { worker in
            if case .ready = worker.health { worker.health = .ready(lastHeartbeat: now) }
        }
        guard residentBytes > limits.memoryBytesMax else { return [] }
        if residentBytes > limits.memoryBytesKill {
            return kill(process, slot: index, reason: .memory)
        }
        guard case .running = phase, let active = slots[index].active, active.process == process,
            active.isReady, now - active.startedAt >= limits.stableAfter,
            slots[index].successor == nil, !slots[index].isSpawning
        else { return [] }
        return [spawn(in: index)]
    }

    mutating func exited(process: Int32, now: MonotonicTime) -> [Action] {
        guard let index = slot(of: process) else { return [] }
        var actions: [Action] = []
        if let worker = slots[index].active, worker.process == process {
            slots[index].active = slots[index].successor
            slots[index].successor = nil
            noteDeath(of: worker, slot: index, now: now)
            if slots[index].active == nil { scheduleRestart(slot: index, now: now) }
            if !worker.hasServed { actions += startFailed(at: index, worker) }
        } else if let worker = slots[index].successor, worker.process == process {
            slots[index].successor = nil
            noteDeath(of: worker, slot: index, now: now)
            actions += startFailed(at: index, worker)
        } else {
            slots[index].retiring.removeAll { $0.process == process }
        }
        if case .stopping = phase, processes.isEmpty {
            phase = .stopped
            actions.append(.exit)
        }
        return actions + rollOn() + restartsDue(now: now)
    }

    /// Time passed. Called at least every second.
    mutating func tick(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for index in slots.indices {
            for (process, reason) in slots[index].overdue(limits, now: now) {
                actions += kill(process, slot: index, reason: reason)
            }
        }
        if case .stopping(let deadline) = phase, now >= deadline {
            actions += killAll(reason: .drainTimeout)
        }
        return actions + restartsDue(now: now)
    }

    /// SIGHUP: replaces every worker, one slot after the other, each by a successor that is ready first.
    /// A successor that dies abandons the roll: the old workers go on. During a roll it begins a further one, which
    /// those workers that the first has made are part of.
    mutating func hangup(now: MonotonicTime) -> [Action] {
        guard case .running = phase else { return [] }
        generation += 1
        isProven = false
        if roll == nil { roll = Roll() }
        return rollOn()
    }

    /// SIGTERM: drains every worker. A second one kills them.
    mutating func terminate(now: MonotonicTime) -> [Action] {
        switch phase {
        case .running:
            phase = .stopping(deadline: now + limits.drain)
            roll = nil
            for index in slots.indices { slots[index].restartAt = nil }
            if processes.isEmpty && !slots.contains(where: \.isSpawning) {
                phase = .stopped
                return [.exit]
            }
            return drainAll(now: now)
        case .stopping:
            return killAll(reason: .impatience)
        case .stopped:
            return []
        }
    }

    // MARK: Details

    private func slot(of process: Int32) -> Int? {
        slots.firstIndex { slot in
            slot.active?.process == process || slot.successor?.process == process
                || slot.retiring.contains { $0.process == process }
        }
    }

    private mutating func spawn(in index: Int) -> Action {
        slots[index].isSpawning = true
        slots[index].restartAt = nil
        return .spawn(slot: index)
    }

    private mutating func retire(_ worker: Worker, slot index: Int, now: MonotonicTime) -> [Action]
    {
        var worker = worker
        guard worker.isServing else {
            slots[index].retiring.append(worker)
            return []
        }
        worker.health = .draining(deadline: now + limits.drain)
        slots[index].retiring.append(worker)
        return [.drain(process: worker.process)]
    }

    private mutating func drainAll(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for index in slots.indices {
            for process in slots[index].serving {
                slots[index].update(process) { $0.health = .draining(deadline: now + limits.drain) }
                actions.append(.drain(process: process))
            }
        }
        return actions
    }

    private mutating func kill(_ process: Int32, slot index: Int, reason: KillReason) -> [Action] {
        var actions: [Action] = []
        slots[index].update(process) { worker in
            if case .killed = worker.health { return }
            worker.health = .killed
            actions.append(.kill(process: process, reason: reason))
        }
        return actions
    }

    private mutating func killAll(reason: KillReason) -> [Action] {
        var actions: [Action] = []
        for process in processes {
            guard let index = slot(of: process) else { continue }
            actions += kill(process, slot: index, reason: reason)
        }
        return actions
    }

    private mutating func noteDeath(of worker: Worker, slot index: Int, now: MonotonicTime) {
        if now - worker.startedAt >= limits.stableAfter {
            slots[index].failures = 0
        } else {
            slots[index].failures += 1
        }
    }

    /// A worker that was stable is replaced at once; one that keeps dying waits twice as long each time.
    private mutating func scheduleRestart(slot index: Int, now: MonotonicTime) {
        guard case .running = phase else { return }
        let failures = slots[index].failures
        guard failures > 0 else {
            slots[index].restartAt = now
            return
        }
        let doublings = min(failures - 1, 16)
        let delay = min(limits.restartBackoffFirst * (1 << doublings), limits.restartBackoffMax)
        slots[index].restartAt = now + delay
    }

    private mutating func restartsDue(now: MonotonicTime) -> [Action] {
        guard case .running = phase else { return [] }
        var actions: [Action] = []
        for index in slots.indices {
            guard let due = slots[index].restartAt, due <= now, !slots[index].isSpawning else {
                continue
            }
            actions.append(spawn(in: index))
        }
        return actions
    }

    private mutating func noteReady(_ worker: Worker?) {
        if worker?.generation == generation { isProven = true }
    }

    /// Begins the next hand-over of the roll, if it is time for it, or ends the roll.
    private mutating func rollOn() -> [Action] {
        guard case .running = phase, let roll else { return [] }
        if let index = roll.slot, slots[index].isInHandOver { return [] }
        self.roll?.slot = nil
        var isComplete = true
        for index in slots.indices {
            // Where a worker is being started or has died, its `ready` or its successor's goes on here.
            guard let active = slots[index].active, active.isReady, slots[index].successor == nil,
                !slots[index].isSpawning
            else {
                isComplete = false
                continue
            }
            guard active.generation < generation else { continue }
            self.roll?.slot = index
            return [spawn(in: index)]
        }
        guard isComplete else { return [] }
        self.roll = nil
        return [.rollFinished]
    }

    private mutating func startFailed(at index: Int, _ worker: Worker) -> [Action] {
        startFailed(at: index, generation: worker.generation)
    }

    /// A worker that the roll depends on has died before it served, or could not be started.
    private mutating func startFailed(at index: Int, generation failed: Int) -> [Action] {
        guard let roll, roll.slot == index || (failed == generation && !isProven) else { return [] }
        self.roll = nil
        return [.rollAbandoned(isProven: isProven)]
    }
}

extension SupervisorStateMachine.Worker {
    fileprivate var isReady: Bool {
        if case .ready = health { return true }
        return false
    }

    /// Whether it still takes a drain: started or ready, not draining or killed.
    fileprivate var isServing: Bool {
        switch health {
        case .starting, .ready: true
        case .draining, .killed: false
        }
    }
}

extension SupervisorStateMachine.Slot {
    /// Whether a successor is on its way or the one before has not left. A slot whose worker died is not: it gets
    /// another by itself.
    fileprivate var isInHandOver: Bool {
        isSpawning || successor != nil || !retiring.isEmpty || active?.hasServed == false
    }

    fileprivate var serving: [Int32] {
        ([active, successor].compactMap { $0 } + retiring).filter(\.isServing).map(\.process)
    }

    fileprivate mutating func update(
        _ process: Int32, _ change: (inout SupervisorStateMachine.Worker) -> Void
    ) {
        if active?.process == process {
            active.mutate(change)
        } else if successor?.process == process {
            successor.mutate(change)
        } else if let position = retiring.firstIndex(where: { $0.process == process }) {
            change(&retiring[position])
        }
    }

    fileprivate func overdue(
        _ limits: SupervisorStateMachine.Limits, now: MonotonicTime
    ) -> [(Int32, SupervisorStateMachine.KillReason)] {
        ([active, successor].compactMap { $0 } + retiring).compactMap { worker in
            switch worker.health {
            case .starting(let deadline):
                now >= deadline ? (worker.process, .startupTimeout) : nil
            case .ready(let lastHeartbeat):
                now - lastHeartbeat >= limits.stuckAfter ? (worker.process, .stuck) : nil
            case .draining(let deadline):
                now >= deadline ? (worker.process, .drainTimeout) : nil
            case .killed:
                nil
            }
        }
    }
}

extension Optional {
    fileprivate mutating func mutate(_ change: (inout Wrapped) -> Void) {
        guard var value = self else { return }
        change(&value)
        self = value
    }
}
