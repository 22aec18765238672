import HCControl
import HCCore
import HCIO

struct MoveRevert: Command {
    static let specification = CommandSpecification(
        path: ["move", "revert"],
        summary: "Brings a clinic back to the shard it came from.",
        discussion: """
            While a move soaks, the former shard follows every change. The way back is the same protocol: a
            pause of some milliseconds, and no write is lost. It is not refused if another clinic of its group has
            come to that shard meanwhile (tenants/rebalance.json): that is told, and the audit has who it met there.
            """,
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug.")],
        options: [GroupRules.option, .reason], changes: true,
        examples: ["move revert sunrise", "move revert sunrise --reason \"slow disk\" --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let reason = try invocation.reason()
        let plane = try environment.plane()
        let groups = GroupRules.unlessUnknown(invocation, plane, environment)
        let service = MoveService(plane: plane)
        if invocation.isDryRun {
            let (move, together) = try await service.previewRevert(invocation.argument(0), groups)
            MoveRevert.warn(together, move.source, environment)
            return MoveText.report(move, outcome: "would-revert", together: together)
        }
        let mover = try await service.revert(
            invocation.argument(0), groups, reason: reason, tell: MoveText.teller(environment))
        MoveRevert.warn(mover.together, mover.destination, environment)
        return MoveText.report(try await mover.run())
    }

    private static func warn(
        _ together: [String], _ shard: String, _ environment: AdminEnvironment
    ) {
        guard !together.isEmpty else { return }
        let slugs = together.map { "'\($0)'" }.joined(separator: ", ")
        environment.tell(
            "warning: shard \(shard) has clinics of its group, or they are on their way there: \(slugs)"
        )
    }
}
