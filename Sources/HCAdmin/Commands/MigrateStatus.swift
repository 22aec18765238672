import HCControl
import HCCore
import HCIO
import HCTenancy

struct MigrateStatus: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "status"],
        summary: "Says which migrations each database has, and which programs serve.",
        discussion: """
            Programs report themselves every few seconds: the release, and from which to which version of a schema they work
            with. One that does not know the newest migration of these files holds back its contract. A shard that a program
            refuses is named with the reason.
            """,
        options: [.value("migrations", "DIR", "Directory of migrations.")],
        examples: ["migrate status", "migrate status --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        let plane = try environment.plane()
        let catalog = try environment.catalog(invocation.option("migrations"))
        let runner = MigrationRunner(plane: plane, catalog: catalog)
        let control = await runner.controlStatus()
        let shards = control.version == 0 ? [] : try await runner.shardStatus()
        let rollout = control.version == 0 ? nil : try await RolloutStore(plane: plane).last()
        let processes =
            control.version == 0 ? [] : try await ProcessRegistry(plane: plane).live()
        let programs = MigrateStatus.programs(processes, catalog)
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
                "processes": .array(processes.map(\.json)),
            ],
            text: ([table.render()] + problems + run + programs).joined(separator: "\n"),
            status: isBroken || rollout?.state == .halted ? .failed : .done)
    }

    /// Those that serve, and what they are in the way of.
    private static func programs(
        _ processes: [ServingProcess], _ catalog: MigrationCatalog
    ) -> [String] {
        guard !processes.isEmpty else { return ["no program serves"] }
        let newest = (control: catalog.control.count, shard: catalog.shard.count)
        let table = Table(
            header: ["PROGRAM", "HOST", "PID", "RELEASE", "CONTROL", "SHARDS", "HOLDS BACK"],
            rows: processes.map { process in
                let held =
                    (process.control.highest < newest.control
                        ? ["control from \(process.control.highest + 1)"] : [])
                    + (process.shard.highest < newest.shard
                        ? ["shards from \(process.shard.highest + 1)"] : [])
                return [
                    process.name, process.host, "\(process.processIdentifier)", process.version,
                    "\(process.control)", "\(process.shard)",
                    held.isEmpty ? "-" : held.joined(separator: ", "),
                ]
            })
        let refused = processes.flatMap { process in
            process.refused.map {
                "\(process.name) (\(process.host), \(process.processIdentifier)) does not serve"
                    + " \($0.shard): \($0.reason)"
            }
        }
        return [table.render()] + refused
    }
}
