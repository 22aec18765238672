import HCCore

/// Decides which worker processes exist: one per slot, replaced when it dies, is stuck or grows too big.
///
/// Pure: events come in with the time, actions come out, and the `Supervisor` carries them out. A slot is a
/// listening socket; its `active` worker serves it, a `successor` is a worker being started to take the
/// slot over, and `retiring` workers finish what they accepted. During a hand-over two workers accept on
/// one socket, so no connection waits in a queue that nobody reads.
struct SupervisorStateMachine {
    struct Limits: Sendable {
        /// How long a worker may take from its start to its first `ready`.
        var startup: Duration = .seconds(30)
        /// Without a heartbeat for this long a worker counts as stuck (it beats every second).
        var stuckAfter: Duration = .seconds(10)
        /// What a draining worker gets before it is killed. Above the worker's own drain deadline.
        var drain: Duration = .seconds(35)
        /// Resident bytes above which a worker is replaced. At half as much again it is killed at once.
        var memoryBytesMax: Int = 2 << 30
        /// A worker that lived this long was healthy: its slot's backoff starts again.
        var stableAfter: Duration = .seconds(10)
        var restartBackoffFirst: Duration = .milliseconds(100)
        var restartBackoffMax: Duration = .seconds(30)
    }

    enum Action: Equatable {
        case spawn(slot: Int)
        /// SIGTERM: finish what was accepted, then exit.
        case drain(process: Int32)
        /// SIGKILL, with the reason that the log and the metrics name.
        case kill(process: Int32, reason: KillReason)
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

    fileprivate enum Health {
        /// Can transition to: ready, gone.
        case starting(deadline: MonotonicTime)
        /// Can transition to: draining, gone.
        case ready(lastHeartbeat: MonotonicTime)
        /// Can transition to: gone.
        case draining(deadline: MonotonicTime)
        /// SIGKILL was sent; only its exit is awaited.
        case killed
    }

    fileprivate struct Worker {
        let process: Int32
        let startedAt: MonotonicTime
        var health: Health
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

    private enum Phase {
        /// Can transition to: stopping.
        case running
        /// Can transition to: stopped.
        case stopping(deadline: MonotonicTime)
        case stopped
    }

    private let limits: Limits
    private var slots: [Slot]
    private var phase = Phase.running
    /// Slots that a roll has still to visit; the first one is being rolled.
    private var roll: [Int] = []

    init(slots count: Int, limits: Limits = Limits()) {
        precondition(count > 0)
        self.limits = limits
        slots = Array(repeating: Slot(), count: count)
    }

    var isRolling: Bool { !roll.isEmpty }
    var readyCount: Int { slots.count { $0.active?.isReady ?? false } }
    var slotCount: Int { slots.count }

    /// The workers that can be asked for their metrics.
    var processes: [Int32] {
        slots.flatMap { slot in
            ([slot.active, slot.successor].compactMap { $0 } + slot.retiring).map(\.process)
        }
    }

    // MARK: Events

    mutating func start() -> [Action] {
        slots.indices.map { spawn(in: $0) }
    }

    mutating func spawned(process: Int32, slot index: Int, now: MonotonicTime) -> [Action] {
        slots[index].isSpawning = false
        let worker = Worker(
            process: process, startedAt: now, health: .starting(deadline: now + limits.startup))
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
        scheduleRestart(slot: index, now: now)
        return abandonRoll(at: index)
    }

    /// The worker serves requests.
    mutating func ready(process: Int32, now: MonotonicTime) -> [Action] {
        guard let index = slot(of: process) else { return [] }
        if slots[index].active?.process == process {
            slots[index].active?.health = .ready(lastHeartbeat: now)
            return continueRoll(after: index)
        }
        guard var successor = slots[index].successor, successor.process == process else {
            return []
        }
        successor.health = .ready(lastHeartbeat: now)
        slots[index].successor = nil
        var actions: [Action] = []
        if let old = slots[index].active {
            actions += retire(old, slot: index, now: now)
        }
        slots[index].active = successor
        return actions
    }

    mutating func heartbeat(process: Int32, residentBytes: Int, now: MonotonicTime) -> [Action] {
        guard let index = slot(of: process) else { return [] }
        slots[index].update(process) { worker in
            if case .ready = worker.health { worker.health = .ready(lastHeartbeat: now) }
        }
        guard residentBytes > limits.memoryBytesMax else { return [] }
        if residentBytes > limits.memoryBytesMax / 2 * 3 {
            return kill(process, slot: index, reason: .memory)
        }
        guard case .running = phase, slots[index].active?.process == process,
            slots[index].active?.isReady == true, slots[index].successor == nil,
            !slots[index].isSpawning
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
            if case .starting = worker.health { actions += abandonRoll(at: index) }
        } else if let worker = slots[index].successor, worker.process == process {
            slots[index].successor = nil
            noteDeath(of: worker, slot: index, now: now)
            actions += abandonRoll(at: index)
        } else {
            slots[index].retiring.removeAll { $0.process == process }
            actions += continueRoll(after: index)
        }
        if case .stopping = phase, processes.isEmpty {
            phase = .stopped
            actions.append(.exit)
        }
        return actions + restartsDue(now: now)
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
    /// A successor that dies abandons the roll: the old workers go on.
    mutating func hangup(now: MonotonicTime) -> [Action] {
        guard case .running = phase, roll.isEmpty else { return [] }
        roll = Array(slots.indices)
        return rollNext()
    }

    /// SIGTERM: drains every worker. A second one kills them.
    mutating func terminate(now: MonotonicTime) -> [Action] {
        switch phase {
        case .running:
            phase = .stopping(deadline: now + limits.drain)
            roll = []
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

    private mutating func rollNext() -> [Action] {
        while let index = roll.first {
            // A slot without a worker, or with a successor on its way, gets a new one anyway.
            guard slots[index].active?.isReady == true, slots[index].successor == nil,
                !slots[index].isSpawning
            else {
                roll.removeFirst()
                continue
            }
            return [spawn(in: index)]
        }
        return []
    }

    /// The slot being rolled is done when its new worker is ready and its old one is gone.
    private mutating func continueRoll(after index: Int) -> [Action] {
        guard roll.first == index, slots[index].successor == nil, slots[index].retiring.isEmpty,
            !slots[index].isSpawning, slots[index].active?.isReady == true
        else { return [] }
        roll.removeFirst()
        return rollNext()
    }

    private mutating func abandonRoll(at index: Int) -> [Action] {
        if roll.first == index { roll = [] }
        return []
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
