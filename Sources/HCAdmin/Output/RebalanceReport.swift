import HCControl
import HCCore

/// A plan, and the shards before and after it.
struct RebalanceReport {
    let view: RebalanceView
    let plan: RebalancePlan
    let file: RebalancePlanFile
    private let before: RebalanceUse
    private let after: RebalanceUse
    private let bound: RebalanceBound
    private let fillMax: Double

    /// Shards and moves that a person is shown; machines get all.
    private static let linesMax = 40
    /// Older samples are worth a word.
    private static let sampleAge = Duration.seconds(3600)

    init(
        view: RebalanceView, plan: RebalancePlan, file: RebalancePlanFile, rules: RebalanceRules
    ) {
        self.view = view
        self.plan = plan
        self.file = file
        before = RebalanceUse(of: view.fleet)
        after = RebalanceUse(of: plan.applied(to: view.fleet))
        bound = RebalanceBound(of: view.fleet, rules: rules)
        fillMax = rules.fillMax
    }

    /// Those that are fuller than they may be filled, also after the plan.
    private var full: [(id: String, use: Double)] {
        zip(view.fleet.shards, after.shards).filter { $1.highest > fillMax }.map {
            ($0.id, $1.highest)
        }
    }

    func warning(now: Timestamp) -> String? {
        if view.fleet.clinics.isEmpty { return nil }
        guard let oldest = view.oldestSample else {
            return "a shard was never sampled: run hc-admin rebalance collect every few minutes"
        }
        if now - oldest > RebalanceReport.sampleAge {
            return "a shard was last sampled at \(oldest.rfc3339): hc-admin rebalance collect"
        }
        return view.unsampled == 0
            ? nil : "of \(view.unsampled) clinics no load is known: they count as empty"
    }

    var text: String {
        var parts: [String] = []
        if plan.moves.isEmpty {
            parts.append(
                !plan.unplaced.isEmpty || !full.isEmpty
                    ? "nothing can be moved"
                    : "nothing to move: \(view.fleet.clinics.count) clinics on \(view.fleet.shards.count) shards are where they may be, and no move is worth its cost"
            )
        } else {
            parts.append(moves)
        }
        if !plan.unplaced.isEmpty { parts.append(unplaced) }
        if !full.isEmpty { parts.append(fullText) }
        parts.append(shards)
        parts.append(possible)
        return parts.joined(separator: "\n\n")
    }

    private var moves: String {
        let shown = file.moves.prefix(RebalanceReport.linesMax)
        let table = Table(
            header: ["CLINIC", "FROM", "TO", "WHY", "MB"],
            rows: shown.map {
                [$0.slug, $0.source, $0.target, $0.cause.rawValue, "\($0.bytes / 1_000_000)"]
            })
        let rest = file.moves.count - shown.count
        return table.render() + (rest > 0 ? "\n… and \(rest) more" : "")
    }

    private var unplaced: String {
        let names = plan.unplaced.prefix(RebalanceReport.linesMax).map {
            "\(view.slugs[$0.clinic]) (\($0.cause.rawValue))"
        }
        return "no shard has room for \(plan.unplaced.count): " + names.joined(separator: ", ")
    }

    private var fullText: String {
        let names = full.prefix(RebalanceReport.linesMax).map {
            "\($0.id) (\(Int(($0.use * 100).rounded())) %)"
        }
        return """
            fuller than shards may be filled (fillMax, \(Int((fillMax * 100).rounded())) %): \(names.joined(separator: ", "))
            room is made by another shard (hc-admin shard add), or by larger servers and their capacity in the rules
            """
    }

    /// Those that change, the most used before the plan first.
    private var shards: String {
        let order = view.fleet.shards.indices.sorted {
            (before.shards[$1].highest, $0) < (before.shards[$0].highest, $1)
        }
        let changed = Set(plan.moves.flatMap { [$0.source, $0.target] })
        let shown =
            (changed.isEmpty ? order : order.filter { changed.contains($0) })
            .prefix(RebalanceReport.linesMax)
        let rows = shown.map { index in
            [view.fleet.shards[index].id, view.fleet.shards[index].status.rawValue]
                + [
                    RebalanceReport.change(
                        before.shards[index].clinics, after.shards[index].clinics)
                ]
                + LoadDimension.allCases.map { dimension in
                    RebalanceReport.change(
                        before.shards[index].use[dimension], after.shards[index].use[dimension])
                }
        }
        let all =
            ["highest", "", ""]
            + LoadDimension.allCases.map { RebalanceReport.change(before.most[$0], after.most[$0]) }
        let mean =
            ["mean", "", ""]
            + LoadDimension.allCases.map { RebalanceReport.change(before.mean[$0], after.mean[$0]) }
        return Table(
            header: ["SHARD", "STATE", "CLINICS"]
                + LoadDimension.allCases.map { $0.name.uppercased() + " %" },
            rows: Array(rows) + [all, mean]
        ).render()
    }

    private var possible: String {
        let copied = file.moves.reduce(0) { $0 + $1.bytes } / 1_000_000
        return """
            the busiest shard is \(RebalanceReport.change(before.skew, after.skew)) % above the mean, and with any \
            plan at least \(Int((bound.skew * 100).rounded())) %
            \(copied) MB are copied; to relieve every shard, any plan copies at least \
            \(Int(bound.bytes / 1_000_000)) MB
            """
    }

    private static func change(_ before: Double, _ after: Double) -> String {
        change(Int((before * 100).rounded()), Int((after * 100).rounded()))
    }

    private static func change(_ before: Int, _ after: Int) -> String {
        before == after ? "\(before)" : "\(before)>\(after)"
    }

    func json() throws -> JSONValue {
        try file.json().adding([
            "unplaced": .array(
                plan.unplaced.map {
                    [
                        "slug": .string(view.slugs[$0.clinic]), "cause": .string($0.cause.rawValue),
                    ]
                }),
            "full": .array(full.map { .string($0.id) }),
            "unsampled": .integer(Int64(view.unsampled)),
            "shards": .array(
                view.fleet.shards.indices.map { index in
                    [
                        "id": .string(view.fleet.shards[index].id),
                        "state": .string(view.fleet.shards[index].status.rawValue),
                        "capacity": view.fleet.shards[index].capacity.json,
                        "before": RebalanceReport.json(before.shards[index]),
                        "after": RebalanceReport.json(after.shards[index]),
                    ]
                }),
            "skew": ["before": .double(before.skew), "after": .double(after.skew)],
            "atLeast": ["skew": .double(bound.skew), "bytes": .double(bound.bytes)],
        ])
    }

    private static func json(_ shard: RebalanceUse.Shard) -> JSONValue {
        [
            "clinics": .integer(Int64(shard.clinics)), "weight": .integer(Int64(shard.weight)),
            "load": shard.load.json, "use": shard.use.json,
        ]
    }
}
