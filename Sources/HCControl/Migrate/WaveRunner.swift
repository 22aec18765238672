import HCCore
package import HCIO
import HCPostgres

/// Brings all shards up to date in waves: the canary, then more and more of them, and none after the first that fails.
///
/// What is applied says each shard's ledger, so a run that halted, or whose process died, goes on by being run again.
@LoopActor
package final class WaveRunner {
    package struct Options: Sendable {
        /// The shard that goes first; nil: that of the run that is open, else the first open one.
        package var canary: String?
        package var percents = MigrationWaves.percentsDefault
        /// How many shards of a wave are worked on at once; each has connections of its own.
        package var parallel = 8
        /// Shards that are left out, because their server is down.
        package var except: Set<String> = []
        /// Asked before the run and after each wave; nil: only the shards are looked at.
        package var health: Health?
        /// For how long somebody on a shard may be waiting for a lock when its wave is over.
        package var lockWaitMax = Duration.seconds(2)
        /// Whether a run is taken from a process that has it and does not get on, and what the audit says why.
        package var takesOver = false
        package var reason: String?

        package init() {}
    }

    package struct Health: Sendable {
        package var bounds: HealthBounds
        /// What the servers have answered so far.
        package var look: @LoopActor @Sendable () async throws -> ServerHealth

        package init(
            bounds: HealthBounds,
            look: @escaping @LoopActor @Sendable () async throws -> ServerHealth
        ) {
            self.bounds = bounds
            self.look = look
        }
    }

    /// One shard before the run.
    package struct Line: Sendable {
        package let shard: Shard
        package let version: Int
        let mark: SchemaMark
        /// What this run does,
        package internal(set) var pending: [MigrationStep]
        /// and what comes after it: a step for which processes that serve may have to be waited for begins a run of its
        /// own, when all shards have what is before it.
        package internal(set) var later: [MigrationStep] = []

        package var fingerprint: String { mark.fingerprint }
        var stepsLeft: Int { pending.count + later.count }
    }

    package struct Plan: Sendable {
        package let waves: [[Line]]
        /// For each wave, by what its migrations took elsewhere; nil if one of them is new.
        package let estimates: [Duration?]
        /// The step for which every process that serves has to know a migration; the run begins with it.
        package let gate: MigrationStep?

        package static let empty = Plan(waves: [], estimates: [], gate: nil)

        package var lines: [Line] { waves.flatMap { $0 } }
        package var isEmpty: Bool { lines.allSatisfy { $0.pending.isEmpty } }
        /// What this run does, and what comes after it, in order.
        package var steps: [MigrationStep] { WaveRunner.inOrder(lines.flatMap(\.pending)) }
        package var later: [MigrationStep] { WaveRunner.inOrder(lines.flatMap(\.later)) }
    }

    struct Failure {
        var shard: String
        var code: String
        var message: String

        init(shard: String, code: String, message: String) {
            self.shard = shard
            self.code = code
            self.message = message
        }

        init(_ shard: String, _ problem: ControlError) {
            self.init(
                shard: shard, code: problem.code,
                message: problem.message + (problem.cause.map { ": \($0)" } ?? ""))
        }
    }

    let plane: ControlPlane
    let catalog: MigrationCatalog
    let options: Options
    private let locks: LockRetry
    /// Each shard is looked at, migrated and looked at again.
    private let spare = SpareConnections()

    var failures: [Failure] = []
    /// As what each shard came out.
    private var marks: [String: SchemaMark] = [:]
    private var applied: [MigrationRunner.Applied] = []
    /// By shard, versions that were applied there before the run and not found good since.
    private var unverified: [String: Set<Int>] = [:]
    private var death: FaultPointFailure?
    private var machine = RolloutMachine(waves: [])
    /// The last ends of a wave's workers, which are being written.
    private var settling: [Task<Void, Never>] = []
    private var isAbortWanted = false
    private var isLost = false
    /// Why the last steps were not begun: processes that serve have to be upgraded before.
    package private(set) var waits: ControlError?
    private var leaseEnds: MonotonicTime
    /// When something was last begun or ended.
    var gotOnAt: MonotonicTime
    private let startedAt: MonotonicTime

    package init(
        plane: ControlPlane, catalog: MigrationCatalog, options: Options,
        locks: LockRetry = LockRetry()
    ) {
        self.plane = plane
        self.catalog = catalog
        self.options = options
        self.locks = locks
        startedAt = plane.clocks.monotonic()
        leaseEnds = startedAt
        gotOnAt = startedAt
    }

    /// One run after the other, until every shard has everything, or processes that serve have to be upgraded before the
    /// next step (`waits`).
    ///
    /// - Throws: `ControlError` (`rollout-halted`, `rollout-aborted`, `rollout-running`, `rollout-lost`), what `plan()`
    ///   throws, or `contract-waits` if nothing else was to be done; those shards that come after are untouched then.
    package func up() async throws -> [MigrationRunner.Applied] {
        defer { spare.close() }
        let store = RolloutStore(plane: plane)
        if options.takesOver { try await store.takeOver(reason: options.reason) }
        try await store.requireNone()
        while true {
            let plan = try await plan()
            let isOpen = try await store.last()?.isOpen ?? false
            guard let target = plan.steps.last?.migration ?? catalog.shard.last,
                let canary = plan.waves.first?.first, !plan.isEmpty || isOpen
            else { return applied }
            guard try await mayBegin(plan) else { return applied }
            try await carryOut(plan, to: target, canary: canary.shard.id, store)
            guard !plan.later.isEmpty else { return applied }
        }
    }

    private func mayBegin(_ plan: Plan) async throws -> Bool {
        guard let gate = plan.gate else { return true }
        do {
            try await MigrationRunner(plane: plane, catalog: catalog).requireServers(
                for: gate, in: .shard)
            return true
        } catch let error as ControlError {
            guard error.code == "contract-waits", !applied.isEmpty else { throw error }
            waits = error
            return false
        }
    }

    private func carryOut(
        _ plan: Plan, to target: Migration, canary: String, _ store: RolloutStore
    ) async throws {
        var health = try await options.health?.look()
        let asked = plane.clocks.monotonic()
        let rollout = try await store.begin(
            target: target, canary: canary, shards: plan.lines.count,
            owner: "\(plane.operatorName) \(asked)")
        leaseEnds = asked + RolloutStore.lease
        unverified = try await PastSteps(plane: plane).unverified(
            of: catalog.shard.filter { $0.verify != nil }.map(\.version))
        let renewing = Loop.shared.spawn { [self] in await renew(rollout) }
        defer { renewing.cancel() }
        try await run(plan, rollout, store, &health)
    }

    private func run(
        _ plan: Plan, _ rollout: Rollout, _ store: RolloutStore, _ health: inout ServerHealth?
    ) async throws {
        var reference = ""
        let journal = RolloutJournal(plane: plane)
        machine = RolloutMachine(waves: plan.waves.map { $0.map(\.shard.id) })
        while machine.ending == nil {
            let number = machine.wave
            // While the first shards are worked on: each asks by itself whether the run is still this process'.
            let noting = number == 0 ? nil : note(number, rollout, journal)
            let lines = Dictionary(
                uniqueKeysWithValues: plan.waves[number].map { ($0.shard.id, $0) })
            await withWorkers(for: lines.count) { [self] plane in
                let history = StepHistory(
                    RolloutStore(plane: plane, journal: journal), rollout, wave: number)
                while mayGoOn, let shard = machine.next(), let line = lines[shard] {
                    await migrate(line, plan, history, plane)
                }
                settling.append(Loop.shared.spawn { [self] in await settle(history) })
            }
            // While the last ends are written.
            if mayGoOn { reference = await gate(plan.waves[number], reference) }
            for end in settling { await end.value }
            settling = []
            try await noting?.value
            if let death { throw death }
            if mayGoOn { await watch(number, &health) }
            guard mayGoOn || !failures.isEmpty else { continue }
            machine.verified(failing: failures.map(\.shard))
            guard machine.mayGoOn else { continue }
            plane.progress("wave \(number + 1) of \(plan.waves.count) is done and verified")
        }
        if isLost { throw RolloutStore.lost }
        guard failures.isEmpty else { throw try await halt(plan, rollout, store) }
        guard machine.ending == .done else {
            guard isAbortWanted else { throw RolloutStore.lost }
            try await store.end(rollout, as: .aborted, shardsDone: machine.done)
            throw ControlError(
                .refused, code: "rollout-aborted",
                "aborted: \(machine.done) of \(plan.lines.count) shards are at version \(rollout.version)",
                remedy: "What was applied stays applied; 'hc-admin migrate up' begins anew.")
        }
        try await store.end(rollout, as: .done, shardsDone: machine.done)
    }

    /// What the status shows of a wave that begins.
    private func note(
        _ wave: Int, _ rollout: Rollout, _ journal: RolloutJournal
    ) -> Task<Void, any Error> {
        let store = RolloutStore(plane: plane, journal: journal)
        return Loop.shared.makeTask { [done = machine.done] in
            try await store.note(rollout, wave: wave, shardsDone: done)
        }
    }

    /// Nobody else has the run, and nobody wants it ended: what was begun and did not get its locks may be tried again.
    private func requireRun() throws(ControlError) {
        gotOnAt = plane.clocks.monotonic()
        guard !isLost, gotOnAt < leaseEnds else { throw RolloutStore.lost }
        guard !isAbortWanted else { throw RolloutStore.leftOff }
    }

    /// Looked at before anything is begun.
    private var mayGoOn: Bool {
        gotOnAt = plane.clocks.monotonic()
        if death != nil || isAbortWanted || isLost || gotOnAt >= leaseEnds {
            machine.stop()
        }
        return failures.isEmpty && machine.mayGoOn
    }

    private func migrate(
        _ line: Line, _ plan: Plan, _ history: StepHistory, _ plane: ControlPlane
    ) async {
        do {
            var runner = MigrationRunner(plane: plane, catalog: catalog, locks: locks)
            runner.requireRun = { [self] () throws(ControlError) in try requireRun() }
            let isDone = try await apply(line, history, runner)
            guard isDone else { return machine.leftOff(line.shard.id) }
            machine.migrated(line.shard.id)
            tell(plan, wave: history.wave)
        } catch let error as FaultPointFailure {
            death = error
            machine.leftOff(line.shard.id)
        } catch {
            let code = (error as? ControlError)?.code
            if code == RolloutStore.lost.code { isLost = true }
            guard code != RolloutStore.lost.code, code != RolloutStore.leftOff.code else {
                return machine.leftOff(line.shard.id)
            }
            machine.failed(line.shard.id)
            failures.append(
                Failure(line.shard.id, WaveRunner.problem(error, line.shard.id)))
        }
    }

    /// The end of what a worker has done last.
    private func settle(_ history: StepHistory) async {
        guard death == nil, let shard = history.owedShard else { return }
        do {
            try await history.settle()
        } catch {
            machine.failed(shard)
            failures.append(Failure(shard, WaveRunner.problem(error, shard)))
        }
    }

    /// - Returns: false if something else stopped the run between two migrations of the shard.
    private func apply(
        _ line: Line, _ history: StepHistory, _ runner: MigrationRunner
    ) async throws -> Bool {
        let shard = line.shard
        try await verifyAgain(line, history, runner)
        for step in line.pending {
            guard mayGoOn else { return false }
            let isDone = try await take(step, at: shard, from: line, history, runner)
            guard isDone else { return false }
            applied.append(.init(database: shard.id, version: step.version, name: step.name))
            if step.isLast {
                try await verify(
                    step.migration, shard, mark(of: line).fingerprint, history, runner)
            }
        }
        if line.pending.isEmpty {
            // What was applied by a process that died may not have been written down.
            try await ShardRegistry(plane: runner.plane).recordSchema(
                id: shard.id, version: line.version, fingerprint: line.fingerprint)
        }
        return true
    }

    /// One step, its line in the history, and what all processes are told of the shard.
    ///
    /// - Returns: false if it was not to go on.
    private func take(
        _ step: MigrationStep, at shard: Shard, from line: Line, _ history: StepHistory,
        _ runner: MigrationRunner
    ) async throws -> Bool {
        let before = mark(of: line)
        let target = MigrationRunner.Target(
            connection: try await runner.plane.shard(reference: shard.reference, .owner),
            database: shard.id, reference: shard.reference)
        let run = try await begin(step, at: shard, before.fingerprint, history, runner)
        let outcome: MigrationRunner.Outcome?
        do {
            try FaultPoint.reach("migrate.before-apply")
            let isDone = try await runner.take(step, at: target, while: { mayGoOn })
            try FaultPoint.reach("migrate.after-apply")
            outcome = isDone ? try await runner.outcome(of: step, at: target, from: before) : nil
        } catch {
            if !(error is FaultPointFailure) { try await history.failed(run, "\(error)") }
            throw error
        }
        guard let outcome else {
            try await history.failed(run, "it was stopped half-way")
            return false
        }
        marks[shard.id] = outcome.mark
        let fingerprint = outcome.mark.fingerprint
        history.ended(
            run, shard: shard.id, fingerprint: fingerprint,
            record: ShardRegistry.record(
                id: shard.id, version: step.version, fingerprint: fingerprint,
                servesFrom: outcome.servesFrom, run: run))
        return true
    }

    func mark(of line: Line) -> SchemaMark { marks[line.shard.id] ?? line.mark }

    /// - Throws: `ControlError` (`moves-open`) while a clinic is on the move, if the step changes the schema.
    private func begin(
        _ step: MigrationStep, at shard: Shard, _ fingerprint: String, _ history: StepHistory,
        _ runner: MigrationRunner
    ) async throws -> UUID {
        while true {
            let run = try await history.began(
                step.migration, named: step.name, shard: shard.id, fingerprint: fingerprint,
                changesSchema: step.changesSchema)
            if let run { return run }
            // If it has ended by now, it is in nobody's way.
            try await runner.requireNoMoves(shard)
        }
    }

    /// What somebody before has applied last, in this run or another one, and not found good: he died, or something was
    /// wrong. What comes before that was found good before it was begun.
    private func verifyAgain(
        _ line: Line, _ history: StepHistory, _ runner: MigrationRunner
    ) async throws {
        let isWhole = !(line.pending + line.later).contains { $0.version == line.version }
        guard isWhole, unverified[line.shard.id]?.contains(line.version) == true else { return }
        try await verify(
            catalog.shard[line.version - 1], line.shard, line.fingerprint, history, runner)
    }

    private func verify(
        _ migration: Migration, _ shard: Shard, _ fingerprint: String, _ history: StepHistory,
        _ runner: MigrationRunner
    ) async throws {
        guard migration.verify != nil else { return }
        let run = try await history.began(
            migration, named: PastSteps.verification(of: migration), shard: shard.id,
            fingerprint: fingerprint)
        guard let run else { throw RolloutStore.lost }
        do {
            let connection = try await runner.plane.shard(reference: shard.reference, .owner)
            try FaultPoint.reach("migrate.before-verify")
            try await runner.verify(
                migration,
                at: .init(
                    connection: connection, database: shard.id, reference: shard.reference))
        } catch {
            if !(error is FaultPointFailure) { try await history.failed(run, "\(error)") }
            throw error
        }
        history.ended(run, shard: shard.id, fingerprint: fingerprint)
    }

    private func halt(
        _ plan: Plan, _ rollout: Rollout, _ store: RolloutStore
    ) async throws -> ControlError {
        let shards = failures.map(\.shard)
        let text = failures.map(\.message).joined(separator: "\n")
        let state = try await store.end(
            rollout, as: .halted, shardsDone: machine.done, failed: shards, problem: text)
        let isAborted = state == .aborted
        return ControlError(
            .failed, code: isAborted ? "rollout-aborted" : "rollout-halted",
            "\(isAborted ? "aborted" : "halted") at shard \(shards.joined(separator: ", ")) (\(failures[0].code)); \(machine.done) of"
                + " \(plan.lines.count) shards are up to date, the others were not changed:\n\(text)",
            remedy: isAborted
                ? "Repair that before 'hc-admin migrate up' begins anew."
                : "Repair that, then 'hc-admin migrate up' goes on where it stopped;"
                    + " 'hc-admin migrate abort' ends this run.")
    }

    private func tell(_ plan: Plan, wave: Int) {
        let total = plan.lines.count
        let elapsed = plane.clocks.monotonic() - startedAt
        let left = elapsed * (total - machine.done) / max(machine.done, 1)
        plane.progress(
            "wave \(wave + 1) of \(plan.waves.count): \(machine.done) of \(total) shards done, about"
                + " \((left.inMilliseconds + 999) / 1000) s left")
    }

    /// Over a connection of its own, so that no long statement keeps the lease from being renewed. By its own clock the
    /// process begins nothing more before the lease has run out on the control database's.
    private func renew(_ rollout: Rollout) async {
        let own = plane.twin()
        var toldAt = startedAt
        while !Task.isCancelled, !isLost {
            do {
                try await Loop.shared.sleep(for: RolloutStore.renewEvery)
            } catch {
                break
            }
            let asked = own.clocks.monotonic()
            do {
                let wanted = try await RolloutStore(plane: own).renew(
                    rollout, shardsDone: machine.done, gotOn: gotOnAt >= toldAt)
                guard let wanted else {
                    isLost = !Task.isCancelled
                    break
                }
                isAbortWanted = isAbortWanted || wanted
                leaseEnds = asked + RolloutStore.lease
                toldAt = asked
            } catch {
                // The control database does not answer: what is left of the lease is left.
                continue
            }
        }
        await own.close()
    }

    /// A worker takes one after the other; each worker has connections of its own.
    ///
    /// - Returns: what came of each, in their order.
    func inParallel<Element: Sendable, Value: Sendable>(
        _ elements: [Element],
        _ body: @escaping @LoopActor (ControlPlane, Element) async -> Value
    ) async -> [Value] {
        let queue = WorkQueue<Element, Value>(elements)
        await withWorkers(for: elements.count) { plane in
            while let (number, element) = queue.next() {
                queue.values[number] = await body(plane, element)
            }
        }
        return elements.indices.compactMap { queue.values[$0] }
    }

    /// As many at once as there may be, each with connections of its own.
    private func withWorkers(
        for count: Int, _ body: @escaping @LoopActor (ControlPlane) async -> Void
    ) async {
        let workers = (0..<min(options.parallel, count)).map { _ in
            Loop.shared.makeTask { [plane, spare] in
                let own = plane.twin(spare)
                await body(own)
                await own.close()
            }
        }
        for worker in workers { await worker.value }
    }
}

/// What workers take from, one after the other, and what came of it.
@LoopActor
private final class WorkQueue<Element: Sendable, Value: Sendable> {
    private var rest: ArraySlice<Element>
    var values: [Int: Value] = [:]

    init(_ elements: [Element]) { rest = elements[...] }

    func next() -> (Int, Element)? {
        let number = rest.startIndex
        return rest.popFirst().map { (number, $0) }
    }
}
