import HCControl
import HCCore
import HCIO

struct MoveList: Command {
    static let specification = CommandSpecification(
        path: ["move", "list"], summary: "Lists moves, the newest first.",
        options: [
            .flag("all", "Those that are over too."),
            .value("shard", "ID", "Only from or to this shard."),
            .value("limit", "N", "At most so many, up to 1000; 100 if not said."),
        ],
        examples: ["move list", "move list --all --shard s2 --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let moves = try await MoveStore(plane: try environment.plane()).list(
            shard: invocation.option("shard"), isOpen: !invocation.flag("all"),
            limit: try invocation.integer("limit", in: 1...1000) ?? 100)
        let table = Table(
            header: ["ID", "CLINIC", "FROM", "TO", "STATE", "STEP", "BEGUN", "WAITING FOR"],
            rows: moves.map {
                [
                    "\($0.id.uuid)", $0.slug, $0.origin, $0.destination, $0.state.rawValue,
                    $0.step.rawValue, $0.createdAt.rfc3339,
                    $0.progress["waitingFor"]?.asString ?? "",
                ]
            })
        return Report(
            json: ["moves": .array(moves.map(\.json))],
            text: moves.isEmpty ? "no clinic is on the move" : table.render())
    }
}
