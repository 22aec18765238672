import HCControl
import HCCore
import HCIO

struct ShardOpen: Command {
    static let specification = CommandSpecification(
        path: ["shard", "open"],
        summary: "Takes a drain back: the shard takes clinics again.",
        discussion: """
            Clinics that were moved away stay where they are; a drain that runs begins no more moves. Of an open
            shard nothing is changed; a retired one stays retired (exit 3).
            """,
        arguments: [.init(name: "SHARD", help: "The shard.")],
        options: [.reason], changes: true,
        examples: ["shard open s1", "shard open s1 --reason \"its disk was replaced\" --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let id = invocation.argument(0)
        let registry = ShardRegistry(plane: try environment.plane())
        let reason = try invocation.reason()
        let shard = try await registry.find(id)
        let outcome: String
        if invocation.isDryRun {
            try registry.requireNotRetired(shard)
            outcome = shard.state == "open" ? "unchanged" : "would-open"
        } else {
            outcome = try await registry.open(id, reason: reason) ? "opened" : "unchanged"
        }
        let text =
            switch outcome {
            case "opened": "shard \(id) takes clinics again"
            case "would-open": "shard \(id) would take clinics again"
            default: "shard \(id) is open already"
            }
        return Report(
            json: ["outcome": .string(outcome), "shard": try await registry.find(id).json],
            text: text)
    }
}
