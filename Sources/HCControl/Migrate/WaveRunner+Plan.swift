import HCCore
import HCIO
import HCPostgres

/// What a run would do, and what stands in its way: every shard is looked at before any is touched.
extension WaveRunner {
    /// Looks at every shard before any is touched.
    ///
    /// - Throws: `ControlError` with everything that stands in the way: a shard that is down, a migration that was edited,
    ///   clinics on the move, a schema that was changed by hand.
    package func plan() async throws -> Plan {
        let all = try await ShardRegistry(plane: plane).list()
        for id in options.except.sorted() where !all.contains(where: { $0.id == id }) {
            throw ShardRegistry.unknown(id)
        }
        // Those that are retired may have no server any more.
        let shards = all.filter { $0.state != "closed" && !options.except.contains($0.id) }
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
        let gate = WaveRunner.divide(&lines)
        problems += try await moves(of: shards.compactMap { lines[$0.id] })
        guard problems.isEmpty else { throw WaveRunner.combined(problems) }
        let planned = waves.waves.map { $0.compactMap { lines[$0] } }
        return Plan(waves: planned, estimates: try await estimates(planned), gate: gate)
    }

    nonisolated static func inOrder(_ steps: [MigrationStep]) -> [MigrationStep] {
        var seen: Set<Int> = []
        return steps.sorted { $0.order < $1.order }.filter { seen.insert($0.order).inserted }
    }

    /// Leaves to this run what comes before the first step that has to wait for processes; or, where every shard has come
    /// to that step, the step and what comes before the next such one.
    ///
    /// - Returns: the step that this run has to wait with.
    private static func divide(_ lines: inout [String: Line]) -> MigrationStep? {
        let gates = inOrder(lines.values.flatMap(\.pending).filter { $0.servesFrom != nil })
        guard let first = gates.first else { return nil }
        let isAtGate = lines.values.allSatisfy {
            ($0.pending.first?.order ?? .max) >= first.order
        }
        let end = isAtGate ? gates.dropFirst().first?.order ?? .max : first.order
        for id in lines.keys {
            guard let all = lines[id]?.pending else { continue }
            lines[id]?.pending = all.filter { $0.order < end }
            lines[id]?.later = all.filter { $0.order >= end }
        }
        return isAtGate ? first : nil
    }

    /// Clinics on the move, where the schema is about to change.
    private func moves(of lines: [Line]) async throws -> [ControlError] {
        let open = try await MoveStore(plane: plane).list(isOpen: true, limit: WaveRunner.movesMax)
        return lines.compactMap { line in
            guard line.pending.contains(where: \.changesSchema) else { return nil }
            return MigrationRunner.problem(moves: open, at: line.shard)
        }
    }

    /// Clinics that are on the move at once: far more than there ever are.
    private static let movesMax = 100_000

    /// What each of them has, in their order.
    private func look(at shards: [Shard]) async -> [Result<Line, ControlError>] {
        await inParallel(shards) { [catalog] plane, shard in
            do {
                let sight = try await MigrationRunner(plane: plane, catalog: catalog).look(
                    at: shard)
                return .success(
                    Line(
                        shard: shard, version: sight.version, mark: sight.mark,
                        pending: sight.pending))
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

    /// Of shards at the same version, those whose schema is not that of most of them.
    private static func strangers(_ lines: [Line]) -> [ControlError] {
        Dictionary(grouping: lines, by: \.stepsLeft).sorted { $0.key > $1.key }.flatMap { _, same in
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

    static func problem(_ error: any Error, _ shard: String) -> ControlError {
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
        let steps = WaveRunner.inOrder(waves.flatMap { $0 }.flatMap(\.pending))
        let known = steps.isEmpty ? [:] : try await PastSteps(plane: plane).durations(steps)
        return waves.map { wave in
            var longest = Duration.zero
            for step in wave.flatMap(\.pending) {
                guard known[step.order] != nil else { return nil }
            }
            for line in wave {
                longest = max(
                    longest, line.pending.reduce(.zero) { $0 + (known[$1.order] ?? .zero) })
            }
            let busy = wave.count { !$0.pending.isEmpty }
            return longest * ((busy + options.parallel - 1) / options.parallel)
        }
    }
}
