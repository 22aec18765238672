import HCCore
import HCIO
import HCPostgres

/// The life of a shard: open → draining → closed, and from draining back to open.
///
/// open takes clinics; draining keeps those that it has until they are moved away; closed, which operators know as
/// retired, has none, takes none and is asked nothing: its server may be switched off. A closed shard stays closed, for
/// moves and the audit name it; its database can be emptied and registered under another id of another server.
///
/// Whoever brings a clinic to a shard holds its row FOR SHARE and sees that it is open, so none comes in behind a change.
extension ShardRegistry {
    /// Lets no clinic come to a shard any more. Given again it changes nothing.
    ///
    /// - Returns: whether it was open.
    package func drain(_ id: String, reason: String?) async throws -> Bool {
        try await change(id, from: "open", to: "draining", "shard.drain", reason)
    }

    /// Takes a drain back: the shard takes clinics again. What was moved away stays where it is.
    ///
    /// - Returns: false if it was open already.
    /// - Throws: `ControlError` (`shard-retired`).
    package func open(_ id: String, reason: String?) async throws -> Bool {
        try await change(id, from: "draining", to: "open", "shard.open", reason)
    }

    private func change(
        _ id: String, from: String, to: String, _ action: String, _ reason: String?
    ) async throws -> Bool {
        let isDone = try await plane.attempt("the state of shard \(id) cannot be changed") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let changed = try await transaction.execute(
                    Query(
                        "UPDATE shard SET state = $3, updated_at = now() WHERE id = $1 AND state = $2",
                        [.text(id), .text(from), .text(to)])
                ).affectedRows
                guard changed == 1 else { return false }
                _ = try await transaction.execute(final: [
                    plane.audit(action, subject: id, detail: ShardRegistry.detail(reason))
                ])
                return true
            }
        }
        if isDone { return true }
        try requireNotRetired(try await find(id))
        return false
    }

    package func requireNotRetired(_ shard: Shard) throws(ControlError) {
        guard shard.state != "closed" else {
            throw ControlError(
                .refused, code: "shard-retired", "shard \(shard.id) is retired",
                remedy: "A retired shard stays so: add a new one with 'hc-admin shard add'.")
        }
    }

    static func detail(_ reason: String?) -> JSONValue {
        ["reason": reason.map { .string($0) } ?? .null]
    }
}
