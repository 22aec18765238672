import HCControl
import HCCore
import HCIO

struct RebalanceApply: Command {
    static let specification = CommandSpecification(
        path: ["rebalance", "apply"],
        summary: "Makes the moves of a plan, while nothing has changed under it.",
        discussion: """
            The plan is one that 'rebalance plan --out' wrote. It is refused (exit 5) if it was changed, if a shard was changed
            since, or if somebody else moved a clinic; the same is looked at before each move. Each
            move is one of 'tenant move', with its way back. After more failures than --failures no further
            move is begun (exit 1). Given again after it was interrupted, it goes on with what is left.
            """,
        arguments: [.init(name: "PLAN", help: "The file.")],
        options: [
            .value("at-once", "N", "Moves that are under way at once, 1 to 64; 2."),
            .value("per-shard", "N", "Of these, at one shard, 1 to 16; 1."),
            .value("failures", "N", "Moves that may fail, 0 to 1000; 0."),
            .value(
                "pause-budget", "TIME",
                "The longest that a clinic's writers may have to wait, from 20ms to 10s; 250ms."),
            .value("soak", "TIME", "For how long the way back is kept, up to 30d; 24h."),
            .reason, .yes,
        ],
        changes: true,
        examples: [
            "rebalance apply plan.json --dry-run",
            "rebalance apply plan.json --at-once 4 --failures 1 --yes",
        ])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let limits = try RebalanceApply.limits(invocation)
        let options = try RebalanceApply.options(invocation)
        let reason = try invocation.reason()
        let path = invocation.argument(0)
        let plan = try RebalanceApply.plan(path)
        let plane = try environment.plane()
        let movers = RebalanceMovers(
            plane: plane, options: options, reason: reason ?? "rebalance",
            tell: MoveText.teller(environment))
        let runner = RebalanceRunner(plane: plane, plan: plan, moves: movers.moves)
        let preview = try await runner.preview(limits)
        if invocation.isDryRun { return RebalanceApply.report(preview, isDryRun: true) }
        let lines = zip(preview.moves, preview.outcomes).filter { $0.1 == .waiting }.map {
            "'\($0.0.slug)' from \($0.0.source) to \($0.0.target)"
        }
        if !lines.isEmpty { try environment.confirm(lines, invocation) }
        let application = try await runner.run(limits, tell: environment.tell)
        return RebalanceApply.report(application, isDryRun: false)
    }

    private static func plan(_ path: String) throws -> RebalancePlanFile {
        let bytes: [UInt8]
        do throws(Files.FileError) {
            bytes = try Files.read(path, bytesMax: RebalancePlanFile.bytesMax)
        } catch {
            guard error.isMissing else { throw error }
            throw ControlError(
                .notFound, code: "no-plan", "there is no file \(path)",
                remedy: "Write one: hc-admin rebalance plan --out \(path)")
        }
        do {
            return try RebalancePlanFile(bytes)
        } catch {
            throw ControlError(
                .conflict, code: "bad-plan", "\(path) is no plan that can be applied",
                remedy: "Make another: hc-admin rebalance plan --out \(path)", cause: error)
        }
    }

    private static func limits(
        _ invocation: Invocation
    ) throws(UsageError) -> RebalanceApplication.Limits {
        var limits = RebalanceApplication.Limits()
        limits.atOnce = try invocation.integer("at-once", in: 1...64) ?? limits.atOnce
        limits.perShard = try invocation.integer("per-shard", in: 1...16) ?? limits.perShard
        limits.failuresMax = try invocation.integer("failures", in: 0...1000) ?? limits.failuresMax
        return limits
    }

    private static func options(_ invocation: Invocation) throws(UsageError) -> MoveOptions {
        var options = MoveOptions()
        options.pauseBudget =
            try invocation.duration("pause-budget", in: MoveOptions.pauseBudgets)
            ?? options.pauseBudget
        options.soak = try invocation.duration("soak", in: MoveOptions.soaks) ?? options.soak
        return options
    }

    // MARK: Output

    private static func report(_ application: RebalanceApplication, isDryRun: Bool) -> Report {
        var rows: [[String]] = []
        var lines: [JSONValue] = []
        for (move, outcome) in zip(application.moves, application.outcomes) {
            let (name, id, reason): (String, UUID?, String?) =
                switch outcome {
                case .waiting: (isDryRun ? "would-move" : "not-begun", nil, nil)
                case .underWay(let id): ("under-way", id, nil)
                case .there: ("moved", nil, nil)
                case .wasThere: ("was-there", nil, nil)
                case .failed(let reason): ("failed", nil, reason)
                }
            rows.append([move.slug, move.source, move.target, name, reason ?? ""])
            lines.append([
                "slug": .string(move.slug), "source": .string(move.source),
                "target": .string(move.target), "outcome": .string(name),
                "move": id.map { .string("\($0)") } ?? .null,
                "reason": reason.map { .string($0) } ?? .null,
            ])
        }
        let table = Table(header: ["CLINIC", "FROM", "TO", "RESULT", ""], rows: rows).render()
        let ending = application.stopped.map { "\n\nstopped: \($0)" } ?? ""
        return Report(
            json: [
                "moves": .array(lines),
                "stopped": application.stopped.map { .string($0) } ?? .null,
            ],
            text: rows.isEmpty ? "the plan has no moves" : table + ending,
            status: application.failures > 0
                ? .failed : application.stopped == nil ? .done : .conflict)
    }
}
