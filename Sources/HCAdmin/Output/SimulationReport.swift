import HCControl
import HCCore

/// What a simulation showed, each kind of plan beside the others.
struct SimulationReport {
    let outcome: RebalanceSimulation.Outcome
    let assumptions: [String]

    private var courses: [(name: String, course: RebalanceSimulation.Course)] {
        [
            ("without", outcome.without), ("with", outcome.with), ("bySize", outcome.bySize),
            ("free", outcome.free),
        ]
    }

    var report: Report {
        var parts = [
            "assumed:", assumptions.map { "  \($0)" }.joined(separator: "\n"), "", table.render(),
        ]
        if let comparison = outcome.comparison {
            parts += [
                "",
                "one plan of as many moves as it takes, when the load is known for the first time, as it knows the load:",
                "", SimulationReport.table(comparison).render(),
            ]
        }
        parts += [
            "",
            HelpText.columns([
                ("plans", "\(outcome.with.plans)"),
                ("longest planning", "\(outcome.with.longestPlanning.inMilliseconds) ms"),
                (
                    "moves of each week",
                    outcome.with.movesByWeek.map(String.init).joined(separator: ", ")
                ),
                ("moves back within four weeks", "\(outcome.with.pingPong)"),
                ("clinics that moved more than once", "\(outcome.with.movedAgain)"),
            ]).trimmedFinalNewline,
        ]
        return Report(json: json, text: parts.joined(separator: "\n"))
    }

    private var table: Table {
        var rows: [[String]] = []
        func row(_ label: String, _ value: (RebalanceSimulation.Course) -> String) {
            rows.append([label] + courses.map { value($0.course) })
        }
        row("busiest shard above the mean, as plans knew it") {
            SimulationReport.percent($0.known.medianSkew)
        }
        row("busiest shard above the mean, when busy") {
            SimulationReport.percent($0.seen.busySkew)
        }
        for dimension in LoadDimension.allCases {
            row("  most \(dimension.name) above its mean") {
                SimulationReport.percent($0.seen.busySkew(dimension))
            }
        }
        row("use of the busiest shard, when busy") { SimulationReport.percent($0.seen.busyUse) }
        row("99 of 100 shards are below, when busy") {
            SimulationReport.percent($0.seen.busyNinetyNine)
        }
        row("highest use of any shard, ever") { SimulationReport.percent($0.seen.mostUse) }
        row("hours of shards above 80 %") { "\(Int($0.seen.hoursAbove80))" }
        row("hours of shards above 100 %") { "\(Int($0.seen.hoursAbove100))" }
        row("moves") { "\($0.moves)" }
        row("copied, MB") { SimulationReport.megabytes($0.bytes) }
        return Table(header: ["", "WITHOUT", "WITH", "BY SIZE", "FREE MOVES"], rows: rows)
    }

    private static func table(_ comparison: RebalanceComparison) -> Table {
        let (bound, sides) = (comparison.bound, [comparison.after, comparison.bySize])
        let uses = [comparison.before] + sides.map(\.use)
        var rows = [
            ["busiest shard above the mean"] + uses.map { percent($0.skew) } + [percent(bound.skew)]
        ]
        for dimension in LoadDimension.allCases {
            let skews = uses.map { percent($0.skew(in: dimension)) }
            rows.append(["  most \(dimension.name) above its mean"] + skews + [""])
        }
        rows.append(["moves", ""] + sides.map { "\($0.moves)" } + [""])
        rows.append(
            ["copied, MB", ""] + sides.map { megabytes($0.bytes) } + [megabytes(bound.bytes)])
        rows.append(["less than by size", "", percent(comparison.saving), "", ""])
        rows.append(["planning, ms", ""] + sides.map { "\($0.took.inMilliseconds)" } + [""])
        return Table(header: ["", "BEFORE", "AFTER", "BY SIZE", "AT LEAST"], rows: rows)
    }

    private static func percent(_ share: Double) -> String { "\(Int((share * 100).rounded())) %" }

    private static func megabytes(_ bytes: Double) -> String { "\(Int(bytes / 1_000_000))" }

    // MARK: For machines

    private var json: JSONValue {
        var json: JSONValue = ["assumptions": .array(assumptions.map { .string($0) })]
        for (name, course) in courses {
            json = json.adding([name: SimulationReport.json(course)])
        }
        guard let comparison = outcome.comparison else { return json }
        return json.adding([
            "onePlan": [
                "before": SimulationReport.json(comparison.before),
                "after": SimulationReport.json(comparison.after),
                "bySize": SimulationReport.json(comparison.bySize),
                "saving": .double(comparison.saving),
                "atLeast": [
                    "use": .double(comparison.bound.use), "skew": .double(comparison.bound.skew),
                    "bytes": .double(comparison.bound.bytes),
                ],
            ]
        ])
    }

    private static func json(_ course: RebalanceSimulation.Course) -> JSONValue {
        [
            "knownSkew": .double(course.known.medianSkew),
            "busySkew": .double(course.seen.busySkew), "busyUse": .double(course.seen.busyUse),
            "busySkews": LoadVector { course.seen.busySkew($0) }.json,
            "busyNinetyNine": .double(course.seen.busyNinetyNine),
            "mostUse": .double(course.seen.mostUse),
            "hoursAbove80": .double(course.seen.hoursAbove80),
            "hoursAbove100": .double(course.seen.hoursAbove100),
            "plans": .integer(Int64(course.plans)), "moves": .integer(Int64(course.moves)),
            "movesByWeek": .array(course.movesByWeek.map { .integer(Int64($0)) }),
            "bytes": .double(course.bytes), "pingPong": .integer(Int64(course.pingPong)),
            "movedAgain": .integer(Int64(course.movedAgain)),
            "longestPlanMilliseconds": .integer(course.longestPlanning.inMilliseconds),
        ]
    }

    private static func json(_ use: RebalanceUse) -> JSONValue {
        [
            "skew": .double(use.skew), "skews": LoadVector { use.skew(in: $0) }.json,
            "most": use.most.json, "mean": use.mean.json,
        ]
    }

    private static func json(_ side: RebalanceComparison.Side) -> JSONValue {
        json(side.use).adding([
            "moves": .integer(Int64(side.moves)), "bytes": .double(side.bytes),
            "milliseconds": .integer(side.took.inMilliseconds),
        ])
    }
}
