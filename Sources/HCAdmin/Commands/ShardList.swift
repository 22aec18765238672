import HCControl
import HCCore
import HCIO

struct ShardList: Command {
    static let specification = CommandSpecification(
        path: ["shard", "list"], summary: "Lists the shards and how full they are.",
        examples: ["shard list", "shard list --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let shards = try await ShardRegistry(plane: try environment.plane()).list()
        let table = Table(
            header: ["ID", "STATE", "CLINICS", "USED", "CAPACITY", "WEIGHT", "SCHEMA", "DATABASE"],
            rows: shards.map {
                [
                    $0.id, $0.state, "\($0.tenants)", "\($0.used)", "\($0.capacity)",
                    "\($0.weight)",
                    "\($0.schemaVersion)", $0.database,
                ]
            })
        return Report(
            json: ["shards": .array(shards.map(\.json))],
            text: shards.isEmpty ? "no shard; add one: hc-admin shard add ID" : table.render())
    }
}
