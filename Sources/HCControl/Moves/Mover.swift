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

    private enum PauseOutcome {
        case committed(epoch: Int64)
        case retry(String)
        case abort
    }

    private let plane: ControlPlane
    private let store: MoveStore
    private let lease: MoveLease
    private var move: Move
    private var failures = 0
    /// How often a stream that had stopped was let go on, in this step.
    private var revivals = 0
    /// Both shards know that this process has the move.
    private var isKnown = false
    private var hold: SchemaHold?
    /// Of this process: a successor compares anew.
    private var verification: MoveVerification?
    private let tell: (Move, String) -> Void

    /// Of the log, that the destination may be behind when the pause begins.
    private static let lagMax: Int64 = 1 << 20
    private static let lookEvery = Duration.milliseconds(100)
    /// Tries of a step that fails, before the commit point; after it there is no end.
    private static let failuresMax = 60
    /// Errors of the stream in one step, before the commit point, that are taken for the other server's.
    private static let revivalsMax = 4

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

    /// Until the move is over, soaks, or is somebody else's.
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
        await hold?.release()
        await lease.stop()
        switch end {
        case .success: try await store.release(move)
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

    private func goOn() async throws {
        try lease.require()
        let step = move.step
        do {
            if lease.isAbortWanted, step.isBeforeCommit { throw Fatal(reason: "asked for") }
            if step.isBeforeCommit || step == .opened { try await holdSchemas() }
            try await take(step)
            failures = 0
        } catch let lost as MoveLost {
            throw lost
        } catch let fatal as Fatal {
            guard step.isBeforeCommit else {
                throw ControlError(
                    .failed, code: "move-stuck", "the move cannot go on: \(fatal.reason)")
            }
            try await beginAbort(fatal.reason)
        } catch let death as FaultPointFailure {
            throw death
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            failures += 1
            try await wait("\(error)", Duration.milliseconds(min(5000, 100 << min(failures, 6))))
            if failures >= Mover.failuresMax, step.isBeforeCommit {
                try await beginAbort("\(error)")
            }
        }
    }

    /// What a predecessor may still send is refused from here on; a door that it closed is opened.
    private func takeOver() async throws {
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

    private func take(_ step: MoveStep) async throws {
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
            let mirror = try await mirror()
            try await stream().makeDurable()
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
            let epoch = move.epoch + 1
            try await fence().open(epoch: epoch)
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

    private func shards() async throws -> (source: Shard, target: Shard) {
        let registry = ShardRegistry(plane: plane)
        return (try await registry.find(move.source), try await registry.find(move.target))
    }

    private func holdSchemas() async throws {
        if hold == nil {
            let shards = try await shards()
            hold = SchemaHold(plane: plane, shards: [shards.source, shards.target])
        }
        try await hold?.take()
    }

    private func fence() async throws -> MoveFence {
        let shards = try await shards()
        return move.direction == .forward
            ? MoveFence(
                plane: plane, move: move, origin: shards.source, destination: shards.target)
            : MoveFence(plane: plane, move: move, origin: shards.target, destination: shards.source)
    }

    /// Before it touches what the move has made: a predecessor no longer does.
    private func becomeKnown() async throws {
        guard !isKnown else { return }
        try await fence().becomeKnown()
        isKnown = true
    }

    /// From the source to the target.
    private func stream() async throws -> MoveStream {
        try await becomeKnown()
        let shards = try await shards()
        return MoveStream(
            plane: plane, store: store, move: move, name: MoveStream.name(move, isMirror: false),
            publisher: shards.source, subscriber: shards.target)
    }

    /// From the target back to the source.
    private func mirror() async throws -> MoveStream {
        try await becomeKnown()
        let shards = try await shards()
        return MoveStream(
            plane: plane, store: store, move: move, name: MoveStream.name(move, isMirror: true),
            publisher: shards.target, subscriber: shards.source)
    }

    /// The one that brings the origin's changes.
    private func current() async throws -> MoveStream {
        try await move.direction == .forward ? stream() : mirror()
    }

    private func advance(
        to step: MoveStep, state: MoveState? = nil, _ more: JSONValue = [:], also: [Query] = []
    ) async throws {
        try lease.require()
        do {
            move.attempt = try await store.advance(
                move, to: step, state: state, more.adding(["waitingFor": .null]), also: also)
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
    private func wait(_ reason: String, _ duration: Duration) async throws {
        tell(move, reason)
        do {
            try await store.report(move, ["waitingFor": .string(reason)])
        } catch {
            tell(move, "\(error)")
        }
        try await Loop.shared.sleep(for: duration)
    }

    /// How far the stream is. One that an error has stopped is let go on, for any end of a connection is an error to it,
    /// and is not looked at as running before it has come to where the log was: it may meet the same error again, and
    /// a pause would wait for it.
    ///
    /// - Throws: `Mover.Fatal` if it cannot go on, or stops again and again.
    private func look(at stream: MoveStream) async throws -> MoveStream.Progress {
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

    // MARK: Copy

    private func copy() async throws {
        let stream = try await stream()
        var isClose = 0
        let rows = move.progress["rows"]?.asInteger ?? 0
        let begin = plane.clocks.monotonic()
        var reportedAt = begin
        while true {
            try lease.require()
            if lease.isAbortWanted { return }
            let progress = try await look(at: stream)
            isClose = progress.isReady && progress.lagBytes < Mover.lagMax ? isClose + 1 : 0
            if isClose >= 2 { break }
            let now = plane.clocks.monotonic()
            if now - reportedAt > .milliseconds(500) {
                reportedAt = now
                let copied = copiedRows(progress)
                let left = MoveEstimate.left(done: copied, of: rows, after: now - begin)
                let text =
                    progress.isReady
                    ? "the stream to catch up (\(progress.lagBytes) bytes)"
                    : "\(progress.tables - progress.ready) of \(progress.tables) tables to be copied"
                        + " (\(copied) of \(rows) rows"
                        + (left.map { ", about \($0.inMilliseconds / 1000) s left)" } ?? ")")
                try await store.report(
                    move,
                    [
                        "tablesReady": .integer(Int64(progress.ready)),
                        "tables": .integer(Int64(progress.tables)),
                        "copiedRows": .integer(copied),
                        "secondsLeft": left.map { .integer($0.inMilliseconds / 1000) } ?? .null,
                        "copyingBytes": .integer(progress.bytes),
                        "lagBytes": .integer(progress.lagBytes), "waitingFor": .string(text),
                    ])
                tell(move, text)
            }
            try await Loop.shared.sleep(for: Mover.lookEvery)
        }
        try FaultPoint.reach("move.subscribed.done")
        let length = plane.clocks.monotonic() - begin
        try await advance(
            to: .copied,
            [
                "copyMilliseconds": .integer(length.inMilliseconds), "copiedRows": .integer(rows),
                "secondsLeft": .null, "lagBytes": 0,
            ])
    }

    /// By the rows that the tables had when the move was asked for.
    private func copiedRows(_ progress: MoveStream.Progress) -> Int64 {
        let ready = Set(progress.readyNames)
        return (move.progress["tables"]?.asArray ?? []).reduce(progress.rows) { sum, table in
            guard let name = table["name"]?.asString, ready.contains(name) else { return sum }
            return sum + (table["rows"]?.asInteger ?? 0)
        }
    }

    // MARK: Verification

    private func verify() async throws {
        try await compare()
        if lease.isAbortWanted { return }
        try FaultPoint.reach("move.mirrored.done")
        try await advance(to: .verified)
    }

    private func compare() async throws {
        let (stream, fence) = (try await current(), try await fence())
        _ = try await look(at: stream)
        let move = move
        verification = try await MoveVerification.run(
            move, origin: fence.origin, destination: fence.destination, plane: plane,
            pass: { position in
                try self.lease.require()
                try await stream.awaitConfirmed(position)
            },
            progress: { [tell] rows, all in
                tell(move, "\(all - rows) of \(all) rows to be compared")
            })
    }

    // MARK: The pause

    /// S5: nothing is in sight that would make the pause long.
    private func awaitCalm(_ stream: MoveStream, _ mirror: MoveStream) async throws {
        var isCalm = 0
        while isCalm < 2 {
            try lease.require()
            if lease.isAbortWanted { return }
            let progress = try await look(at: stream)
            let writers = try await stream.oldWriters()
            guard progress.lagBytes < Mover.lagMax, writers.isEmpty else {
                isCalm = 0
                try await wait(
                    writers.isEmpty
                        ? "the stream to catch up (\(progress.lagBytes) bytes)"
                        : "transactions that write on shard \(stream.publisher.id): "
                            + writers.joined(separator: ", "), .milliseconds(200))
                continue
            }
            isCalm += 1
            // What the mirror's slot has to decode in the pause is kept short.
            if move.direction == .forward { try await mirror.skip(to: nil) }
        }
    }

    private func pause() async throws {
        let stream = try await current()
        var mirror = try await mirror()
        try await awaitCalm(stream, mirror)
        if lease.isAbortWanted { return }
        try await MovePreflight(plane: plane).requireIdentities(of: move)
        guard let verification else { return try await compare() }
        let budget = move.options.pauseBudget
        guard lease.remaining > MoveStore.lease / 2 else {
            return try await wait("a fresh lease", MoveStore.renewEvery)
        }
        var fence = try await fence()
        try await advance(to: .gating)
        (fence.move, mirror.move) = (move, move)
        let tries = (move.progress["pauseTries"]?.asInteger ?? 0) + 1
        let begin = plane.clocks.monotonic()
        let end = Deadline.after(budget, from: begin)
        let outcome: PauseOutcome
        do {
            outcome = try await closeDoor(fence, verification, until: end, tries: tries)
        } catch let lost as MoveLost {
            throw lost
        } catch let death as FaultPointFailure {
            throw death
        } catch let fatal as Fatal {
            try await openAgain(tries: tries, reason: fatal.reason)
            throw fatal
        } catch {
            let isOverrun = end.isExpired(at: plane.clocks.monotonic())
            outcome = .retry(isOverrun ? "the budget was used up (\(error))" : "\(error)")
        }
        switch outcome {
        case .committed:
            // The clinic waits: its new door is opened before anything is written down.
            try await fence.open(epoch: move.epoch + 1)
            let length = plane.clocks.monotonic() - begin
            move.step = .committed
            try FaultPoint.reach("move.committed.done")
            try await advance(
                to: .opened,
                [
                    "openedAt": .string(plane.clocks.now().rfc3339),
                    "pauseMicroseconds": .integer(length.inNanoseconds / 1000),
                    "pauseTries": .integer(tries),
                ])
        case .abort:
            try await openAgain(tries: tries, reason: "its abort is asked for")
        case .retry(let reason):
            try await openAgain(tries: tries, reason: reason)
            // Rows that have come since it was planned are all in the last chunks, which the pause reads: with each try
            // there would be more of them.
            self.verification = nil
            guard tries < Int64(move.options.pauseTries) else {
                throw Fatal(reason: "\(tries) pauses were broken off, the last for: \(reason)")
            }
            try await wait(
                "another try of the pause: \(reason)",
                .milliseconds(min(30_000, 250 << min(Int(tries), 7))))
        }
    }

    /// From the gate to the commit point.
    private func closeDoor(
        _ fence: MoveFence, _ verification: MoveVerification, until deadline: Deadline, tries: Int64
    ) async throws -> PauseOutcome {
        let gatedAt = plane.clocks.now()
        guard try await fence.gate(deadline: deadline) else { throw MoveLost() }
        try FaultPoint.reach("move.gated")
        let barrier: MoveFence.Barrier
        switch try await fence.fence(deadline: deadline) {
        case .fenced(let made): barrier = made
        case .late(let who): return .retry("writers did not end in time: \(who)")
        case .lost: return .retry("the gate did not stand")
        }
        try FaultPoint.reach("move.fenced")
        guard let drained = try await fence.drain(barrier, deadline: deadline) else {
            return .retry("the destination was not there in time")
        }
        try FaultPoint.reach("move.drained")
        let fencedAt = plane.clocks.now()
        let verified = try await verification.finish(
            move, origin: fence.origin, destination: fence.destination, plane: plane,
            deadline: deadline)
        guard try await fence.handOver(deadline: deadline) else {
            return .retry("the fence did not stand")
        }
        try FaultPoint.reach("move.handed-over")
        guard !deadline.isExpired(at: plane.clocks.monotonic()) else {
            return .retry("the budget was used up")
        }
        try lease.require()
        let more: JSONValue = [
            "gatedAt": .string(gatedAt.rfc3339),
            "fenceMicroseconds": .integer(barrier.duration.inNanoseconds / 1000),
            "fencePosition": .string(barrier.position.text), "barrier": .integer(barrier.number),
            "fencedAt": .string(fencedAt.rfc3339), "drainPosition": .string(drained.text),
            "committedAt": .string(plane.clocks.now().rfc3339), "verification": verified,
            "pauseTries": .integer(tries),
        ]
        return try await passCommitPoint(more)
    }

    private func passCommitPoint(_ more: JSONValue) async throws -> PauseOutcome {
        move.step = .gating
        do {
            let epoch = try await store.commit(
                move, more, deadline: .after(.seconds(2), from: plane.clocks.monotonic()))
            try FaultPoint.reach("move.committed")
            if let epoch {
                move.progress = move.progress.merging(more)
                return .committed(epoch: epoch)
            }
            // Refused for good: an abort has won, or another process has the move.
            try await requireMine()
            return .abort
        } catch let error as PostgresError {
            return try await findOut(error)
        }
    }

    /// The answer of the commit is lost: it is asked for until it is known, with the door closed. Nobody else can decide
    /// meanwhile: they would have to have the lease.
    private func findOut(_ error: PostgresError) async throws -> PauseOutcome {
        while true {
            try lease.require()
            do {
                let now = try await requireMine()
                if now.step == .committed {
                    move.progress = now.progress
                    return .committed(epoch: now.epoch + 1)
                }
                // Still on its way, perhaps: `openAgain` waits for its row and is then refused, or wins.
                return .retry("the control database did not answer: \(error)")
            } catch let lost as MoveLost {
                throw lost
            } catch {
                try await Loop.shared.sleep(for: .milliseconds(20))
            }
        }
    }

    /// The move as it is written down, if it is still this process'.
    @discardableResult
    private func requireMine() async throws -> Move {
        let now = try await store.find(move.id)
        guard now.attempt == move.attempt, now.leaseOwner == move.leaseOwner else {
            throw MoveLost()
        }
        return now
    }

    private func openAgain(tries: Int64, reason: String) async throws {
        while true {
            try lease.require()
            do {
                move.step = .gating
                // First the right to pass the commit point is given up, then the door is opened.
                try await advance(
                    to: .verified,
                    ["pauseTries": .integer(tries), "lastPause": .string(reason)])
                // With the number that the move has from now on.
                return try await self.fence().reopen()
            } catch is MoveLost {
                let now = try await requireMine()
                guard now.step == .committed else { throw MoveLost() }
                // It had been passed after all.
                (move.step, move.progress) = (.committed, now.progress)
                return
            } catch {
                try await Loop.shared.sleep(for: .milliseconds(20))
            }
        }
    }

    // MARK: After the commit point

    private func turnStream() async throws {
        let fence = try await fence()
        let hadFence = try await fence.leave(epoch: move.epoch + 1)
        func position(_ name: String) -> LogPosition? {
            move.progress[name]?.asString.flatMap { LogPosition(text: $0) }
        }
        let fenced = position("fencePosition")
        let stream = try await current()
        // There is no more to come of it, and if its slot is gone nobody waits for it.
        if try await stream.progress().isStopped { try await stream.enable() }
        let confirmed = try await stream.awaitConfirmed(fenced ?? LogPosition(0))
        let manifest = try await MoveManifest.make(
            move, confirmed: confirmed ?? fenced ?? LogPosition(0), plane: plane, store: store)
        let kept = Query(
            "UPDATE move SET manifest = $2 WHERE id = $1",
            [.id(move.id), .json(manifest.serialized)])
        guard hadFence else {
            // What it lost it cannot send back: there is no way back to it.
            return try await advance(
                to: .closing, ["fenceLost": true],
                also: [
                    kept,
                    plane.audit(
                        "tenant.move.fence-lost", subject: move.slug,
                        detail: [
                            "move": .string("\(move.id.uuid)"), "shard": .string(fence.origin.id),
                        ]),
                ])
        }
        guard move.direction == .forward else {
            return try await advance(to: .closing, [:], also: [kept])
        }
        guard let drained = position("drainPosition") else {
            throw Fatal(reason: "where the way back begins was not written down")
        }
        try await drop { !$0.name.hasPrefix("hc_mirror") }
        // One that a predecessor has made goes on from where it is.
        let mirror = try await mirror()
        if try await !mirror.isSubscribed() {
            try await mirror.skip(to: drained)
            try await mirror.subscribe(copies: false)
        }
        try FaultPoint.reach("move.opened.done")
        try await advance(to: .switched, [:], also: [kept])
    }

    private func beginSoak() async throws {
        let soak = move.options.soak
        guard soak > .zero else { return try await advance(to: .closing) }
        try await advance(
            to: .soaking, state: .soaking, [:],
            also: [
                Query(
                    """
                    UPDATE move SET soak_until = clock_timestamp() + $2 * interval '1 ms' WHERE id = $1
                    """, [.id(move.id), .int8(soak.inMilliseconds)])
            ])
    }

    private func close() async throws {
        if move.step == .soaking { return try await advance(to: .closing) }
        try await drop { _ in true }
        try FaultPoint.reach("move.closing.done")
        try await advance(to: .purging)
    }

    private func purge() async throws {
        let fence = try await fence()
        try await fence.purge(fence.origin) { removed in
            try self.lease.require()
            try await self.store.report(self.move, ["purgedRows": .integer(Int64(removed))])
        }
        // A way back that was given up had made it expect the clinic.
        try await fence.dismiss(fence.origin)
        for shard in [fence.origin, fence.destination] {
            try await fence.removeBarriers(on: shard)
        }
        try FaultPoint.reach("move.purging.done")
        try await advance(
            to: .finished, state: move.direction == .forward ? .done : .reverted, [:],
            also: [
                plane.audit(
                    "tenant.move.done", subject: move.slug,
                    detail: ["move": .string("\(move.id.uuid)")])
            ])
    }

    /// Drops what the move has made and says so.
    private func drop(_ isWanted: (MoveObject) -> Bool) async throws {
        try await becomeKnown()
        let shards = try await shards()
        for object in try await store.objects(of: move.id) where isWanted(object) {
            try lease.require()
            let isSource = object.shard == shards.source.id
            try await MoveStream.drop(
                object, of: move, plane: plane, shard: isSource ? shards.source : shards.target,
                other: isSource ? shards.target : shards.source)
            try await store.isGone(object)
        }
    }

    // MARK: Abort

    private func beginAbort(_ reason: String) async throws {
        if move.direction == .back { return try await stay(reason) }
        try await advance(to: .aborting, state: .aborting, ["abortReason": .string(reason)])
    }

    /// The way back is given up: the clinic stays where it is, and the former origin goes on following.
    private func stay(_ reason: String) async throws {
        try await fence().reopen()
        try await advance(
            to: .soaking, state: .soaking, ["abortReason": .string(reason)],
            also: [
                Query(
                    "UPDATE move SET direction = 'forward', abort_requested = false WHERE id = $1",
                    [.id(move.id)]),
                Query(
                    "SELECT placement_swap($1, $2, 'moving', $3, 'serving')",
                    [.id(move.tenant), .int8(move.epoch), .text(move.origin)]),
            ])
    }

    private func abort() async throws {
        let fence = try await fence()
        try await fence.reopen()
        try await drop { _ in true }
        // So that nothing of an earlier attempt comes after.
        try await fence.reserve()
        try await fence.purge(fence.destination)
        try await fence.dismiss(fence.destination)
        try await fence.removeBarriers(on: fence.origin)
        try FaultPoint.reach("move.aborting.done")
        try await advance(
            to: .aborted, state: .aborted, [:],
            also: [
                Query(
                    "SELECT placement_swap($1, $2, 'moving', $3, 'serving')",
                    [.id(move.tenant), .int8(move.epoch), .text(move.origin)]),
                plane.audit(
                    "tenant.move.aborted", subject: move.slug,
                    detail: [
                        "move": .string("\(move.id.uuid)"),
                        "reason": move.progress["abortReason"] ?? .null,
                    ]),
            ])
    }
}
