import HCControl
import HCCore
import HCIO

struct ReplicaList: Command {
    static let specification = CommandSpecification(
        path: ["shard", "replica", "list"],
        summary: "Lists the replicas of all shards, or of one, and how far they are.",
        arguments: [.init(name: "SHARD", help: "Only those of this shard.", isOptional: true)],
        examples: ["shard replica list", "shard replica list s1 --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let registry = ShardRegistry(plane: plane)
        let shards =
            if let id = invocation.optionalArgument(0) {
                [try await registry.find(id)]
            } else {
                try await registry.list()
            }
        var states: [ReplicaInspection.State] = []
        for shard in shards {
            states += try await ReplicaInspection(plane: plane).states(of: shard)
        }
        let table = Table(
            header: ["SHARD", "NAME", "STATE", "WEIGHT", "BEHIND", "PROBLEM"],
            rows: states.map { state in
                [
                    state.replica.shard, state.replica.name, state.replica.state,
                    "\(state.replica.weight)", state.lagBytes.map { "\($0) B" } ?? "?",
                    state.problem ?? "",
                ]
            })
        return Report(
            json: ["replicas": .array(states.map(\.json))],
            text: states.isEmpty
                ? "no replica; add one: hc-admin shard replica add SHARD NAME" : table.render())
    }
}
