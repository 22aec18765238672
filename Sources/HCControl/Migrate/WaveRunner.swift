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

        package init() {}
    }

    /// One shard before the run.
    package struct Line: Sendable {
        package let shard: Shard
        package let version: Int
        package let fingerprint: String
        package let pending: [Migration]
    }

    package struct Plan: Sendable {
        package let waves: [[Line]]
        /// For each wave, by what its migrations took elsewhere; nil if one of them is new.
        package let estimates: [Duration?]

        package static let empty = Plan(waves: [], estimates: [])

        package var lines: [Line] { waves.flatMap { $0 } }
        package var isEmpty: Bool { lines.allSatisfy { $0.pending.isEmpty } }
    }

    private struct Failure {
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

    private let plane: ControlPlane
    private let catalog: MigrationCatalog
    private let options: Options
    private let locks: LockRetry

    private var failures: [Failure] = []
    private var applied: [MigrationRunner.Applied] = []
    private var death: FaultPointFailure?
    private var machine = RolloutMachine(waves: [])
    private var isAbortWanted = false
    private var isLost = false
    private var leaseEnds: MonotonicTime
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
    }

    // MARK: Plan

    /// Looks at every shard before any is touched.
    ///
    /// - Throws: `ControlError` with everything that stands in the way: a shard that is down, a migration that was edited,
    ///   clinics on the move, a schema that was changed by hand.
    package func plan() async throws -> Plan {
        let all = try await ShardRegistry(plane: plane).list()
        for id in options.except.sorted() where !all.contains(where: { $0.id == id }) {
            throw ShardRegistry.unknown(id)
        }
        let shards = all.filter { !options.except.contains($0.id) }
        guard !shards.isEmpty else { return .empty }
        let canary = try await canary(of: shards)
        let waves = try MigrationWaves(
            shards: shards.map(\.id), canary: canary, percents: options.percents)
        var lines: [String: Line] = [:]
        var problems: [ControlError] = []
        for (shard, result) in zip(shards, await look(at: shards)) {
            switch result {
            case .success(let line): lines[shard.id] = line
            case .failure(let problem): problems.append(problem)
            }
        }
        problems += WaveRunner.strangers(shards.compactMap { lines[$0.id] })
        guard problems.isEmpty else { throw WaveRunner.combined(problems) }
        let planned = waves.waves.map { $0.compactMap { lines[$0] } }
        return Plan(waves: planned, estimates: try await estimates(planned))
    }

    /// What each of them has, in their order.
    private func look(at shards: [Shard]) async -> [Result<Line, ControlError>] {
        await inParallel(shards) { [catalog] plane, shard in
            do {
                let runner = MigrationRunner(plane: plane, catalog: catalog)
                return .success(try await WaveRunner.look(at: shard, runner))
            } catch {
                return .failure(WaveRunner.problem(error, shard.id))
            }
        }
    }

    private func canary(of shards: [Shard]) async throws -> String {
        if let wanted = options.canary {
            guard shards.contains(where: { $0.id == wanted }) else {
                throw ShardRegistry.unknown(wanted)
            }
            return wanted
        }
        if let open = try await RolloutStore(plane: plane).last(), open.isOpen,
            shards.contains(where: { $0.id == open.canary })
        {
            return open.canary
        }
        return (shards.first { $0.state == "open" } ?? shards[0]).id
    }

    private static func look(
        at shard: Shard, _ runner: MigrationRunner
    ) async throws -> Line {
        let connection = try await runner.plane.shard(reference: shard.reference, .owner)
        let pending = try await runner.pending(shard, connection)
        if !pending.isEmpty { try await runner.requireNoMoves(shard) }
        let version = runner.catalog.shard.count - pending.count
        return Line(
            shard: shard, version: version,
            fingerprint: version == 0
                ? "" : try await runner.fingerprint(of: connection, shard.id),
            pending: pending)
    }

    /// Of shards at the same version, those whose schema is not that of most of them.
    private static func strangers(_ lines: [Line]) -> [ControlError] {
        Dictionary(grouping: lines, by: \.version).sorted { $0.key < $1.key }.flatMap { _, same in
            let groups = Dictionary(grouping: same, by: \.fingerprint).values.sorted {
                ($0.count, $1[0].shard.id) > ($1.count, $0[0].shard.id)
            }
            return groups.dropFirst().flatMap { $0 }.map { line in
                ControlError(
                    .refused, code: "schema-differs",
                    "the schema of shard \(line.shard.id) is not that of \(groups[0][0].shard.id), which has"
                        + " the same migrations (up to \(line.version)): one of them was changed by hand",
                    remedy:
                        "See 'hc-admin migrate drift'; undo what was done by hand, then run it again."
                )
            }
        }
    }

    private static func problem(_ error: any Error, _ shard: String) -> ControlError {
        error as? ControlError
            ?? ControlError(
                .failed, code: "shard-failed", "shard \(shard) cannot be looked at", cause: error)
    }

    private static func combined(_ problems: [ControlError]) -> ControlError {
        guard problems.count > 1 else { return problems[0] }
        return ControlError(
            problems[0].kind, code: problems[0].code,
            "nothing was applied, for \(problems.count) reasons:\n"
                + problems.map(\.message).joined(separator: "\n"),
            remedy: problems[0].remedy)
    }

    private func estimates(_ waves: [[Line]]) async throws -> [Duration?] {
        let versions = Set(waves.flatMap { $0 }.flatMap { $0.pending.map(\.version) }).sorted()
        let known =
            versions.isEmpty ? [:] : try await RolloutStore(plane: plane).durations(versions)
        return waves.map { wave in
            var longest = Duration.zero
            for migration in wave.flatMap(\.pending) {
                guard known[migration.version] != nil else { return nil }
            }
            for line in wave {
                longest = max(
                    longest, line.pending.reduce(.zero) { $0 + (known[$1.version] ?? .zero) })
            }
            let busy = wave.count { !$0.pending.isEmpty }
            return longest * ((busy + options.parallel - 1) / options.parallel)
        }
    }

    // MARK: Up

    /// - Throws: `ControlError` (`rollout-halted`, `rollout-aborted`, `rollout-running`, `rollout-lost`), or what
    ///   `plan()` throws; those shards that come after are untouched then.
    package func up() async throws -> [MigrationRunner.Applied] {
        let store = RolloutStore(plane: plane)
        try await store.requireNone()
        let plan = try await plan()
        let isOpen = try await store.last()?.isOpen ?? false
        guard let target = catalog.shard.last, let canary = plan.waves.first?.first,
            !plan.isEmpty || isOpen
        else { return [] }
        let asked = plane.clocks.monotonic()
        let rollout = try await store.begin(
            target: target, canary: canary.shard.id, shards: plan.lines.count,
            owner: "\(plane.operatorName) \(asked)")
        leaseEnds = asked + RolloutStore.lease
        let renewing = Loop.shared.spawn { [self] in await renew(rollout) }
        defer { renewing.cancel() }
        try await run(plan, rollout, store)
        return applied
    }

    private func run(_ plan: Plan, _ rollout: Rollout, _ store: RolloutStore) async throws {
        var reference = ""
        machine = RolloutMachine(waves: plan.waves.map { $0.map(\.shard.id) })
        while machine.ending == nil {
            let number = machine.wave
            try await store.note(rollout, wave: number, shardsDone: machine.done)
            let lines = Dictionary(
                uniqueKeysWithValues: plan.waves[number].map { ($0.shard.id, $0) })
            await withWorkers(for: lines.count) { [self] plane in
                while mayGoOn, let shard = machine.next(), let line = lines[shard] {
                    await migrate(line, wave: number, plan, rollout, plane)
                }
            }
            if let death { throw death }
            guard mayGoOn else { continue }
            reference = await gate(plan.waves[number], reference)
            guard mayGoOn || !failures.isEmpty else { continue }
            machine.verified(failing: failures.map(\.shard))
            guard machine.mayGoOn else { continue }
            plane.progress("wave \(number + 1) of \(plan.waves.count) is done and verified")
        }
        if isLost { throw RolloutStore.lost }
        guard failures.isEmpty else { throw try await halt(plan, rollout, store) }
        guard machine.ending == .done else {
            guard isAbortWanted else { throw RolloutStore.lost }
            try await store.end(rollout, as: .aborted)
            throw ControlError(
                .refused, code: "rollout-aborted",
                "aborted: \(machine.done) of \(plan.lines.count) shards are at version \(rollout.version)",
                remedy: "What was applied stays applied; 'hc-admin migrate up' begins anew.")
        }
        try await store.note(rollout, wave: plan.waves.count - 1, shardsDone: machine.done)
        try await store.end(rollout, as: .done)
    }

    /// Looked at before anything is begun.
    private var mayGoOn: Bool {
        if death != nil || isAbortWanted || isLost || plane.clocks.monotonic() >= leaseEnds {
            machine.stop()
        }
        return failures.isEmpty && machine.mayGoOn
    }

    private func migrate(
        _ line: Line, wave: Int, _ plan: Plan, _ rollout: Rollout, _ plane: ControlPlane
    ) async {
        do {
            let runner = MigrationRunner(plane: plane, catalog: catalog, locks: locks)
            if !line.pending.isEmpty { try await runner.requireNoMoves(line.shard) }
            let isDone = try await apply(line, wave: wave, rollout, runner)
            guard isDone else { return machine.leftOff(line.shard.id) }
            machine.migrated(line.shard.id)
            tell(plan, wave: wave)
            try await RolloutStore(plane: plane).note(
                rollout, wave: wave, shardsDone: machine.done)
        } catch let error as FaultPointFailure {
            death = error
            machine.leftOff(line.shard.id)
        } catch {
            if let error = error as? ControlError, error.code == RolloutStore.lost.code {
                isLost = true
                return machine.leftOff(line.shard.id)
            }
            machine.failed(line.shard.id)
            failures.append(
                Failure(line.shard.id, WaveRunner.problem(error, line.shard.id)))
        }
    }

    /// - Returns: false if something else stopped the run between two migrations of the shard.
    private func apply(
        _ line: Line, wave: Int, _ rollout: Rollout, _ runner: MigrationRunner
    ) async throws -> Bool {
        let (shard, store) = (line.shard, RolloutStore(plane: runner.plane))
        var fingerprint = line.fingerprint
        for migration in line.pending {
            guard mayGoOn else { return false }
            let connection = try await runner.plane.shard(reference: shard.reference, .owner)
            let run = try await store.began(
                migration, shard: shard.id, wave: wave, fingerprint: fingerprint, rollout)
            do {
                try FaultPoint.reach("migrate.before-apply")
                try await runner.apply(
                    migration,
                    to: .init(
                        connection: connection, database: shard.id, reference: shard.reference))
                try FaultPoint.reach("migrate.after-apply")
            } catch {
                if !(error is FaultPointFailure) {
                    try await store.ended(run, fingerprint: nil, error: "\(error)")
                }
                throw error
            }
            fingerprint = try await runner.fingerprint(of: connection, shard.id)
            try await store.ended(run, fingerprint: fingerprint, error: nil)
            applied.append(
                .init(database: shard.id, version: migration.version, name: migration.name))
        }
        try await ShardRegistry(plane: runner.plane).recordSchema(
            id: shard.id, version: catalog.shard.count, fingerprint: fingerprint)
        return true
    }

    /// Looks at each shard of a wave again: all migrations, and the schema of the canary.
    ///
    /// - Returns: the canary's fingerprint.
    private func gate(_ wave: [Line], _ canary: String) async -> String {
        var reference = canary
        let shards = wave.map(\.shard)
        for (shard, result) in zip(shards, await look(at: shards)) {
            switch result {
            case .failure(let problem):
                failures.append(Failure(shard.id, problem))
            case .success(let now):
                if reference.isEmpty { reference = now.fingerprint }
                guard !now.pending.isEmpty || now.fingerprint != reference else { continue }
                failures.append(
                    Failure(
                        shard: shard.id, code: "schema-differs",
                        message: "shard \(shard.id) has not come out as the canary did:"
                            + " version \(now.version), fingerprint \(now.fingerprint.prefix(16))"
                            + " and not \(reference.prefix(16))"))
            }
        }
        return reference
    }

    private func halt(
        _ plan: Plan, _ rollout: Rollout, _ store: RolloutStore
    ) async throws -> ControlError {
        let shards = failures.map(\.shard)
        let text = failures.map(\.message).joined(separator: "\n")
        try await store.end(rollout, as: .halted, failed: shards, problem: text)
        return ControlError(
            .failed, code: "rollout-halted",
            "halted at shard \(shards.joined(separator: ", ")) (\(failures[0].code)); \(machine.done) of"
                + " \(plan.lines.count) shards are up to date, the others were not changed:\n\(text)",
            remedy: "Repair that, then 'hc-admin migrate up' goes on where it stopped;"
                + " 'hc-admin migrate abort' ends this run.")
    }

    // MARK: Details

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
        while !Task.isCancelled, !isLost {
            do {
                try await Loop.shared.sleep(for: RolloutStore.renewEvery)
            } catch {
                break
            }
            let asked = own.clocks.monotonic()
            do {
                guard let wanted = try await RolloutStore(plane: own).renew(rollout) else {
                    isLost = !Task.isCancelled
                    break
                }
                isAbortWanted = isAbortWanted || wanted
                leaseEnds = asked + RolloutStore.lease
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
    private func inParallel<Element: Sendable, Value: Sendable>(
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
            Loop.shared.makeTask { [plane] in
                let own = plane.twin()
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
