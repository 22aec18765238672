import HCControl
import HCCore
import HCIO

struct MigratePlanCommand: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "plan"],
        summary: "Says in which waves which migrations would be applied; changes nothing.",
        discussion: """
            Every shard is looked at: one that is down, was changed by hand or has clinics on the move is named, as
            'migrate up' would name it before it touches any. The time is what the migrations took at other shards. The
            locks are those that they take in a scratch database, made on the control database's server and dropped again
            as by 'migrate lint'.
            """,
        options: WaveText.options + [
            .flag("sql", "Show the SQL too, and which tables it locks.")
        ],
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
        let steps = catalog.control.filter { versions.contains($0.version) }.flatMap(\.steps)
        guard withSQL else { return WaveText.report(plan, control: steps) }
        let lint = MigrationLint(plane: plane, catalog: catalog)
        return WaveText.report(
            plan, control: steps,
            locks: .init(
                control: try await locks(of: steps, in: .control, lint, environment),
                shard: try await locks(
                    of: plan.steps + plan.later, in: .shard, lint, environment)))
    }

    /// - Returns: empty, with a word to the operator, if there is no server to try the steps on.
    private static func locks(
        of steps: [MigrationStep], in set: MigrationLint.DatabaseSet, _ lint: MigrationLint,
        _ environment: AdminEnvironment
    ) async throws -> [Int: [TableLock]] {
        do {
            return try await lint.locks(of: steps, in: set)
        } catch let error as ControlError where error.code == "server-unreachable" {
            environment.tell("which tables are locked cannot be told: \(error.message)")
            return [:]
        }
    }
}
