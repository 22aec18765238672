import HCControl
import HCCore
import HCIO

struct ShardAdd: Command {
    static let specification = CommandSpecification(
        path: ["shard", "add"], summary: "Registers a database as a shard.",
        discussion: """
            The connection files <secrets>/shards/REF.{owner,app,mover}.conninfo must exist. The database is
            asked who it is, brought up to date, checked for roles that could get around row-level security,
            and then listed; running servers use it without a restart. Given again, nothing changes.
            """,
        arguments: [
            .init(name: "ID", help: "Its name, such as s3; also the prefix of its Redis keys.")
        ],
        options: [
            .value("ref", "REF", "Name of its connection files; the id unless given."),
            .value(
                "weight", "PERCENT",
                "Share of new clinics relative to its capacity, 0 to 10000; 100."),
            .value("capacity", "N", "Most clinics of weight 1 it may hold; 1000."),
            .value("connection-limit", "N", "Most connections all processes may hold to it; 100."),
            .value("migrations", "DIR", "Directory of migrations."),
        ],
        changes: true,
        examples: ["shard add s3", "shard add s3 --ref eu-west-3 --capacity 400 --dry-run"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let id = invocation.argument(0)
        let new = ShardRegistry.NewShard(
            id: id, reference: invocation.option("ref") ?? id,
            weight: try invocation.integer("weight", in: 0...10_000) ?? 100,
            capacity: try invocation.integer("capacity", in: 0...1_000_000) ?? 1000,
            connectionLimit: try invocation.integer("connection-limit", in: 1...100_000) ?? 100)
        let registry = ShardRegistry(plane: try environment.plane())
        let (outcome, shard) = try await registry.add(
            new, catalog: try environment.catalog(invocation.option("migrations")),
            dryRun: invocation.isDryRun)
        let text =
            switch outcome {
            case .added: "shard \(id) added"
            case .unchanged: "shard \(id) is registered already"
            case .wouldAdd: "shard \(id) would be migrated and added"
            }
        return Report(
            json: [
                "outcome": .string(outcome.rawValue), "shard": shard?.json ?? .null,
            ], text: text)
    }
}
