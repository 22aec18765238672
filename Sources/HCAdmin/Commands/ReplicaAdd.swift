import HCControl
import HCCore
import HCIO

struct ReplicaAdd: Command {
    static let specification = CommandSpecification(
        path: ["shard", "replica", "add"], summary: "Registers a streaming replica of a shard.",
        discussion: """
            The connection file <secrets>/shards/REF.app.conninfo must exist, here and for every server. The
            replica is asked who it is: a copy of another server, one on another timeline, and a server that
            is no standby are refused. Running servers read from it without a restart. Given again, nothing
            changes.
            """,
        arguments: [
            .init(name: "SHARD", help: "The shard whose primary it follows."),
            .init(name: "NAME", help: "What it is called, such as r1; unique in its shard."),
        ],
        options: [
            .value("ref", "REF", "Name of its connection file; SHARD.NAME unless given."),
            .value("weight", "N", "Share of the reads beside other replicas, 1 to 10000; 100."),
            .value("connection-limit", "N", "Most connections all processes may hold to it; 100."),
        ],
        changes: true,
        examples: ["shard replica add s1 r1", "shard replica add s1 r2 --weight 50 --dry-run"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let (shard, name) = (invocation.argument(0), invocation.argument(1))
        let new = ReplicaRegistry.NewReplica(
            shard: shard, name: name, reference: invocation.option("ref") ?? "\(shard).\(name)",
            weight: try invocation.integer("weight", in: 1...10_000) ?? 100,
            connectionLimit: try invocation.integer("connection-limit", in: 1...100_000) ?? 100)
        let (outcome, replica) = try await ReplicaRegistry(plane: try environment.plane()).add(
            new, dryRun: invocation.isDryRun)
        let text =
            switch outcome {
            case .added: "replica \(name) of shard \(shard) added"
            case .wouldAdd: "replica \(name) of shard \(shard) would be added"
            default: "replica \(name) of shard \(shard) is registered already"
            }
        return Report(
            json: [
                "outcome": .string(outcome.rawValue),
                "replica": replica.map { .object($0.json) } ?? .null,
            ], text: text)
    }
}
