import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// From the closed door at the origin to the open one at the destination, or back to where it was.
extension Mover {
    /// S5: nothing is in sight that would make the pause long.
    func awaitCalm(_ stream: MoveStream, _ mirror: MoveStream) async throws {
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

    func pause() async throws {
        let stream = try await current()
        let mirror = try await mirror()
        try await awaitCalm(stream, mirror)
        if lease.isAbortWanted { return }
        try await MovePreflight(plane: plane).requireIdentities(of: move)
        guard let verification else { return try await compare() }
        let budget = move.options.pauseBudget
        guard lease.remaining > MoveStore.lease / 2 else {
            return try await wait("a fresh lease", MoveStore.renewEvery)
        }
        do {
            try await verification.settle(over: stream, plane: plane)
        } catch {
            await forgetVerification()
            throw error
        }
        var fence = try await fence()
        (servedState, hasSentCommit) = (try await fence.servedState(), false)
        try await advance(to: .gating)
        fence.move = move
        pauseFence = fence
        // Whoever waits for the move may give up: not behind a closed door, which nobody else might open.
        let closed = fence
        try await Loop.shared.makeTask { [self] in
            try await passDoor(closed, verification, budget: budget)
        }.value
    }

    private func passDoor(
        _ fence: MoveFence, _ verification: MoveVerification, budget: Duration
    ) async throws {
        let tries = (move.progress["pauseTries"]?.asInteger ?? 0) + 1
        let begin = plane.clocks.monotonic()
        let end = Deadline.after(budget, from: begin)
        let outcome: PauseOutcome
        do {
            outcome = try await closeDoor(fence, verification, until: end, tries: tries)
        } catch let lost as MoveLost {
            // Nobody can take it over without the control database, and the clinic waits.
            if !hasSentCommit { _ = await openAlone() }
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
        case .committed(let state):
            // The clinic waits: its new door is opened before anything is written down. That it is open is on the disk
            // before it is written down, and with the first write that the clinic is told of.
            let (epoch, timeline) = (move.epoch + 1, fence.destination.timeline)
            try await fence.open(epoch: epoch, timeline: timeline, state: state, isDurable: false)
            let (length, openedAt) = (plane.clocks.monotonic() - begin, plane.clocks.now())
            try await fence.open(epoch: epoch, timeline: timeline)
            try FaultPoint.reach("move.committed.done")
            try await advance(
                to: .opened,
                [
                    "openedAt": .string(openedAt.rfc3339),
                    "pauseMicroseconds": .integer(length.inNanoseconds / 1000),
                    "pauseTries": .integer(tries),
                ])
            await forgetVerification()
        case .abort:
            try await openAgain(tries: tries, reason: "its abort is asked for")
        case .retry(let reason):
            try await openAgain(tries: tries, reason: reason)
            guard move.step != .committed else { return }
            if !verification.isWhole { await forgetVerification() }
            guard tries < Int64(move.options.pauseTries) else {
                throw Fatal(reason: "\(tries) pauses were broken off, the last for: \(reason)")
            }
            try await wait(
                "another try of the pause: \(reason)",
                .milliseconds(min(30_000, 250 << min(Int(tries), 7))))
        }
    }

    /// From the gate to the commit point.
    func closeDoor(
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
        // What may differ is read where it is, and readers are sent to wait, while the destination takes it over.
        let (plane, tenant) = (plane, move.tenant)
        let beside = Loop.shared.makeTask { () async throws -> MoveVerification.Look? in
            let look = try await verification.look(
                at: fence.origin, behind: barrier.number, of: tenant, plane: plane,
                deadline: deadline)
            return try await fence.handOver(deadline: deadline) ? look : nil
        }
        let drained: LogPosition?
        do {
            drained = try await fence.drain(barrier, deadline: deadline)
        } catch {
            // Its connection is free again before anybody else uses it.
            _ = await beside.result
            throw error
        }
        let look: MoveVerification.Look?
        do {
            look = try await beside.value
        } catch is DeadlineExceeded {
            return .retry("the last changes were not heard of in time")
        }
        guard let drained else { return .retry("the destination was not there in time") }
        try FaultPoint.reach("move.drained")
        let fencedAt = plane.clocks.now()
        guard let look else { return .retry("the fence did not stand") }
        try FaultPoint.reach("move.handed-over")
        let verified = try await verification.finish(
            look, at: fence.destination, of: tenant, plane: plane, deadline: deadline)
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

    func passCommitPoint(_ more: JSONValue) async throws -> PauseOutcome {
        move.step = .gating
        // To connect anew takes longer than the clinic shall wait, and until the commit is sent it is known not to be passed.
        guard plane.hasControl else { return .retry("the control database is away") }
        hasSentCommit = true
        do {
            let state = try await store.commit(
                move, more, deadline: .after(.seconds(2), from: plane.clocks.monotonic()))
            try FaultPoint.reach("move.committed")
            if let state {
                (move.step, move.progress) = (.committed, move.progress.merging(more))
                return .committed(state: state)
            }
            // Refused for good: an abort has won, or another process has the move.
            guard try await requireMine().isAbortRequested else {
                throw Fatal(reason: "the clinic's placement is not as the move left it")
            }
            return .abort
        } catch let error as PostgresError {
            return try await findOut(error)
        }
    }

    /// The answer of the commit is lost: it is asked for until it is known, with the door closed. Nobody else can decide
    /// meanwhile: they would have to have the lease.
    func findOut(_ error: PostgresError) async throws -> PauseOutcome {
        while true {
            try lease.require()
            do {
                let now = try await requireMine()
                if now.step == .committed {
                    (move.step, move.progress) = (.committed, now.progress)
                    return .committed(state: nil)
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
    func requireMine() async throws -> Move {
        let now = try await store.find(move.id)
        guard now.attempt == move.attempt, now.leaseOwner == move.leaseOwner else {
            throw MoveLost()
        }
        return now
    }

    func openAgain(tries: Int64, reason: String) async throws {
        var isOpen = false
        while true {
            try lease.require()
            do {
                move.step = .gating
                if !isOpen, !hasSentCommit, !plane.hasControl { isOpen = await openAlone() }
                // First the right to pass the commit point is given up, then the door is opened.
                try await advance(
                    to: .verified,
                    ["pauseTries": .integer(tries), "lastPause": .string(reason)],
                    deadline: hasSentCommit || isOpen
                        ? nil : .after(Mover.giveUpPatience, from: plane.clocks.monotonic()))
                // With the number that the move has from now on.
                return try await self.fence().reopen()
            } catch is MoveLost {
                let now = try await requireMine()
                guard now.step == .committed else { throw MoveLost() }
                // It had been passed after all.
                (move.step, move.progress) = (.committed, now.progress)
                return
            } catch {
                if !isOpen, !hasSentCommit { isOpen = await openAlone() }
                try await Loop.shared.sleep(for: .milliseconds(20))
            }
        }
    }

    /// For the control database to take a pause back, with the door closed.
    private static let giveUpPatience = Duration.milliseconds(250)

    /// The control database is away: the clinic goes on where it was. Only the process of this attempt can pass the
    /// commit point, and it has not sent that: it never will, so there is nothing that anybody else would have to say. The
    /// door is opened under the number that the next attempt will have, lest a statement of the pause that is still on its way
    /// close it again while nobody could open it (`MoveModel`, `openAloneUnsent`).
    ///
    /// - Returns: whether it is open, or somebody else's.
    private func openAlone() async -> Bool {
        precondition(!hasSentCommit, "the clinic may be the other shard's")
        do {
            try await pauseFence?.openAlone(as: servedState)
            tell(move, "the door was opened without the control database")
            return true
        } catch {
            tell(move, "the door cannot be opened without the control database: \(error)")
            return false
        }
    }
}
