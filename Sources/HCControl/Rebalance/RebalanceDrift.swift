import HCCore
package import HCIO
import HCPostgres
import HCTenancy

/// Whether the directory is still what a plan was made for.
///
/// Not the version alone: it grows with every domain and every key, and with the moves of the plan itself. What counts is
/// that shards are as they were, that nobody else has moved clinics, and that the plan's own are where it left them.
@LoopActor
package struct RebalanceDrift {
    /// Where a clinic is.
    struct Place: Sendable, Equatable {
        var shard: String
        var epoch: Int64
        var state: String
    }

    package enum Standing: Sendable, Equatable {
        /// As the plan has it.
        case ready
        /// At its target already, by this very move.
        case done
        /// In words.
        case drifted(String)
    }

    let plane: ControlPlane
    let plan: RebalancePlanFile

    package init(plane: ControlPlane, plan: RebalancePlanFile) {
        self.plane = plane
        self.plan = plan
    }

    /// What has changed under the plan as a whole; nil if nothing has.
    package func reason() async throws -> String? {
        try await plane.attempt("the directory cannot be read") {
            let results = try await plane.control().execute(
                [
                    Query("SELECT version FROM placement_version"),
                    Query(
                        "SELECT min(version) FROM placement_log WHERE version > $1",
                        [.int8(plan.mapVersion)]),
                    Query(
                        """
                        SELECT kind, coalesce(shard_id, ''), coalesce(slug, 'one that is gone')
                        FROM placement_log
                        LEFT JOIN tenant ON tenant.id = placement_log.tenant_id
                        WHERE placement_log.version > $1 AND (
                            kind = 'shard' OR kind = 'placement' AND epoch > 1 AND NOT tenant_id = ANY ($2))
                        ORDER BY placement_log.version LIMIT 1
                        """, [.int8(plan.mapVersion), .uuids(plan.moves.map(\.clinic.uuid))]),
                ], deadline: plane.deadline)
            let version = Int64(try results[0].single().int(0))
            guard version >= plan.mapVersion else {
                return
                    "the directory is at version \(version), before the plan's \(plan.mapVersion): it is another one"
            }
            let first = try results[1].single().intIfPresent(0).map { Int64($0) }
            guard version == plan.mapVersion || first == plan.mapVersion + 1 else {
                return "what has changed since version \(plan.mapVersion) is not recorded any more"
            }
            guard let line = results[2].first else { return nil }
            return try line.text(0) == "shard"
                ? "shard \(try line.text(1)) was changed since the plan was made"
                : "clinic '\(try line.text(2))' was moved since the plan was made"
        }
    }

    /// How it is with one of the plan's moves.
    package func standing(of move: RebalancePlanFile.Move) async throws -> Standing {
        let place = try await plane.attempt("the directory cannot be read") {
            try await plane.control().execute(
                [
                    Query(
                        "SELECT shard_id, epoch, state FROM placement WHERE tenant_id = $1",
                        [.uuid(move.clinic.uuid)])
                ], deadline: plane.deadline)[0].singleIfPresent()
                .map { row in
                    Place(
                        shard: try row.text(0), epoch: Int64(try row.int(1)),
                        state: try row.text(2))
                }
        }
        return RebalanceDrift.standing(of: move, at: place)
    }

    nonisolated static func standing(of move: RebalancePlanFile.Move, at place: Place?) -> Standing
    {
        guard let place else { return .drifted("clinic '\(move.slug)' is gone") }
        switch (place.shard, place.epoch) {
        case (move.source, move.epoch):
            return place.state == "serving"
                ? .ready
                : .drifted("clinic '\(move.slug)' is \(place.state): somebody else is at it")
        case (move.target, move.epoch + 1):
            return .done
        default:
            return .drifted("clinic '\(move.slug)' was moved since the plan was made")
        }
    }
}
