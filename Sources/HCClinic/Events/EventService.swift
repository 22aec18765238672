package import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// Who may open a socket for events, in whose name, and for how long.
package struct EventAdmission: Sendable {
    let context: TenantContext
    let actor: Actor
    let endsAt: Timestamp
}

/// Sockets that follow what happens in a clinic: tickets, sessions of sockets, and the look at their logins that
/// comes before each delivery.
@LoopActor
package final class EventService: EventAudience {
    /// The WebSocket subprotocol (RFC 6455 1.9).
    package nonisolated static let subprotocol = EventAnswer.protocolName

    private let dependencies: ClinicDependencies
    private let auth: AuthService
    let metrics: EventSocketMetrics
    let logger: Logger

    private var sessions: [TenantID: [ObjectIdentifier: EventSession]] = [:]
    private var perLogin: [SessionID: Int] = [:]
    private var timers: [ObjectIdentifier: Timer] = [:]
    private var count = 0
    private var reviewTimer: Timer?
    /// Another in tests, which do not wait.
    var reviewInterval = EventSocketLimits.reviewInterval

    nonisolated init(
        _ dependencies: ClinicDependencies, auth: AuthService, metrics: MetricsRegistry
    ) {
        self.dependencies = dependencies
        self.auth = auth
        self.metrics = EventSocketMetrics(metrics)
        logger = dependencies.logger
    }

    var now: Timestamp { dependencies.clocks.now() }

    // MARK: Tickets

    /// Issues a ticket for one socket, good for 30 seconds. That it was issued is recorded.
    ///
    /// - Throws: `.eventsUnavailable` while Redis is away.
    package func issueTicket(
        _ actor: Actor, in context: TenantContext, deadline: Deadline
    ) async throws -> EventTicket {
        guard let account = actor.accountID, let session = actor.sessionID,
            let endsAt = actor.accessEndsAt
        else { throw ClinicError.forbidden }
        let ticket = try EventTicket()
        let holder = TicketHolder(
            session: session, account: account, patient: actor.patientID, endsAt: endsAt)
        try await context.record(
            actor.event("issue-ticket", "session", session.uuid), deadline: deadline)
        do {
            guard let redis = context.redis else { throw EventService.unavailable }
            try await redis.set(
                ticket.name, holder.bytes, expiresAfter: EventTicket.life,
                deadline: EventService.redisDeadline(deadline))
        } catch {
            throw EventService.unavailable
        }
        metrics.ticketsIssued.increment()
        return ticket
    }

    /// Without Redis nobody could tell whether a ticket was used.
    private static let unavailable = TenancyError.eventsUnavailable(retryAfter: .seconds(1))

    private static func redisDeadline(_ deadline: Deadline) -> Deadline {
        deadline.earlier(of: .after(.seconds(1), from: Loop.now))
    }

    /// Takes a ticket: of all who present it, anywhere, one is admitted.
    ///
    /// - Throws: `invalid-ticket` for one that is unknown, used, too old, another clinic's, or whose session is over:
    ///   which of these is not told. `too-many-sockets`. `.eventsUnavailable` while Redis is away.
    package func redeem(
        _ text: String, in context: TenantContext, requestID: RequestID, deadline: Deadline
    ) async throws -> EventAdmission {
        guard let holder = try await take(text, in: context, deadline), holder.endsAt > now else {
            metrics.ticketsRefused.increment()
            throw ClinicError(.invalidTicket)
        }
        let claims = AccessClaims(
            tenant: context.id, account: holder.account, session: holder.session,
            patient: holder.patient, expiresAt: holder.endsAt)
        let lookup = await context.lookUpSessions([holder.session], deadline: deadline)[0]
        let actor: Actor
        do {
            actor = try await auth.admit(
                claims, lookup, in: context, requestID: requestID, deadline: deadline)
        } catch let error as ClinicError where error.code == .unauthenticated {
            metrics.ticketsRefused.increment()
            throw ClinicError(.invalidTicket)
        }
        guard hasRoom(holder.session, context.id) else {
            throw ClinicError(.tooManySockets, retryAfter: .seconds(5))
        }
        metrics.ticketsRedeemed.increment()
        return EventAdmission(context: context, actor: actor, endsAt: holder.endsAt)
    }

    private func take(
        _ text: String, in context: TenantContext, _ deadline: Deadline
    ) async throws -> TicketHolder? {
        guard let ticket = try EventTicket(presented: text) else { return nil }
        do {
            guard let redis = context.redis else { throw EventService.unavailable }
            return try await redis.take(
                ticket.name, deadline: EventService.redisDeadline(deadline)
            ).flatMap { TicketHolder($0) }
        } catch {
            throw EventService.unavailable
        }
    }

    // MARK: Sockets

    private func hasRoom(_ session: SessionID, _ tenant: TenantID) -> Bool {
        count < EventSocketLimits.socketsMax
            && sessions[tenant]?.count ?? 0 < EventSocketLimits.socketsPerClinicMax
            && perLogin[session] ?? 0 < EventSocketLimits.socketsPerSessionMax
    }

    /// A socket is there. It is ended when the login that opened it is, or before.
    package func begin(
        _ admission: EventAdmission, on socket: any EventSocket
    ) -> EventSession {
        let session = EventSession(admission, socket: socket, service: self)
        let key = ObjectIdentifier(session)
        let login = admission.actor.sessionID
        let isWelcome = login.map { hasRoom($0, session.tenant) } ?? false
        sessions[session.tenant, default: [:]][key] = session
        if let login { perLogin[login, default: 0] += 1 }
        count += 1
        metrics.sockets.set(count)
        // Others may have come since the ticket was taken.
        guard isWelcome else {
            session.end(.tryAgainLater)
            return session
        }
        timers[key] = Loop.shared.schedule(after: admission.endsAt - now) {
            [weak session] in session?.end(.ticketExpired)
        }
        scheduleReview()
        session.welcome()
        return session
    }

    func ended(_ session: EventSession) {
        let key = ObjectIdentifier(session)
        guard sessions[session.tenant]?.removeValue(forKey: key) != nil else { return }
        if sessions[session.tenant]?.isEmpty == true { sessions[session.tenant] = nil }
        timers.removeValue(forKey: key)?.cancel()
        if let login = session.actor.sessionID {
            let rest = perLogin[login, default: 1] - 1
            perLogin[login] = rest == 0 ? nil : rest
        }
        count -= 1
        metrics.sockets.set(count)
    }

    /// Sockets that are open.
    package var socketCount: Int { count }

    // MARK: What exists

    /// Those ids that something of this clinic has.
    func existing(
        _ topics: [EventTopic], in context: TenantContext, deadline: Deadline
    ) async throws -> Set<UUID> {
        var patients: [UUID] = []
        var practitioners: [UUID] = []
        for topic in topics {
            switch topic {
            case .patient(let id): patients.append(id.uuid)
            case .calendar(let id): practitioners.append(id.uuid)
            }
        }
        guard !topics.isEmpty else { return [] }
        let results = try await context.read(
            [
                Query(
                    """
                    SELECT id FROM patient
                    WHERE tenant_id = $1 AND id = ANY($2) AND deleted_at IS NULL
                    """, [.id(context.id), .uuids(patients)]),
                Query(
                    """
                    SELECT id FROM practitioner
                    WHERE tenant_id = $1 AND id = ANY($2) AND deleted_at IS NULL
                    """, [.id(context.id), .uuids(practitioners)]),
            ], deadline: deadline)
        return Set(try results.flatMap { try $0.rows.map { try $0.uuid(0) } })
    }

    // MARK: Looking at logins again

    /// Before each delivery: whose session is over is ended, whose roles have changed has the new ones. One question
    /// to the cache for all, and one to PostgreSQL for those whom the cache does not know.
    package func review(_ subscribers: [any EventSubscriber], of tenant: TenantID) async {
        let here = subscribers.compactMap { $0 as? EventSession }.filter { !$0.isOver }
        guard let first = here.first else { return }
        let ids = EventService.logins(of: here)
        let deadline = Deadline.after(EventSocketLimits.requestTimeout, from: Loop.now)
        do {
            let context = try first.context.renewed()
            var found = await context.lookUpSessions(ids, deadline: deadline)
            try await ask(about: ids, &found, in: context, deadline)
            apply(Dictionary(uniqueKeysWithValues: zip(ids, found)), to: here)
        } catch TenancyError.tenantUnknown, TenancyError.suspended {
            for session in here { session.end(.sessionEnded) }
        } catch {
            // Who cannot be looked at is given nothing; with its place it comes back and misses nothing.
            logger.warning(
                "sessions of sockets cannot be looked at",
                [("tenant", .identifier(tenant)), ("reason", .string("\(error)"))])
            for session in here { session.end(.tryAgainLater) }
        }
    }

    private static func logins(of sessions: [EventSession]) -> [SessionID] {
        Array(Set(sessions.compactMap(\.actor.sessionID)))
    }

    /// Replaces what the cache did not know by what PostgreSQL says, and tells the cache.
    private func ask(
        about ids: [SessionID], _ found: inout [SessionLookup], in context: TenantContext,
        _ deadline: Deadline
    ) async throws {
        var tickets: [SessionID: SessionLookup.FillTicket?] = [:]
        for (id, lookup) in zip(ids, found) {
            if case .unknown(let ticket) = lookup { tickets[id] = .some(ticket) }
        }
        guard !tickets.isEmpty else { return }
        let store = SessionStore(tenant: context.id)
        let rows = try await context.read(
            [store.findActive(Array(tickets.keys), at: now)], deadline: deadline)[0].rows
        var entries: [SessionID: SessionEntry] = [:]
        for row in rows {
            entries[try row.id(3)] = SessionEntry(
                accountID: try row.uuid(0), roles: try row.texts(2),
                expiresAt: try row.timestamp(1))
        }
        for (index, id) in ids.enumerated() {
            guard let ticket = tickets[id] else { continue }
            guard let entry = entries[id] else {
                found[index] = .revoked
                continue
            }
            found[index] = .active(entry)
            guard let ticket else { continue }
            // Nobody waits for it; what goes out in one tick goes together.
            Loop.shared.spawn {
                await context.fillSession(id, entry, ticket: ticket, deadline: deadline)
            }
        }
    }

    private func apply(_ found: [SessionID: SessionLookup], to sessions: [EventSession]) {
        for session in sessions {
            guard let login = session.actor.sessionID, let lookup = found[login] else { continue }
            switch lookup {
            case .unknown: break
            case .revoked: session.end(.sessionEnded)
            case .active(let entry):
                guard entry.accountID == session.actor.accountID?.uuid, entry.expiresAt > now
                else {
                    session.end(.sessionEnded)
                    continue
                }
                session.renew(RoleSet(names: entry.roles))
            }
        }
    }

    // MARK: From time to time

    /// A revoked session should not keep its socket until something happens. The cache alone is asked: a revocation
    /// stands there for longer than any access token lives.
    private func scheduleReview() {
        guard reviewTimer == nil else { return }
        reviewTimer = Loop.shared.schedule(after: reviewInterval) {
            [weak self] in
            Loop.shared.spawn { await self?.reviewAll() }
        }
    }

    func reviewAll() async {
        let all = sessions.values.map { Array($0.values) }
        for here in all {
            guard let first = here.first else { continue }
            do throws(TenancyError) {
                let context = try first.context.renewed()
                let ids = EventService.logins(of: here)
                let found = await context.lookUpSessions(
                    ids, deadline: .after(EventSocketLimits.requestTimeout, from: Loop.now))
                apply(Dictionary(uniqueKeysWithValues: zip(ids, found)), to: here)
            } catch {
                switch error {
                case .tenantUnknown, .suspended:
                    for session in here { session.end(.sessionEnded) }
                default: break
                }
            }
        }
        reviewTimer = nil
        if count > 0 { scheduleReview() }
    }
}
