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
            expired. The connections that all workers of all instances may hold are added up against what
            each registered shard takes.
            """,
        examples: ["config check", "config check --json"])

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        var problems: [String] = []
        var notes: [String] = []
        do {
            let configuration = try environment.configuration()
            problems += keyProblems(configuration)
            problems += PlatformTLS.problems(configuration, now: Clocks.system.now())
            problems += connectionProblems(configuration, ["control.admin", "control.router"])
            let workers = configuration.server.workers ?? max(1, CPUQuota.cores() - 1)
            let budget = ConnectionBudget(workers: workers, pools: configuration.pools)
            notes.append(
                "\(budget.processes) workers may hold up to \(budget.needed) connections to each shard"
            )
            do {
                let shards = try await ShardRegistry(plane: try environment.plane()).list()
                problems += connectionProblems(
                    configuration, shards.map { "shards/\($0.reference).app" })
                problems += budget.problems(limits: shards.map { ($0.id, $0.connectionLimit) })
            } catch {
                notes.append("the shards' limits were not compared: \(error)")
            }
        } catch let error as ConfigurationError {
            problems += error.problems.map(\.description)
        }
        let text =
            problems.isEmpty
            ? (["the configuration is sound"] + notes).joined(separator: "\n")
            : problems.joined(separator: "\n")
        return Report(
            json: [
                "valid": .bool(problems.isEmpty),
                "file": .string(environment.configurationFile),
                "problems": .array(problems.map { .string($0) }),
                "notes": .array(notes.map { .string($0) }),
            ], text: text, status: problems.isEmpty ? .done : .refused)
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
