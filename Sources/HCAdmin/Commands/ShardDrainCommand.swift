import HCControl
import HCCore
import HCIO
import HCTenancy

struct ShardDrainCommand: Command {
    static let specification = CommandSpecification(
        path: ["shard", "drain"],
        summary: "Moves every clinic away from a shard, which takes no more of them.",
        discussion: """
            From here on no clinic is opened on the shard or moved to it; moves to it that have not passed their
            commit point are undone. Where its clinics go is decided as by 'rebalance plan', with the same rules
            (tenants/rebalance.json): pins, groups, dedications, regions, how full a shard may be. They go some at
            a time, never more than the servers have slots, senders and workers for, and stay open meanwhile.
            Clinics that are pinned to the shard are named and nothing is begun (exit 3), unless --ignore-pins.
            The command may die: give it again, and it takes over what is under way. More failures than
            --failures end it: nothing more is begun, what is under way is brought to its end (exit 1).
            A soak keeps a replication slot on the target and a worker on the shard, so a drain with --soak goes
            no faster than soaks end; it is 0s if not said. Take a drain back with 'hc-admin shard open'.
            """,
        arguments: [.init(name: "SHARD", help: "The shard that is to be empty.")],
        options: [
            .values("to", "SHARD,…", "Where to; every other open shard of the region if not said."),
            .value(
                "parallel", "N",
                "Moves at once, at most, up to 16; 4 if not said. 0: move nobody, only take no more clinics."
            ),
            .value("rules", "FILE", "rebalance.json of the tenants directory unless given."),
            .flag(
                "ignore-pins",
                "Move clinics that are pinned to this shard, too; pins to other shards are heeded."),
            .value("failures", "N", "Moves that may fail before no more are begun; 3 if not said."),
            .value(
                "soak", "TIME",
                "For how long the way back of each clinic is kept, up to 30d; 0s if not said."),
            .value("pause-budget", "TIME", "As of 'tenant move'; 250ms if not said."),
            .flag(
                "wait", "Return when no way back is kept any more, and the shard can be retired."),
            .reason,
        ],
        changes: true,
        examples: [
            "shard drain s1 --dry-run", "shard drain s1",
            "shard drain s1 --to s2,s3 --parallel 2 --soak 1h --wait --json",
            "shard drain s1 --ignore-pins --rules tenants/rebalance.json",
            "shard drain s1 --parallel 0",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let id = invocation.argument(0)
        var options = ShardDrain.Options(reason: try invocation.reason())
        options.targets = invocation.values("to")
        if let parallel = try invocation.integer("parallel", in: ShardDrain.Options.parallels) {
            options.parallel = parallel
        }
        if let failures = try invocation.integer("failures", in: ShardDrain.Options.failures) {
            options.failuresMax = failures
        }
        if let soak = try invocation.duration("soak", in: MoveOptions.soaks) {
            options.move.soak = soak
        }
        if let budget = try invocation.duration("pause-budget", in: MoveOptions.pauseBudgets) {
            options.move.pauseBudget = budget
        }
        options.waitsForSoaks = invocation.flag("wait")
        options.ignoresPins = invocation.flag("ignore-pins")
        let plane = try environment.plane()
        if options.parallel > 0 {
            let file =
                invocation.option("rules")
                ?? "\(plane.configuration.tenantsDirectory)/rebalance.json"
            options.settings = try RebalanceDesk.settings(file: file)
            options.rulesFile = file
        }
        let drain = ShardDrain(id, plane: plane, options, tell: environment.tell)
        if invocation.isDryRun { return ShardDrainCommand.report(try await drain.preview()) }
        return ShardDrainCommand.report(try await drain.run(), isWhole: options.parallel > 0)
    }

    private static func report(_ preview: ShardDrain.Preview) -> Report {
        let steps = preview.plan.steps
        let table = Table(
            header: ["CLINIC", "WEIGHT", "TO", "WHY"],
            rows: steps.map { [$0.clinic.slug, "\($0.clinic.weight)", $0.target, $0.reason] })
        var lines = [
            "shard \(preview.shard.id) would take no more clinics, and \(steps.count) would be moved"
        ]
        if preview.running > 0 { lines.append("\(preview.running) moves are under way already") }
        if !steps.isEmpty { lines.append(table.render().trimmedFinalNewline) }
        lines += preview.stuck.map { "'\($0.slug)' would stay: \($0.reason)" }
        return Report(
            json: [
                "outcome": "would-drain", "shard": .string(preview.shard.id),
                "state": .string(preview.shard.state),
                "running": .integer(Int64(preview.running)),
                "moves": .array(
                    steps.map {
                        [
                            "tenant": .string($0.clinic.slug),
                            "weight": .integer(Int64($0.clinic.weight)),
                            "target": .string($0.target), "cause": .string($0.cause.rawValue),
                            "reason": .string($0.reason),
                        ]
                    }),
                "stuck": json(preview.stuck),
            ], text: lines.joined(separator: "\n"))
    }

    private static func report(_ outcome: ShardDrain.Outcome, isWhole: Bool) -> Report {
        let isDone = outcome.isEmpty || !isWhole
        let name =
            outcome.stopReason != nil
            ? "stopped" : !isWhole ? "draining" : outcome.isEmpty ? "drained" : "incomplete"
        var lines: [String] = []
        if isWhole {
            let seconds = outcome.duration.inMilliseconds / 1000
            lines.append(
                "shard \(outcome.shard): \(outcome.moved) clinics moved in \(seconds) s"
                    + " (\(outcome.clinicsPerHour) an hour)")
        } else {
            lines.append("shard \(outcome.shard) takes no more clinics")
        }
        if let reason = outcome.stopReason { lines.append("stopped: \(reason)") }
        lines += (outcome.failed + outcome.stuck).map {
            "'\($0.slug)' is still there: \($0.reason)"
        }
        if outcome.untried > 0 { lines.append("\(outcome.untried) clinics are still there") }
        if outcome.soaking > 0 {
            lines.append(
                "\(outcome.soaking) ways back are kept: see 'hc-admin move list --shard \(outcome.shard)'"
            )
        } else if outcome.isEmpty {
            lines.append(
                "it is empty: 'hc-admin shard retire \(outcome.shard)' takes it out of use")
        }
        return Report(
            json: [
                "outcome": .string(name), "shard": .string(outcome.shard),
                "moved": .integer(Int64(outcome.moved)), "failed": json(outcome.failed),
                "stuck": json(outcome.stuck), "untried": .integer(Int64(outcome.untried)),
                "soaking": .integer(Int64(outcome.soaking)),
                "milliseconds": .integer(outcome.duration.inMilliseconds),
                "clinicsPerHour": .integer(Int64(outcome.clinicsPerHour)),
                "stopReason": outcome.stopReason.map { .string($0) } ?? .null,
            ], text: lines.joined(separator: "\n"), status: isDone ? .done : .failed)
    }

    private static func json(_ remainders: [ShardDrain.Remainder]) -> JSONValue {
        .array(
            remainders.map { ["tenant": .string($0.slug), "reason": .string($0.reason)] })
    }
}
