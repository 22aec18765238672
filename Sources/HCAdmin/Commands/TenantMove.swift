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
            """,
        arguments: [.init(name: "SLUG", help: "The clinic.")],
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
            .reason,
        ],
        changes: true,
        examples: [
            "tenant move sunrise --to s2 --dry-run", "tenant move sunrise --to s2 --wait",
            "tenant move sunrise --to s2 --wait --pause-budget 100ms --soak 1h --json",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        guard let shard = invocation.option("to") else {
            throw UsageError("'--to' is missing", TenantMove.specification)
        }
        let reason = try invocation.reason()
        let options = try TenantMove.options(invocation)
        let plane = try environment.plane()
        let plan = try await MovePreflight(plane: plane).plan(
            invocation.argument(0), to: shard, options)
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
