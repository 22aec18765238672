import HCControl
import HCCore
import HCIO

struct MigrateStatus: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "status"], summary: "Says which migrations each database has.",
        options: [.value("migrations", "DIR", "Directory of migrations.")],
        examples: ["migrate status", "migrate status --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let runner = MigrationRunner(
            plane: plane,
            catalog: try environment.catalog(invocation.option("migrations")))
        let control = await runner.controlStatus()
        let shards = control.version == 0 ? [] : try await runner.shardStatus()
        let rollout = control.version == 0 ? nil : try await RolloutStore(plane: plane).last()
        func json(_ status: MigrationRunner.Status) -> JSONValue {
            [
                "id": .string(status.id), "version": .integer(Int64(status.version)),
                "fingerprint": .string(status.fingerprint), "state": .string(status.state.rawValue),
                "pending": .array(status.pending.map { .string($0) }),
                "problem": status.problem.map { .string($0) } ?? .null,
            ]
        }
        let all = [control] + shards
        let table = Table(
            header: ["DATABASE", "VERSION", "STATE", "PENDING", "FINGERPRINT"],
            rows: all.map {
                [
                    $0.id, "\($0.version)", $0.state.rawValue,
                    $0.pending.isEmpty ? "-" : $0.pending.joined(separator: ", "),
                    String($0.fingerprint.prefix(16)),
                ]
            })
        // Below the table: a reason may have lines of its own.
        let problems = all.compactMap { status in status.problem.map { "\(status.id): \($0)" } }
        let isBroken = all.contains { $0.state == .drift || $0.state == .unreachable }
        let run = rollout.map { [WaveText.text($0)] } ?? []
        return Report(
            json: [
                "control": json(control), "shards": .array(shards.map(json)),
                "rollout": rollout?.json ?? .null,
            ],
            text: ([table.render()] + problems + run).joined(separator: "\n"),
            status: isBroken || rollout?.state == .halted ? .failed : .done)
    }
}
