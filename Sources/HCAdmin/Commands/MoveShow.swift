import HCControl
import HCCore
import HCIO

struct MoveShow: Command {
    static let specification = CommandSpecification(
        path: ["move", "show"],
        summary: "Shows a move: how far it is, what it waits for, and what it made.",
        arguments: [.init(name: "MOVE", help: "Its id, or the clinic's slug for the last one.")],
        options: [
            .flag(
                "wait",
                "Return when the move is over or soaks; carry it on if nobody does.")
        ],
        examples: ["move show sunrise", "move show sunrise --wait --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let store = MoveStore(plane: plane)
        var move = try await store.find(named: invocation.argument(0))
        if invocation.flag("wait") {
            move = try await MoveService(plane: plane).follow(
                move.id, tell: MoveText.teller(environment))
        }
        let objects = try await store.objects(of: move.id)
        let json = move.json.adding([
            "objects": .array(
                objects.map {
                    [
                        "shard": .string($0.shard), "kind": .string($0.kind.rawValue),
                        "name": .string($0.name),
                    ]
                })
        ])
        return Report(
            json: json,
            text: HelpText.columns(
                MoveText.lines(move)
                    + MoveText.manifestLines(move)
                    + objects.map { ("\($0.kind.rawValue) on \($0.shard)", $0.name) }
            ).trimmedFinalNewline)
    }
}
