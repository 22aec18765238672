package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Carries one move on, step by step, from wherever it stands (tenancy reference, section 3.4).
///
/// Each step is done and then written down by compare-and-swap with the attempt's number; a process that dies in
/// between leaves a step that is done again. Until the commit point the clinic is the origin's, whatever happens;
/// after it, the destination's. The door to the clinic is closed to writers between `gating` and `committed` only, for no
/// longer than the pause budget; if the process dies there, whoever takes the move over opens it again first.
///
/// Where it differs from the reference: what S6 to S8 do is not written to the control database one by one, for each
/// would cost the clinic a round trip and a flush: the step `gating` stands for all of them, and only the process that
/// wrote it with its attempt can pass the commit point.
@LoopActor
package final class Mover {
    /// Ends a move that has not passed its commit point.
    struct Fatal: Error {
        var reason: String
    }

    enum PauseOutcome {
        /// With how the destination is to serve, if it was said with the commit.
        case committed(state: String?)
        case retry(String)
        case abort
    }

    let plane: ControlPlane
    let store: MoveStore
    let lease: MoveLease
    var move: Move
    var failures = 0
    /// How often a stream that had stopped was let go on, in this step.
    var revivals = 0
    /// Both shards know that this process has the move.
    var isKnown = false
    var hold: SchemaHold?
    /// Of this process: a successor compares anew.
    var verification: MoveVerification?
    let tell: (Move, String) -> Void
    /// How the clinic was served when the pause began, by the control database.
    var servedState = ""
    /// With the attempt of the pause.
    var pauseFence: MoveFence?
    /// Of the pause: its commit may have been passed, or may be later.
    var hasSentCommit = false

    /// Of the log, that the destination may be behind when the pause begins.
    static let lagMax: Int64 = 1 << 20
    static let lookEvery = Duration.milliseconds(100)
    /// How far long work has come is written down so often.
    static let reportEvery = Duration.milliseconds(500)
    static let askedFor = "asked for"
    /// Tries of a step that fails, before the commit point; after it there is no end.
    private static let failuresMax = 60
    /// Errors of the stream in one step, before the commit point, that are taken for the other server's.
    static let revivalsMax = 4

    /// - Parameters:
    ///   - since: when the lease of the move was asked for.
    ///   - tell: hears of every step and of what it waits for.
    package init(
        _ move: Move, plane: ControlPlane, since: MonotonicTime,
        tell: @escaping (Move, String) -> Void = { _, _ in }
    ) {
        self.move = move
        self.plane = plane
        self.tell = tell
        store = MoveStore(plane: plane)
        lease = MoveLease(move, plane: plane, since: since)
    }

    package var id: MoveID { move.id }
    package var together: [String] { move.together }
    package var destination: String { move.destination }

    /// Until the move is over, soaks, or is somebody else's. Cancelled it ends between two steps, and not in the pause.
    ///
    /// - Returns: the move as it stands then.
    package func run() async throws -> Move {
        lease.start()
        let end: Result<Void, any Error>
        do {
            try await takeOver()
            // One that soaks is taken when its time is over: see `MoveStore.forsaken`.
            if move.state == .soaking, move.step == .soaking { try await goOn() }
            while !move.state.isOver, !(move.state == .soaking && move.step == .soaking) {
                try await goOn()
            }
            end = .success(())
        } catch {
            end = .failure(error)
        }
        await forgetVerification()
        await hold?.release()
        await lease.stop()
        switch end {
        case .success, .failure(is ArrivalForgotten): try await store.release(move)
        case .failure(is MoveLost): break
        case .failure(let error): throw error
        }
        return try await store.find(move.id)
    }

    /// Leaves the move to others.
    package func leave() async throws -> Move {
        await lease.stop()
        try await store.release(move)
        return move
    }

    func goOn() async throws {
        try Task.checkCancellation()
        try lease.require()
        let step = move.step
        do {
            if lease.isAbortWanted, step.isBeforeCommit { throw Fatal(reason: Mover.askedFor) }
            if step.isBeforeCommit || step == .opened { try await holdSchemas() }
            try await take(step)
            failures = 0
        } catch let lost as MoveLost {
            throw lost
        } catch let fatal as Fatal {
            guard move.step.isBeforeCommit else {
                throw ControlError(
                    .failed, code: "move-stuck", "the move cannot go on: \(fatal.reason)")
            }
            try await beginAbort(fatal.reason)
        } catch let death as FaultPointFailure {
            throw death
        } catch is CancellationError {
            throw CancellationError()
        } catch let forgotten as ArrivalForgotten {
            // Not by going on: an operator says which server is the shard.
            try await store.report(
                move, ["waitingFor": .string("\(forgotten)"), "isForgotten": true])
            throw forgotten
        } catch {
            failures += 1
            try await wait("\(error)", Duration.milliseconds(min(5000, 100 << min(failures, 6))))
            // A step may have passed the commit point before it failed.
            if failures >= Mover.failuresMax, move.step.isBeforeCommit {
                try await beginAbort("\(error)")
            }
        }
    }

    /// What a predecessor may still send is refused from here on; a door that it closed is opened.
    func takeOver() async throws {
        guard move.step.isBeforeCommit || move.step == .aborting else { return }
        while true {
            try lease.require()
            do {
                // A commit of the predecessor that is under way either is seen here, or is refused.
                if move.step == .gating {
                    try await advance(to: .verified)
                }
                try await fence().reopen()
                return
            } catch let lost as MoveLost {
                throw lost
            } catch {
                try await wait("\(error)", .milliseconds(100))
            }
        }
    }

    func take(_ step: MoveStep) async throws {
        try FaultPoint.reach(step.faultPoint)
        switch step {
        case .planned:
            let preflight = MovePreflight(plane: plane)
            try await preflight.requireIdentities(of: move)
            // They were equal when the move was asked for: nobody changes them from here on.
            try await preflight.requireSameSchemas(of: move)
            let fence = try await fence()
            try await fence.reserve()
            try await fence.purge(fence.destination)
            try FaultPoint.reach("move.planned.done")
            try await advance(to: .reserved)
        case .reserved:
            try await stream().publish()
            try FaultPoint.reach("move.reserved.done")
            try await advance(to: .published)
        case .published:
            try await stream().makeSlot()
            try FaultPoint.reach("move.published.done")
            try await advance(to: .slotted)
        case .slotted:
            let stream = try await stream()
            // A predecessor may have begun to copy: what it has copied would be in the way.
            try await stream.unsubscribe()
            let fence = try await fence()
            try await fence.purge(fence.destination)
            try await stream.subscribe(copies: true)
            try FaultPoint.reach("move.slotted.done")
            try await advance(
                to: .subscribed, ["copyStartedAt": .string(plane.clocks.now().rfc3339)])
        case .subscribed: try await copy()
        case .copied:
            try await analyze()
            // Each look of the comparison waits until the destination's disk has what came before.
            try await stream().makeDurable()
            let mirror = try await mirror()
            try await mirror.publish()
            try await mirror.makeSlot()
            try FaultPoint.reach("move.copied.done")
            try await advance(to: .mirrored)
        case .returning:
            // The former origin has followed the stream ever since.
            try await fence().reserve()
            try await advance(to: .mirrored)
        case .mirrored: try await verify()
        case .verified: try await pause()
        case .gating: preconditionFailure("a pause ends before the next step")
        case .committed:
            let fence = try await fence()
            let arrival = try await fence.arrival(store)
            guard arrival.isKnown || arrival.isWhole else {
                throw ArrivalForgotten(shard: move.destination)
            }
            try await fence.open(epoch: move.epoch + 1, timeline: arrival.timeline)
            try FaultPoint.reach("move.committed.done")
            let openedAt = plane.clocks.now()
            let gatedAt = move.progress["gatedAt"]?.asString.flatMap { Timestamp(rfc3339: $0) }
            try await advance(
                to: .opened,
                [
                    "openedAt": .string(openedAt.rfc3339),
                    // By two clocks, for the process that gated is gone.
                    "pauseMicroseconds": .integer(
                        max(0, openedAt.microseconds - (gatedAt ?? openedAt).microseconds)),
                ])
        case .opened: try await turnStream()
        case .switched: try await beginSoak()
        case .soaking, .closing: try await close()
        case .purging: try await purge()
        case .aborting: try await abort()
        case .finished, .aborted: return
        }
    }

    // MARK: What the steps work with

    func shards() async throws -> (source: Shard, target: Shard) {
        let registry = ShardRegistry(plane: plane)
        return (try await registry.find(move.source), try await registry.find(move.target))
    }

    /// Without the one whose server is gone for good.
    func presentShards() async throws -> [Shard] {
        let shards = try await shards()
        return [shards.source, shards.target].filter { $0.id != move.givenUp }
    }

    func holdSchemas() async throws {
        if hold == nil {
            hold = SchemaHold(plane: plane, shards: try await presentShards())
        }
        try await hold?.take()
    }

    func fence() async throws -> MoveFence {
        let shards = try await shards()
        return move.direction == .forward
            ? MoveFence(
                plane: plane, move: move, origin: shards.source, destination: shards.target)
            : MoveFence(plane: plane, move: move, origin: shards.target, destination: shards.source)
    }

    /// Before it touches what the move has made: a predecessor no longer does.
    func becomeKnown() async throws {
        guard !isKnown else { return }
        let fence = try await fence()
        for shard in try await presentShards() { try await fence.becomeKnown(on: shard) }
        isKnown = true
    }

    /// From the source to the target.
    func stream() async throws -> MoveStream {
        try await becomeKnown()
        let shards = try await shards()
        return MoveStream(
            plane: plane, store: store, move: move, name: MoveStream.name(move, isMirror: false),
            publisher: shards.source, subscriber: shards.target)
    }

    /// From the target back to the source.
    func mirror() async throws -> MoveStream {
        try await becomeKnown()
        let shards = try await shards()
        return MoveStream(
            plane: plane, store: store, move: move, name: MoveStream.name(move, isMirror: true),
            publisher: shards.target, subscriber: shards.source)
    }

    /// The one that brings the origin's changes.
    func current() async throws -> MoveStream {
        try await move.direction == .forward ? stream() : mirror()
    }

    func advance(
        to step: MoveStep, state: MoveState? = nil, _ more: JSONValue = [:], also: [Query] = [],
        deadline: Deadline? = nil
    ) async throws {
        try lease.require()
        do {
            move.attempt = try await store.advance(
                move, to: step, state: state,
                more.adding(["waitingFor": .null, "isForgotten": .null]),
                also: also, deadline: deadline)
        } catch let lost as MoveLost {
            // It may have been written down by this process, and the answer was lost.
            let now = try await store.find(move.id)
            guard now.leaseOwner == move.leaseOwner, now.step == step else { throw lost }
            move.attempt = now.attempt
        }
        move.step = step
        revivals = 0
        if let state { move.state = state }
        move.progress = move.progress.merging(more)
        tell(move, "")
    }

    /// Says what it waits for, and waits.
    func wait(_ reason: String, _ duration: Duration) async throws {
        tell(move, reason)
        await note(["waitingFor": .string(reason)])
        try await Loop.shared.sleep(for: duration)
    }

    /// Writes down how far it has come. Nothing ends because that cannot be done: whether the move is still this process'
    /// is the lease's to say.
    func note(_ progress: JSONValue) async {
        do {
            try await store.report(move, progress)
        } catch {
            tell(move, "\(error)")
        }
    }

    /// How far the stream is. One that an error has stopped is let go on, for any end of a connection is an error to it,
    /// and is not looked at as running before it has come to where the log was: it may meet the same error again, and
    /// a pause would wait for it.
    ///
    /// - Throws: `Mover.Fatal` if it cannot go on, or stops again and again.
    func look(at stream: MoveStream) async throws -> MoveStream.Progress {
        var goal: LogPosition?
        while true {
            let progress = try await stream.progress()
            if let failure = progress.failure {
                guard progress.isStopped, revivals < Mover.revivalsMax || !move.step.isBeforeCommit
                else { throw Fatal(reason: failure) }
                revivals += 1
                goal = progress.position
                try await wait(failure, Mover.lookEvery * (1 << min(revivals, 5)))
                try lease.require()
                try await stream.enable()
            } else if let goal, progress.confirmed < goal, !lease.isAbortWanted {
                try await wait("the stream to go on", Mover.lookEvery)
                try lease.require()
            } else {
                return progress
            }
        }
    }
}
