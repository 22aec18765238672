import HCControl
import HCCore
import HCIO

struct MigrateUp: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "up"],
        summary: "Applies pending migrations, control database first, then the shards.",
        discussion: """
            Each migration is one transaction with its line in the ledger of its database: applied or not,
            never half; what PostgreSQL takes only outside a transaction is repaired and run once more. Shards come in waves, a canary first; each wave is verified before the next begins, and the
            first failure halts the run: shards that come later are not touched. So do lock waits that a wave has
            left, and servers (--health) that answer worse than they may. Given again, it goes on where it
            stopped. It asks for a lock for 100 ms at a time, and names who holds it when it gives up. What takes
            something away (a contract, servesFrom) waits until every process that serves knows the migration: it then
            says which do not, and is given again when they have been upgraded. A run whose process is gone is gone on with
            as it is, ten seconds later; one whose process is stuck (--take-over) when that has lost it by its own clock.
            """,
        options: WaveText.options + HealthProbe.options + [
            .value("shard", "ID", "Only this shard, outside of any run of waves."),
            .flag(
                "take-over",
                "Take the run from a process that renews it and has not got on for a minute."),
            .reason,
        ],
        changes: true,
        examples: [
            "migrate up --dry-run", "migrate up --canary s4 --parallel 16",
            "migrate up --health http://127.0.0.1:9464/metrics --health-p95 200ms",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        var options = try WaveText.options(invocation)
        options.health = try HealthProbe.make(invocation, environment.clocks)
        options.takesOver = invocation.flag("take-over")
        options.reason = try invocation.reason()
        let shard = invocation.option("shard")
        guard shard == nil || !options.takesOver else {
            throw UsageError(
                "'--take-over' is of a run of waves, '--shard' is outside of any",
                invocation.specification)
        }
        if invocation.isDryRun, shard == nil {
            return try await MigratePlanCommand.report(invocation, environment, withSQL: true)
        }
        let plane = try environment.plane()
        let catalog = try environment.catalog(invocation.option("migrations"))
        let runner = MigrationRunner(plane: plane, catalog: catalog)
        var applied: [MigrationRunner.Applied] = []
        var waits: ControlError?
        if let shard {
            applied = try await runner.upShards(only: shard, dryRun: invocation.isDryRun)
        } else {
            applied = try await runner.upControl(dryRun: false)
            let waves = WaveRunner(plane: plane, catalog: catalog, options: options)
            applied += try await waves.up()
            waits = waves.waits
        }
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
                "waits": waits.map { .string($0.message) } ?? .null,
            ],
            text: applied.isEmpty
                ? "every database is up to date"
                : (applied.map { "\($0.database): \(verb) \($0.version) \($0.name)" }
                    + (waits.map { ["\($0.message)", $0.remedy ?? ""] } ?? [])).joined(
                        separator: "\n"))
    }
}
