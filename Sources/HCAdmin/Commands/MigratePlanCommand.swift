import HCControl
import HCCore
import HCIO

struct MigratePlanCommand: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "plan"],
        summary: "Says in which waves which migrations would be applied; changes nothing.",
        discussion: """
            Every shard is looked at: one that is down, was changed by hand or has clinics on the move is named, as
            'migrate up' would name it before it touches any. The time is what the migrations took at other shards.
            """,
        options: WaveText.options + [.flag("sql", "Show the SQL too.")],
        examples: ["migrate plan", "migrate plan --canary s4 --waves 10,100 --sql"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        try await MigratePlanCommand.report(
            invocation, environment, withSQL: invocation.flag("sql"))
    }

    static func report(
        _ invocation: Invocation, _ environment: AdminEnvironment, withSQL: Bool
    ) async throws -> Report {
        let options = try WaveText.options(invocation)
        let plane = try environment.plane()
        let catalog = try environment.catalog(invocation.option("migrations"))
        let control = try await MigrationRunner(plane: plane, catalog: catalog).upControl(
            dryRun: true)
        // A control database that would be made only now knows no shard yet.
        let plan =
            control.contains { $0.version == 1 }
            ? WaveRunner.Plan.empty
            : try await WaveRunner(plane: plane, catalog: catalog, options: options).plan()
        let versions = Set(control.map(\.version))
        return WaveText.report(
            plan,
            control: catalog.control.filter { versions.contains($0.version) }.flatMap(\.steps),
            withSQL: withSQL)
    }
}
