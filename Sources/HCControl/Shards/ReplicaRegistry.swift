package import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// One row of `replica`.
package struct Replica: Sendable {
    package var shard: String
    package var name: String
    package var reference: String
    package var state: String
    package var weight: Int
    package var connectionLimit: Int

    package var json: JSONObject {
        var object = JSONObject()
        object.set(.string(shard), for: "shard")
        object.set(.string(name), for: "name")
        object.set(.string(reference), for: "dsnRef")
        object.set(.string(state), for: "state")
        object.set(.integer(Int64(weight)), for: "weight")
        object.set(.integer(Int64(connectionLimit)), for: "connectionLimit")
        return object
    }
}

/// The replicas from which routes that allow it read.
@LoopActor
package struct ReplicaRegistry {
    package struct NewReplica: Sendable {
        package var shard: String
        package var name: String
        /// Names the connection file `<secrets>/shards/<reference>.app.conninfo`.
        package var reference: String
        package var weight: Int
        package var connectionLimit: Int

        package init(
            shard: String, name: String, reference: String, weight: Int, connectionLimit: Int
        ) {
            self.shard = shard
            self.name = name
            self.reference = reference
            self.weight = weight
            self.connectionLimit = connectionLimit
        }
    }

    package enum Outcome: String, Sendable {
        case added, changed, removed, unchanged
        case wouldAdd = "would-add"
        case wouldChange = "would-change"
        case wouldRemove = "would-remove"
    }

    let plane: ControlPlane

    package init(plane: ControlPlane) {
        self.plane = plane
    }

    /// - Parameter shard: nil for those of all shards.
    package func list(of shard: String? = nil) async throws -> [Replica] {
        try await plane.attempt("the replicas cannot be read") {
            let rows = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT shard_id, name, dsn_ref, state, weight, connection_limit FROM replica
                        WHERE shard_id = $1 OR $1 IS NULL ORDER BY shard_id, name
                        """, [shard.map { .text($0) } ?? .null])
                ], deadline: plane.deadline)[0]
            return try rows.rows.map { row in
                Replica(
                    shard: try row.text(0), name: try row.text(1), reference: try row.text(2),
                    state: try row.text(3), weight: try row.int(4), connectionLimit: try row.int(5))
            }
        }
    }

    /// - Throws: `ControlError` of kind `notFound`.
    package func find(_ shard: String, _ name: String) async throws -> Replica {
        let all = try await list(of: shard)
        if let replica = all.first(where: { $0.name == name }) { return replica }
        // Whether it is the shard that is not there.
        _ = try await ShardRegistry(plane: plane).find(shard)
        throw ControlError(
            .notFound, code: "replica-unknown", "shard \(shard) has no replica '\(name)'",
            remedy: "See 'hc-admin shard replica list'.")
    }

    /// Registers a server as a replica of a shard, after it has proved to be one. Given again it changes nothing.
    ///
    /// - Throws: `ControlError`: `replica-refused` for a server that is no copy of the shard, or no standby.
    package func add(_ new: NewReplica, dryRun: Bool) async throws -> (Outcome, Replica?) {
        let shard = try await ShardRegistry(plane: plane).find(new.shard)
        try ShardRegistry(plane: plane).requireNotRetired(shard)
        try check(new)
        try await prove(new.reference, isReplicaOf: shard)
        if let same = try await list(of: new.shard).first(where: { $0.name == new.name }) {
            guard same.reference == new.reference else {
                throw ControlError(
                    .conflict, code: "replica-exists",
                    "replica \(new.name) of shard \(new.shard) was added with the reference"
                        + " '\(same.reference)'",
                    remedy: "Choose another name, or remove that one first.")
            }
            return (.unchanged, same)
        }
        guard !dryRun else { return (.wouldAdd, nil) }
        try await plane.attempt("replica \(new.name) cannot be registered") {
            do {
                _ = try await plane.control().execute(
                    [
                        Query(
                            """
                            INSERT INTO replica (shard_id, name, dsn_ref, weight, connection_limit)
                            VALUES ($1, $2, $3, $4, $5)
                            """,
                            [
                                .text(new.shard), .text(new.name), .text(new.reference),
                                .int4(Int32(new.weight)), .int4(Int32(new.connectionLimit)),
                            ]),
                        plane.audit("shard.replica.add", subject: "\(new.shard)/\(new.name)"),
                    ], deadline: plane.deadline)
            } catch let error as PostgresError where error.sqlstate == .uniqueViolation {
                throw ControlError(
                    .conflict, code: "replica-exists",
                    "a replica of that name, or with the reference '\(new.reference)', is registered",
                    remedy: "See 'hc-admin shard replica list'.")
            }
        }
        return (.added, try await find(new.shard, new.name))
    }

    /// Takes a replica out of use, or back into it, or gives it another share.
    package func change(
        _ shard: String, _ name: String, state: String?, weight: Int?, connectionLimit: Int?,
        dryRun: Bool
    ) async throws -> (Outcome, Replica) {
        let before = try await find(shard, name)
        var after = before
        after.state = state ?? before.state
        after.weight = weight ?? before.weight
        after.connectionLimit = connectionLimit ?? before.connectionLimit
        guard after.json != before.json else { return (.unchanged, before) }
        guard !dryRun else { return (.wouldChange, after) }
        let changed = after
        try await plane.attempt("replica \(name) cannot be changed") {
            _ = try await plane.control().execute(
                [
                    Query(
                        """
                        UPDATE replica SET state = $3, weight = $4, connection_limit = $5,
                            updated_at = now()
                        WHERE shard_id = $1 AND name = $2
                        """,
                        [
                            .text(shard), .text(name), .text(changed.state),
                            .int4(Int32(changed.weight)), .int4(Int32(changed.connectionLimit)),
                        ]),
                    plane.audit(
                        "shard.replica.set", subject: "\(shard)/\(name)",
                        detail: ["before": .object(before.json), "after": .object(changed.json)]),
                ], deadline: plane.deadline)
        }
        return (.changed, try await find(shard, name))
    }

    /// Nothing is read from it any more. The server itself is left alone.
    package func remove(_ shard: String, _ name: String, dryRun: Bool) async throws -> Outcome {
        _ = try await find(shard, name)
        guard !dryRun else { return .wouldRemove }
        try await plane.attempt("replica \(name) cannot be removed") {
            _ = try await plane.control().execute(
                [
                    Query(
                        "DELETE FROM replica WHERE shard_id = $1 AND name = $2",
                        [.text(shard), .text(name)]),
                    plane.audit("shard.replica.remove", subject: "\(shard)/\(name)"),
                ], deadline: plane.deadline)
        }
        return .removed
    }

    private func check(_ new: NewReplica) throws(ControlError) {
        guard ShardRegistry.isIdentifier(new.name) else {
            throw ControlError(
                .invalid, code: "bad-replica-name", "'\(new.name)' cannot be a replica's name",
                remedy:
                    "Use 1 to 31 lower-case letters, digits and hyphens, starting with a letter.")
        }
    }

    private func prove(_ reference: String, isReplicaOf shard: Shard) async throws {
        let identity = try await ShardInspection(plane: plane).identity(
            reference: shard.reference
        ).identity
        let sight = try await ReplicaInspection(plane: plane).look(reference: reference)
        guard let refusal = sight.refusal(asReplicaOf: identity) else { return }
        throw ControlError(
            .refused, code: "replica-refused",
            "the files of '\(reference)' lead to no replica of shard \(shard.id):"
                + " \(refusal.rawValue) (found \(sight.identity), the shard is \(identity))",
            remedy:
                "Name in shards/\(reference).app.conninfo a standby that streams from the shard.")
    }
}
