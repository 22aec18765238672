import HCControl
import HCCore
import HCIO

struct MoveRevert: Command {
    static let specification = CommandSpecification(
        path: ["move", "revert"],
        summary: "Brings a clinic back to the shard it came from.",
        discussion: """
            While a move soaks, the former shard follows every change. The way back is the same protocol: a
            pause of some milliseconds, and no write is lost.
            """,
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug.")],
        options: [.reason], changes: true,
        examples: ["move revert sunrise", "move revert sunrise --reason \"slow disk\" --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        if invocation.isDryRun {
            return MoveText.report(
                try await MoveStore(plane: plane).find(named: invocation.argument(0)),
                outcome: "would-revert")
        }
        let mover = try await MoveService(plane: plane).revert(
            invocation.argument(0), reason: invocation.reason(), tell: MoveText.teller(environment))
        return MoveText.report(try await mover.run())
    }
}
