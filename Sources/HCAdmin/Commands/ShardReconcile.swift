import HCControl
import HCCore
import HCIO

struct ShardReconcile: Command {
    static let specification = CommandSpecification(
        path: ["shard", "reconcile"],
        summary: "Lets a server be a shard that has taken over from another one.",
        discussion: """
            After a fail-over the server's identity (system identifier, timeline, database) is not the registered
            one, and every pool refuses it: it may lack the last fence. This compares what it would serve with
            the control map, closes the doors of clinics that are elsewhere, restores those whose state it has
            forgotten, tells which moves have lost their way back, and then registers the new identity.
            Refused (exit 3) while a move of the shard is before its commit point: abort that first. Those past it
            are carried on; what waits for another shard goes on later, and is named. A clinic whose arrival the
            server has forgotten is served by the shard it came from, if that still has its rows. Else, if all of
            what came is here, it is opened as it came, and that is said. Else it is not opened, but named with
            what to do (exit 1).
            """,
        arguments: [
            .init(name: "SHARD", help: "The shard; its connection files lead to the new server.")
        ],
        options: [
            .flag(
                "new-system",
                "The server is no promoted standby but another cluster, with the shard's database from a dump."
            ),
            .reason,
        ],
        changes: true,
        examples: [
            "shard reconcile s1 --dry-run", "shard reconcile s1 --reason \"s1-a lost its disk\"",
            "shard reconcile s1 --new-system --json",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let id = invocation.argument(0)
        let result = try await ShardReconciliation(id, plane: try environment.plane()).run(
            isNewSystem: invocation.flag("new-system"), reason: try invocation.reason(),
            dryRun: invocation.isDryRun)
        let registered =
            "system \(result.shard.systemIdentifier), timeline \(result.shard.timeline)"
        var lines: [String] = []
        if result.isSame {
            lines.append("shard \(id) is who it was: \(registered)")
        } else {
            lines.append(
                "shard \(id) \(invocation.isDryRun ? "would be" : "is") \(result.found.identity)"
                    + " instead of \(registered)")
        }
        lines += result.doors.map { "'\($0.clinic)': \($0.from) becomes \($0.to)" }
        lines += result.waysBack.map {
            "'\($0.clinic)' cannot be brought back by its move any more: \($0.reason)"
        }
        lines += result.waiting.map { "the move of '\($0.clinic)' goes on later: \($0.reason)" }
        let verb = invocation.isDryRun ? "would be served" : "is served"
        lines += result.recalls.map { "'\($0.clinic)' \(verb) where it came from: \($0.reason)" }
        lines += result.arrivals.map { "'\($0.clinic)': \($0.reason)" }
        let removed = invocation.isDryRun ? "would be removed" : "is removed"
        lines += result.remains.map { "what is left of '\($0.clinic)' \(removed): \($0.reason)" }
        lines += result.lost.map { "'\($0.clinic)' is placed here and is not served: \($0.reason)" }
        return Report(
            json: [
                "outcome": .string(result.outcome), "shard": .string(id),
                "before": .string(registered), "after": .string("\(result.found.identity)"),
                "doors": .array(
                    result.doors.map {
                        [
                            "tenant": .string($0.clinic), "from": .string($0.from),
                            "to": .string($0.to),
                        ]
                    }),
                "waysBackLost": ShardReconcile.json(result.waysBack),
                "movesWaiting": ShardReconcile.json(result.waiting),
                "recalled": ShardReconcile.json(result.recalls),
                "openedAsArrived": ShardReconcile.json(result.arrivals),
                "remainsRemoved": ShardReconcile.json(result.remains),
                "lost": ShardReconcile.json(result.lost),
            ], text: lines.joined(separator: "\n"),
            status: result.lost.isEmpty ? .done : .failed)
    }

    private static func json(_ losses: [ShardReconciliation.Loss]) -> JSONValue {
        .array(losses.map { ["tenant": .string($0.clinic), "reason": .string($0.reason)] })
    }
}
