import HCControl
import HCCore
import HCIO

struct MoveFinalize: Command {
    static let specification = CommandSpecification(
        path: ["move", "finalize"],
        summary:
            "Ends a move before its soak is over: no way back, and the rows left behind are removed.",
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug.")],
        options: [.reason, .yes], changes: true,
        examples: ["move finalize sunrise", "move finalize sunrise --yes --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let move = try await MoveStore(plane: plane).find(named: invocation.argument(0))
        if invocation.isDryRun { return MoveText.report(move, outcome: "would-finalize") }
        let reason = try invocation.reason()
        try environment.confirm(
            [
                "'\(move.slug)' can then no longer be brought back to \(move.source) by 'move revert'"
            ],
            invocation)
        let mover = try await MoveService(plane: plane).finalize(
            invocation.argument(0), reason: reason, tell: MoveText.teller(environment))
        return MoveText.report(try await mover.run())
    }
}
