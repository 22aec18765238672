import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Lets a server be a shard whose identity is another than the registered one: after a fail-over, or a restore.
///
/// Until then every pool refuses it, for it may have forgotten the last fence: clinics that have moved away would be
/// let in again (invariant I10). So first each door on it is compared with the control map, and made to follow; the
/// identity is written last. A command that dies in between leaves the shard as closed as it was, and can be given again.
///
/// A clinic whose door was forgotten the other way, placed here and not known to be, is served by the shard that it came
/// from if that still has its rows (`MoveRecall`): the server lacks whatever it was told here. If it is the only one left
/// that has all that came, it opens, and that is told; if not even that is here, nobody is let in: what was acknowledged
/// would be missing in silence. It is named with what to do, and the others are served.
///
/// Moves that have passed their commit point are carried on first, for a while: what cannot be, for another shard is
/// away, goes on later by itself, and holds up nobody here.
@LoopActor
package struct ShardReconciliation {
    package struct DoorChange: Sendable, Equatable {
        package var clinic: String
        package var from: String
        package var to: String
    }

    package struct Loss: Sendable, Equatable {
        package var clinic: String
        package var reason: String
    }

    package struct Result: Sendable {
        package var shard: Shard
        /// Who it is now.
        package var found: ShardInspection.Identity
        package var isDryRun: Bool
        /// Doors that were changed, or would be.
        package var doors: [DoorChange] = []
        /// Clinics whose door was open and is again: what they were told since they came is not there.
        package var arrivals: [Loss] = []
        /// Clinics that the shard they came from serves again, or would.
        package var recalls: [Loss] = []
        /// Moves that go on later, and why not now.
        package var waiting: [Loss] = []
        /// Clinics that are placed here and cannot be served.
        package var lost: [Loss] = []
        /// Moves whose way back is lost.
        package var waysBack: [Loss] = []
        /// Of moves that are over, and was removed here, or would be.
        package var remains: [Loss] = []

        package var isSame: Bool { ShardReconciliation.isSame(shard, found) }

        package var outcome: String {
            if isDryRun { return "would-reconcile" }
            return isSame && doors.isEmpty && recalls.isEmpty && remains.isEmpty
                ? "unchanged" : "reconciled"
        }
    }

    let plane: ControlPlane
    let id: String
    /// For a move past its commit point to get to where it soaks.
    let patience: Duration

    package init(_ shard: String, plane: ControlPlane, patience: Duration = .seconds(30)) {
        id = shard
        self.plane = plane
        self.patience = patience
    }

    private nonisolated static func isSame(
        _ shard: Shard, _ found: ShardInspection.Identity
    ) -> Bool {
        found.identity.systemIdentifier == shard.systemIdentifier
            && found.identity.timeline == shard.timeline
            && found.identity.databaseOID == shard.databaseOID && found.database == shard.database
    }

    // MARK: The whole

    /// - Parameter isNewSystem: it may be another cluster, which has the shard's database from a dump or a copy.
    /// - Throws: `ControlError` for everything that has to be settled first; then nothing was changed.
    package func run(
        isNewSystem: Bool, reason: String?, dryRun: Bool
    ) async throws -> Result {
        let registry = ShardRegistry(plane: plane)
        let shards = try await registry.list()
        guard let shard = shards.first(where: { $0.id == id }) else {
            throw ShardRegistry.unknown(id)
        }
        try registry.requireNotRetired(shard)
        let found = try await ShardInspection(plane: plane).identity(reference: shard.reference)
        try requireSuccessor(found, of: shard, among: shards, isNewSystem: isNewSystem)
        try await requireSchema(shard)
        var result = Result(shard: shard, found: found, isDryRun: dryRun)
        let open = try await settledMoves(shards, &result)
        try FaultPoint.reach("reconcile.moves-settled")
        let forgotten = try await reconcileDoors(&result, shards)
        try FaultPoint.reach("reconcile.doors-set")
        if !result.isSame {
            for move in open where !forgotten.contains(where: { $0.id == move.id }) {
                try await loseWayBack(of: move, shards, &result)
            }
            if !dryRun { try await register(result, reason) }
        }
        for move in forgotten { try await recall(move, &result, reason) }
        try await removeRemains(&result)
        return result
    }

    // MARK: Who it is

    private func requireSuccessor(
        _ found: ShardInspection.Identity, of shard: Shard, among shards: [Shard],
        isNewSystem: Bool
    ) throws {
        let identity = found.identity
        if let other = shards.first(where: {
            $0.id != id && $0.systemIdentifier == identity.systemIdentifier
                && $0.databaseOID == identity.databaseOID
        }) {
            throw ControlError(
                .conflict, code: "shard-exists",
                "the files of '\(shard.reference)' lead to the database of shard \(other.id)",
                remedy: "Correct <secrets>/shards/\(shard.reference).*.conninfo.")
        }
        guard identity.systemIdentifier == shard.systemIdentifier,
            identity.databaseOID == shard.databaseOID
        else {
            guard isNewSystem else {
                throw ControlError(
                    .refused, code: "other-system",
                    "the server is no copy of the one that was shard \(id): \(identity), registered is"
                        + " system \(shard.systemIdentifier), database \(shard.databaseOID)",
                    remedy:
                        "If its data is the shard's nevertheless, from a dump: --new-system. Else correct the files."
                )
            }
            return
        }
        guard identity.timeline >= shard.timeline else {
            throw ControlError(
                .refused, code: "identity-older",
                "the server is on timeline \(identity.timeline), the shard is on \(shard.timeline) by now:"
                    + " it is a former primary, which lacks what was written since",
                remedy: "Let the files lead to its successor, and make this one its standby.")
        }
    }

    private func requireSchema(_ shard: Shard) async throws {
        let row = try await plane.attempt("the schema of shard \(id) cannot be read") {
            try await plane.shard(reference: shard.reference, .owner).execute(
                Query("SELECT coalesce(max(version), 0), hc_schema_fingerprint() FROM hc_schema"),
                deadline: plane.deadline
            ).single()
        }
        let version = try row.int(0)
        guard try version == shard.schemaVersion && row.text(1) == shard.fingerprint else {
            throw ControlError(
                .refused, code: "schema-behind",
                "the schema of the server is not the shard's: version \(version), registered is"
                    + " \(shard.schemaVersion)"
                    + (version == shard.schemaVersion ? " with another fingerprint" : ""),
                remedy: "Run 'hc-admin migrate up', then give this command again.")
        }
    }

    // MARK: The identity

    private func register(_ result: Result, _ reason: String?) async throws {
        let (shard, found) = (result.shard, result.found)
        guard
            try await ShardInspection(plane: plane).identity(reference: shard.reference) == found
        else {
            throw ControlError(
                .conflict, code: "identity-changed", "the server of shard \(id) has changed again",
                remedy: "Give the command again.")
        }
        let isDone = try await plane.attempt("the identity of shard \(id) cannot be written") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let changed = try await transaction.execute(
                    Query(
                        """
                        UPDATE shard SET system_id = $2, timeline = $3, database_oid = $4, database_name = $5,
                            updated_at = now()
                        WHERE id = $1 AND system_id = $6 AND timeline = $7 AND database_oid = $8
                            AND NOT EXISTS (
                                SELECT FROM move WHERE $1 IN (source_shard, target_shard)
                                    AND (state = 'aborting' OR state = 'running'
                                        AND step NOT IN ('committed', 'opened', 'switched', 'closing', 'purging')))
                        """,
                        [
                            .text(id), .text(found.identity.systemIdentifier),
                            .int4(Int32(found.identity.timeline)),
                            .int8(found.identity.databaseOID), .text(found.database),
                            .text(shard.systemIdentifier), .int4(Int32(shard.timeline)),
                            .int8(shard.databaseOID),
                        ])
                ).affectedRows
                guard changed == 1 else { return false }
                _ = try await transaction.execute(final: [
                    plane.audit("shard.reconcile", subject: id, detail: detail(result, reason))
                ])
                return true
            }
        }
        guard isDone else {
            throw ControlError(
                .conflict, code: "shard-changed",
                "shard \(id) was changed by somebody else, or a move of it was begun",
                remedy: "Give the command again.")
        }
    }

    private func detail(_ result: Result, _ reason: String?) -> JSONValue {
        [
            "before": .string(
                "system \(result.shard.systemIdentifier), timeline \(result.shard.timeline), database \(result.shard.databaseOID)"
            ),
            "after": .string("\(result.found.identity)"),
            "doors": .integer(Int64(result.doors.count)),
            "lost": .integer(Int64(result.lost.count)),
            "waysBack": .integer(Int64(result.waysBack.count)),
            "arrivals": .integer(Int64(result.arrivals.count)),
            "recalls": .integer(Int64(result.recalls.count)),
            "waiting": .integer(Int64(result.waiting.count)),
            "reason": reason.map { .string($0) } ?? .null,
        ]
    }
}
