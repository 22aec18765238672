import HCControl
import HCCore
import HCIO

struct RebalanceSimulate: Command {
    static let specification = CommandSpecification(
        path: ["rebalance", "simulate"],
        summary: "Plays weeks of load with and without the rebalancer, and compares.",
        discussion: """
            A generated trace (clinics with sizes by Zipf's law, opening hours, weekends, hot spots, growth),
            or a recorded one, with the planner that 'rebalance plan' uses; beside it one that counts bytes alone,
            and moves that cost nothing: what is left then nobody could know. Prints what it assumes. Asks nothing of a
            running platform and changes nothing. The same options give the same numbers.
            """,
        options: [
            .value("shards", "N", "1 to 10000; 1000."),
            .value("clinics", "N", "1 to 1000000; 100000."),
            .value("weeks", "N", "1 to 52; 4."),
            .value("seed", "N", "Another one is another history; 1."),
            .value("use", "SHARE", "Average use of the shards, 0.01 to 0.9; 0.25."),
            .value(
                "trace", "FILE", "A recorded trace, in lines of JSON, in place of a generated one."),
            .value("plan-hours", "H", "Between two plans, 1 to 168; 6."),
            .value("moves", "N", "Moves of one plan at most; 200."),
            .value("at-once", "N", "Moves that are under way at once, 1 to 1000; 16."),
            .value("copy-rate", "MB", "Megabytes a second that a move copies, 1 to 10000; 50."),
            .value("cooldown-days", "N", "For which a clinic is not moved again, 0 to 365; 14."),
        ],
        examples: [
            "rebalance simulate --shards 20 --clinics 2000 --weeks 2",
            "rebalance simulate --shards 10 --clinics 500 --weeks 1 --seed 7 --json",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        var settings = RebalanceSimulation.Settings()
        settings.planEvery = 3600 * (try invocation.integer("plan-hours", in: 1...168) ?? 6)
        settings.rules.movesMax = try invocation.integer("moves", in: 1...100_000) ?? 200
        settings.movesAtOnce = try invocation.integer("at-once", in: 1...1000) ?? 16
        settings.copyBytesPerSecond =
            1_000_000 * Double(try invocation.integer("copy-rate", in: 1...10_000) ?? 50)
        settings.rules.cooldown = .seconds(
            86_400 * (try invocation.integer("cooldown-days", in: 0...365) ?? 14))
        let shape = try RebalanceSimulate.shape(invocation)
        guard let file = invocation.option("trace") else {
            return report(GeneratedTrace(shape), settings, environment)
        }
        for option in ["shards", "clinics", "weeks", "seed", "use"]
        where invocation.option(option) != nil {
            throw UsageError(
                "'--\(option)' says how a trace is generated, and '--trace' that it is not",
                RebalanceSimulate.specification)
        }
        do {
            let bytes = try Files.read(file, bytesMax: RecordedTrace.Limits.bytesMax)
            return report(try RecordedTrace(bytes), settings, environment)
        } catch {
            throw ControlError(
                .invalid, code: "bad-trace", "\(file) is no trace that can be played",
                remedy: "admin/rebalancing.md says what is in one.", cause: error)
        }
    }

    private static func shape(_ invocation: Invocation) throws(UsageError) -> GeneratedTrace.Shape {
        var shape = GeneratedTrace.Shape()
        shape.shards = try invocation.integer("shards", in: 1...10_000) ?? shape.shards
        shape.clinics = try invocation.integer("clinics", in: 1...1_000_000) ?? shape.clinics
        shape.weeks = try invocation.integer("weeks", in: 1...52) ?? shape.weeks
        shape.seed = UInt64(try invocation.integer("seed", in: 0...Int.max) ?? 1)
        shape.use = try invocation.number("use", in: 0.01...0.9) ?? shape.use
        return shape
    }

    private func report(
        _ trace: some LoadTrace, _ settings: RebalanceSimulation.Settings,
        _ environment: AdminEnvironment
    ) -> Report {
        var trace = trace
        let outcome = RebalanceSimulation.run(
            &trace, settings, now: environment.clocks.monotonic)
        return SimulationReport(
            outcome: outcome, assumptions: trace.assumptions + settings.assumptions
        ).report
    }
}
