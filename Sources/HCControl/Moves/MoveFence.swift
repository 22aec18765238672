import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// The doors of a clinic on both shards, as a move opens and closes them (S1, S6 to S10).
///
/// Every statement names the move's attempt and changes nothing where a later one has been: a mover that was stopped
/// and goes on finds no row (`hc_tenant_guard` would refuse it too). READ COMMITTED throughout.
@LoopActor
struct MoveFence {
    let plane: ControlPlane
    var move: Move
    let origin: Shard
    let destination: Shard

    /// A position in the log of the origin.
    struct Barrier: Sendable {
        var number: Int64
        var position: LogPosition
        /// That the fence waited for, at most.
        var duration: Duration
    }

    enum FenceOutcome: Sendable {
        case fenced(Barrier)
        /// Writers that were inside did not end in time: the gate stands.
        case late(String)
        /// The row is not as this attempt left it.
        case lost
    }

    /// Of the advisory locks that attempts take on a shard (1 is the schema's); the other half is the clinic.
    nonisolated static let lockClass = 2

    private func mover(_ shard: Shard) async throws -> PostgresConnection {
        try await plane.shard(reference: shard.reference, .mover)
    }

    /// Makes the attempt known on both shards: what an earlier one was doing to publications, slots and subscriptions has
    /// ended when this returns, and what it still sends is refused (`MoveStream`).
    ///
    /// - Throws: `MoveLost` if a later attempt has been here.
    func becomeKnown() async throws {
        for shard in [origin, destination] { try await becomeKnown(on: shard) }
    }

    func becomeKnown(on shard: Shard) async throws {
        let isLater = try await plane.attempt("shard \(shard.id) does not take the attempt") {
            try await mover(shard).execute(
                [
                    .unsafeSQL(
                        "SELECT pg_advisory_xact_lock(\(MoveFence.lockClass), hashtext('\(move.tenant.uuid)'))"
                    ),
                    Query(
                        "UPDATE hc_tenant SET attempt = $2 WHERE tenant_id = $1 AND attempt < $2",
                        [.id(move.tenant), .int8(move.attempt)]),
                    Query(
                        """
                        SELECT EXISTS (SELECT FROM hc_tenant WHERE tenant_id = $1 AND attempt > $2)
                        """, [.id(move.tenant), .int8(move.attempt)]),
                ], deadline: plane.deadline)[2].single().bool(0)
        }
        guard !isLater else { throw MoveLost() }
    }

    // MARK: The destination

    /// S1: the destination expects the clinic.
    ///
    /// - Throws: `MoveLost` if it serves the clinic, or a later attempt has been here.
    func reserve() async throws {
        let rows = try await plane.attempt("shard \(destination.id) does not take the clinic") {
            try await mover(destination).execute(
                Query(
                    """
                    INSERT INTO hc_tenant AS here (tenant_id, epoch, state, attempt)
                    VALUES ($1, $2, 'incoming', $3)
                    ON CONFLICT (tenant_id) DO UPDATE SET state = 'incoming', epoch = $2, attempt = $3
                    WHERE here.state IN ('absent', 'incoming', 'moved') AND here.attempt <= $3
                        AND here.epoch <= $2
                    RETURNING true
                    """, [.id(move.tenant), .int8(move.epoch), .int8(move.attempt)]),
                deadline: plane.deadline
            ).rows
        }
        guard !rows.isEmpty else { throw MoveLost() }
    }

    /// Removes what is left of the clinic where it is not served, so many rows at a time.
    ///
    /// - Parameter progress: is told how many rows are gone.
    /// - Throws: `MoveLost` if a later attempt has been here.
    func purge(
        _ shard: Shard, progress: (Int) async throws -> Void = { _ in }
    ) async throws {
        try await plane.attempt("rows cannot be removed from shard \(shard.id)") {
            try await TenantPurge(plane: plane, tenant: move.tenant, attempt: move.attempt).run(
                on: mover(shard), progress: progress)
        }
    }

    /// The clinic is no more expected on a shard, if it was. Nothing of it may be left there.
    func dismiss(_ shard: Shard) async throws {
        _ = try await plane.attempt("shard \(shard.id) cannot forget the clinic") {
            try await mover(shard).execute(
                [
                    Query(
                        """
                        UPDATE hc_tenant SET state = 'absent', attempt = $2
                        WHERE tenant_id = $1 AND state = 'incoming' AND attempt <= $2
                        """, [.id(move.tenant), .int8(move.attempt)]),
                    barriersGone,
                ], deadline: plane.deadline)
        }
    }

    func removeBarriers(on shard: Shard) async throws {
        try await plane.attempt("the barriers cannot be removed from shard \(shard.id)") {
            _ = try await mover(shard).execute(barriersGone, deadline: plane.deadline)
        }
    }

    private var barriersGone: Query {
        Query(
            "DELETE FROM hc_barrier WHERE tenant_id = $1 AND move_id = $2",
            [.id(move.tenant), .id(move.id)])
    }

    // MARK: The pause

    /// Makes the attempt known where the clinic is served, so that whatever an earlier one still sends is refused, and
    /// opens the door again if that had closed it.
    ///
    /// - Throws: `MoveLost` if a later attempt has been here.
    func reopen() async throws {
        let rows = try await plane.attempt("shard \(origin.id) does not open the clinic again") {
            try await mover(origin).execute(
                Query(
                    """
                    UPDATE hc_tenant
                    SET attempt = $2,
                        state = CASE WHEN state IN ('draining', 'fenced', 'handover') THEN $3 ELSE state END
                    WHERE tenant_id = $1 AND attempt <= $2 AND epoch = $4
                        AND state IN ('rw', 'ro', 'suspended', 'draining', 'fenced', 'handover')
                    RETURNING true
                    """,
                    [
                        .id(move.tenant), .int8(move.attempt), .text(try await servedState()),
                        .int8(move.epoch),
                    ]), deadline: plane.deadline
            ).rows
        }
        guard !rows.isEmpty else { throw MoveLost() }
    }

    /// As `reopen`, without the control database: under the number of the attempt that comes next.
    ///
    /// - Parameter state: how the clinic was served when its door was closed.
    func openAlone(as state: String) async throws {
        _ = try await plane.attempt("shard \(origin.id) does not open the clinic again") {
            try await mover(origin).execute(
                Query(
                    """
                    UPDATE hc_tenant
                    SET attempt = $2,
                        state = CASE WHEN state IN ('draining', 'fenced', 'handover') THEN $3 ELSE state END
                    WHERE tenant_id = $1 AND attempt <= $2 AND epoch = $4
                        AND state IN ('rw', 'ro', 'suspended', 'draining', 'fenced', 'handover')
                    """,
                    [
                        .id(move.tenant), .int8(move.attempt + 1), .text(state),
                        .int8(move.epoch),
                    ]), deadline: plane.deadline)
        }
    }

    /// How the clinic is to be served, by the control database: it may have been suspended on the way.
    func servedState() async throws -> String {
        let state = try await plane.attempt("the clinic's state cannot be read") {
            try await plane.control().execute(
                Query("SELECT state FROM tenant WHERE id = $1", [.id(move.tenant)]),
                deadline: plane.deadline
            ).single().text(0)
        }
        return MoveFence.doorState(state)
    }

    nonisolated static func doorState(_ tenantState: String) -> String {
        switch tenantState {
        case "active": "rw"
        case "readonly": "ro"
        default: "suspended"
        }
    }

    /// S6: newcomers who would write are sent to wait. Need not outlive a crash: whoever finds the door open then has
    /// not been fenced.
    ///
    /// - Returns: whether the gate stands.
    func gate(deadline: Deadline) async throws -> Bool {
        try await mover(origin).execute(
            [
                Query("SELECT set_config('synchronous_commit', 'off', true)"),
                Query(
                    """
                    UPDATE hc_tenant SET state = 'draining', attempt = $2
                    WHERE tenant_id = $1 AND attempt <= $2 AND epoch = $3
                        AND state IN ('rw', 'ro', 'suspended', 'draining')
                    RETURNING true
                    """, [.id(move.tenant), .int8(move.attempt), .int8(move.epoch)]),
            ], deadline: deadline)[1].rows.count == 1
    }

    /// S7: waits for the writers who are inside and closes the door behind them, for good. One round trip.
    ///
    /// Writers in READ COMMITTED hold the advisory lock, the others the row: both are taken exclusively. Behind the last
    /// of them comes a row of its own, the barrier. A standby that commits here wait for has it, too, and shows it: one
    /// that takes over is fenced.
    func fence(deadline: Deadline) async throws -> FenceOutcome {
        let begin = plane.clocks.monotonic()
        let patience = max(.milliseconds(1), deadline.remaining(at: begin))
        let number = plane.clocks.now().microseconds
        let connection = try await mover(origin)
        do {
            let results = try await connection.execute(
                [
                    Query(
                        """
                        SELECT set_config('lock_timeout', $1, true),
                            set_config('synchronous_commit', 'remote_apply', true)
                        """, [.text("\(patience.inMilliseconds)ms")]),
                    Query(
                        "SELECT pg_advisory_xact_lock(hc_fence_key($1))", [.id(move.tenant)]),
                    Query(
                        """
                        UPDATE hc_tenant SET state = 'fenced'
                        WHERE tenant_id = $1 AND attempt = $2 AND epoch = $3 AND state = 'draining'
                        """, [.id(move.tenant), .int8(move.attempt), .int8(move.epoch)]),
                    Query(
                        """
                        INSERT INTO hc_barrier (tenant_id, move_id, seq)
                        SELECT $1, $2, $3 FROM hc_tenant
                        WHERE tenant_id = $1 AND attempt = $4 AND state = 'fenced'
                        RETURNING true
                        """,
                        [.id(move.tenant), .id(move.id), .int8(number), .int8(move.attempt)]),
                ], reportsPosition: true, deadline: .after(patience * 2, from: begin))
            guard results[2].affectedRows == 1, results[3].rows.count == 1 else { return .lost }
            return .fenced(
                Barrier(
                    number: number,
                    position: LogPosition(connection.commitPosition ?? 0),
                    duration: plane.clocks.monotonic() - begin))
        } catch {
            guard [.lockNotAvailable, .queryCancelled].contains(error.sqlstate) else { throw error }
            return .late(try await inside())
        }
    }

    /// Who is inside as a writer, for messages.
    private func inside() async throws -> String {
        let rows = try await plane.attempt("the writers cannot be listed") {
            try await plane.shard(reference: origin.reference, .superuser).execute(
                Query(
                    """
                    SELECT format('process %s, %s ms, %s', pid,
                        (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::int, state)
                    FROM pg_stat_activity WHERE pid IN (SELECT hc_inside($1)) ORDER BY xact_start LIMIT 5
                    """, [.id(move.tenant)]), deadline: plane.deadline
            ).rows
        }
        let names = try rows.map { try $0.text(0) }
        return names.isEmpty ? "a writer that has ended since" : names.joined(separator: "; ")
    }

    /// S8: everything before the barrier is on the destination, and on its disk: the barrier is seen there, and a commit
    /// that is waited for puts on disk what came before it (pitfall 23).
    ///
    /// The clinic waits meanwhile, and its own shard may be well: a destination that gives no answer is left in time.
    ///
    /// - Returns: a place in the destination's log behind everything that came from the origin; nil if the deadline
    ///   passed first.
    func drain(_ barrier: Barrier, deadline: Deadline) async throws -> LogPosition? {
        do {
            return try await awaitBarrier(barrier, deadline: deadline)
        } catch let error as PostgresError {
            guard case .deadlineExceeded = error.kind else { throw error }
            return nil
        }
    }

    private func awaitBarrier(
        _ barrier: Barrier, deadline: Deadline
    ) async throws -> LogPosition? {
        let connection = try await mover(destination)
        var (wasHere, identity) = (false, ShardIdentity?.none)
        for round in 0... {
            // A row of the move's own: nobody waits for it but the disk, and the standby that commits here wait for. With
            // the barrier there: a server that took over in between, without it, is not taken for the one that was asked.
            // Until the barrier is there it changes nothing, and nothing is waited for.
            let results = try await connection.execute(
                [
                    Query("SELECT set_config('synchronous_commit', 'remote_apply', true)"),
                    Query(
                        """
                        UPDATE hc_tenant SET attempt = $2
                        WHERE tenant_id = $1 AND attempt <= $2 AND state = 'incoming'
                            AND EXISTS (SELECT FROM hc_barrier
                                WHERE tenant_id = $1 AND move_id = $3 AND seq = $4)
                        """,
                        [
                            .id(move.tenant), .int8(move.attempt), .id(move.id),
                            .int8(barrier.number),
                        ]),
                    Query(
                        """
                        SELECT EXISTS (SELECT FROM hc_barrier
                            WHERE tenant_id = $1 AND move_id = $2 AND seq = $3)
                        """, [.id(move.tenant), .id(move.id), .int8(barrier.number)]),
                ] + (round == 0 ? [ShardIdentity.question] : []), reportsPosition: true,
                deadline: deadline)
            // A connection leads to one server, and one that takes changes keeps its timeline.
            if round == 0 { identity = try ShardIdentity(try results[3].single()) }
            if results[1].affectedRows == 1 {
                guard let position = connection.commitPosition, isWhoItWas(identity) else {
                    return nil
                }
                return LogPosition(position)
            }
            // It comes between two statements, and once only: the row is somebody else's.
            guard !wasHere, !deadline.isExpired(at: plane.clocks.monotonic()) else { return nil }
            wasHere = try results[2].single().bool(0)
            if !wasHere { try await Loop.shared.sleep(for: .milliseconds(1)) }
        }
        return nil
    }

    /// Whether the destination is the server that the move began with: one that took over may lack what was on its disk.
    private func isWhoItWas(_ identity: ShardIdentity?) -> Bool {
        guard let identity else { return false }
        return identity.systemIdentifier == destination.systemIdentifier
            && identity.timeline == destination.timeline
    }

    /// Readers are sent to wait too: from here on nobody sees what the other shard may change.
    ///
    /// - Returns: whether the door is still this attempt's.
    func handOver(deadline: Deadline) async throws -> Bool {
        try await mover(origin).execute(
            Query(
                """
                UPDATE hc_tenant SET state = 'handover'
                WHERE tenant_id = $1 AND attempt = $2 AND epoch = $3 AND state = 'fenced' RETURNING true
                """, [.id(move.tenant), .int8(move.attempt), .int8(move.epoch)]), deadline: deadline
        ).rows.count == 1
    }

    // MARK: After the commit point

    /// S10: the destination serves. Given again it changes nothing.
    ///
    /// - Parameters:
    ///   - timeline: of the server that is known to have everything that came: another one does not open.
    ///   - state: the clinic's, if it is known.
    ///   - isDurable: waits until it is on the disk. To be given again before anybody relies on that.
    func open(
        epoch: Int64, timeline: Int, state: String? = nil, isDurable: Bool = true
    ) async throws {
        var served = state.map { MoveFence.doorState($0) } ?? ""
        if served.isEmpty { served = try await servedState() }
        let state = served
        let rows = try await plane.attempt("shard \(destination.id) does not open the clinic") {
            try await mover(destination).execute(
                [
                    Query(
                        "SELECT set_config('synchronous_commit', $1, true)",
                        [.text(isDurable ? "remote_apply" : "off")]),
                    Query(
                        """
                        UPDATE hc_tenant SET state = $4, epoch = $3, attempt = $2
                        WHERE tenant_id = $1 AND attempt <= $2
                            AND (epoch = $3 AND state IN ('rw', 'ro', 'suspended') OR state = 'incoming' AND $5 =
                                ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4)
                        RETURNING true
                        """,
                        [
                            .id(move.tenant), .int8(move.attempt), .int8(epoch), .text(state),
                            .int4(Int32(timeline)),
                        ]),
                ], deadline: plane.deadline
            )[1].rows
        }
        guard !rows.isEmpty else { throw MoveLost() }
    }

    /// The origin says where the clinic went.
    ///
    /// - Returns: false if it had to be fenced once more: a server has taken over that never had the fence (pitfall 19).
    ///   Whatever it took from stale routers since is on no other shard.
    func leave(epoch: Int64) async throws -> Bool {
        if try await hasLeft(epoch) { return true }
        let steps = [
            ("draining", "'rw', 'ro', 'suspended'"), ("fenced", "'draining'"),
            ("handover", "'fenced'"),
        ]
        let closed = try await plane.attempt("shard \(origin.id) does not close its door") {
            try await mover(origin).execute(
                [Query("SELECT pg_advisory_xact_lock(hc_fence_key($1))", [.id(move.tenant)])]
                    + steps.map { step, from in
                        .unsafeSQL(
                            """
                            UPDATE hc_tenant SET state = $4, attempt = $2
                            WHERE tenant_id = $1 AND attempt <= $2 AND epoch < $3
                                AND state IN (\(from))
                            """,
                            [.id(move.tenant), .int8(move.attempt), .int8(epoch), .text(step)])
                    }, deadline: plane.deadline)
        }
        guard closed[3].affectedRows == 1, try await hasLeft(epoch) else { throw MoveLost() }
        return false
    }

    /// Transactions of programs, of whatever clinic, that began at the origin before its door was changed last. One that
    /// is older than any tier lets a transaction be is no request's.
    func transactionsFromBefore() async throws -> Int {
        try await plane.attempt("the transactions of shard \(origin.id) cannot be read") {
            try await plane.shard(reference: origin.reference, .superuser).execute(
                Query(
                    """
                    SELECT count(*) FROM pg_stat_activity JOIN hc_tenant ON xact_start < changed_at
                    WHERE tenant_id = $1 AND datname = current_database() AND usename = 'hc_app'
                        AND xact_start > clock_timestamp() - $2 * interval '1 ms'
                    """,
                    [
                        .id(move.tenant),
                        .int8(TierTimeouts.range.upperBound.inMilliseconds),
                    ]), deadline: plane.deadline
            ).single().int(0)
        }
    }

    private func hasLeft(_ epoch: Int64) async throws -> Bool {
        let rows = try await plane.attempt("shard \(origin.id) does not let the clinic go") {
            try await mover(origin).execute(
                Query(
                    """
                    UPDATE hc_tenant SET state = 'moved', epoch = $3, attempt = $2, moved_to = $4
                    WHERE tenant_id = $1 AND attempt <= $2 AND state IN ('handover', 'moved')
                    RETURNING true
                    """,
                    [
                        .id(move.tenant), .int8(move.attempt), .int8(epoch),
                        .text(destination.id),
                    ]), deadline: plane.deadline
            ).rows
        }
        return !rows.isEmpty
    }
}
