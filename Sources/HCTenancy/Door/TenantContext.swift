package import HCCore
import HCIO
package import HCPostgres

/// One clinic, as one request or job sees it: the only way to its data. Made by `TenantDoor.context(…)` only.
///
/// Every statement runs inside `hc_enter()` for this clinic, whichever shard it is on, and row-level security
/// shows its rows only; statements carry `tenant_id = $n` themselves as well.
///
/// A class, for it is handed from stage to stage: a copy would count the references of all that it holds.
package final class TenantContext: Sendable {
    package let tenant: TenantRecord
    private let limits: TenantLimits
    let door: TenantDoor
    @LoopActor private var reader: Reader?
    /// Made with the first read or write: many requests end before.
    @LoopActor private var knownScope: ReadScope?

    /// Who reads, and what must not be missed. Without one all is read from the primary.
    private struct Reader {
        let session: SessionID?
        let brought: ReadRequirement
    }

    init(tenant: TenantRecord, limits: TenantLimits, door: TenantDoor) {
        self.tenant = tenant
        self.limits = limits
        self.door = door
    }

    /// What the reader must not miss, and what it has written.
    @LoopActor private var scope: ReadScope? {
        if let knownScope { return knownScope }
        guard let reader else { return nil }
        let made = ReadScope(session: reader.session, brought: reader.brought)
        knownScope = made
        return made
    }

    package var tier: TierDefinition { limits.plan.tier }

    package var id: TenantID { tenant.id }

    /// The clinic's opened keys.
    /// - Throws: `.keyUnavailable`.
    @LoopActor package var keys: TenantKeys {
        get throws(TenancyError) { try door.keys(of: tenant) }
    }

    // MARK: Transactions

    /// Reads: all statements in one round trip, in one read-only transaction.
    ///
    /// For what is no patient's data. What is goes through `readAudited`.
    ///
    /// - Parameter target: which server may answer. Of use in a context that has a reader (`setReader`); the primary
    ///   answers in others, and whatever a write or a decision depends on.
    /// - Throws: `TenancyError`, or `PostgresError` for what the statements themselves met.
    @LoopActor package func read(
        _ queries: [Query], from target: ReadTarget = .primary, deadline: Deadline
    ) async throws -> [PostgresResult] {
        try await door.read(
            tenant, queries, from: target, survivesLoss: true, scope: scope, deadline: deadline)
    }

    /// Reads patients' data: the rows are given out only after the access is durably recorded.
    ///
    /// The record is committed together with those of concurrent reads of the clinic.
    ///
    /// The record is written on the primary, whichever server was read: while that is lost nothing is given out, and
    /// so no replica is asked.
    ///
    /// - Parameters:
    ///   - target: as for `read`.
    ///   - audit: what to record, knowing what was found.
    /// - Throws: as `read`, and `.auditUnavailable` when the access could not be recorded.
    @LoopActor package func readAudited(
        _ queries: [Query], from target: ReadTarget = .primary, deadline: Deadline,
        audit: ([PostgresResult]) throws -> AuditEvent
    ) async throws -> [PostgresResult] {
        let results = try await door.read(
            tenant, queries, from: target, survivesLoss: false, scope: scope, deadline: deadline)
        try await record(try audit(results), deadline: deadline)
        return results
    }

    /// As above, for an access of which all is known beforehand.
    @LoopActor package func readAudited(
        _ queries: [Query], audit: AuditEvent, deadline: Deadline
    ) async throws -> [PostgresResult] {
        try await readAudited(queries, deadline: deadline) { _ in audit }
    }

    /// Finds patients' rows by their key, in one transaction with other look-ups of this moment; recorded as by
    /// `readAudited`.
    ///
    /// - Parameter query: finds rows by their key and nothing else, so that nobody waits for it long.
    @LoopActor package func findAudited(
        _ query: Query, deadline: Deadline, audit: (PostgresResult) throws -> AuditEvent
    ) async throws -> PostgresResult {
        let result = try await door.lookups.find(query, in: id, deadline: deadline)
        try await record(try audit(result), deadline: deadline)
        return result
    }

    /// Records something that is no write of its own: a denial, a login that failed, a read made of several.
    ///
    /// - Returns: when it is committed, together with others.
    @LoopActor package func record(
        _ event: AuditEvent, deadline: Deadline
    ) async throws(TenancyError) {
        let row = try AuditRow(event, at: door.clocks.now(), keys: keys)
        try await door.auditor.record(row, of: id, deadline: deadline)
    }

    /// Writes: all statements, the audit rows and the outbox rows in one round trip and one transaction.
    ///
    /// - Parameters:
    ///   - audit: what to record; empty only for what says nothing about anybody (bookkeeping).
    ///   - changing: what this changes of which there may be copies: nobody sees one from before the commit after it.
    /// - Returns: the results of `queries`.
    /// - Throws: `.outcomeUnknown` when the connection was lost during the commit; otherwise nothing has been
    ///   written: `TenancyError`, or `PostgresError` for what the statements themselves met.
    @discardableResult
    @LoopActor package func write(
        _ queries: [Query], audit: [AuditEvent], outbox: [OutboxMessage] = [],
        changing tags: [CacheTag] = [], deadline: Deadline
    ) async throws -> [PostgresResult] {
        var rows: [AuditRow] = []
        if !audit.isEmpty {
            let keys = try keys
            for event in audit {
                rows.append(try AuditRow(event, at: door.clocks.now(), keys: keys))
            }
        }
        let messages = outboxRows(outbox)
        let own = closing(rows, messages, tags)
        let results = try await changing(tags, deadline) { deadline in
            try await door.perform(
                tenant, .write, queries + own, isRepeatable: false, scope: scope,
                deadline: deadline)
        }
        door.relay?.committed(messages, of: id)
        return Array(results.dropLast(own.count))
    }

    package enum TransactionMode: Sendable {
        /// The transaction is read-only.
        case read
        case write
    }

    /// A transaction whose next statement depends on the answer to the last.
    ///
    /// The clinic is entered with the first statements, so a refusal precedes all effects; audit and outbox rows
    /// that the body gave go out with the COMMIT. **The body may run several times**: after a refusal, a
    /// serialization failure, or a connection that was lost before the commit. It must change nothing outside.
    ///
    /// - Parameter changing: as in `write`.
    /// - Throws: what the body throws; else as `write`.
    @LoopActor package func transaction<Value>(
        _ mode: TransactionMode, isolation: TransactionOptions.Isolation = .readCommitted,
        changing tags: [CacheTag] = [], deadline: Deadline,
        _ body: (TenantTransaction) async throws -> Value
    ) async throws -> Value {
        let options = TransactionOptions(isolation: isolation, isReadOnly: mode == .read)
        // Of the attempt that was made last: the one that committed, if one did.
        var sent: [OutboxRow] = []
        let value = try await changing(tags, deadline) { deadline in
            try await door.run(tenant, isRepeatable: mode == .read, deadline: deadline) {
                connection, entrance in
                let mode: EnterMode = mode == .read ? .read : .write
                let limit = entrance.limit(deadline)
                let log =
                    mode == .write && scope != nil
                    ? door.shards.log(of: entrance.record.shard) : nil
                var options = options
                options.reportsPosition = log != nil
                do {
                    let value = try await connection.transaction(options, deadline: limit) {
                        inner in
                        let transaction = TenantTransaction(
                            inner, enter: entrance.query(mode, on: connection), mode: mode)
                        let value = try await body(transaction)
                        try await transaction.finish { events, messages in
                            var rows: [AuditRow] = []
                            for event in events {
                                rows.append(
                                    try AuditRow(event, at: door.clocks.now(), keys: keys))
                            }
                            sent = outboxRows(messages)
                            return closing(rows, sent, tags)
                        }
                        return value
                    }
                    if let log { scope?.wrote(entrance, log, connection.commitPosition) }
                    return value
                } catch let error as PostgresError {
                    scope?.failed(error, entrance, log)
                    throw error
                }
            }
        }
        door.relay?.committed(sent, of: id)
        return value
    }

    @LoopActor private func outboxRows(_ messages: [OutboxMessage]) -> [OutboxRow] {
        guard !messages.isEmpty else { return [] }
        let now = door.clocks.now()
        return messages.map { OutboxRow($0, at: now) }
    }

    @LoopActor private func closing(
        _ rows: [AuditRow], _ messages: [OutboxRow], _ tags: [CacheTag]
    ) -> [Query] {
        var queries: [Query] = []
        if !rows.isEmpty { queries.append(AuditRows.insert(rows, tenant: id)) }
        if !messages.isEmpty { queries.append(OutboxRows.insert(messages, tenant: id)) }
        if let count = ReadModels.count(tags, of: id) { queries.append(count) }
        return queries
    }

    // MARK: Redis

    /// The clinic's part of Redis. What is there can be lost at any moment.
    /// - Returns: nil if there is no Redis.
    @LoopActor package var redis: TenantRedis? {
        door.redis.map { TenantRedis($0, prefix: tenant.redisPrefix) }
    }

    // MARK: Limits

    /// The limit and the session of a request: of what is leased at no cost, else in one round trip to Redis for both.
    /// Never fails: without Redis the limit is this process's share and the session is unknown.
    ///
    /// - Parameters:
    ///   - session: of the access token, to be looked up; nil if there is none, or if it is known without Redis.
    ///   - user: the account; nil before a login.
    ///   - address: of the client; nil for what comes from no network.
    ///   - isExact: whether Redis is to be asked for this very request, as for logins.
    @LoopActor package func gate(
        session: SessionID?, user: UUID? = nil, address: LimitAddress? = nil,
        class kind: LimitClass = .default, cost: RequestCost, lane: LimitLane = .ordinary,
        isExact: Bool = false, deadline: Deadline
    ) async -> GateAnswer {
        let now = door.clocks.now()
        let request = LimitRequest(
            kind: kind, units: cost.units, lane: lane, isExact: isExact, user: user,
            address: address)
        if let session, let entry = door.findSession(session, of: id, at: now) {
            let answer = await door.gate.pass(
                request, of: limits, session: nil, now: now, deadline: deadline)
            return GateAnswer(limit: answer.limit, session: .active(entry))
        }
        let ticket = session.flatMap { _ in door.coherence?.ticket(for: id) }
        let answer = await door.gate.pass(
            request, of: limits, session: session, now: now, deadline: deadline)
        if let session, let ticket, case .active(let entry) = answer.session {
            door.sessionCopies?.keep(session, of: id, entry, ticket: ticket)
        }
        return answer
    }

    /// What is known of a session, if this process has a copy of it that it may use.
    @LoopActor package func sessionNow(_ session: SessionID, at now: Timestamp) -> SessionEntry? {
        door.findSession(session, of: id, at: now)
    }

    /// The limit of a request without a session, or whose session is known, where nothing has to be waited for: units
    /// are at hand. Otherwise nothing is taken, and `gate` is to be asked.
    @LoopActor package func limitNow(
        user: UUID? = nil, address: LimitAddress? = nil, class kind: LimitClass = .default,
        cost: RequestCost, lane: LimitLane = .ordinary, isExact: Bool = false
    ) -> RateDecision? {
        door.passNow(
            LimitRequest(
                kind: kind, units: cost.units, lane: lane, isExact: isExact, user: user,
                address: address),
            of: limits)
    }

    /// How many rules its tier has.
    package var limitRuleCount: Int { limits.plan.rules.count }

    /// As `reportLimits`, if what is known is fresh enough.
    ///
    /// - Returns: false if it is not; then nothing is written.
    @LoopActor package func reportLimitsNow(
        user: UUID?, address: LimitAddress?, to json: inout JSONWriter
    ) -> Bool {
        door.reportNow(
            LimitRequest(kind: .default, units: 0, user: user, address: address), of: limits,
            to: &json)
    }

    /// Writes what is left of the limits of the clinic, an account and an address: the members `tier`, `source` and
    /// `rules`. Takes nothing.
    @LoopActor package func reportLimits(
        user: UUID?, address: LimitAddress?, to json: inout JSONWriter
    ) async {
        await door.gate.report(
            LimitRequest(kind: .default, units: 0, user: user, address: address), of: limits,
            to: &json)
    }

    /// Copies of this clinic's data in memory, here and in other processes; nil in programs without Redis.
    @LoopActor package var coherence: TenantCoherence? {
        door.coherence.map { TenantCoherence($0, tenant: id) }
    }

    /// What the cache says of sessions, in one round trip for all of them. Never fails: without Redis they are
    /// unknown.
    /// - Returns: one answer for each, in their order.
    @LoopActor package func lookUpSessions(
        _ sessions: [SessionID], deadline: Deadline
    ) async -> [SessionLookup] {
        await door.sessions.lookUp(
            sessions, prefix: tenant.redisPrefix, now: door.clocks.now(), deadline: deadline)
    }

    /// Puts a session into the cache that PostgreSQL has just called active.
    /// - Parameter ticket: of the lookup that came before the question to PostgreSQL.
    @LoopActor package func fillSession(
        _ session: SessionID, _ entry: SessionEntry, ticket: SessionLookup.FillTicket,
        deadline: Deadline
    ) async {
        await door.sessions.fill(session, of: tenant, entry, ticket: ticket, deadline: deadline)
    }

    /// Makes sure that no process admits the session from its cache. Call it after the revocation is committed.
    ///
    /// - Returns: false if Redis did not hear of it yet: it will as soon as it is back.
    @discardableResult
    @LoopActor package func revokeSession(_ session: SessionID, deadline: Deadline) async -> Bool {
        await door.revoke(session, of: tenant, deadline: deadline)
    }

    /// Makes sure that no process admits the session with other roles than it has now. Call it after the change of them
    /// is committed.
    ///
    /// - Returns: false if Redis did not hear of it: the session is then ended there when it is back.
    @discardableResult
    @LoopActor package func renewSession(_ session: SessionID, deadline: Deadline) async -> Bool {
        await door.renew(session, of: tenant, deadline: deadline)
    }

    // MARK: Replicas

    /// From now on the context's reads may go to replicas, and must find there what they, and others of their session,
    /// have written.
    ///
    /// - Parameters:
    ///   - session: who asks; nil: nobody is remembered.
    ///   - token: a position that the client brought (`readToken`). What cannot be read is as good as one from the
    ///     future: the primary answers.
    /// - Precondition: nothing has been read or written with a reader before.
    @LoopActor package func setReader(session: SessionID?, after token: String? = nil) {
        precondition(knownScope == nil, "who reads is said before the first read")
        reader = Reader(
            session: session,
            brought: token.map { door.readRequirement(of: $0, tenant) } ?? .nothing)
    }

    /// Whether there is something to finish.
    @LoopActor package var hasWritten: Bool { knownScope?.written != nil }

    /// Sees to it that the session's next requests find what this one has written, in whichever process they come.
    /// Call it before the answer is given.
    ///
    /// - Returns: the position, for clients that hand it on to others; nil if nothing was written, or no replica is
    ///   there to miss it.
    @LoopActor package func finishReading(deadline: Deadline) async -> String? {
        guard let scope = knownScope, let written = scope.written else { return nil }
        if let session = scope.session {
            await door.mark(session, written, of: tenant, deadline: deadline)
        }
        guard written.position != .unreachable, let keys = try? keys else { return nil }
        return try? ReadToken.make(written, keys: keys, tenant: id)
    }

    // MARK: For those who stay

    /// The same clinic as the newest map has it, for whoever keeps a context longer than a request.
    ///
    /// - Throws: `.tenantUnknown`, `.suspended` when it is served no more.
    @LoopActor package func renewed() throws(TenancyError) -> TenantContext {
        try door.context(tenant: id)
    }

    /// The feed of events; nil in programs that serve no sockets.
    @LoopActor package var events: EventFeed? { door.events }
}
