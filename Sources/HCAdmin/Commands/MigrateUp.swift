import HCControl
import HCCore
import HCIO

struct MigrateUp: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "up"],
        summary: "Applies pending migrations, control database first, then the shards.",
        discussion: """
            Each migration is one transaction with its line in the ledger of its database: applied or not,
            never half. The first failure ends the run; given again, it goes on where it stopped.
            """,
        options: [
            .value("migrations", "DIR", "Directory of migrations."),
            .value("shard", "ID", "Only this shard, and not the control database."),
        ],
        changes: true, examples: ["migrate up --dry-run", "migrate up --migrations migrations"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let runner = MigrationRunner(
            plane: try environment.plane(),
            catalog: try environment.catalog(invocation.option("migrations")))
        let shard = invocation.option("shard")
        var applied: [MigrationRunner.Applied] = []
        if shard == nil { applied += try await runner.upControl(dryRun: invocation.isDryRun) }
        // A control database that would be made only now knows no shard yet.
        let isNew = invocation.isDryRun && applied.contains { $0.version == 1 }
        if !isNew { applied += try await runner.upShards(only: shard, dryRun: invocation.isDryRun) }
        let verb = invocation.isDryRun ? "would apply" : "applied"
        return Report(
            json: [
                "dryRun": .bool(invocation.isDryRun),
                "applied": .array(
                    applied.map {
                        [
                            "database": .string($0.database),
                            "version": .integer(Int64($0.version)),
                            "name": .string($0.name),
                        ]
                    }),
            ],
            text: applied.isEmpty
                ? "every database is up to date"
                : applied.map { "\($0.database): \(verb) \($0.version) \($0.name)" }.joined(
                    separator: "\n"))
    }
}
