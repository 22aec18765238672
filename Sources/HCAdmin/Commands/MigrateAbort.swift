import HCControl
import HCCore
import HCIO

struct MigrateAbort: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "abort"],
        summary: "Ends a run of migrations that halted, or stops one before its next shard.",
        discussion: """
            What was applied stays applied: migrations are not undone. 'migrate up' begins a new run, which brings the
            shards that are behind up to date.
            """,
        options: [.reason], changes: true, examples: ["migrate abort --reason \"wrong release\""])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let reason = try invocation.reason()
        let store = RolloutStore(plane: try environment.plane())
        if invocation.isDryRun {
            let last = try await store.last()
            let open = last.flatMap { $0.isOpen ? $0 : nil }
            return Report(
                json: ["dryRun": true, "rollout": open?.json ?? .null],
                text: open.map { "would end: \(WaveText.text($0))" }
                    ?? "no run of migrations is open")
        }
        let ended = try await store.abort(reason: reason)
        return Report(
            json: ["rollout": ended.json],
            text: ended.isOpen
                ? "it stops before its next shard; see 'hc-admin migrate status'"
                : "ended: \(ended.shardsDone) of \(ended.shardsTotal) shards were brought to"
                    + " version \(ended.version)")
    }
}
