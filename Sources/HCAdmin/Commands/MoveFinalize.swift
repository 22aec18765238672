import HCControl
import HCCore
import HCIO

struct MoveFinalize: Command {
    static let specification = CommandSpecification(
        path: ["move", "finalize"],
        summary:
            "Ends a move before its soak is over: no way back, and the rows left behind are removed.",
        discussion: """
            --without SHARD ends a move that waits for a server which is gone for good: one that was undone, or
            whose clinic is served by its new shard. Nothing is asked of that server any more; what stays there is
            named, here and by 'move show'. It is refused (exit 3) while the server or a replica of the shard
            gives any answer, and for the shard on which the clinic is placed.
            """,
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug.")],
        options: [
            .value("without", "SHARD", "Its server is gone for good: go on without it."), .reason,
            .yes,
        ], changes: true,
        examples: [
            "move finalize sunrise", "move finalize sunrise --yes --json",
            "move finalize sunrise --without s1 --reason \"its disk burnt\"",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        if let shard = invocation.option("without") {
            return try await run(invocation, environment, plane, without: shard)
        }
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

    private func run(
        _ invocation: Invocation, _ environment: AdminEnvironment, _ plane: ControlPlane,
        without shard: String
    ) async throws -> Report {
        let service = MoveService(plane: plane)
        let loss = try await service.examine(invocation.argument(0), without: shard)
        if invocation.isDryRun { return MoveText.report(loss.move, outcome: "would-finalize") }
        let reason = try invocation.reason()
        try environment.confirm(
            [
                "shard \(shard) gives no answer, and is asked nothing any more for '\(loss.move.slug)'",
                "if its server comes back, this is left there: "
                    + loss.leftBehind.joined(separator: ", "),
            ], invocation)
        let mover = try await service.finalize(
            invocation.argument(0), without: shard, reason: reason,
            tell: MoveText.teller(environment))
        return MoveText.report(try await mover.run())
    }
}
