import HCControl
import HCCore
import HCIO

struct MoveAbort: Command {
    static let specification = CommandSpecification(
        path: ["move", "abort"],
        summary: "Undoes a move that has not passed its commit point.",
        discussion: """
            The clinic stays where it is; what the move has made on both shards is removed. If the commit point
            has been passed, nothing is changed (exit 5): see 'move revert'.
            """,
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug.")],
        options: [.reason], changes: true,
        examples: ["move abort sunrise", "move abort sunrise --reason \"wrong shard\" --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        if invocation.isDryRun {
            let move = try await MoveStore(plane: plane).find(named: invocation.argument(0))
            return MoveText.report(
                move, outcome: move.step.isBeforeCommit ? "would-abort" : "past-commit")
        }
        return MoveText.report(
            try await MoveService(plane: plane).abort(
                invocation.argument(0), reason: invocation.reason(),
                tell: MoveText.teller(environment)))
    }
}
