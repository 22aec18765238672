import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Takes a clinic back whose creation failed: rows on the shard, keys, host, placement.
///
/// Each step is idempotent and the order makes every crash repeatable: the clinic is closed for routers first,
/// the control rows go last, so whoever runs again still finds where the remains are.
@LoopActor
struct TenantEraser {
    let plane: ControlPlane

    /// Whatever has become of it.
    ///
    /// - Parameter shard: on which this process has made it, and may have gone on after somebody else had taken it away.
    func erase(
        _ tenant: TenantID, slug: String, reason: String, madeOn shard: Shard? = nil
    ) async throws {
        if try await takeAway(tenant, slug: slug, reason: reason) { return }
        guard let place = try await placement(of: tenant) else {
            if let shard { try await purge(tenant, reference: shard.reference) }
            return
        }
        try await close(tenant, place)
        try await purge(tenant, reference: place.reference)
        try await forget(tenant, slug: slug, wasOpen: true, reason: reason)
    }

    /// A clinic that was never open.
    ///
    /// - Returns: false if it is open, or was, or is not there: then nothing was changed.
    func takeAway(_ tenant: TenantID, slug: String, reason: String) async throws -> Bool {
        guard let place = try await closeUnopened(tenant) else { return false }
        try FaultPoint.reach("provision.taken-away")
        try await purge(tenant, reference: place.reference)
        try await forget(tenant, slug: slug, wasOpen: false, reason: reason)
        return true
    }

    /// The other end that a creation may come to than being opened: from here on it cannot be. Given again, by whoever goes
    /// on, it changes nothing.
    private func closeUnopened(_ tenant: TenantID) async throws -> Placement? {
        let isClosed = try await plane.attempt("the clinic cannot be taken away") {
            // Who opens it waits for this row, or is waited for.
            try await plane.control().execute(
                .unsafeSQL(
                    """
                    UPDATE tenant SET state = 'deleting', version = version + 1, updated_at = now()
                    WHERE id = $1 AND \(TenantEraser.isUnopened)
                    """, [.id(tenant)]), deadline: plane.deadline
            ).affectedRows == 1
        }
        return isClosed ? try await placement(of: tenant) : nil
    }

    /// A creation that did not come to its end, and whether somebody has begun to take it away already.
    func remains(of slug: String) async throws -> TenantID? {
        try await plane.attempt("the clinics cannot be read") {
            try await plane.control().execute(
                .unsafeSQL(
                    "SELECT id FROM tenant WHERE slug = $1 AND \(TenantEraser.isUnopened)",
                    [.text(slug)]), deadline: plane.deadline
            ).singleIfPresent()?.id(0)
        }
    }

    /// Of a clinic that was open the placement is `closed` before it is being deleted.
    private nonisolated static let isUnopened = """
        (state = 'provisioning' OR state = 'deleting' AND EXISTS (
            SELECT FROM placement WHERE tenant_id = tenant.id AND placement.state = 'opening'))
        """

    private struct Placement {
        var shard: String
        var reference: String
        var epoch: Int64
        var state: String
    }

    private func placement(of tenant: TenantID) async throws -> Placement? {
        try await plane.attempt("the placement cannot be read") { () -> Placement? in
            let rows = try await plane.control().execute(
                [
                    Query(
                        """
                        SELECT shard_id, dsn_ref, epoch, placement.state
                        FROM placement JOIN shard ON shard.id = shard_id WHERE tenant_id = $1
                        """, [.id(tenant)])
                ], deadline: plane.deadline)[0]
            guard rows.count == 1 else { return nil }
            return Placement(
                shard: try rows[0].text(0), reference: try rows[0].text(1),
                epoch: Int64(try rows[0].int(2)),
                state: try rows[0].text(3))
        }
    }

    private func close(_ tenant: TenantID, _ place: Placement) async throws {
        guard place.state != "closed" else { return }
        let isClosed = try await plane.attempt("the clinic cannot be closed") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let row = try await transaction.execute(
                    Query(
                        "SELECT placement_swap($1, $2, 'serving', $3, 'closed')",
                        [.id(tenant), .int8(place.epoch), .text(place.shard)])
                ).single()
                guard try row.intIfPresent(0) != nil else { return false }
                _ = try await transaction.execute(final: [
                    Query(
                        """
                        UPDATE tenant SET state = 'deleting', version = version + 1, updated_at = now()
                        WHERE id = $1 AND state <> 'deleting'
                        """, [.id(tenant)])
                ])
                return true
            }
        }
        // Whoever moves it has its doors, and its rows on two shards.
        guard isClosed else {
            throw ControlError(
                .conflict, code: "placement-changed",
                "the clinic is on the move, or was moved just now",
                remedy: "See 'hc-admin move list'; it can be taken back when that is over.")
        }
    }

    /// The shard stops serving the clinic, then its rows go, batch by batch.
    private func purge(_ tenant: TenantID, reference: String) async throws {
        try await plane.attempt("the clinic's rows cannot be removed from the shard") {
            let mover = try await plane.shard(reference: reference, .mover)
            // The life cycle on a shard leads from rw over suspended to absent (hc_tenant_guard).
            _ = try await mover.execute(
                [
                    Query(
                        """
                        UPDATE hc_tenant SET state = 'suspended'
                        WHERE tenant_id = $1 AND state IN ('rw', 'ro')
                        """, [.id(tenant)])
                ], deadline: plane.deadline)
            _ = try await mover.execute(
                [
                    Query(
                        "UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = $1 AND state = 'suspended'",
                        [.id(tenant)])
                ], deadline: plane.deadline)
            let isHere = try await mover.execute(
                [
                    Query(
                        "SELECT EXISTS (SELECT FROM hc_tenant WHERE tenant_id = $1)", [.id(tenant)])
                ],
                deadline: plane.deadline)[0][0].bool(0)
            guard isHere else { return }
            try await TenantPurge(plane: plane, tenant: tenant, attempt: nil).run(on: mover)
            _ = try await mover.execute(
                [Query("DELETE FROM hc_tenant WHERE tenant_id = $1", [.id(tenant)])],
                deadline: plane.deadline)
        }
    }

    /// A clinic that was never open leaves no row; one that was keeps a tombstone without keys and host.
    private func forget(
        _ tenant: TenantID, slug: String, wasOpen: Bool, reason: String
    ) async throws {
        var queries: [Query]
        if wasOpen {
            queries = [
                Query("DELETE FROM domain WHERE tenant_id = $1", [.id(tenant)]),
                Query(
                    """
                    UPDATE tenant_key SET state = 'destroyed', wrapped = NULL, destroyed_at = now()
                    WHERE tenant_id = $1 AND state <> 'destroyed'
                    """, [.id(tenant)]),
                Query(
                    """
                    UPDATE tenant SET state = 'erased', version = version + 1, updated_at = now(),
                        deleted_at = now()
                    WHERE id = $1
                    """, [.id(tenant)]),
            ]
        } else {
            queries = [
                Query(
                    "DELETE FROM tenant WHERE id = $1 AND state = 'deleting'", [.id(tenant)])
            ]
        }
        queries.append(
            plane.audit("tenant.undo", subject: slug, detail: ["reason": .string(reason)]))
        try await plane.attempt("the clinic cannot be removed from the directory") {
            _ = try await plane.control().execute(queries, deadline: plane.deadline)
        }
    }
}
