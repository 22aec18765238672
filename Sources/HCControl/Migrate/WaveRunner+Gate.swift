import HCCore
import HCIO
import HCPostgres

/// Between two waves: what the shards of the one look like, and what the servers have answered since it began.
extension WaveRunner {
    /// Looks at each shard of a wave again: all migrations, and the schema of the canary.
    ///
    /// - Returns: the canary's fingerprint.
    func gate(_ wave: [Line], _ canary: String) async -> String {
        var reference = canary
        let waits = LockWaits(above: options.lockWaitMax)
        let sights = await lookAgain(at: wave, waits)
        for (line, result) in zip(wave, sights) {
            let shard = line.shard.id
            switch result {
            case .failure(let problem):
                failures.append(Failure(shard, problem))
            case .success(let now):
                let fingerprint = now.mark.fingerprint
                if reference.isEmpty { reference = fingerprint }
                if now.pending.count != line.later.count || fingerprint != reference {
                    failures.append(
                        Failure(
                            shard: shard, code: "schema-differs",
                            message: "shard \(shard) has not come out as the canary did:"
                                + " version \(now.version), fingerprint \(fingerprint.prefix(16))"
                                + " and not \(reference.prefix(16))"))
                }
            }
        }
        await crowded(
            waits,
            at: zip(wave, sights).compactMap { line, result in
                (try? result.get()).map { (line.shard, $0) }
            })
        return reference
    }

    private func lookAgain(
        at wave: [Line], _ waits: LockWaits
    ) async -> [Result<MigrationRunner.Sight, ControlError>] {
        await inParallel(wave) { [self] plane, line in
            do {
                return .success(
                    try await MigrationRunner(plane: plane, catalog: catalog).look(
                        at: line.shard, knowing: mark(of: line), waits))
            } catch {
                return .failure(WaveRunner.problem(error, line.shard.id))
            }
        }
    }

    /// Those shards of a wave on which somebody waits for a lock.
    private func crowded(_ waits: LockWaits, at sights: [(Shard, MigrationRunner.Sight)]) async {
        let busy = sights.filter { _, sight in sight.server.map(waits.isCalm) != true }
        failures += await inParallel(busy) { plane, seen in
            let shard = seen.0
            do {
                return try await waits.problem(on: shard, plane).map { Failure(shard.id, $0) }
            } catch {
                return Failure(shard.id, WaveRunner.problem(error, shard.id))
            }
        }.compactMap { $0 }
    }

    /// What the servers have answered since the wave began, and for a while after it.
    func watch(_ wave: Int, _ before: inout ServerHealth?) async {
        guard let health = options.health, let earlier = before else { return }
        do {
            gotOnAt = plane.clocks.monotonic() + health.bounds.watch
            try await Loop.shared.sleep(for: health.bounds.watch)
            let now = try await health.look()
            let between = now.since(earlier)
            before = now
            guard let problem = health.bounds.problem(of: between) else {
                plane.progress(
                    "wave \(wave + 1): the servers gave \(between.responses) answers, \(between.failures) of them"
                        + " failed" + (between.p95.map { ", p95 \($0.inMilliseconds) ms" } ?? ""))
                return
            }
            failures.append(
                Failure(
                    shard: "wave \(wave + 1)", code: "unhealthy",
                    message: "since wave \(wave + 1) began \(problem)"))
        } catch {
            failures.append(
                Failure("wave \(wave + 1)", WaveRunner.problem(error, "of wave \(wave + 1)")))
        }
    }
}
