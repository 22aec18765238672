import HCControl
import HCCore
import HCIO

struct MigrateDown: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "down"],
        summary: "Takes the newest migration of one shard back, by its down.sql.",
        discussion: """
            For a canary that a run halted at. One transaction with the line in the shard's ledger: taken back or not,
            never half. A migration without down.sql is not taken back. No run of migrations may be under way and no
            clinic on the move from or to the shard.
            """,
        options: [
            .value("migrations", "DIR", "Directory of migrations."),
            .value("shard", "ID", "The shard."),
        ],
        changes: true, examples: ["migrate down --shard s1 --dry-run", "migrate down --shard s1"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        guard let shard = invocation.option("shard") else {
            throw UsageError("'--shard' is needed", invocation.specification)
        }
        let plane = try environment.plane()
        let runner = MigrationRunner(
            plane: plane, catalog: try environment.catalog(invocation.option("migrations")))
        let migration = try await runner.downShard(shard, dryRun: invocation.isDryRun)
        let verb = invocation.isDryRun ? "would take back" : "took back"
        return Report(
            json: [
                "dryRun": .bool(invocation.isDryRun), "shard": .string(shard),
                "version": .integer(Int64(migration.version)), "name": .string(migration.name),
            ], text: "\(shard): \(verb) \(migration.version) \(migration.name)")
    }
}
