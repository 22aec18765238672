import HCControl
import HCCore
import HCIO

struct RebalanceCollect: Command {
    static let specification = CommandSpecification(
        path: ["rebalance", "collect"],
        summary: "Samples what clinics use of the shards, for rebalance plan.",
        discussion: """
            Workers add up what their clinics use on each shard. This reads it, and how large the clinics are,
            and keeps averages and peaks in the control database. 'hc-admin move agent' does it every five minutes;
            this does it now. It reads statistics, never tables. A shard that
            cannot be reached holds up no other (exit 1).
            """,
        examples: ["rebalance collect", "rebalance collect --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let outcomes = try await LoadCollector(plane: try environment.plane()).collect()
        var hasFailed = false
        var rows: [[String]] = []
        var lines: [JSONValue] = []
        for outcome in outcomes {
            let (result, clinics, reason): (String, Int?, String?) =
                switch outcome.result {
                case .sampled(let clinics): ("sampled", clinics, nil)
                case .fresh: ("fresh", nil, nil)
                case .failed(let reason): ("failed", nil, reason)
                }
            if reason != nil { hasFailed = true }
            rows.append([
                outcome.shard, result, clinics.map { "\($0)" } ?? "-", reason ?? "",
            ])
            lines.append([
                "shard": .string(outcome.shard), "result": .string(result),
                "clinics": clinics.map { .integer(Int64($0)) } ?? .null,
                "reason": reason.map { .string($0) } ?? .null,
            ])
        }
        return Report(
            json: ["shards": .array(lines)],
            text: rows.isEmpty
                ? "no shard; add one: hc-admin shard add ID"
                : Table(header: ["SHARD", "RESULT", "CLINICS", ""], rows: rows).render(),
            status: hasFailed ? .failed : .done)
    }
}
