import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// One logical replication stream of one clinic: a publication and a slot on one shard, a subscription on another.
///
/// The order is publication, slot, subscription: a slot decodes what was published when the log was written, and a
/// subscription that makes its slot itself hangs if both shards are on one server (PostgreSQL manual, CREATE
/// SUBSCRIPTION, notes). What is published is inserts, updates and deletes: a TRUNCATE would not heed the row filter.
///
/// The subscription belongs to a superuser, as PostgreSQL 15 asks for; it reads as `hc_mover`, which sees every clinic,
/// and with `row_security = off`: if it did not, the copy would fail instead of being empty.
///
/// Whatever changes an object asks first, in the same transaction, whether a later attempt has been there (`execute`): a
/// process that was stopped between any two statements and goes on would else take away what its successor builds on.
@LoopActor
struct MoveStream {
    let plane: ControlPlane
    let store: MoveStore
    var move: Move
    /// Publication, slot and subscription are called so.
    let name: String
    let publisher: Shard
    let subscriber: Shard

    /// For a slot, which waits for every transaction that writes anything on its server.
    private static let slotTimeout = "10s"
    /// For workers to end that were told to.
    private static let patience = Duration.seconds(10)
    /// What is not confirmed by then the publisher may not have sent: see `flushLog`.
    private static let flushesAfter = Duration.milliseconds(100)

    static func name(_ move: Move, isMirror: Bool) -> String {
        let digits = "\(move.id.uuid)".filter { $0 != "-" }
        return "hc_\(isMirror ? "mirror" : "move")_\(digits)"
    }

    // MARK: Making

    /// Of the publication that has nothing of a row but its key: see `MoveWatch`.
    var keysName: String { name + "_keys" }

    /// The clinic's rows, and once more their keys only.
    func publish() async throws {
        try await publish([(name, isKeys: false), (keysName, isKeys: true)])
    }

    /// Moves that were begun by a release before `MoveWatch` lack it: it may be made at any time, for each watch has a slot
    /// of its own, which begins behind it.
    func publishMissingKeys() async throws {
        let isThere = try await plane.attempt("the publications cannot be read") {
            try await plane.shard(reference: publisher.reference, .mover).execute(
                Query(
                    "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)",
                    [.text(keysName)]), deadline: plane.deadline
            ).single().bool(0)
        }
        if !isThere { try await publish([(keysName, isKeys: true)]) }
    }

    private func publish(_ names: [(name: String, isKeys: Bool)]) async throws {
        for (name, _) in names {
            try await store.willMake(.publication, name, on: publisher.id, for: move)
        }
        try await plane.attempt("shard \(publisher.id) cannot publish the clinic") {
            let owner = try await plane.shard(reference: publisher.reference, .owner)
            let tables = try await owner.execute(
                Query(
                    """
                    SELECT quote_ident(name), (
                        SELECT string_agg(quote_ident(attname), ', ')
                        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                        WHERE indrelid = quote_ident(name)::regclass AND indisprimary)
                    FROM (
                        SELECT * FROM hc_tenant_tables() UNION ALL SELECT 'hc_barrier'
                    ) AS published (name) WHERE name <> ALL ($1)
                    """, [.texts(TenantDigest.ephemeralTables.sorted())]),
                deadline: plane.deadline
            ).rows.map { (name: try $0.text(0), key: try $0.text(1)) }
            // The id has 36 hexadecimal digits and hyphens: utility statements take no parameters.
            let filter = "WHERE (tenant_id = '\(move.tenant.uuid)')"
            let rows = tables.map { "\($0.name) \(filter)" }
            let keys = tables.map { "\($0.name) (\($0.key)) \(filter)" }
            try await execute(
                on: owner,
                names.flatMap { name, isKeys -> [Query] in
                    let tables = isKeys ? keys : rows
                    return [
                        .unsafeSQL("DROP PUBLICATION IF EXISTS \(name)"),
                        .unsafeSQL(
                            """
                            CREATE PUBLICATION \(name) FOR TABLE \(tables.joined(separator: ", "))
                            WITH (publish = 'insert, update, delete')
                            """),
                    ]
                })
        }
    }

    /// - Throws: `ControlError` (`slot-blocked`), naming who writes, if the server's writers do not end in time.
    func makeSlot() async throws {
        try await store.willMake(.slot, name, on: publisher.id, for: move)
        let mover = try await plane.shard(reference: publisher.reference, .mover)
        try await dropSlot(name)
        do {
            try await execute(
                on: mover,
                [
                    .unsafeSQL(
                        "SELECT set_config('statement_timeout', '\(MoveStream.slotTimeout)', true)"),
                    Query(
                        "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [.text(name)]),
                ])
        } catch let error as PostgresError {
            guard error.sqlstate == .queryCancelled else {
                throw ControlPlane.failure(error, attempting: "the slot cannot be made")
            }
            let writers = try await oldWriters().joined(separator: ", ")
            throw ControlError(
                .refused, code: "slot-blocked",
                "the log of shard \(publisher.id) cannot be kept, for transactions write: \(writers)",
                remedy: "End those transactions, or wait for them; the move tries again.")
        }
    }

    /// Transactions that write on the publisher's server for longer than a second: its slots wait for them.
    func oldWriters() async throws -> [String] {
        try await plane.attempt("the transactions of shard \(publisher.id) cannot be read") {
            try await plane.shard(reference: publisher.reference, .superuser).execute(
                Query(
                    """
                    SELECT format('process %s (%s, %s, %s s)', pid, datname, usename,
                        extract(epoch FROM clock_timestamp() - xact_start)::int)
                    FROM pg_stat_activity
                    WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - interval '1 s'
                        AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                    ORDER BY xact_start LIMIT 5
                    """), deadline: plane.deadline
            ).rows.map { try $0.text(0) }
        }
    }

    /// - Parameter place: of the publisher's log, where it begins; nil: where the slot stands. A server that ends before its
    ///   next checkpoint forgets how far a slot was advanced (PostgreSQL 15 manual, 9.27.6), and would send once more what
    ///   came from here: the subscriber remembers it for both.
    func subscribe(copies: Bool, from place: LogPosition? = nil) async throws {
        try await store.willMake(.subscription, name, on: subscriber.id, for: move)
        try await unsubscribe()
        let conninfo = try publisherConninfo()
        try await plane.attempt(
            "shard \(subscriber.id) cannot subscribe to shard \(publisher.id)"
        ) {
            // A copy that fails would be begun again for ever. What only follows is left to itself for the whole soak, and
            // goes on when the other server is back: any end of its connection is an error, too.
            try await execute(
                on: plane.shard(reference: subscriber.reference, .superuser),
                [
                    .unsafeSQL(
                        """
                        CREATE SUBSCRIPTION \(name) CONNECTION \(MoveStream.quoted(conninfo.reveal()))
                        PUBLICATION \(name) WITH (create_slot = false, slot_name = '\(name)', copy_data = \(copies),
                            enabled = \(place == nil), binary = true, disable_on_error = \(copies),
                            synchronous_commit = \(copies ? "off" : "on"))
                        """)
                ] + (place.map { begin(at: $0) } ?? []))
        }
    }

    /// A subscription's origin is called after its object id (PostgreSQL's origin.c); with it, it asks the publisher.
    private func begin(at place: LogPosition) -> [Query] {
        [
            Query(
                """
                SELECT pg_replication_origin_advance('pg_' || oid, $2::text::pg_lsn)
                FROM pg_subscription WHERE subname = $1
                """, [.text(name), .text(place.text)]),
            .unsafeSQL("ALTER SUBSCRIPTION \(name) ENABLE"),
        ]
    }

    /// From here on what is confirmed to the publisher is on the subscriber's disk.
    func makeDurable() async throws {
        try await plane.attempt("the stream of the move cannot be changed") {
            try await execute(
                on: plane.shard(reference: subscriber.reference, .superuser),
                [.unsafeSQL("ALTER SUBSCRIPTION \(name) SET (synchronous_commit = on)")])
        }
    }

    /// Lets it go on after an error.
    func enable() async throws {
        try await plane.attempt("the stream of the move cannot be changed") {
            try await execute(
                on: plane.shard(reference: subscriber.reference, .superuser),
                [.unsafeSQL("ALTER SUBSCRIPTION \(name) ENABLE")])
        }
    }

    private func execute(on connection: PostgresConnection, _ queries: [Query]) async throws {
        try await MoveStream.execute(on: connection, queries, for: move, plane: plane)
    }

    /// Runs what changes objects of a move, in one transaction.
    ///
    /// - Throws: `MoveLost` where a later attempt has been (`MoveFence.becomeKnown`), and that waits until this is done.
    private static func execute(
        on connection: PostgresConnection, _ queries: [Query], for move: Move, plane: ControlPlane
    ) async throws {
        // A slot cannot be made by a transaction that has an id, so no row is locked here. The function's statements each
        // see what is there when they begin.
        let admission: Query = .unsafeSQL(
            """
            DO $$ BEGIN
                PERFORM pg_advisory_xact_lock_shared(\(MoveFence.lockClass), hashtext('\(move.tenant.uuid)'));
                IF EXISTS (SELECT FROM public.hc_tenant
                    WHERE tenant_id = '\(move.tenant.uuid)' AND attempt > \(move.attempt))
                THEN
                    RAISE EXCEPTION USING ERRCODE = 'HC010', MESSAGE = 'a later attempt has the move';
                END IF;
            END $$
            """)
        do {
            _ = try await connection.execute([admission] + queries, deadline: plane.deadline)
        } catch {
            guard error.sqlstate == .moveNotYours else { throw error }
            throw MoveLost()
        }
    }

    /// Reads past row-level security, or fails.
    private func publisherConninfo() throws -> Sensitive<String> {
        let file = "shards/\(publisher.reference).mover"
        let conninfo: Sensitive<String>
        do {
            conninfo = try plane.configuration.conninfo(file)
        } catch {
            throw ControlError(
                .failed, code: "shard-unreachable",
                "shard \(publisher.id) has no connection file for hc_mover", cause: error)
        }
        return Sensitive(
            conninfo.reveal().trimmingNewline + " options='-c row_security=off'")
    }

    /// A string constant (PostgreSQL manual, 4.1.2.1), whatever standard_conforming_strings says.
    static func quoted(_ text: String) -> String {
        var literal = "E'"
        for character in text.unicodeScalars {
            if character == "'" || character == "\\" { literal += "\\" }
            literal.unicodeScalars.append(character)
        }
        return literal + "'"
    }

    // MARK: How far it is

    struct Progress {
        /// Tables that are copied and follow the stream, and all.
        var ready: Int { readyNames.count }
        var tables = 0
        var readyNames: [String] = []
        /// Rows and bytes of the copies under way.
        var rows: Int64 = 0
        var bytes: Int64 = 0
        /// Of the publisher's log that the subscriber has not confirmed.
        var lagBytes: Int64 = 0
        /// Up to where the subscriber has confirmed it, and up to where there is one.
        var confirmed = LogPosition(0)
        var position = LogPosition(0)
        /// Why it will not go on by itself.
        var failure: String?
        /// An error has stopped it: the subscriber's, or the end of a connection.
        var isStopped = false
        var isReady: Bool { tables > 0 && ready == tables }
    }

    func progress() async throws -> Progress {
        try await plane.attempt("the stream of the move cannot be looked at") {
            var progress = Progress()
            let there = try await plane.shard(reference: subscriber.reference, .superuser).execute(
                Query(
                    """
                    SELECT subenabled,
                        (SELECT count(*) FROM pg_subscription_rel WHERE srsubid = sub.oid),
                        (SELECT coalesce(array_agg(relname::text), '{}') FROM pg_subscription_rel
                            JOIN pg_class ON pg_class.oid = srrelid
                            WHERE srsubid = sub.oid AND srsubstate = 'r'),
                        coalesce(apply_error_count, 0) + coalesce(sync_error_count, 0),
                        (SELECT coalesce(sum(tuples_processed), 0)::int8 FROM pg_stat_progress_copy
                            WHERE command = 'COPY FROM' AND datname = current_database()),
                        (SELECT coalesce(sum(bytes_processed), 0)::int8 FROM pg_stat_progress_copy
                            WHERE command = 'COPY FROM' AND datname = current_database())
                    FROM pg_subscription sub
                    LEFT JOIN pg_stat_subscription_stats stats ON stats.subid = sub.oid
                    WHERE sub.subname = $1
                    """, [.text(name)]), deadline: plane.deadline
            ).singleIfPresent()
            guard let there else {
                progress.failure = "the subscription is gone from shard \(subscriber.id)"
                return progress
            }
            progress.tables = try there.int(1)
            progress.readyNames = try there.texts(2)
            progress.rows = Int64(try there.int(4))
            progress.bytes = Int64(try there.int(5))
            if try !there.bool(0) {
                progress.isStopped = true
                progress.failure =
                    "shard \(subscriber.id) could not apply a change (\(try there.int(3)) errors: see its log)"
            }
            let here = try await plane.shard(reference: publisher.reference, .mover).execute(
                Query(
                    """
                    SELECT coalesce(wal_status, 'lost'),
                        coalesce(confirmed_flush_lsn - '0/0', 0)::int8, (here.lsn - '0/0')::int8
                    FROM (SELECT pg_current_wal_insert_lsn() AS lsn) AS here, pg_replication_slots WHERE slot_name = $1
                    """, [.text(name)]), deadline: plane.deadline
            ).singleIfPresent()
            guard let here, try here.text(0) != "lost" else {
                progress.isStopped = false
                progress.failure = "shard \(publisher.id) no longer has the log that the move needs"
                return progress
            }
            let (confirmed, position) = (try here.int(1), try here.int(2))
            progress.confirmed = LogPosition(UInt64(confirmed))
            progress.position = LogPosition(UInt64(position))
            progress.lagBytes = confirmed == 0 ? 0 : Int64(position - confirmed)
            return progress
        }
    }

    /// What the slot keeps begins there: everything before has come from the other side (PostgreSQL 15 cannot filter by
    /// origin; pitfall 13). Nobody may read the slot.
    ///
    /// - Parameter position: now, unless given. A slot that is further stays there.
    func skip(to position: LogPosition?) async throws {
        try await plane.attempt("the slot on shard \(publisher.id) cannot be advanced") {
            try await execute(
                on: plane.shard(reference: publisher.reference, .mover),
                [
                    Query(
                        """
                        SELECT pg_replication_slot_advance(slot_name, place)
                        FROM pg_replication_slots, coalesce($2::text::pg_lsn, pg_current_wal_insert_lsn()) AS place
                        WHERE slot_name = $1 AND confirmed_flush_lsn < place
                        """, [.text(name), .optional(position?.text)])
                ])
        }
    }

    func isSubscribed() async throws -> Bool {
        try await plane.attempt("the subscriptions of shard \(subscriber.id) cannot be read") {
            try await plane.shard(reference: subscriber.reference, .superuser).execute(
                Query(
                    "SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1 AND subenabled)",
                    [.text(name)]), deadline: plane.deadline
            ).single().bool(0)
        }
    }

    /// Why the subscriber cannot get everything any more; nil if it can. For good: what is in front of a new slot would be
    /// missing.
    func lostLog() async throws -> String? {
        let status = try await plane.attempt("the slot of the move cannot be read") {
            try await plane.shard(reference: publisher.reference, .mover).execute(
                Query(
                    "SELECT coalesce(wal_status, 'lost') FROM pg_replication_slots WHERE slot_name = $1",
                    [.text(name)]), deadline: plane.deadline
            ).singleIfPresent()?.text(0)
        }
        switch status {
        case nil: return "the slot \(name) is gone from shard \(publisher.id)"
        case "lost":
            return
                "shard \(publisher.id) no longer has the log that the slot \(name) kept (max_slot_wal_keep_size)"
        default: return nil
        }
    }

    /// As `awaitConfirmed`, for what is to be compared.
    ///
    /// - Throws: also `Mover.Fatal` if it never will.
    func requireConfirmed(_ position: LogPosition) async throws {
        guard try await awaitConfirmed(position) == nil else { return }
        throw Mover.Fatal(
            reason: try await lostLog() ?? "the slot of the move was made anew meanwhile")
    }

    /// Waits until the subscriber has confirmed that the log up to there is on its disk.
    ///
    /// - Returns: up to where it has confirmed it; nil if it never will: the slot is gone, or the log that it kept.
    @discardableResult
    func awaitConfirmed(_ position: LogPosition) async throws -> LogPosition? {
        let began = plane.clocks.monotonic()
        let limit = Deadline.after(MoveStream.patience, from: began)
        var flushesAt = Deadline.after(MoveStream.flushesAfter, from: began)
        while true {
            let row = try await plane.attempt("the slot of the move cannot be read") {
                try await plane.shard(reference: publisher.reference, .mover).execute(
                    Query(
                        """
                        SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::int8, active,
                            pg_current_wal_flush_lsn()::text
                        FROM pg_replication_slots WHERE slot_name = $1 AND wal_status <> 'lost'
                        """, [.text(name)]), deadline: plane.deadline
                ).singleIfPresent()
            }
            guard let row, let confirmed = try row.intIfPresent(0) else { return nil }
            let reached = LogPosition(UInt64(confirmed))
            if reached >= position { return reached }
            guard !limit.isExpired(at: plane.clocks.monotonic()) else {
                throw ControlError(
                    .failed, code: "not-confirmed",
                    """
                    shard \(subscriber.id) has not confirmed the last changes: it has the log of \
                    \(publisher.id) up to \(reached.text) of \(position.text) (on disk there: \
                    \(try row.text(2))), and \(try row.bool(1) ? "follows it" : "does not follow it")
                    """,
                    remedy: "The move goes on when it has.")
            }
            if flushesAt.isExpired(at: plane.clocks.monotonic()) {
                flushesAt = .never
                try await flushLog()
            }
            try await Loop.shared.sleep(for: .milliseconds(5))
        }
    }

    /// Has the publisher write one more record and all before it to its disk: it sends what is there, and nothing else.
    ///
    /// Where a record ends with its page, `pg_current_wal_insert_lsn` is behind the header of the next one, which there is
    /// only with the next record; and what an open transaction has written without changing anything (pages that it has
    /// tidied up while it read) is in memory until somebody commits. On a server where nobody writes that may be for ever.
    /// The commit of a message that no subscription asks for is both.
    private func flushLog() async throws {
        try await plane.attempt("the log of shard \(publisher.id) cannot be flushed") {
            _ = try await plane.shard(reference: publisher.reference, .mover).execute(
                Query("SELECT pg_logical_emit_message(true, 'hc.flush', '')"),
                deadline: plane.deadline)
        }
    }

    // MARK: Taking down

    /// Removes an object of a move, wherever it stands. What is not there is as good as removed.
    ///
    /// - Parameter other: the other shard of the move; nil: its server is gone, and what is there stays.
    static func drop(
        _ object: MoveObject, of move: Move, plane: ControlPlane, shard: Shard, other: Shard?
    ) async throws {
        switch object.kind {
        case .subscription:
            try await dropSubscription(
                object.name, of: move, plane: plane, shard: shard, publisher: other)
        case .slot: try await dropSlot(object.name, of: move, plane: plane, shard: shard)
        case .publication:
            try await plane.attempt("the publication cannot be removed from shard \(shard.id)") {
                try await execute(
                    on: plane.shard(reference: shard.reference, .owner),
                    [.unsafeSQL("DROP PUBLICATION IF EXISTS \(object.name)")], for: move,
                    plane: plane)
            }
        }
    }

    func unsubscribe() async throws {
        try await MoveStream.dropSubscription(
            name, of: move, plane: plane, shard: subscriber, publisher: publisher)
    }

    private func dropSlot(_ name: String) async throws {
        try await MoveStream.dropSlot(name, of: move, plane: plane, shard: publisher)
    }

    /// Its slot stays: whoever made it drops it, where it is. Those of tables whose copies are broken off go first, for
    /// only the subscription tells their names.
    private static func dropSubscription(
        _ name: String, of move: Move, plane: ControlPlane, shard: Shard, publisher: Shard?
    ) async throws {
        try await plane.attempt("the subscription cannot be removed from shard \(shard.id)") {
            let superuser = try await plane.shard(reference: shard.reference, .superuser)
            let found = try await superuser.execute(
                Query("SELECT oid::int8 FROM pg_subscription WHERE subname = $1", [.text(name)]),
                deadline: plane.deadline
            ).singleIfPresent()?.int(0)
            guard let found else { return }
            try await execute(
                on: superuser, [.unsafeSQL("ALTER SUBSCRIPTION \(name) DISABLE")], for: move,
                plane: plane)
            if let publisher {
                for slot in try await tableSlots(
                    of: found, shard, plane: plane, publisher: publisher)
                {
                    try await dropSlot(slot, of: move, plane: plane, shard: publisher)
                }
            }
            try await execute(
                on: superuser,
                [
                    .unsafeSQL("ALTER SUBSCRIPTION \(name) SET (slot_name = NONE)"),
                    .unsafeSQL("DROP SUBSCRIPTION \(name)"),
                ], for: move, plane: plane)
        }
    }

    /// The slots with which tables are copied.
    ///
    /// - Parameter subscription: its object id on the subscriber, which is in their names, as the subscriber's system
    ///   identifier is (ReplicationSlotNameForTablesync in PostgreSQL's tablesync.c).
    private static func tableSlots(
        of subscription: Int, _ subscriber: Shard, plane: ControlPlane, publisher: Shard
    ) async throws -> [String] {
        try await plane.shard(reference: publisher.reference, .superuser).execute(
            Query(
                "SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ $1",
                [.text("^pg_\(subscription)_sync_[0-9]+_\(subscriber.systemIdentifier)$")]),
            deadline: plane.deadline
        ).rows.map { try $0.text(0) }
    }

    private static func dropSlot(
        _ name: String, of move: Move, plane: ControlPlane, shard: Shard
    ) async throws {
        try await plane.attempt("the slot cannot be removed from shard \(shard.id)") {
            let superuser = try await plane.shard(reference: shard.reference, .superuser)
            let limit = Deadline.after(patience, from: plane.clocks.monotonic())
            while true {
                let row = try await superuser.execute(
                    Query(
                        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1",
                        [.text(name)]), deadline: plane.deadline
                ).singleIfPresent()
                guard let row else { return }
                let reader = try row.intIfPresent(0)
                guard !limit.isExpired(at: plane.clocks.monotonic()) else {
                    throw ControlError(
                        .failed, code: "slot-active",
                        "\(reader.map { "process \($0)" } ?? "somebody") on shard \(shard.id) still reads the slot \(name)",
                        remedy: "End it with pg_terminate_backend(active_pid).")
                }
                guard let pid = reader else {
                    // One that is taken in between is seen the next time around.
                    try await execute(
                        on: superuser,
                        [
                            Query(
                                """
                                SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                                WHERE slot_name = $1 AND NOT active
                                """, [.text(name)])
                        ], for: move, plane: plane)
                    continue
                }
                // Its reader was told to end; one that hangs is ended.
                try await execute(
                    on: superuser,
                    [Query("SELECT pg_terminate_backend($1)", [.int4(Int32(pid))])], for: move,
                    plane: plane)
                try await Loop.shared.sleep(for: .milliseconds(20))
            }
        }
    }
}

extension String {
    fileprivate var trimmingNewline: String {
        var text = self[...]
        while text.last?.isNewline == true { text.removeLast() }
        return String(text)
    }
}
