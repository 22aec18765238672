/// What protects a clinic while it moves. The explorer takes them out one by one.
enum MoveRule: String, CaseIterable, Sendable {
    /// The fence takes exclusively what writers share: it stands behind the last of them.
    case fenceWaitsForWriters
    /// The change of the door is one of a key: a writer with an older snapshot cannot enter behind it.
    case doorIsKey
    /// The barrier is written when the last writer is out.
    case barrierBehindWriters
    /// A barrier counts for the try of the pause that wrote it.
    case barrierOfThisTry
    /// Who puts on disk what the destination shows has seen the barrier in the same session: no crash is in between.
    case barrierAndMarkerInOneSession
    /// What the destination shows is put on its disk before the commit point.
    case durableBeforeCommit
    /// … and on the disk of its standby.
    case standbyBeforeCommit
    /// Statements on a shard name the attempt, and find nothing where a later one has been.
    case shardsKnowAttempt
    /// Rows are removed by the attempt that may.
    case purgeKnowsAttempt
    case commitNamesStep
    case commitNamesAttempt
    case commitRefusesAbort
    /// A statement whose answer is lost may be done at any time later: what follows is another attempt.
    case unknownEndsAttempt
    /// The right to pass the commit point is given up before the door is opened again.
    case giveUpBeforeReopening
    case openAfterCommit
    /// Without the control database the door is opened again only by who has not sent its commit …
    case openAloneUnsent
    /// … and as the attempt that comes next, so that nothing of the pause that is still on its way closes it once more.
    case openAloneAsNext
    /// A server that took over opens for a clinic only if it has what had come at the commit point.
    case openSeesArrival
    /// … by the hand of an operator, too: else the former shard serves it again.
    case reconcileSeesArrival
    /// What was left behind is kept until the destination's server knows of the arrival …
    case purgeSeesArrival
    /// … and its standby has what came.
    case purgeSeesStandby
    /// Readers wait, too, before the destination may serve.
    case readersWaitAtHandover
    /// A server that is another than the one registered is used by no router before it was reconciled.
    case identityGate
    /// Both servers are the ones of the beginning when the destination has drained.
    case identitiesAfterDrain
    case epochGrows
}

/// `hc_tenant.state`, as far as a move goes.
enum Door: UInt8 {
    case absent
    case incoming
    case rw
    case draining
    case fenced
    case handover
    case moved
}

/// A shard, and what of it a fail-over would bring back. Writes are bits.
struct ShardState {
    var door: Door
    var epoch: UInt8
    var attempt: UInt8
    var data: UInt8
    /// The server is another than the one registered: failed over and not reconciled.
    var isForeign = false

    var standbyDoor: Door
    var standbyEpoch: UInt8
    var standbyAttempt: UInt8
    var standbyData: UInt8

    init(_ door: Door, epoch: UInt8, attempt: UInt8) {
        (self.door, self.epoch, self.attempt, data) = (door, epoch, attempt, 0)
        (standbyDoor, standbyEpoch, standbyAttempt, standbyData) = (door, epoch, attempt, 0)
    }

    var bits: UInt64 {
        var bits = UInt64(door.rawValue)
        bits = bits << 2 | UInt64(epoch)
        bits = bits << 4 | UInt64(attempt)
        bits = bits << 2 | UInt64(data)
        bits = bits << 1 | (isForeign ? 1 : 0)
        bits = bits << 3 | UInt64(standbyDoor.rawValue)
        bits = bits << 2 | UInt64(standbyEpoch)
        bits = bits << 4 | UInt64(standbyAttempt)
        return bits << 2 | UInt64(standbyData)
    }
}

/// `move.step`.
enum ModelStep: UInt8 {
    case returning
    case verified
    case gating
    case committed
    case opened
    case soaking
    case purging
    case finished
    case aborting
    case aborted

    var isBeforeCommit: Bool { rawValue <= ModelStep.gating.rawValue }
    var isOver: Bool { self == .finished || self == .aborted }
}

/// What a mover does next. One statement each.
enum Action: UInt8 {
    case none
    case reserve
    case beginPause
    case gate
    case fence
    case fenceBehindBarrier
    case drain
    case makeDurable
    case handOver
    case checkIdentities
    case commit
    case findOut
    case giveUp
    case reopen
    /// The control database is away, and the mover has not sent its commit.
    case openAlone
    case open
    case recordOpened
    case leave
    case switchStream
    case endSoak
    case purgeOrigin
    case recordFinished
    case beginAbort
    case abortReopen
    case abortStream
    case purgeDestination
    case dismiss
    case recordAborted
    case takeGiveUp
    case takeReopen
    /// S1's, of a mover that was stopped in the middle of it.
    case lateFirstPurge
}

struct MoverState {
    var action = Action.none
    var attempt: UInt8 = 0
    /// Which try of the pause it is in.
    var pause: UInt8 = 0
    /// The placement's epoch that the move, as this mover knows it, begins with.
    var base: UInt8 = 1

    var bits: UInt64 {
        UInt64(action.rawValue) << 8 | UInt64(attempt) << 4 | UInt64(pause) << 2 | UInt64(base)
    }
}

enum WriterState: UInt8 {
    case outside
    case insideA
    case insideB
    /// REPEATABLE READ: has its snapshot and has not entered.
    case snapshotA
    /// … and the door has closed since.
    case staleSnapshotA
    case done
}

/// Everything at one instant. Shard 0 is A, 1 is B; odd epochs are A's, even ones B's.
struct World {
    var step: ModelStep
    var attempt: UInt8 = 1
    var epoch: UInt8
    var placement: Int
    var pauses: UInt8 = 0
    var isAbortWanted = false

    var a: ShardState
    var b: ShardState

    /// Two bits each: 0 and 1 are writes, 2 and 3 the barriers of the first and second pause.
    var log: UInt8 = 0
    var logCount: UInt8 = 0
    var applied: UInt8 = 0
    var durable: UInt8 = 0
    var durableData: UInt8 = 0
    var standbyApplied: UInt8 = 0
    var streamIsAlive = true
    /// What the destination had when it was made durable: what the commit point stands for.
    var arrived: UInt8 = 0

    var first = MoverState()
    var second = MoverState()
    /// A statement that a server has and has not carried out.
    var ghost = MoverState()

    var writerA = WriterState.outside
    var writerB = WriterState.outside
    var acknowledged: UInt8 = 0
    /// Lost with a server whose standby did not have them: no move could have helped.
    var excused: UInt8 = 0

    // What may still happen.
    var targetCrashes: UInt8 = 0
    var sourceCrashes: UInt8 = 0
    var failoversA: UInt8 = 0
    var failoversB: UInt8 = 0
    var lostAnswers: UInt8 = 0
    var ghosts: UInt8 = 0

    struct Key: Hashable {
        var shards: UInt64
        var movers: UInt64
        var rest: UInt64
    }

    /// All of it, packed: states are many, and most of the work is to see whether one is new.
    var key: Key {
        var rest = UInt64(step.rawValue)
        rest = rest << 4 | UInt64(attempt)
        rest = rest << 2 | UInt64(epoch)
        rest = rest << 1 | UInt64(placement)
        rest = rest << 2 | UInt64(pauses)
        rest = rest << 1 | (isAbortWanted ? 1 : 0)
        rest = rest << 1 | (streamIsAlive ? 1 : 0)
        rest = rest << 2 | UInt64(acknowledged)
        rest = rest << 2 | UInt64(excused)
        rest = rest << 6 | UInt64(writerA.rawValue) << 3 | UInt64(writerB.rawValue)
        rest = rest << 8 | UInt64(log)
        rest = rest << 3 | UInt64(logCount)
        rest = rest << 3 | UInt64(applied)
        rest = rest << 3 | UInt64(durable)
        rest = rest << 2 | UInt64(durableData)
        rest = rest << 3 | UInt64(standbyApplied)
        rest = rest << 2 | UInt64(arrived)
        rest = rest << 1 | UInt64(targetCrashes)
        rest = rest << 1 | UInt64(sourceCrashes)
        rest = rest << 1 | UInt64(failoversA)
        rest = rest << 1 | UInt64(failoversB)
        rest = rest << 1 | UInt64(lostAnswers)
        rest = rest << 1 | UInt64(ghosts)
        return Key(
            shards: a.bits << 32 | b.bits,
            movers: first.bits << 26 | second.bits << 13 | ghost.bits, rest: rest)
    }

    subscript(shard shard: Int) -> ShardState {
        get { shard == 0 ? a : b }
        set { if shard == 0 { a = newValue } else { b = newValue } }
    }

    subscript(mover mover: Int) -> MoverState {
        get { mover == 0 ? first : second }
        set { if mover == 0 { first = newValue } else { second = newValue } }
    }

    func writer(_ number: Int) -> WriterState { number == 0 ? writerA : writerB }

    mutating func setWriter(_ number: Int, _ state: WriterState) {
        if number == 0 { writerA = state } else { writerB = state }
    }

    func entry(_ index: UInt8) -> UInt8 { log >> (index * 2) & 3 }

    mutating func append(_ entry: UInt8) {
        log |= entry << (logCount * 2)
        logCount += 1
    }

    func logHolds(write: UInt8) -> Bool {
        var index: UInt8 = 0
        while index < logCount {
            if entry(index) == write { return true }
            index += 1
        }
        return false
    }
}
