import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Removes a clinic's rows from a shard that does not serve it, some at a time, and rests in between (`MovePace`). Begun
/// again it goes on with what is left.
@LoopActor
struct TenantPurge {
    let plane: ControlPlane
    let tenant: TenantID
    /// Of a move: nothing is removed where a later one has been.
    let attempt: Int64?

    /// Rows of one transaction.
    private static let batch = 250...5000

    /// - Parameter progress: is told how many rows are gone.
    /// - Throws: `MoveLost` if a later attempt has been here; `PostgresError`.
    func run(
        on connection: PostgresConnection, progress: (Int) async throws -> Void = { _ in }
    ) async throws {
        var (removed, place) = (0, [String]?.none)
        var isEmpty = false
        var pace = MovePace(sizes: TenantPurge.batch)
        // The last time around finds nothing: what came in behind is gone, too.
        while !isEmpty {
            isEmpty = true
            repeat {
                let begin = plane.clocks.monotonic()
                let batch = try await connection.execute(
                    [
                        // The disk is waited for where a time around begins, so also when nothing is found, behind all
                        // that went: a batch that is lost with its server is there to be removed again.
                        Query(
                            "SELECT set_config('synchronous_commit', $1, true)",
                            [.text(place == nil ? "on" : "off")]),
                        Query(
                            // The row is locked before the first row goes: no later attempt comes in between.
                            """
                            WITH mine AS MATERIALIZED (
                                SELECT FROM hc_tenant
                                WHERE tenant_id = $1 AND ($2::bigint IS NULL OR attempt <= $2) FOR SHARE
                            )
                            SELECT (purged).removed, coalesce((purged).next, '{}')
                            FROM (SELECT hc_purge_from($1, $3, $4) AS purged FROM mine OFFSET 0) AS done
                            """,
                            [
                                .id(tenant), .optional(attempt), .int4(Int32(pace.size)),
                                place.map { .texts($0) } ?? .null,
                            ]),
                    ], deadline: plane.deadline)[1].singleIfPresent()
                guard let batch else { throw MoveLost() }
                let count = try batch.int(0)
                let next = try batch.texts(1)
                place = next.isEmpty ? nil : next
                guard count > 0 else { continue }
                isEmpty = false
                removed += count
                try await progress(removed)
                guard place != nil else { break }
                try await pace.rest(after: plane.clocks.monotonic() - begin)
            } while place != nil
        }
    }
}
