import HCControl
import HCCore
import HCIO

struct ReplicaSet: Command {
    static let specification = CommandSpecification(
        path: ["shard", "replica", "set"],
        summary: "Takes a replica out of use or back into it, or changes its share.",
        discussion: """
            A closed replica is not read from: close it before work on it. Servers follow within a second, and
            what is under way on it is finished.
            """,
        arguments: [
            .init(name: "SHARD", help: "The shard."), .init(name: "NAME", help: "Its replica."),
        ],
        options: [
            .value("state", "STATE", "open or closed."),
            .value("weight", "N", "Share of the reads beside other replicas, 1 to 10000."),
            .value("connection-limit", "N", "Most connections all processes may hold to it."),
        ],
        changes: true,
        examples: [
            "shard replica set s1 r1 --state closed",
            "shard replica set s1 r1 --weight 50 --dry-run",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let (shard, name) = (invocation.argument(0), invocation.argument(1))
        let state = invocation.option("state")
        if let state, !["open", "closed"].contains(state) {
            throw UsageError("'--state' takes open or closed, not '\(state)'", Self.specification)
        }
        let weight = try invocation.integer("weight", in: 1...10_000)
        let limit = try invocation.integer("connection-limit", in: 1...100_000)
        guard state != nil || weight != nil || limit != nil else {
            throw UsageError(
                "nothing to set: give --state, --weight or --connection-limit", Self.specification)
        }
        let (outcome, replica) = try await ReplicaRegistry(plane: try environment.plane()).change(
            shard, name, state: state, weight: weight, connectionLimit: limit,
            dryRun: invocation.isDryRun)
        let what = "replica \(name) of shard \(shard)"
        let present = "\(replica.state), weight \(replica.weight)"
        let text =
            switch outcome {
            case .changed: "\(what): \(present)"
            case .wouldChange: "\(what) would be: \(present)"
            default: "\(what) is so already: \(present)"
            }
        return Report(
            json: ["outcome": .string(outcome.rawValue), "replica": .object(replica.json)],
            text: text)
    }
}
