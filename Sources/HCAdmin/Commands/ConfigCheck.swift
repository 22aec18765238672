import HCControl
import HCCore
import HCCrypto
import HCIO
import HCTenancy

struct ConfigCheck: Command {
    static let specification = CommandSpecification(
        path: ["config", "check"],
        summary:
            "Checks the configuration, its keys and certificates, and the sum of all connections.",
        discussion: """
            Names every problem of the file at once, and each certificate that cannot be used or has
            expired. The connections that all processes of the fleet may hold (pools, fleet; dedicated ones
            of the clinics that have them; replicas) are added up against what each registered shard and each
            server takes, less what is reserved. What does not fit is refused (exit 3).
            """,
        examples: ["config check", "config check --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        var problems: [String] = []
        var notes: [String] = []
        var budget: FleetBudget?
        do {
            let configuration = try environment.configuration()
            problems += keyProblems(configuration)
            problems += PlatformTLS.problems(configuration, now: Clocks.system.now())
            problems += connectionProblems(configuration, ["control.admin", "control.router"])
            do {
                let plane = try environment.plane()
                let shards = try await ShardRegistry(plane: plane).list(isInUse: true)
                problems += connectionProblems(
                    configuration, shards.map { "shards/\($0.reference).app" })
                let result = try await FleetInspection(plane: plane).inspect()
                budget = result.budget
                notes += result.notes
                problems += result.budget.problems
            } catch {
                notes.append("the shards' limits were not compared: \(error)")
            }
        } catch let error as ConfigurationError {
            problems += error.problems.map(\.description)
        }
        var parts = problems.isEmpty ? ["the configuration is sound"] : problems
        if let budget { parts += ["", ConfigCheck.text(budget)] }
        return Report(
            json: [
                "valid": .bool(problems.isEmpty),
                "file": .string(environment.configurationFile),
                "problems": .array(problems.map { .string($0) }),
                "notes": .array(notes.map { .string($0) }),
                "fleet": budget.map { ConfigCheck.json($0.fleet) } ?? .null,
                "connections": .array((budget?.lines ?? []).map(ConfigCheck.json)),
            ], text: (parts + notes).joined(separator: "\n"),
            status: problems.isEmpty ? .done : .refused)
    }

    private static func text(_ budget: FleetBudget) -> String {
        let fleet = budget.fleet
        let table = Table(
            header: ["CONNECTIONS", "SHARED", "DEDICATED", "COMMANDS", "NEEDED", "AVAILABLE", ""],
            rows: budget.lines.map { line in
                [
                    line.name, "\(line.shared)", "\(line.dedicated)", "\(line.commands)",
                    "\(line.needed)", line.available.map { "\($0)" } ?? "unknown",
                    line.fits ? "" : "does not fit",
                ]
            })
        return table.render()
            + "\n\(fleet.processes) processes: \(fleet.pods) pods of \(fleet.workersPerPod) workers, a successor"
            + " and \(fleet.jobsPerPod) jobs; \(budget.reserve) connections are kept in reserve of each"
    }

    private static func json(_ fleet: FleetBudget.Fleet) -> JSONValue {
        [
            "pods": .integer(Int64(fleet.pods)),
            "workersPerPod": .integer(Int64(fleet.workersPerPod)),
            "jobsPerPod": .integer(Int64(fleet.jobsPerPod)),
            "commands": .integer(Int64(fleet.commands)),
            "processes": .integer(Int64(fleet.processes)),
        ]
    }

    private static func json(_ line: FleetBudget.Line) -> JSONValue {
        [
            "kind": .string(line.kind.rawValue), "name": .string(line.name),
            "shared": .integer(Int64(line.shared)), "dedicated": .integer(Int64(line.dedicated)),
            "commands": .integer(Int64(line.commands)), "needed": .integer(Int64(line.needed)),
            "available": line.available.map { .integer(Int64($0)) } ?? .null,
            "fits": .bool(line.fits),
        ]
    }

    /// Connection files that a server needs and cannot read.
    private func connectionProblems(
        _ configuration: PlatformConfiguration, _ names: [String]
    ) -> [String] {
        names.compactMap { name in
            do {
                _ = try configuration.conninfo(name)
                return nil
            } catch {
                return "\(error): put the connection string there, with mode 0600"
            }
        }
    }

    private func keyProblems(_ configuration: PlatformConfiguration) -> [String] {
        var problems: [String] = []
        do { _ = try MasterKey.load(path: configuration.masterKeyFile) } catch {
            problems.append("\(error)")
        }
        do { _ = try TokenKeyRing.load(path: configuration.tokenKeyFile) } catch {
            problems.append("\(error)")
        }
        return problems
    }
}
