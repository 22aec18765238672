/// The protocol of a move as transitions between ``World``s: what movers do, one statement at a time, and what may
/// happen around them. Routers hold any map that ever was; writers are transactions that are open for as long as they
/// like; messages are as late as they like.
struct MoveModel {
    /// What may happen, and from where.
    struct Scenario {
        var name: String
        var start: World
        var hasLateWriters = true
        /// Servers have standbys that follow asynchronously.
        var hasStandbys = false
        var attemptMax: UInt8 = 2
        var pauseMax: UInt8 = 2
        /// A commit does not wait for them.
        var areStandbysLate = false
        var mayBeAborted = false
        /// Each begin and each end of a pause is another attempt: instead of ``MoveRule/unknownEndsAttempt``, which is
        /// then not kept.
        var isPauseAttempt = false
        /// The control database may be away in a pause.
        var mayOpenAlone = false
    }

    /// What happened, for a trace: an action of a mover or one of these.
    enum Event: Equatable {
        case act(mover: Int, Action, refused: Bool)
        case giveUpInstead(mover: Int)
        case loseAnswer(mover: Int, Action)
        case leaveBehind(mover: Int, Action)
        case ghostActs(Action, refused: Bool)
        case takeOver(mover: Int)
        case wantAbort
        case snapshot(writer: Int)
        case enter(writer: Int, shard: Int)
        case commit(writer: Int, shard: Int)
        case apply
        case flush
        case syncStandby(Int)
        case crash(Int)
        case failOver(Int)
        case reconcile(Int)
        case recall(Int)
    }

    struct Step {
        var event: Event
        var world: World
        var violation: String?
    }

    let scenario: Scenario
    let removed: Set<MoveRule>
    // Looked up in every transition.
    private let knowsAttempt: Bool
    private let epochGrows: Bool
    private let hasGate: Bool

    init(_ scenario: Scenario, without removed: Set<MoveRule> = []) {
        self.scenario = scenario
        self.removed = removed
        knowsAttempt = !removed.contains(.shardsKnowAttempt)
        epochGrows = !removed.contains(.epochGrows)
        hasGate = !removed.contains(.identityGate)
    }

    private func keeps(_ rule: MoveRule) -> Bool { !removed.contains(rule) }

    private func origin(_ mover: MoverState) -> Int { mover.base % 2 == 1 ? 0 : 1 }
    private func next(_ base: UInt8) -> UInt8 { epochGrows ? base + 1 : base }

    // MARK: Who is let in

    /// Whether some map that ever was leads here and is taken for current.
    private func isKnown(_ world: World, _ shard: Int) -> Bool {
        let here = world[shard: shard]
        if here.isForeign && hasGate { return false }
        guard epochGrows else { return shard == 0 || world.placement == 1 }
        return here.epoch <= world.epoch && Int(here.epoch + 1) % 2 == shard
    }

    func admitsWriters(_ world: World, _ shard: Int) -> Bool {
        world[shard: shard].door == .rw && isKnown(world, shard)
    }

    func admitsReaders(_ world: World, _ shard: Int) -> Bool {
        switch world[shard: shard].door {
        case .rw, .draining, .fenced: isKnown(world, shard)
        default: false
        }
    }

    /// The move is over or soaks, and the clinic is served where the map says, and only there.
    func isSettled(_ world: World) -> Bool {
        let shard = world.placement
        return (world.step.isOver || world.step == .soaking) && admitsWriters(world, shard)
            && world[shard: shard].epoch == world.epoch && !admitsWriters(world, 1 - shard)
    }

    /// What must hold at every instant.
    func violation(_ world: World) -> String? {
        if world.a.door == .rw && world.b.door == .rw
            && !(hasGate && (world.a.isForeign || world.b.isForeign))
        {
            return "I1: two shards serve the clinic"
        }
        let owed = world.acknowledged & ~world.excused
        for shard in 0...1
        where admitsReaders(world, shard) && owed & ~world[shard: shard].data != 0 {
            return admitsWriters(world, shard)
                ? "I3: an acknowledged write is not where the clinic is served"
                : "a reader does not see an acknowledged write"
        }
        return nil
    }

    /// Whether a shard has everything that had come to it at the commit point.
    private func isWhole(_ world: World, _ shard: Int) -> Bool {
        world.arrived & ~world[shard: shard].data == 0
    }

    // MARK: What movers do

    /// The effect of one statement; nil: it waits.
    ///
    /// - Returns: whether it found what it names, and what it has broken.
    private func perform(
        _ mover: MoverState, in world: inout World
    ) -> (isDone: Bool, violation: String?)? {
        let (from, to) = (origin(mover), 1 - origin(mover))
        var violation: String?
        func isMine(_ shard: ShardState, exactly: Bool = false) -> Bool {
            !knowsAttempt
                || (exactly ? shard.attempt == mover.attempt : shard.attempt <= mover.attempt)
        }
        func set(_ shard: Int, _ door: Door, epoch: UInt8? = nil) {
            let before = world[shard: shard]
            world[shard: shard].door = door
            world[shard: shard].attempt = mover.attempt
            if let epoch {
                world[shard: shard].epoch = epoch
                if epoch < before.epoch { violation = "I5: an epoch falls" }
            }
        }
        func record(_ steps: ModelStep..., to step: ModelStep) -> Bool {
            guard steps.contains(world.step), world.attempt == mover.attempt else { return false }
            world.step = step
            return true
        }
        func flush() {
            world.durable = world.applied
            world.durableData = world[shard: to].data
        }
        func syncStandby(_ shard: Int) { self.syncStandby(shard, in: &world) }

        switch mover.action {
        case .none: return nil
        case .reserve:
            let here = world[shard: to]
            guard isMine(here), [.absent, .incoming, .moved].contains(here.door),
                here.epoch <= mover.base
            else { return (false, nil) }
            set(to, .incoming, epoch: mover.base)
            return (record(.returning, to: .verified), violation)
        case .beginPause:
            guard world.step == .verified, world.attempt == mover.attempt else {
                return (false, nil)
            }
            guard world.pauses < scenario.pauseMax else { return nil }
            world.step = .gating
            world.pauses += 1
            if scenario.isPauseAttempt { world.attempt += 1 }
            return (true, nil)
        case .gate:
            let here = world[shard: from]
            guard isMine(here), here.epoch == mover.base, [.rw, .draining].contains(here.door)
            else { return (false, nil) }
            set(from, .draining)
            return (true, nil)
        case .fence, .fenceBehindBarrier:
            let here = world[shard: from]
            let inside: WriterState = from == 0 ? .insideA : .insideB
            let waits = world.writerA == inside || world.writerB == inside
            let isEarly = mover.action == .fence && !keeps(.barrierBehindWriters)
            if waits && keeps(.fenceWaitsForWriters) && !isEarly { return nil }
            guard isMine(here, exactly: true), here.epoch == mover.base, here.door == .draining
            else { return (false, nil) }
            if mover.action == .fence { world.append(1 + mover.pause) }
            if isEarly { return (true, nil) }
            set(from, .fenced)
            if keeps(.doorIsKey) && from == 0 {
                if world.writerA == .snapshotA { world.writerA = .staleSnapshotA }
                if world.writerB == .snapshotA { world.writerB = .staleSnapshotA }
            }
            return (true, nil)
        case .drain:
            var index: UInt8 = 0
            while index < world.applied {
                let entry = world.entry(index)
                if entry == 1 + mover.pause || entry >= 2 && !keeps(.barrierOfThisTry) {
                    return (true, nil)
                }
                index += 1
            }
            return nil
        case .makeDurable:
            guard isMine(world[shard: to]), world[shard: to].door == .incoming else {
                return (false, nil)
            }
            world.arrived = world[shard: to].data
            guard keeps(.durableBeforeCommit) else { return (true, nil) }
            set(to, .incoming)
            flush()
            if keeps(.standbyBeforeCommit) && !scenario.areStandbysLate { syncStandby(to) }
            return (true, violation)
        case .handOver:
            let here = world[shard: from]
            guard isMine(here, exactly: true), here.epoch == mover.base, here.door == .fenced
            else { return (false, nil) }
            if keeps(.readersWaitAtHandover) { set(from, .handover) }
            return (true, nil)
        case .checkIdentities:
            let areTheSame = !world.a.isForeign && !world.b.isForeign
            return (areTheSame || !keeps(.identitiesAfterDrain), nil)
        case .commit:
            guard world.epoch == mover.base, world.placement == from,
                world.step == .gating || !keeps(.commitNamesStep),
                world.attempt == mover.attempt || !keeps(.commitNamesAttempt),
                !world.isAbortWanted || !keeps(.commitRefusesAbort)
            else { return (false, nil) }
            // A standby that took over in between may lack it: then the clinic is taken back.
            let there = scenario.areStandbysLate ? world.arrived : world[shard: to].data
            if world.acknowledged & ~world.excused & ~there != 0 {
                violation =
                    "I3: an acknowledged write is not on the destination at the commit point"
            }
            world.step = .committed
            world.epoch = next(mover.base)
            world.placement = to
            return (true, violation)
        case .findOut:
            return (world.step == .committed, nil)
        case .giveUp, .takeGiveUp:
            guard record(.gating, to: .verified) else { return (false, nil) }
            if scenario.isPauseAttempt { world.attempt += 1 }
            return (true, nil)
        case .reopen, .abortReopen, .takeReopen:
            let here = world[shard: from]
            guard isMine(here), here.epoch == mover.base,
                [.rw, .draining, .fenced, .handover].contains(here.door)
            else { return (false, nil) }
            set(from, .rw)
            return (true, nil)
        case .openAlone:
            let here = world[shard: from]
            let number = mover.attempt + (keeps(.openAloneAsNext) ? 1 : 0)
            guard !knowsAttempt || here.attempt <= number, here.epoch == mover.base,
                [.rw, .draining, .fenced, .handover].contains(here.door)
            else { return (false, nil) }
            set(from, .rw)
            world[shard: from].attempt = number
            return (true, nil)
        case .open:
            let here = world[shard: to]
            guard isMine(here),
                here.door == .incoming || here.epoch == next(mover.base) && here.door == .rw,
                here.door == .rw || isWhole(world, to) || !keeps(.openSeesArrival)
            else { return (false, nil) }
            set(to, .rw, epoch: next(mover.base))
            flush()
            return (true, violation)
        case .recordOpened: return (record(.committed, to: .opened), nil)
        case .leave:
            let here = world[shard: from]
            guard isMine(here),
                [.handover, .moved].contains(here.door)
                    || here.door == .fenced && !keeps(.readersWaitAtHandover)
            else { return (false, nil) }
            set(from, .moved, epoch: next(mover.base))
            return (true, violation)
        case .switchStream:
            guard record(.opened, to: .soaking) else { return (false, nil) }
            world.streamIsAlive = false
            return (true, nil)
        case .endSoak:
            let there = world[shard: to]
            if there.epoch != world.epoch && keeps(.purgeSeesArrival) { return (false, nil) }
            if scenario.hasStandbys, !there.isForeign, keeps(.purgeSeesStandby),
                world.arrived & ~there.standbyData != 0
            {
                return nil
            }
            return (record(.soaking, to: .purging), nil)
        case .purgeOrigin: return purge(from, mover, in: &world)
        case .purgeDestination, .lateFirstPurge:
            return purge(to, mover, in: &world)
        case .recordFinished: return (record(.purging, to: .finished), nil)
        case .beginAbort: return (record(.returning, .verified, to: .aborting), nil)
        case .abortStream:
            guard world.step == .aborting, world.attempt == mover.attempt else {
                return (false, nil)
            }
            world.streamIsAlive = false
            return (true, nil)
        case .dismiss:
            if isMine(world[shard: to]), world[shard: to].door == .incoming { set(to, .absent) }
            return (true, nil)
        case .recordAborted: return (record(.aborting, to: .aborted), nil)
        }
    }

    private func purge(
        _ shard: Int, _ mover: MoverState, in world: inout World
    ) -> (isDone: Bool, violation: String?) {
        let here = world[shard: shard]
        guard [.absent, .incoming, .moved].contains(here.door),
            here.attempt <= mover.attempt || !keeps(.purgeKnowsAttempt)
        else { return (false, nil) }
        world[shard: shard].data = 0
        if shard != origin(mover) { world.durableData = 0 }
        let isServed = world.placement == shard
        return (true, isServed ? "I8: rows are removed where the clinic is placed" : nil)
    }

    private func syncStandby(_ shard: Int, in world: inout World) {
        let here = world[shard: shard]
        world[shard: shard].standbyDoor = here.door
        world[shard: shard].standbyEpoch = here.epoch
        world[shard: shard].standbyAttempt = here.attempt
        // Of a shard that a stream is applied to, only what is on its disk goes to its standby.
        if shard == destination {
            world[shard: shard].standbyData = world.durableData
            world.standbyApplied = world.durable
        } else {
            world[shard: shard].standbyData = here.data
        }
    }

    /// Of the stream.
    private var destination: Int { scenario.start.epoch % 2 == 1 ? 1 : 0 }

    /// Where the mover goes on.
    private func following(_ mover: MoverState, isDone: Bool, in world: World) -> MoverState {
        var mover = mover
        let action = mover.action
        mover.action = following(mover.action, isDone: isDone, mover, in: world)
        if mover.action == .gate && isDone { mover.pause = world.pauses }
        if isDone, scenario.isPauseAttempt, [.beginPause, .giveUp, .takeGiveUp].contains(action) {
            mover.attempt = world.attempt
        }
        if mover.action == .none { mover = MoverState() }
        return mover
    }

    private func following(
        _ action: Action, isDone: Bool, _ mover: MoverState, in world: World
    ) -> Action {
        switch action {
        case .none: return .none
        case .reserve: return isDone ? .beginPause : .none
        case .beginPause: return isDone ? .gate : .none
        case .gate: return isDone ? .fence : .giveUp
        case .fence:
            guard isDone else { return .giveUp }
            return keeps(.barrierBehindWriters) ? .drain : .fenceBehindBarrier
        case .fenceBehindBarrier: return isDone ? .drain : .giveUp
        case .drain: return .makeDurable
        case .makeDurable: return isDone ? .handOver : .none
        case .handOver: return isDone ? .checkIdentities : .giveUp
        case .checkIdentities:
            guard isDone else { return .giveUp }
            return keeps(.openAfterCommit) ? .commit : .open
        case .commit:
            guard isDone else {
                return world.attempt == mover.attempt || !keeps(.commitNamesAttempt)
                    ? .giveUp : .none
            }
            return keeps(.openAfterCommit) ? .open : .recordOpened
        case .findOut: return isDone ? .open : .giveUp
        case .giveUp:
            if isDone { return .reopen }
            return world.step == .committed && world.attempt == mover.attempt ? .open : .none
        case .reopen: return isDone ? .beginPause : .none
        // When the control database is back, or somebody else has taken it over by then.
        case .openAlone: return .giveUp
        case .open:
            guard isDone else { return .none }
            return keeps(.openAfterCommit) || world.step == .committed ? .recordOpened : .commit
        case .recordOpened: return isDone ? .leave : .none
        case .leave: return isDone ? .switchStream : .none
        case .switchStream: return isDone ? .endSoak : .none
        case .endSoak: return isDone ? .purgeOrigin : .none
        case .purgeOrigin: return isDone ? .recordFinished : .none
        case .beginAbort: return isDone ? .abortReopen : .none
        case .abortReopen: return isDone ? .abortStream : .none
        case .abortStream: return isDone ? .purgeDestination : .none
        case .purgeDestination: return isDone ? .dismiss : .none
        case .dismiss: return .recordAborted
        case .takeGiveUp: return isDone ? .takeReopen : .none
        case .takeReopen:
            guard isDone else { return .none }
            switch world.step {
            case .returning: return .reserve
            case .aborting: return .abortReopen
            default: return .beginPause
            }
        case .recordFinished, .recordAborted, .lateFirstPurge: return .none
        }
    }

    /// Where a process that takes the move over begins.
    private func resumption(_ step: ModelStep) -> Action {
        switch step {
        case .returning, .verified, .aborting: .takeReopen
        case .gating: .takeGiveUp
        case .committed: .open
        case .opened: .leave
        case .soaking: .endSoak
        case .purging: .purgeOrigin
        case .finished, .aborted: .none
        }
    }

    private static let isMovedByGhosts: Set<Action> = [
        .gate, .fence, .makeDurable, .handOver, .commit, .giveUp, .reopen, .open, .leave,
        .beginPause, .openAlone,
    ]

    /// From the gate on to where the commit is sent.
    private static let hasNotCommitted: Set<Action> = [
        .gate, .fence, .fenceBehindBarrier, .drain, .makeDurable, .handOver, .checkIdentities,
        .commit,
    ]

    private func moverSteps(_ number: Int, _ world: World, _ emit: (Step) -> Void) {
        let mover = world[mover: number]
        guard mover.action != .none else { return }
        var after = world
        if let (isDone, broken) = perform(mover, in: &after) {
            after[mover: number] = following(mover, isDone: isDone, in: after)
            emit(
                Step(
                    event: .act(mover: number, mover.action, refused: !isDone), world: after,
                    violation: broken))
            if isDone, mover.action == .commit, world.lostAnswers > 0 {
                after[mover: number] = mover
                after[mover: number].action = keeps(.giveUpBeforeReopening) ? .findOut : .reopen
                after.lostAnswers -= 1
                emit(
                    Step(
                        event: .loseAnswer(mover: number, mover.action), world: after,
                        violation: broken))
            }
        }
        // The deadline of the pause passes.
        if [.fence, .fenceBehindBarrier, .drain].contains(mover.action) {
            var after = world
            after[mover: number].action = keeps(.giveUpBeforeReopening) ? .giveUp : .reopen
            emit(Step(event: .giveUpInstead(mover: number), world: after))
        }
        if scenario.mayOpenAlone,
            Self.hasNotCommitted.contains(mover.action)
                || mover.action == .findOut && !keeps(.openAloneUnsent)
        {
            var after = world
            after[mover: number].action = .openAlone
            emit(Step(event: .giveUpInstead(mover: number), world: after))
        }
        if mover.action == .beginPause, world.attempt == mover.attempt, world.step == .verified,
            world.isAbortWanted || world.pauses == scenario.pauseMax
                || world.a.isForeign || world.b.isForeign || !world.streamIsAlive
        {
            var after = world
            after[mover: number].action = .beginAbort
            emit(Step(event: .giveUpInstead(mover: number), world: after))
        }
        // The answer does not come, and the statement is not done either, yet.
        if world.ghosts > 0, number == 0, world.ghost.action == .none,
            Self.isMovedByGhosts.contains(mover.action)
        {
            var after = world
            after.ghosts -= 1
            after.ghost = mover
            if keeps(.unknownEndsAttempt) && !scenario.isPauseAttempt {
                after[mover: number] = MoverState()
            } else {
                switch mover.action {
                case .gate, .fence, .makeDurable, .handOver: after[mover: number].action = .giveUp
                case .commit: after[mover: number].action = .findOut
                case .openAlone: after[mover: number].action = .giveUp
                default: break
                }
            }
            emit(Step(event: .leaveBehind(mover: number, mover.action), world: after))
        }
    }

    // MARK: What else happens

    func steps(from world: World, _ emit: (Step) -> Void) {
        moverSteps(0, world, emit)
        moverSteps(1, world, emit)
        if world.ghost.action != .none {
            var after = world
            after.ghost = MoverState()
            var ghost = world.ghost
            if ghost.pause == 0 { ghost.pause = world.pauses }
            if let (isDone, broken) = perform(ghost, in: &after) {
                emit(
                    Step(
                        event: .ghostActs(ghost.action, refused: !isDone), world: after,
                        violation: broken))
            }
        }
        claim(world, emit)
        if scenario.mayBeAborted, !world.isAbortWanted, world.step.isBeforeCommit {
            var after = world
            after.isAbortWanted = true
            emit(Step(event: .wantAbort, world: after))
        }
        writerSteps(0, world, emit)
        writerSteps(1, world, emit)
        streamSteps(world, emit)
        serverSteps(world, emit)
    }

    /// A process takes the move over: the lease has run out, or its owner has ended.
    private func claim(_ world: World, _ emit: (Step) -> Void) {
        guard !world.step.isOver else { return }
        let isNew = world.attempt < scenario.attemptMax
        guard world.second.action == .none, isNew || world.attempt > 1 else { return }
        var after = world
        if isNew { after.attempt += 1 }
        after.second = MoverState(
            action: resumption(world.step), attempt: after.attempt,
            base: scenario.start.epoch)
        emit(Step(event: .takeOver(mover: 1), world: after))
    }

    private func writerSteps(_ number: Int, _ world: World, _ emit: (Step) -> Void) {
        let bit: UInt8 = 1 << number
        func become(_ state: WriterState, _ event: Event) {
            var after = world
            after.setWriter(number, state)
            emit(Step(event: event, world: after))
        }
        switch world.writer(number) {
        case .done: return
        case .outside:
            for shard in 0...1 where admitsWriters(world, shard) {
                become(shard == 0 ? .insideA : .insideB, .enter(writer: number, shard: shard))
            }
            if number == 0, scenario.hasLateWriters, admitsWriters(world, 0) {
                become(.snapshotA, .snapshot(writer: number))
            }
        case .snapshotA: become(.insideA, .enter(writer: number, shard: 0))
        case .staleSnapshotA: become(.outside, .enter(writer: number, shard: 0))
        case .insideA, .insideB:
            let shard = world.writer(number) == .insideA ? 0 : 1
            var after = world
            after.setWriter(number, .done)
            after.acknowledged |= bit
            after[shard: shard].data |= bit
            if shard == destination {
                after.durableData |= bit
            } else if world.streamIsAlive {
                after.append(UInt8(number))
            }
            emit(
                Step(
                    event: .commit(writer: number, shard: shard), world: after,
                    violation: world.placement == shard
                        ? nil : "I2: a write is committed where the clinic no longer is"))
        }
    }

    private func streamSteps(_ world: World, _ emit: (Step) -> Void) {
        if world.streamIsAlive, world.applied < world.logCount {
            var after = world
            let entry = world.entry(world.applied)
            if entry < 2 { after[shard: destination].data |= 1 << entry }
            after.applied += 1
            emit(Step(event: .apply, world: after))
        }
        if scenario.start.targetCrashes > 0 || scenario.hasStandbys,
            world.durable != world.applied
                || world.durableData != world[shard: destination].data
        {
            var after = world
            after.durable = world.applied
            after.durableData = world[shard: destination].data
            emit(Step(event: .flush, world: after))
        }
    }

    private func serverSteps(_ world: World, _ emit: (Step) -> Void) {
        let source = 1 - destination
        if world.targetCrashes > 0 {
            var after = world
            after.targetCrashes -= 1
            after.applied = world.durable
            after[shard: destination].data = world.durableData
            leave(destination, in: &after)
            emit(Step(event: .crash(destination), world: after))
        }
        if world.sourceCrashes > 0 {
            var after = world
            after.sourceCrashes -= 1
            // The gate need not be durable.
            if world[shard: source].door == .draining { after[shard: source].door = .rw }
            leave(source, in: &after)
            emit(Step(event: .crash(source), world: after))
        }
        guard scenario.hasStandbys else { return }
        for shard in 0...1 where (shard == 0 ? world.failoversA : world.failoversB) > 0 {
            var synced = world
            syncStandby(shard, in: &synced)
            if synced.key != world.key {
                emit(Step(event: .syncStandby(shard), world: synced))
            }
            emit(Step(event: .failOver(shard), world: failOver(shard, world)))
        }
        for shard in 0...1 where world[shard: shard].isForeign {
            guard !world.step.isBeforeCommit, world.step != .aborting else { continue }
            let isPlaced = world.placement == shard
            if isPlaced, keeps(.reconcileSeesArrival), world[shard: shard].epoch != world.epoch,
                !isWhole(world, shard)
            {
                if let after = recall(from: shard, world) {
                    emit(Step(event: .recall(shard), world: after))
                }
                continue
            }
            var after = world
            after[shard: shard].isForeign = false
            after[shard: shard].door = isPlaced ? .rw : .moved
            after[shard: shard].epoch = world.epoch
            after[shard: shard].attempt = world.attempt
            emit(Step(event: .reconcile(shard), world: after))
        }
    }

    /// The clinic is the former shard's again, which has what it had brought; nil if that has removed it.
    private func recall(from shard: Int, _ world: World) -> World? {
        guard [.committed, .opened, .soaking].contains(world.step) else { return nil }
        var after = world
        after.attempt += 1
        after.epoch += 1
        after.placement = 1 - shard
        after.step = .finished
        after.streamIsAlive = false
        after[shard: 1 - shard].door = .rw
        after[shard: shard].door = .absent
        after[shard: shard].data = 0
        after[shard: shard].isForeign = false
        for place in 0...1 {
            after[shard: place].attempt = after.attempt
            after[shard: place].epoch = after.epoch
        }
        return after
    }

    private func leave(_ shard: Int, in world: inout World) {
        for number in 0...1 {
            // The mover's session has ended, and with it what it saw.
            if world[mover: number].action == .makeDurable, shard == destination,
                keeps(.barrierAndMarkerInOneSession)
            {
                world[mover: number].action = .giveUp
            }
            switch (world.writer(number), shard) {
            case (.insideA, 0), (.snapshotA, 0), (.staleSnapshotA, 0), (.insideB, 1):
                world.setWriter(number, .outside)
            default: break
            }
        }
    }

    private func failOver(_ shard: Int, _ world: World) -> World {
        var after = world
        let before = world[shard: shard]
        if shard == 0 { after.failoversA -= 1 } else { after.failoversB -= 1 }
        after[shard: shard].door = before.standbyDoor
        after[shard: shard].epoch = before.standbyEpoch
        after[shard: shard].attempt = before.standbyAttempt
        after[shard: shard].data = before.standbyData
        after[shard: shard].isForeign = true
        let lost = before.data & ~before.standbyData & world.acknowledged
        if shard == destination {
            // The slot goes on from what had been confirmed to it: what the standby lacks of that never comes.
            after.applied = max(world.standbyApplied, world.durable)
            after.durable = after.applied
            after.durableData = before.standbyData
            // Written here, behind the commit point, and not yet on the standby.
            for write: UInt8 in 0...1 where !world.logHolds(write: write) {
                after.excused |= lost & (1 << write)
            }
        } else {
            after.streamIsAlive = false
            if world.placement == shard { after.excused |= lost }
        }
        leave(shard, in: &after)
        return after
    }
}
