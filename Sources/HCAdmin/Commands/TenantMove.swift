import HCControl
import HCCore
import HCIO

struct TenantMove: Command {
    static let specification = CommandSpecification(
        path: ["tenant", "move"],
        summary: "Moves a clinic to another shard while it is open.",
        discussion: """
            Copies the clinic's rows by logical replication, compares both sides, closes the door to writers for
            some milliseconds, in which requests wait, and opens it at the new shard. Until the commit point the
            move can be undone (move abort); after it, for as long as --soak, taken back (move revert).
            The move is written down first. If this command dies, 'hc-admin move agent' or the next
            'hc-admin move show --wait' carries it on. Without --wait it is left to an agent at once; if none
            takes it within two seconds, this command carries it on itself.
            Several clinics are moved --batch at a time, with --wait; all are examined before the first is moved.
            After one that fails no more are begun (exit 1).
            A clinic does not go to a shard where another of its group is (tenants/rebalance.json), or is on its
            way to, unless --ignore-groups: the audit has who it met there.
            """,
        arguments: [
            .init(name: "SLUG", help: "The clinic, or several with commas in between.")
        ],
        options: [
            .value("to", "SHARD", "Where to; required. See 'hc-admin shard list'."),
            .flag("wait", "Carry the move on here, and return when it is over or soaks."),
            .value(
                "pause-budget", "TIME",
                "The longest that writers may have to wait, from 20ms to 10s; 250ms if not said. A pause that would take longer is broken off and tried again."
            ),
            .value(
                "soak", "TIME",
                "For how long the way back is kept, up to 30d; 24h if not said. 0s: not at all."),
            .value(
                "batch", "COUNT", "Of several clinics, so many at once: 1 to 16; 4 if not said."),
            GroupRules.option,
            .flag(
                "ignore-groups", "Move it though another clinic of its group is on the shard."),
            .reason,
        ],
        changes: true,
        examples: [
            "tenant move sunrise --to s2 --dry-run", "tenant move sunrise --to s2 --wait",
            "tenant move sunrise --to s2 --wait --pause-budget 100ms --soak 1h --json",
            "tenant move sunrise,lakeside --to s2 --wait --batch 2",
            "tenant move sunrise --to s2 --ignore-groups --reason \"s3 is full\"",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        guard let shard = invocation.option("to") else {
            throw UsageError("'--to' is missing", TenantMove.specification)
        }
        let reason = try invocation.reason()
        let options = try TenantMove.options(invocation)
        let slugs = invocation.argument(0).split(separator: ",", omittingEmptySubsequences: false)
            .map(String.init)
        if slugs.count > 1 || invocation.option("batch") != nil {
            return try await TenantMove.moveMany(
                slugs, to: shard, options, reason, invocation, environment)
        }
        let plane = try environment.plane()
        let groups = try TenantMove.groups(invocation, plane, environment)
        let plan = try await MovePreflight(plane: plane).plan(
            invocation.argument(0), to: shard, options, groups)
        for warning in plan.warnings { environment.tell("warning: \(warning)") }
        if invocation.isDryRun {
            return Report(
                json: plan.json.adding([
                    "outcome": "would-move", "tenant": .string(plan.tenant.slug),
                    "source": .string(plan.source.id), "target": .string(plan.target.id),
                    "options": plan.options.json,
                ]),
                text: """
                    '\(plan.tenant.slug)' would be moved from \(plan.source.id) to \(plan.target.id): \
                    \(plan.rows) rows, about \(MoveText.bytes(plan.bytes))
                    """)
        }
        let service = MoveService(plane: plane)
        let tell = MoveText.teller(environment)
        let mover = try await service.begin(plan, reason: reason, tell: tell)
        if !invocation.flag("wait") {
            let move = try await mover.leave()
            if try await service.awaitTaker(of: move, for: .seconds(2)) {
                return MoveText.report(try await MoveStore(plane: plane).find(move.id))
            }
            environment.tell("no agent takes the move (hc-admin move agent): carried on here")
            return MoveText.report(try await service.follow(move.id, tell: tell))
        }
        let move = try await mover.run()
        // Another process may have taken it over.
        return MoveText.report(try await service.follow(move.id, tell: tell))
    }

    private static func moveMany(
        _ slugs: [String], to shard: String, _ options: MoveOptions, _ reason: String?,
        _ invocation: Invocation, _ environment: AdminEnvironment
    ) async throws -> Report {
        let size =
            try invocation.integer("batch", in: MoveBatch.sizes) ?? MoveBatch.usualSize
        guard Set(slugs).count == slugs.count, slugs.count <= MoveBatch.clinicsMax else {
            throw UsageError(
                slugs.count > MoveBatch.clinicsMax
                    ? "at most \(MoveBatch.clinicsMax) clinics are moved by one command"
                    : "a clinic is named twice", specification)
        }
        guard invocation.flag("wait") || invocation.isDryRun else {
            throw UsageError("several clinics are moved with '--wait' only", specification)
        }
        let plane = try environment.plane()
        let groups = try groups(invocation, plane, environment)
        let plans = try await MovePreflight(plane: plane).plans(slugs, to: shard, options, groups)
        for plan in plans {
            for warning in plan.warnings {
                environment.tell("\(plan.tenant.slug): warning: \(warning)")
            }
        }
        if invocation.isDryRun { return wouldMove(plans, options) }
        let outcomes = await MoveBatch(
            plane: plane, options: options, groups: groups, reason: reason,
            tell: MoveText.teller(environment)
        ).run(slugs, to: shard, size: size)
        var (rows, lines, hasFailed) = ([[String]](), [JSONValue](), false)
        for outcome in outcomes {
            let (state, why): (String, String?) =
                switch outcome.result {
                case .moved(let move):
                    (move.state.rawValue, move.progress["abortReason"]?.asString ?? move.error)
                case .failed(let error): ("failed", "\(error)")
                case .notBegun: ("not-begun", "another has failed")
                }
            hasFailed = hasFailed || !["done", "soaking"].contains(state)
            rows.append([outcome.slug, state, why ?? ""])
            var line: JSONValue = [
                "tenant": .string(outcome.slug), "state": .string(state),
                "reason": why.map { .string($0) } ?? .null,
            ]
            if case .moved(let move) = outcome.result { line = line.adding(["move": move.json]) }
            lines.append(line)
        }
        return Report(
            json: ["target": .string(shard), "tenants": .array(lines)],
            text: Table(header: ["CLINIC", "STATE", ""], rows: rows).render(),
            status: hasFailed ? .failed : .done)
    }

    private static func wouldMove(_ plans: [MovePlan], _ options: MoveOptions) -> Report {
        Report(
            json: [
                "outcome": "would-move", "options": options.json,
                "tenants": .array(
                    plans.map {
                        $0.json.adding([
                            "tenant": .string($0.tenant.slug), "source": .string($0.source.id),
                            "target": .string($0.target.id),
                        ])
                    }),
            ],
            text: Table(
                header: ["CLINIC", "FROM", "TO", "ROWS", "BYTES"],
                rows: plans.map {
                    [
                        $0.tenant.slug, $0.source.id, $0.target.id, "\($0.rows)",
                        "about \(MoveText.bytes($0.bytes))",
                    ]
                }
            ).render())
    }

    private static func groups(
        _ invocation: Invocation, _ plane: ControlPlane, _ environment: AdminEnvironment
    ) throws -> MoveGroups {
        if invocation.flag("ignore-groups") {
            return GroupRules.unlessUnknown(invocation, plane, environment)
        }
        return MoveGroups(try GroupRules.settings(invocation, plane))
    }

    private static func options(_ invocation: Invocation) throws(UsageError) -> MoveOptions {
        var options = MoveOptions()
        if let budget = try invocation.duration("pause-budget", in: MoveOptions.pauseBudgets) {
            options.pauseBudget = budget
        }
        if let soak = try invocation.duration("soak", in: MoveOptions.soaks) {
            options.soak = soak
        }
        return options
    }
}
