import HCControl
import HCCore
import HCIO

struct ReplicaRemove: Command {
    static let specification = CommandSpecification(
        path: ["shard", "replica", "remove"],
        summary: "Forgets a replica: nothing is read from it any more.",
        discussion: """
            The server itself is left as it is. Its replication slot on the primary keeps the log until it is
            dropped there (deploy/runbooks/replica.md).
            """,
        arguments: [
            .init(name: "SHARD", help: "The shard."), .init(name: "NAME", help: "Its replica."),
        ],
        options: [.flag("if-there", "One that is not there is no error.")],
        changes: true,
        examples: ["shard replica remove s1 r1", "shard replica remove s1 r1 --dry-run"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let (shard, name) = (invocation.argument(0), invocation.argument(1))
        let outcome: ReplicaRegistry.Outcome
        do {
            outcome = try await ReplicaRegistry(plane: try environment.plane()).remove(
                shard, name, dryRun: invocation.isDryRun)
        } catch let error as ControlError
            where error.code == "replica-unknown" && invocation.flag("if-there")
        {
            outcome = .unchanged
        }
        let what = "replica \(name) of shard \(shard)"
        let text =
            switch outcome {
            case .removed: "\(what) removed"
            case .wouldRemove: "\(what) would be removed"
            default: "there is no \(what)"
            }
        return Report(json: ["outcome": .string(outcome.rawValue)], text: text)
    }
}
