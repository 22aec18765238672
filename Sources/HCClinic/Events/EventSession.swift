import HCCore
package import HCIO
import HCPostgres
package import HCTenancy

/// One socket: what its client follows and may follow.
///
/// Requests are done one after the other: whoever carries the socket hands over the next message when `handle` has
/// returned. Events come in between.
@LoopActor
package final class EventSession: EventSubscriber {
    let tenant: TenantID
    /// Whose socket it is, with the roles that were seen last.
    private(set) var actor: Actor
    let endsAt: Timestamp
    private(set) var isOver = false

    let context: TenantContext
    private let socket: any EventSocket
    private let service: EventService
    private var topics: [String: EventTopic] = [:]
    private var bucket: TokenBucket
    private var faults = 0

    init(
        _ admission: EventAdmission, socket: any EventSocket, service: EventService
    ) {
        tenant = admission.context.id
        actor = admission.actor
        endsAt = admission.endsAt
        context = admission.context
        self.socket = socket
        self.service = service
        bucket = TokenBucket(
            capacity: EventSocketLimits.requestsBurst,
            refill: EventSocketLimits.requestsPerSecond, per: .seconds(1), at: Loop.now)
    }

    // MARK: Requests

    /// Does what a message asks. Never fails: a refusal is an answer.
    package func handle(_ message: [UInt8]) async {
        guard !isOver else { return }
        guard case .allowed = bucket.take(at: Loop.now) else {
            return fault(EventRefusal(.rateLimited))
        }
        do throws(EventRefusal) {
            switch try EventCommand.parse(message) {
            case .ping(let id): pong(id)
            case .unsubscribe(let id, let names): try unsubscribe(names, id)
            case .subscribe(let id, let names, let after):
                try await subscribe(names, after: after, id)
            }
            faults = 0
        } catch {
            fault(error)
        }
    }

    /// What is the client's own fault counts; what is ours does not.
    private func fault(_ refusal: EventRefusal) {
        refuse(refusal)
        guard refusal.code != .unavailable else { return }
        faults += 1
        if faults >= EventSocketLimits.faultsMax { end(.abuse) }
    }

    private func refuse(_ refusal: EventRefusal) {
        service.metrics.refused(refusal.code)
        answer(.error(refusal))
    }

    private func answer(_ answer: EventAnswer) {
        guard !isOver else { return }
        socket.send(answer.text)
    }

    func welcome() { answer(.welcome(endsAt: endsAt)) }

    private func pong(_ id: String?) {
        // Requests are done one by one: no topic is still being joined.
        let position = topics.isEmpty ? nil : context.events?.position(of: tenant)
        answer(.pong(id: id, sequence: position))
    }

    private func unsubscribe(_ names: [String], _ id: String?) throws(EventRefusal) {
        let wanted = try parse(names, id)
        let texts = wanted.map(\.description)
        context.events?.leave(self, topics: texts, of: tenant)
        for text in texts { topics[text] = nil }
        answer(.unsubscribed(id: id, topics: texts))
    }

    /// Each topic once, in the order of the request.
    private func parse(_ names: [String], _ id: String?) throws(EventRefusal) -> [EventTopic] {
        var wanted: [EventTopic] = []
        for name in names {
            guard let topic = EventTopic(name) else {
                throw EventRefusal(.invalidTopic, id: id, topic: String(name.prefix(64)))
            }
            if !wanted.contains(topic) { wanted.append(topic) }
        }
        return wanted
    }

    // MARK: Subscribing

    /// Who may follow what is decided here, recorded, and only then followed.
    private func subscribe(
        _ names: [String], after: EventSequence?, _ id: String?
    ) async throws(EventRefusal) {
        let wanted = try parse(names, id)
        let known = Set(topics.keys).union(wanted.map(\.description))
        guard known.count <= EventSocketLimits.topicsMax else {
            throw EventRefusal(.tooManyTopics, id: id)
        }
        let deadline = Deadline.after(EventSocketLimits.requestTimeout, from: Loop.now)
        var open: [EventTopic] = []
        do {
            let context = try context.renewed()
            guard let feed = context.events else {
                throw TenancyError.eventsUnavailable(retryAfter: .seconds(1))
            }
            await service.review([self], of: tenant)
            guard !isOver else { return }
            open = try await admit(wanted, id, in: context, deadline)
            guard !open.isEmpty, !isOver else { return }
            for topic in open { topics[topic.description] = topic }
            try await feed.join(
                self, topics: open.map(\.description), after: after,
                request: EventJoinRequest(id: id), in: context.tenant, deadline: deadline)
        } catch {
            service.logger.warning(
                "a subscription failed",
                [("tenant", .identifier(tenant)), ("reason", .string("\(error)"))])
            // The feed has let go of all of them, also of those that were followed before.
            for topic in open { topics[topic.description] = nil }
            throw EventRefusal(.unavailable, id: id)
        }
    }

    /// Those of the topics that exist and that the actor may follow; the others are refused one by one. Every
    /// decision is durably recorded before this returns.
    private func admit(
        _ wanted: [EventTopic], _ id: String?, in context: TenantContext, _ deadline: Deadline
    ) async throws -> [EventTopic] {
        let permitted = wanted.filter { $0.isOpen(to: actor) }
        let denied = wanted.filter { !permitted.contains($0) }
        let present = try await service.existing(permitted, in: context, deadline: deadline)
        let open = permitted.filter { present.contains($0.id) }
        var events: [AuditEvent] = []
        for topic in denied { events.append(actor.denial(of: topic)) }
        for topic in permitted {
            events.append(
                actor.event(
                    "subscribe", topic.entity, topic.id,
                    outcome: present.contains(topic.id) ? .success : .failure))
        }
        try await context.record(events, deadline: deadline)
        for topic in denied {
            refuse(EventRefusal(.forbidden, id: id, topic: topic.description))
        }
        for topic in permitted where !present.contains(topic.id) {
            refuse(EventRefusal(.notFound, id: id, topic: topic.description))
        }
        return open
    }

    // MARK: Events

    package func didJoin(_ begun: [EventTopicBeginning], request: EventJoinRequest) {
        guard let first = begun.map(\.sequence).min() else { return }
        answer(.subscribed(id: request.id, topics: begun.map(\.topic), sequence: first))
        for beginning in begun where beginning.isBroken {
            answer(.resync(topic: beginning.topic, sequence: beginning.sequence))
        }
    }

    package func receive(_ event: TenantEvent, topic: String) {
        guard !isOver, let followed = topics[topic] else { return }
        guard service.now < endsAt else { return end(.ticketExpired) }
        guard followed.tells(event, to: actor) else { return }
        answer(.event(event, topic: topic))
    }

    package func missed(topic: String, upTo sequence: EventSequence) {
        guard topics[topic] != nil else { return }
        answer(.resync(topic: topic, sequence: sequence))
    }

    // MARK: The session behind it

    /// The session was looked at again: these are the roles now.
    func renew(_ roles: RoleSet) {
        guard !isOver, roles != actor.roles else { return }
        actor = actor.with(roles)
        let closed = topics.filter { !$0.value.isOpen(to: actor) }.map(\.key).sorted()
        guard !closed.isEmpty else { return }
        context.events?.leave(self, topics: closed, of: tenant)
        for topic in closed {
            topics[topic] = nil
            refuse(EventRefusal(.forbidden, topic: topic))
        }
    }

    /// Nothing is sent after this.
    func end(_ reason: EventCloseReason) {
        guard !isOver else { return }
        service.metrics.ended(reason)
        socket.close(reason)
        ended()
    }

    /// The socket is gone, whoever ended it. May be called again.
    package func ended() {
        guard !isOver else { return }
        isOver = true
        context.events?.leave(self, of: tenant)
        topics = [:]
        service.ended(self)
    }
}

extension Actor {
    fileprivate func denial(of topic: EventTopic) -> AuditEvent {
        event(
            "deny", topic.entity, topic.id, outcome: .denied,
            detail: JSONObject(("permission", .string(topic.permission.rawValue))))
    }
}

extension TenantContext {
    /// Records several things; they are committed together with what others record.
    @LoopActor
    func record(_ events: [AuditEvent], deadline: Deadline) async throws {
        let outcomes = events.map { event in
            let outcome = Waiter<Void>()
            Loop.shared.spawn {
                do throws(TenancyError) {
                    try await self.record(event, deadline: deadline)
                    outcome.succeed(())
                } catch {
                    outcome.fail(error)
                }
            }
            return outcome
        }
        // Each of them ends by the deadline.
        for outcome in outcomes { try await outcome.wait(until: .never) }
    }
}
