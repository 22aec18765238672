import HCControl
import HCCore
import HCIO

struct ShardShow: Command {
    static let specification = CommandSpecification(
        path: ["shard", "show"],
        summary: "Shows one shard: identity, schema, room, and how far its replicas are.",
        arguments: [.init(name: "ID", help: "The shard.")], examples: ["shard show s1"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let shard = try await ShardRegistry(plane: plane).find(invocation.argument(0))
        let replicas = try await ReplicaInspection(plane: plane).states(of: shard)
        var json = shard.json.asObject ?? JSONObject()
        json.set(.array(replicas.map(\.json)), for: "replicas")
        return Report(
            json: .object(json),
            text: HelpText.columns(
                [
                    ("id", shard.id), ("state", shard.state), ("connection files", shard.reference),
                    ("database", shard.database),
                    ("identity", "\(shard.systemIdentifier), timeline \(shard.timeline)"),
                    (
                        "clinics",
                        "\(shard.tenants) (\(shard.used) of \(shard.capacity) in tier weight)"
                    ),
                    ("weight", "\(shard.weight) %"),
                    ("connection limit", "\(shard.connectionLimit)"),
                    ("schema", "version \(shard.schemaVersion), fingerprint \(shard.fingerprint)"),
                ] + replicas.map { ("replica \($0.replica.name)", $0.text) }
            ).trimmedFinalNewline)
    }
}

extension String {
    /// Reports are printed with a newline of their own.
    var trimmedFinalNewline: String { hasSuffix("\n") ? String(dropLast()) : self }
}
