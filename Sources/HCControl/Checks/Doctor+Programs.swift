import HCCore
import HCIO
import HCPostgres
import HCTenancy

extension Doctor {
    /// What a group of processes does not work with, and why.
    private struct Refusal: Hashable {
        var database: String
        var reason: String
    }

    private static let namedMax = 5

    /// Whether those that serve can: a process that does not know a schema refuses the shard's clinics. One that has
    /// fallen silent holds no contract back, and may be there.
    func programs(_ shards: [Shard]) async throws -> [Finding] {
        let reported = try await ProcessRegistry(plane: plane).reported()
        let states = await states(of: shards)
        let control = try await plane.attempt("the ledger of the control database cannot be read") {
            try await SchemaState(of: plane.control(), deadline: plane.deadline)
        }
        var findings: [Finding] = []
        var refusing: [Refusal: [ServingProcess]] = [:]
        for process in reported where process.isLive {
            for refusal in Doctor.refusals(of: process, control, states) {
                refusing[refusal, default: []].append(process)
            }
        }
        let reasons = Dictionary(grouping: refusing) { "\($0.value.map(\.title)) \($0.key.reason)" }
        for (_, group) in reasons.sorted(by: { $0.key < $1.key }) {
            let databases = Doctor.list(group.map(\.key.database).sorted())
            findings.append(
                finding(
                    "programs", .failed,
                    "\(Doctor.list(group[0].value.map(\.title))) cannot work with \(databases):"
                        + " \(group[0].key.reason)"))
        }
        let silent = reported.filter { !$0.isLive }
        if let shortest = silent.map(\.silence).min() {
            findings.append(
                finding(
                    "programs", .warning,
                    "\(Doctor.list(silent.map(\.title))) said nothing for"
                        + " \(shortest.inMilliseconds / 1000) s or more, and took no leave: killed, or cut off"
                        + " from the control database; what is not heard of for a day is forgotten")
            )
        }
        return findings
    }

    /// Shards that do not answer are told of by their own checks.
    private func states(of shards: [Shard]) async -> [(shard: String, state: SchemaState)] {
        var states: [(shard: String, state: SchemaState)] = []
        for shard in shards {
            do {
                let connection = try await plane.shard(reference: shard.reference, .owner)
                states.append(
                    (shard.id, try await SchemaState(of: connection, deadline: plane.deadline)))
            } catch {
                continue
            }
        }
        return states
    }

    /// By what it says that it knows, and by what it says that it refuses: it may have met a schema that was there between
    /// two looks.
    private static func refusals(
        of process: ServingProcess, _ control: SchemaState,
        _ shards: [(shard: String, state: SchemaState)]
    ) -> [Refusal] {
        var refusals: [Refusal] = []
        if let reason = process.control.refusal(of: control) {
            refusals.append(Refusal(database: "the control database", reason: "\(reason)"))
        }
        for (shard, state) in shards {
            if let reason = process.shard.refusal(of: state) {
                refusals.append(Refusal(database: shard, reason: "\(reason)"))
            }
        }
        for (shard, reason) in process.refused
        where !refusals.contains(where: { $0.database == shard }) {
            refusals.append(Refusal(database: shard, reason: reason))
        }
        return refusals
    }

    private static func list(_ names: [String]) -> String {
        names.prefix(namedMax).joined(separator: ", ")
            + (names.count > namedMax ? " and \(names.count - namedMax) more" : "")
    }
}

extension ServingProcess {
    fileprivate var title: String {
        "\(name) on \(host) (process \(processIdentifier), release \(version))"
    }
}
