import HCCore
import HCIO
import HCPostgres
import HCTenancy

/// Hears of each row of a clinic that is changed where the clinic is served, from before the rows are compared on: what
/// was compared and changed since is known by its key, and nothing else has to be read again in the pause.
///
/// It follows a logical slot of its own, of a publication that has the keys only: no other column leaves the server. The
/// slot is a temporary one (PostgreSQL 15 manual, 55.4): the server drops it with the connection, so there is nothing to
/// clean up behind a process that died, and a successor compares anew.
///
/// Changes are told transaction by transaction in the order of their commits. So whoever has seen the barrier of a pause
/// here has seen every change before it.
@LoopActor
final class MoveWatch {
    /// The slot's name, and the connection's.
    let name: String
    /// Rows that were changed, until they are found equal on both sides.
    private(set) var changes: [TenantRowKey: Change] = [:]
    /// Why it hears no more.
    private(set) var failure: PostgresError?
    private(set) var isOverrun = false

    /// What is remembered of a row, however often it is changed: the transaction that did it last.
    ///
    /// A snapshot that shows that one shows all before it. Two transactions that change the row of one key come one after the
    /// other: the second waits for the lock that the first has on it, or, if there is no row, for the entry of the primary
    /// key; the first gives that up when it is over for every snapshot to come (ProcArrayEndTransaction comes before
    /// ResourceOwnerRelease in PostgreSQL's CommitTransaction). So the last to be heard of is also the last to be shown.
    struct Change {
        /// Nil: none was heard of, and the row was found to differ. Any later snapshot shows what was seen.
        var transaction: UInt32?
    }

    private let plane: ControlPlane
    private let publisher: Shard
    private let connection: PostgresConnection
    private let columns: [String: [String]]
    private let changesMax: Int
    private var relations: [UInt32: LogicalMessage.Relation] = [:]
    private var transaction: UInt32 = 0
    /// Numbers are times: the next may be smaller, if a clock was set back.
    private var barriers: Set<Int64> = []
    private var waiter: Waiter<Void>?

    /// Changed rows that are remembered: some 20 MB.
    static let changesMax = 100_000
    /// For a slot, which waits for every transaction that writes anything on its server.
    private static let slotTimeout = Duration.seconds(10)
    private static let patience = Duration.seconds(5)

    /// From when this returns no change is missed that a later snapshot does not show.
    ///
    /// - Throws: `PostgresError`, `ControlError`.
    static func open(
        on stream: MoveStream, plan: TenantDigestPlan, plane: ControlPlane,
        changesMax: Int = changesMax
    ) async throws -> MoveWatch {
        let name = MoveWatch.prefix(stream.move) + "\(UInt32.random(in: .min ... .max))"
        var configuration = PostgresConfiguration(
            connectionString: try plane.configuration.conninfo(
                "shards/\(stream.publisher.reference).mover"), applicationName: name)
        configuration.isReplication = true
        configuration.statementTimeout = slotTimeout
        // Keys are told in the types' text form: bytea's is this setting's.
        configuration.settings = ["bytea_output": "hex"]
        let connection = try await PostgresConnection.connect(
            configuration, deadline: plane.deadline)
        do {
            try await connection.executeScript(
                "SELECT pg_create_logical_replication_slot('\(name)', 'pgoutput', true)",
                deadline: plane.deadline)
        } catch {
            connection.close()
            throw error
        }
        let watch = MoveWatch(
            name: name, publisher: stream.publisher, connection: connection, plan: plan,
            plane: plane, changesMax: changesMax)
        Loop.shared.spawn { await watch.follow(stream.keysName) }
        return watch
    }

    /// Of the names of a move's watches.
    private static func prefix(_ move: Move) -> String {
        "hc_watch_" + "\(move.id.uuid)".filter { $0 != "-" } + "_"
    }

    private init(
        name: String, publisher: Shard, connection: PostgresConnection, plan: TenantDigestPlan,
        plane: ControlPlane, changesMax: Int
    ) {
        self.changesMax = changesMax
        self.name = name
        self.publisher = publisher
        self.connection = connection
        self.plane = plane
        columns = Dictionary(
            uniqueKeysWithValues: plan.tables.map { ($0.name, $0.key.map(\.name)) })
    }

    /// Closes it, and waits until the server has dropped the slot, if it answers.
    func stop() async {
        connection.close()
        let limit = Deadline.after(MoveWatch.patience, from: plane.clocks.monotonic())
        while !limit.isExpired(at: plane.clocks.monotonic()) {
            do {
                let mover = try await plane.shard(reference: publisher.reference, .mover)
                let isThere = try await mover.execute(
                    Query(
                        "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)",
                        [.text(name)]), deadline: limit
                ).single().bool(0)
                guard isThere else { return }
                try await Loop.shared.sleep(for: .milliseconds(5))
            } catch {
                return
            }
        }
    }

    /// Ends those of processes that were stopped: the server would keep their slots until it misses them.
    static func dismiss(of move: Move, on shard: Shard, plane: ControlPlane) async throws {
        try await plane.attempt("the slots of shard \(shard.id) cannot be read") {
            _ = try await plane.shard(reference: shard.reference, .superuser).execute(
                Query(
                    """
                    SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
                    WHERE starts_with(slot_name, $1) AND active_pid IS NOT NULL
                    """, [.text(prefix(move))]), deadline: plane.deadline)
        }
    }

    // MARK: What it hears

    private func follow(_ publication: String) async {
        do throws(PostgresError) {
            try await connection.follow(slot: name, publication: publication) { hear($0) }
        } catch {
            failure = error
            waiter?.succeed(())
        }
    }

    private func hear(_ message: LogicalMessage) {
        switch message {
        case .begin(let transaction): self.transaction = transaction
        case .relation(let relation): relations[relation.id] = relation
        case .insert(let relation, let new): note(new, relation)
        case .update(let relation, let old, let new):
            if let old { note(old, relation) }
            note(new, relation)
        case .delete(let relation, let old): note(old, relation)
        // It is not published: see `MoveStream.publish`.
        case .truncate, .commit, .other: break
        }
    }

    private func note(_ row: LogicalMessage.Row, _ id: UInt32) {
        guard let relation = relations[id] else { return }
        let values = Dictionary(
            zip(relation.columns, row).map { ($0, $1) }, uniquingKeysWith: { first, _ in first })
        if relation.name == "hc_barrier" {
            if let number = values["seq"]?.flatMap({ Int64($0) }) { barriers.insert(number) }
            waiter?.succeed(())
            return
        }
        guard let columns = columns[relation.name] else { return }
        let key = columns.compactMap { values[$0] ?? nil }
        guard key.count == columns.count, changes.count < changesMax else {
            isOverrun = true
            return
        }
        changes[TenantRowKey(table: relation.name, values: key)] = Change(transaction: transaction)
    }

    // MARK: What is done with it

    var isWhole: Bool { failure == nil && !isOverrun }

    /// - Throws: `ControlError` (`watch-lost`) if something may have been missed.
    func requireWhole() throws {
        if let failure {
            throw ControlError(
                .failed, code: "watch-lost",
                "the changes of the clinic could not be followed: \(failure)",
                remedy: "The move compares its rows again.")
        }
        guard !isOverrun else {
            throw ControlError(
                .failed, code: "watch-lost",
                "more than \(changesMax) rows were changed while they were compared",
                remedy: "The move compares them again; it gets through when less is written.")
        }
    }

    /// Rows that were found to differ, whoever has changed them: to be compared again.
    func suspect(_ keys: some Sequence<TenantRowKey>) {
        for key in keys {
            guard changes.count < changesMax else {
                isOverrun = true
                return
            }
            if changes[key] == nil { changes[key] = Change() }
        }
    }

    /// Rows that were found equal, in a snapshot of the side that is written to. One that was changed by a transaction
    /// which that does not show stays.
    func settle(_ keys: some Sequence<TenantRowKey>, seenBy snapshot: TransactionSnapshot) {
        for key in keys {
            guard let change = changes[key] else { continue }
            if change.transaction.map(snapshot.shows) ?? true { changes[key] = nil }
        }
    }

    /// Waits until everything before a barrier was heard of.
    ///
    /// - Throws: `ControlError` if it hears no more; `DeadlineExceeded`.
    func awaitBarrier(_ number: Int64, deadline: Deadline) async throws {
        while !barriers.contains(number) {
            try requireWhole()
            let waiter = Waiter<Void>()
            self.waiter = waiter
            defer { self.waiter = nil }
            try await waiter.wait(until: deadline)
        }
        try requireWhole()
    }
}

/// A row of a clinic, by what of its primary key is behind tenant_id, in the types' text form.
package struct TenantRowKey: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let table: String
    package let values: [String]

    package init(table: String, values: [String]) {
        self.table = table
        self.values = values
    }

    package static func < (left: TenantRowKey, right: TenantRowKey) -> Bool {
        left.table == right.table
            ? left.values.lexicographicallyPrecedes(right.values) : left.table < right.table
    }

    package var description: String { "\(table) \(values.joined(separator: " "))" }
}

/// Which transactions a snapshot shows (PostgreSQL 15 manual, 9.27.8, `pg_snapshot`), by ids without their epoch: two that
/// are compared are less than 2^31 apart, as in the server.
package struct TransactionSnapshot: Hashable, Sendable {
    /// All before are over.
    private let first: UInt32
    /// None from here on had begun.
    private let end: UInt32
    private let running: Set<UInt32>

    /// From `10:20:10,14,15`; nil for what is no snapshot.
    package init?(text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 3, let first = UInt64(parts[0]), let end = UInt64(parts[1]) else {
            return nil
        }
        var running: Set<UInt32> = []
        for part in parts[2].split(separator: ",") {
            guard let number = UInt64(part) else { return nil }
            running.insert(UInt32(truncatingIfNeeded: number))
        }
        self.first = UInt32(truncatingIfNeeded: first)
        self.end = UInt32(truncatingIfNeeded: end)
        self.running = running
    }

    package func shows(_ transaction: UInt32) -> Bool {
        func precedes(_ other: UInt32) -> Bool { Int32(bitPattern: transaction &- other) < 0 }
        return precedes(first) || (precedes(end) && !running.contains(transaction))
    }
}
