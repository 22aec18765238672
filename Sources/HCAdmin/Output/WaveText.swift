import HCControl
import HCCore
import HCIO

/// What the commands that migrate in waves have in common.
@LoopActor
enum WaveText {
    static let options: [CommandSpecification.Option] = [
        .value("migrations", "DIR", "Directory of migrations."),
        .value("canary", "ID", "The shard that goes first; else that of the run that is open."),
        .value("waves", "PERCENTS", "Of all shards, after the canary; 5,25,100 if not said."),
        .value("parallel", "N", "So many shards of a wave at once, up to 64; 8 if not said."),
        .values("except", "ID", "Leave this shard out, because its server is down."),
    ]

    static func options(_ invocation: Invocation) throws(UsageError) -> WaveRunner.Options {
        var options = WaveRunner.Options()
        options.canary = invocation.option("canary")
        options.except = Set(invocation.values("except"))
        options.parallel = try parallel(invocation) ?? options.parallel
        options.percents = try percents(invocation) ?? options.percents
        return options
    }

    static func parallel(_ invocation: Invocation) throws(UsageError) -> Int? {
        try invocation.integer("parallel", in: 1...64)
    }

    static func percents(_ invocation: Invocation) throws(UsageError) -> [Int]? {
        guard let text = invocation.option("waves") else { return nil }
        let percents = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        guard percents.allSatisfy({ $0 != nil }) else {
            throw UsageError(
                "'--waves' takes percentages like 5,25,100, not '\(text)'",
                invocation.specification)
        }
        return percents.compactMap { $0 }
    }

    /// What each step locks, by its order, as far as that is known.
    struct Locks {
        var control: [Int: [TableLock]]
        var shard: [Int: [TableLock]]
    }

    /// What `migrate plan` and `migrate up --dry-run` say: nothing is changed.
    ///
    /// - Parameter locks: to be shown with the SQL; nil: neither is.
    static func report(
        _ plan: WaveRunner.Plan, control: [MigrationStep], locks: Locks? = nil
    ) -> Report {
        func json(_ step: MigrationStep, _ locks: [Int: [TableLock]]?) -> JSONValue {
            let facts: JSONValue = [
                "version": .integer(Int64(step.version)), "name": .string(step.migration.name),
                "phase": .string(step.phase.name), "checksum": .string(step.migration.checksum),
                "servesFrom": step.servesFrom.map { .integer(Int64($0)) } ?? .null,
            ]
            guard let locks else { return facts }
            let known = locks[step.order]?.map { lock -> JSONValue in
                ["table": .string(lock.table), "mode": .string(lock.mode.rawValue)]
            }
            return facts.adding([
                "sql": .string(step.sql), "locks": known.map { .array($0) } ?? .null,
            ])
        }
        var lines: [String] = control.map { "control: would apply \($0.title)" }
        if let gate = plan.gate, let version = gate.servesFrom {
            lines.append(
                "\(gate.title) waits until every process that serves knows migration \(version)")
        }
        for (number, wave) in plan.waves.enumerated() where !plan.isEmpty {
            let estimate = plan.estimates[number]
            lines.append(
                "wave \(number + 1) (\(number == 0 ? "canary" : "\(wave.count) shards")), "
                    + (estimate.map { "about \(max(1, ($0.inMilliseconds + 999) / 1000)) s" }
                        ?? "time not known yet"))
            for line in wave {
                lines.append(
                    "  \(line.shard.id): "
                        + (line.pending.isEmpty
                            ? "up to date"
                            : "would apply " + line.pending.map(\.title).joined(separator: ", ")))
            }
        }
        if !plan.later.isEmpty {
            lines.append(
                "then, in a run of its own: " + plan.later.map(\.title).joined(separator: ", "))
        }
        if let locks {
            for (steps, locks) in [
                (control, locks.control), (plan.steps + plan.later, locks.shard),
            ] {
                lines += steps.flatMap {
                    ["", "-- \($0.title)", "-- locks: \(text(locks[$0.order], of: $0))", $0.sql]
                }
            }
        }
        return Report(
            json: [
                "dryRun": true, "control": .array(control.map { json($0, locks?.control) }),
                "migrations": .array(plan.steps.map { json($0, locks?.shard) }),
                "later": .array(plan.later.map { json($0, locks?.shard) }),
                "waves": .array(
                    zip(plan.waves, plan.estimates).map { wave, estimate in
                        [
                            "estimateMilliseconds": estimate.map { .integer($0.inMilliseconds) }
                                ?? .null,
                            "shards": .array(
                                wave.map { line in
                                    [
                                        "id": .string(line.shard.id),
                                        "version": .integer(Int64(line.version)),
                                        "pending": .array(
                                            line.pending.map { .integer(Int64($0.version)) }),
                                    ]
                                }),
                        ]
                    }),
            ],
            text: lines.isEmpty ? "every database is up to date" : lines.joined(separator: "\n"))
    }

    private static func text(_ locks: [TableLock]?, of step: MigrationStep) -> String {
        guard step.phase != .backfill else { return "rows of one clinic, a batch at a time" }
        guard let locks else { return "not known" }
        guard !locks.isEmpty else { return "no table that is there" }
        return locks.map {
            "\($0.table) (\($0.mode.rawValue), behind which \($0.mode.keepsOut) waits)"
        }.joined(separator: ", ")
    }

    static func text(_ rollout: Rollout) -> String {
        var text =
            "last run: \(rollout.state.rawValue), to version \(rollout.version), by"
            + " \(rollout.operatorName): \(rollout.shardsDone) of \(rollout.shardsTotal) shards, wave"
            + " \(rollout.wave + 1), canary \(rollout.canary)"
        if rollout.state == .running, rollout.leaseLeft == nil {
            text += "\nits process is gone: 'hc-admin migrate up' goes on"
        }
        if rollout.state == .running, rollout.isStuck {
            text +=
                "\nits process has begun and ended nothing for"
                + " \(rollout.silence.inMilliseconds / 1000) s: if it is stuck, 'hc-admin migrate up --take-over'"
        }
        if !rollout.failedShards.isEmpty {
            text += "\nhalted at \(rollout.failedShards.joined(separator: ", "))"
        }
        return text + (rollout.problem.map { ": \($0)" } ?? "")
    }
}
