import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Empties a shard: lets no clinic come to it, and moves those away that it has, some at a time.
///
/// What there is to do is read from the control database, and each move is written there before it begins: a drain that
/// dies is gone on with by the next one, which takes over what is under way. It ends when no clinic is left, or when more
/// moves have failed than its budget allows; then nothing new is begun and what is under way is brought to its end.
///
/// Each clinic has a move of its own, with a publication, a slot and a subscription of its own, and several run side by
/// side. One stream for many small clinics would spare slots and the decoding of the log by each of them, and would tie
/// the clinics together: one that cannot be copied, is suspended on the way or has to be aborted would hold up the
/// others. It is not needed for the rate: 100 clinics of 200 rows were moved in 73 s, four at once (4,900 an hour), and in
/// 59 s eight at once (6,100), by a debug build beside three others on two cores; 1,000 an hour is what was asked for.
@LoopActor
package final class ShardDrain {
    package struct Options: Sendable {
        /// Shards that may take the clinics; empty: every open one of the region.
        package var targets: [String]
        /// Moves at once, at most. 0: the shard only takes no more clinics.
        package var parallel: Int
        /// Moves that may fail before no more are begun.
        package var failuresMax: Int
        package var move: MoveOptions
        /// Also wait until no way back is kept any more.
        package var waitsForSoaks: Bool
        package var reason: String?
        /// Pins, groups, dedications, regions and how full a shard may be: as for `rebalance plan`.
        package var settings = RebalanceSettings()
        /// Where they are from, for messages.
        package var rulesFile: String?
        /// Clinics that are pinned to the shard leave it, too.
        package var ignoresPins = false

        package static let parallels = 0...16
        package static let failures = 0...1000

        package init(
            targets: [String] = [], parallel: Int = 4, failuresMax: Int = 3,
            move: MoveOptions = MoveOptions(soak: .zero), waitsForSoaks: Bool = false,
            reason: String? = nil
        ) {
            self.targets = targets
            self.parallel = parallel
            self.failuresMax = failuresMax
            self.move = move
            self.waitsForSoaks = waitsForSoaks
            self.reason = reason
        }
    }

    /// A clinic that is still on the shard, and why.
    package struct Remainder: Sendable, Equatable {
        package var slug: String
        package var reason: String
    }

    package struct Outcome: Sendable {
        package var shard: String
        /// Clinics that this command has seen leave.
        package var moved: Int
        package var failed: [Remainder]
        /// Clinics that no drain can move as they are.
        package var stuck: [Remainder]
        /// Clinics on the shard that were not tried.
        package var untried: Int
        /// Moves of the shard whose way back is kept.
        package var soaking: Int
        package var duration: Duration
        /// Why no more moves were begun; nil if there was nothing left to begin.
        package var stopReason: String?

        package var isEmpty: Bool { failed.isEmpty && stuck.isEmpty && untried == 0 }

        package var clinicsPerHour: Int {
            Int(Double(moved) / max(duration.inSeconds, 0.001) * 3600)
        }
    }

    /// What a drain would do.
    package struct Preview: Sendable {
        package var shard: Shard
        package var plan: DrainPlan
        /// Clinics that no drain can move as they are.
        package var stuck: [Remainder]
        /// Moves that are under way already.
        package var running: Int
    }

    private enum Ending: Sendable {
        case moved
        case failed(String)
        /// Its target is none any more for it: another is looked for.
        case displaced(String)
    }

    let plane: ControlPlane
    let id: String
    let options: Options
    private let tell: @Sendable (String) -> Void

    private var moved = 0
    /// How often a clinic's target was taken by one of its group.
    private var displaced: [String: Int] = [:]
    private var failed: [Remainder] = []
    private var beganAt: MonotonicTime
    private var stopReason: String?

    /// Of a clinic that waits for a slot, or of a soak that is waited for.
    private static let lookEvery = Duration.seconds(1)
    /// Choices of a target for one clinic that others of its group may take away.
    private static let displacementsMax = 5

    /// - Parameter tell: hears of every clinic and of what is waited for.
    package init(
        _ shard: String, plane: ControlPlane, _ options: Options,
        tell: @escaping @Sendable (String) -> Void
    ) {
        id = shard
        self.plane = plane
        self.options = options
        self.tell = tell
        beganAt = plane.clocks.monotonic()
    }

    // MARK: Draining

    /// - Returns: what was done, also when it was stopped by its error budget.
    /// - Throws: `ControlError` if nothing could be begun: another drain of the shard runs, or a check refuses.
    package func run() async throws -> Outcome {
        _ = try await preview()
        try await lock()
        let outcome: Outcome
        do {
            outcome = try await drain()
        } catch {
            // If this fails too, the lock ends with the connection.
            try await unlock()
            throw error
        }
        try await unlock()
        return outcome
    }

    private func drain() async throws -> Outcome {
        if try await ShardRegistry(plane: plane).drain(id, reason: options.reason) {
            tell("shard \(id) takes no more clinics")
        }
        beganAt = plane.clocks.monotonic()
        guard options.parallel > 0 else { return outcome(try await census()) }
        while stopReason == nil {
            try await settle(try await census().running)
            var census = try await census()
            let gaveUp = Set(failed.map(\.slug))
            census.clinics.removeAll { gaveUp.contains($0.slug) }
            guard !census.clinics.isEmpty else { break }
            try await move(census)
        }
        if options.waitsForSoaks, stopReason == nil { try await awaitSoaks() }
        return outcome(try await census())
    }

    private func outcome(_ census: Census) -> Outcome {
        let gaveUp = Set(failed.map(\.slug))
        return Outcome(
            shard: id, moved: moved, failed: failed, stuck: census.stuck,
            untried: census.clinics.filter { !gaveUp.contains($0.slug) }.count,
            soaking: census.soaking.count, duration: plane.clocks.monotonic() - beganAt,
            stopReason: stopReason)
    }

    private func unlock() async throws {
        try await plane.attempt("the shard cannot be unlocked") {
            _ = try await plane.control().execute(
                Query("SELECT pg_advisory_unlock(3, hashtext($1))", [.text(id)]),
                deadline: plane.deadline)
        }
    }

    /// Of the connection: it ends with the process, too.
    private func lock() async throws {
        let isMine = try await plane.attempt("the shard cannot be locked") {
            try await plane.control().execute(
                Query("SELECT pg_try_advisory_lock(3, hashtext($1))", [.text(id)]),
                deadline: plane.deadline
            ).single().bool(0)
        }
        guard isMine else {
            throw ControlError(
                .conflict, code: "drain-running", "shard \(id) is being drained by another command",
                remedy: "Wait for it to end; 'hc-admin move list --shard \(id)' shows what it does."
            )
        }
    }

    /// What was under way before: what leaves the shard is carried on, what would come to it is undone.
    private func settle(_ moves: [Move]) async throws {
        guard !moves.isEmpty else { return }
        tell("\(moves.count) moves of shard \(id) are under way already")
        var rest = moves[...]
        await withTaskGroup(of: (Move, Ending).self) { group in
            var running = 0
            while true {
                while running < options.parallel, let move = rest.popFirst() {
                    running += 1
                    group.addTask { [self] in (move, await settle(move)) }
                }
                guard let (move, ending) = await group.next() else { break }
                running -= 1
                note(move.slug, ending, left: rest.count + running, counts: move.origin == id)
            }
        }
    }

    private func settle(_ move: Move) async -> Ending {
        let own = plane.twin()
        let ending: Ending
        do {
            let service = MoveService(plane: own)
            if move.origin != id, move.direction == .forward, move.step.isBeforeCommit {
                do {
                    _ = try await service.abort(
                        "\(move.id.uuid)", reason: "shard \(id) is drained", tell: { _, _ in })
                } catch let error as ControlError where error.code == "move-past-commit" {
                    _ = try await service.follow(move.id, tell: { _, _ in })
                }
            }
            ending = ShardDrain.ending(try await service.follow(move.id, tell: { _, _ in }))
        } catch {
            ending = .failed("\(error)")
        }
        await own.close()
        return move.origin == id ? ending : .moved
    }

    /// Moves the clinics of a census, as many at once as there is room for.
    private func move(_ census: Census) async throws {
        let registry = ShardRegistry(plane: plane)
        let shards = try await registry.list()
        guard let origin = shards.first(where: { $0.id == id }) else {
            throw ShardRegistry.unknown(id)
        }
        guard origin.state == "draining" else {
            stopReason = "shard \(id) was opened again"
            return
        }
        let (targets, plan) = try await plan(for: census, of: origin, among: shards)
        for clinic in plan.pinned {
            note(clinic.slug, .failed("it is pinned to shard \(id)"), left: plan.steps.count)
        }
        for homeless in plan.homeless {
            note(
                homeless.clinic.slug, .failed("no shard has room for it: \(homeless.reason)"),
                left: plan.steps.count)
        }
        try FaultPoint.reach("drain.planned")
        var rest = plan.steps
        var running: [String: Int] = [:]
        try await withThrowingTaskGroup(of: (DrainPlan.Step, Ending).self) { group in
            while true {
                var room = DrainRoom(
                    origin: .init(slots: 0, senders: 0, workers: 0, copiers: 0), targets: [:])
                if stopReason == nil, !rest.isEmpty { room = try await self.room(origin, targets) }
                let most = min(options.parallel, room.fromOrigin)
                while stopReason == nil, running.values.reduce(0, +) < most,
                    let index = rest.firstIndex(where: {
                        running[$0.target, default: 0] < room.to($0.target)
                    })
                {
                    let step = rest.remove(at: index)
                    running[step.target, default: 0] += 1
                    let arrived = census.arrived[step.clinic.id]
                    group.addTask { [self] in (step, await move(step, arrived)) }
                }
                if let (step, ending) = try await group.next() {
                    running[step.target, default: 0] -= 1
                    note(step.clinic.slug, ending, left: rest.count + running.values.reduce(0, +))
                    continue
                }
                guard stopReason == nil, !rest.isEmpty else { return }
                tell(ShardDrain.shortage(of: room, origin: id))
                try await Loop.shared.sleep(for: ShardDrain.lookEvery)
            }
        }
    }

    private static func shortage(of room: DrainRoom, origin: String) -> String {
        func spare(_ name: String, _ spare: DrainRoom.Spare) -> String {
            "\(name) has \(spare.slots) slots, \(spare.senders) senders and \(spare.workers) workers free"
        }
        return "waits for room: "
            + ([spare("shard \(origin)", room.origin)]
            + room.targets.sorted { $0.key < $1.key }.map { spare("shard \($0.key)", $0.value) })
            .joined(separator: "; ") + ". Moves that soak keep theirs until they are finalized"
    }

    private func move(_ step: DrainPlan.Step, _ arrived: Move?) async -> Ending {
        let own = plane.twin()
        let ending: Ending
        do {
            let service = MoveService(plane: own)
            let silent: MoveService.Tell = { _, _ in }
            if let arrived {
                // It came here by a move whose way back is kept: a clinic has one move at a time.
                _ = try await service.finalize(
                    "\(arrived.id.uuid)", reason: "shard \(id) is drained", tell: silent
                ).run()
                _ = try await service.follow(arrived.id, tell: silent)
            }
            var plan = try await MovePreflight(plane: own).plan(
                step.clinic.slug, to: step.target, options.move)
            plan.apart = step.apart
            let mover = try await service.begin(plan, reason: options.reason, tell: silent)
            let move = try await mover.run()
            // Another process may have taken it over.
            ending = ShardDrain.ending(try await service.follow(move.id, tell: silent))
        } catch let error as ControlError where error.code == MoveStore.groupThere {
            ending = .displaced("\(error)")
        } catch {
            ending = .failed("\(error)")
        }
        await own.close()
        return ending
    }

    private static func ending(_ move: Move) -> Ending {
        switch move.state {
        case .done, .soaking, .reverted: .moved
        default: .failed(move.progress["abortReason"]?.asString ?? "it is \(move.state.rawValue)")
        }
    }

    /// - Parameter counts: whether a clinic has left by it.
    private func note(_ slug: String, _ ending: Ending, left: Int, counts: Bool = true) {
        switch ending {
        case .moved:
            guard counts else { return tell("'\(slug)' does not come any more") }
            moved += 1
            failed.removeAll { $0.slug == slug }
            let elapsed = (plane.clocks.monotonic() - beganAt).inSeconds
            let rate = Double(moved) / max(elapsed, 0.001)
            let seconds = Int((Double(left) / rate).rounded(.up))
            tell(
                "'\(slug)' moved; \(moved) done, \(left) left, \(Int(rate * 3600)) an hour"
                    + (left > 0
                        ? ", about \(seconds < 120 ? "\(seconds) s" : "\(seconds / 60) min") to go"
                        : ""))
        case .displaced(let reason):
            displaced[slug, default: 0] += 1
            guard displaced[slug, default: 0] < ShardDrain.displacementsMax else {
                return note(slug, .failed(reason), left: left, counts: counts)
            }
            // It is planned for anew with those that are left.
            tell("'\(slug)' looks for another shard: \(reason)")
        case .failed(let reason):
            failed.append(Remainder(slug: slug, reason: reason))
            tell("'\(slug)' could not be moved: \(reason)")
            if failed.count > options.failuresMax, stopReason == nil {
                stopReason =
                    "\(failed.count) moves have failed, \(options.failuresMax) are allowed"
                tell("\(stopReason ?? ""): no more are begun")
            }
        }
    }

    /// Until no way back is kept from here, or to here. An agent, or this, ends those whose time has come.
    private func awaitSoaks() async throws {
        var said = 0
        while true {
            let census = try await census()
            let mine = census.soaking + census.running
            guard !mine.isEmpty else { return }
            if mine.count != said {
                tell("\(mine.count) moves of shard \(id) are not over: their ways back are kept")
            }
            said = mine.count
            let forsaken = Set(try await MoveStore(plane: plane).forsaken())
            for move in mine where forsaken.contains(move.id) {
                let own = plane.twin()
                if let mover = try await MoveService(plane: own).take(move.id, tell: { _, _ in }) {
                    _ = try await mover.run()
                }
                await own.close()
            }
            try await Loop.shared.sleep(for: ShardDrain.lookEvery)
        }
    }
}
