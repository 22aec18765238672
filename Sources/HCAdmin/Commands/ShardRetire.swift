import HCControl
import HCCore
import HCIO

struct ShardRetire: Command {
    static let specification = CommandSpecification(
        path: ["shard", "retire"],
        summary: "Takes an empty, draining shard out of use for good.",
        discussion: """
            No clinic may be placed on it, no move may run or soak that names it, none of its replicas may be
            read from, and its server may serve nobody: every reason why not is named (exit 3). A retired shard
            takes nothing any more: no clinic, no move, no migration, no replica; doctor and the others do not
            ask it, and its server may be switched off. It cannot be opened again.
            """,
        arguments: [.init(name: "SHARD", help: "The shard.")],
        options: [
            .flag("lost", "Its server is gone for good: do not ask it."),
            .reason,
        ],
        changes: true,
        examples: ["shard retire s1 --dry-run", "shard retire s1", "shard retire s1 --lost --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let id = invocation.argument(0)
        let registry = ShardRegistry(plane: try environment.plane())
        let outcome = try await registry.retire(
            id, isLost: invocation.flag("lost"), reason: try invocation.reason(),
            dryRun: invocation.isDryRun)
        let text =
            switch outcome {
            case .retired: "shard \(id) is retired; its server may be switched off"
            case .unchanged: "shard \(id) is retired already"
            case .wouldRetire: "shard \(id) would be retired"
            }
        return Report(
            json: [
                "outcome": .string(outcome.rawValue), "shard": try await registry.find(id).json,
            ], text: text)
    }
}
