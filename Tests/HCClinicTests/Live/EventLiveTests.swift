import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// A socket that keeps what is sent.
@LoopActor
private final class TestSocket: EventSocket {
    private(set) var messages: [JSONValue] = []
    private(set) var closed: EventCloseReason?
    private var waiters: [(condition: @LoopActor () -> Bool, waiter: Waiter<Void>)] = []

    func send(_ text: ByteBuffer) {
        #expect(closed == nil, "nothing is sent after the end")
        do {
            messages.append(try JSONReader.parse(text.bytes))
        } catch {
            Issue.record("no JSON: \(text.string)")
        }
        wake()
    }

    func close(_ reason: EventCloseReason) {
        closed = reason
        wake()
    }

    private func wake() {
        for (condition, waiter) in waiters where condition() { waiter.succeed(()) }
    }

    func wait(until condition: @escaping @LoopActor () -> Bool) async throws {
        guard !condition() else { return }
        let waiter = Waiter<Void>()
        waiters.append((condition, waiter))
        defer { waiters.removeAll { $0.waiter === waiter } }
        try await waiter.wait(until: .after(.seconds(30), from: Loop.shared.now))
    }

    func all(_ type: String) -> [JSONValue] { messages.filter { $0["type"]?.asString == type } }
    var events: [JSONValue] { all("event") }
    var errors: [String] { all("error").compactMap { $0["code"]?.asString } }

    /// `event topic` of each event.
    var heard: [String] {
        events.map { "\($0["event"]?.asString ?? "") \($0["topic"]?.asString ?? "")" }
    }
}

/// Somebody with a socket.
@LoopActor
private struct Follower {
    let session: EventSession
    let socket: TestSocket

    init(_ clinic: LiveClinic, _ actor: Actor) async throws {
        clinic.ground.door.events?.audience = clinic.services.events
        let events = clinic.services.events
        let ticket = try await events.issueTicket(
            actor, in: clinic.context, deadline: clinic.deadline)
        let admission = try await events.redeem(
            ticket.text.reveal(), in: clinic.context, requestID: "test", deadline: clinic.deadline)
        socket = TestSocket()
        session = events.begin(admission, on: socket)
    }

    func say(_ json: JSONValue) async { await session.handle(Array(json.text.utf8)) }

    func follow(_ topics: String..., after: Int64? = nil) async {
        await say([
            "type": "subscribe", "id": "s", "topics": .array(topics.map { .string($0) }),
            "after": after.map { .integer($0) } ?? .null,
        ])
    }
}

@Suite("Events: tickets, topics, and who may hear what", .onLoop)
@LoopActor
struct EventLiveTests {
    private func ticket(_ clinic: LiveClinic, _ actor: Actor) async throws -> String {
        try await clinic.services.events.issueTicket(
            actor, in: clinic.context, deadline: clinic.deadline
        ).text.reveal()
    }

    private func redeem(
        _ ticket: String, _ clinic: LiveClinic
    ) async throws -> EventAdmission {
        try await clinic.services.events.redeem(
            ticket, in: clinic.context, requestID: "test", deadline: clinic.deadline)
    }

    private func owner(_ clinic: LiveClinic) async throws -> Actor {
        try await clinic.admit(try await clinic.login().accessToken)
    }

    /// As after a restart of Redis: whoever is asked about is looked up on the shard.
    private func forget(_ name: String, _ clinic: LiveClinic) async throws {
        _ = try await clinic.ground.redis.send(
            ["DEL", .text("s1:{\(clinic.context.id)}:1:\(name)")], deadline: clinic.deadline)
    }

    private func event(_ name: String, _ topic: String, at time: Timestamp) throws -> TenantEvent {
        TenantEvent(
            id: UUID(high: 1, low: 1), sequence: try #require(EventSequence(1)), name: name,
            topics: [topic], entity: .zero, version: 1, at: time)
    }

    // MARK: Tickets

    @Test("of many who present a ticket at once, one is admitted")
    func singleUse() async throws {
        let clinic = try await LiveClinic.make()
        let ticket = try await ticket(clinic, try await owner(clinic))
        let outcomes = await concurrently(20) { _ in try await redeem(ticket, clinic) }
        #expect(outcomes.count { $0.value != nil } == 1)
        #expect(
            outcomes.compactMap(\.clinicError?.code) == Array(repeating: .invalidTicket, count: 19))
    }

    @Test("a ticket lives for 30 seconds, Redis has only its hash, and the issue is recorded")
    func life() async throws {
        let clinic = try await LiveClinic.make()
        let ticket = try await ticket(clinic, try await owner(clinic))
        let keys = try await clinic.ground.redis.send(
            ["KEYS", .text("s1:{\(clinic.context.id)}:1:ticket:*")], deadline: clinic.deadline)
        let key = try #require(keys.asArray?.first?.asString)
        #expect(keys.asArray?.count == 1)
        #expect(!key.contains(ticket))
        let life = try await clinic.ground.redis.send(
            ["PTTL", .text(key)], deadline: clinic.deadline)
        #expect((1...30_000).contains(try #require(life.asInteger)))
        let rows = try await clinic.psql(
            """
            SELECT count(*) FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action = 'issue-ticket'
            """)
        #expect(rows == "1")
        _ = try await clinic.ground.redis.send(["DEL", .text(key)], deadline: clinic.deadline)
        #expect(try await code { try await redeem(ticket, clinic) } == .invalidTicket)
    }

    @Test("a ticket of another clinic is as unknown as one that never was, and stays good at home")
    func foreignTicket() async throws {
        let (home, away) = (try await LiveClinic.make(), try await LiveClinic.make())
        let ticket = try await ticket(home, try await owner(home))
        for text in [ticket, String(repeating: "A", count: 43), "", "x", ticket + "A"] {
            #expect(try await code { try await redeem(text, away) } == .invalidTicket)
        }
        _ = try await redeem(ticket, home)
    }

    @Test("a ticket of a session that was ended meanwhile opens nothing")
    func endedMeanwhile() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        let ticket = try await ticket(clinic, actor)
        try await clinic.services.auth.logout(actor, in: clinic.context, deadline: clinic.deadline)
        #expect(try await code { try await redeem(ticket, clinic) } == .invalidTicket)
    }

    @Test("a ticket is good no longer than the login that it was asked for with")
    func ticketOfALoginThatEnds() async throws {
        let clinic = try await LiveClinic.make()
        let owner = try await owner(clinic)
        let endsAt = try #require(owner.accessEndsAt)
        clinic.clock.advance(by: endsAt - clinic.clock.now - .seconds(1))
        let (first, second) = (try await ticket(clinic, owner), try await ticket(clinic, owner))
        _ = try await redeem(first, clinic)
        clinic.clock.advance(by: .seconds(1))
        #expect(try await code { try await redeem(second, clinic) } == .invalidTicket)
    }

    @Test("a clinic has so many sockets and no more, and the next one has its own")
    func socketsPerClinic() async throws {
        let clinic = try await LiveClinic.make()
        let events = clinic.services.events
        let other = try clinic.ground.takeTenant()
        var sessions: [EventSession] = []
        func open(_ context: TenantContext) -> EventCloseReason? {
            let socket = TestSocket()
            let actor = Actor(
                account: AccountID(.zero),
                session: SessionID(UUID(high: 1, low: UInt64(sessions.count))),
                roles: RoleSet(.owner), patientID: nil, requestID: "test")
            sessions.append(
                events.begin(
                    EventAdmission(
                        context: context, actor: actor, endsAt: clinic.clock.now + .seconds(600)),
                    on: socket))
            return socket.closed
        }
        let refused = (0..<EventSocketLimits.socketsPerClinicMax).count { _ in
            open(clinic.context) != nil
        }
        #expect(refused == 0)
        #expect(open(clinic.context) == .tryAgainLater)
        #expect(open(other) == nil)
        // The last but one was refused, and had its place until its socket has gone.
        for session in sessions[0..<2] { session.ended() }
        #expect(open(clinic.context) == nil)
        for session in sessions.dropFirst(2) { session.ended() }
        #expect(events.socketCount == 0)
    }

    @Test("a session has so many sockets and no more")
    func socketsPerSession() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        var followers: [Follower] = []
        for _ in 0..<EventSocketLimits.socketsPerSessionMax {
            followers.append(try await Follower(clinic, actor))
        }
        let late = try await ticket(clinic, actor)
        #expect(try await code { try await redeem(late, clinic) } == .tooManySockets)
        followers.removeLast().session.ended()
        _ = try await Follower(clinic, actor)
    }

    // MARK: Topics

    @Test("bookings, moves, cancellations and steps of the day reach calendars and patients")
    func appointments() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let first = try await clinic.practitioner("Dr. First")
        let second = try await clinic.practitioner("Dr. Second")
        let follower = try await Follower(
            clinic, try await clinic.staff(.receptionist, email: "desk@clinic.example"))
        await follower.follow("calendar:\(first)", "calendar:\(second)", "patient:\(patient)")
        #expect(follower.socket.all("subscribed").count == 1)
        let id = try await clinic.book(clinic.draft(patient, first))
        let draft = clinic.draft(patient, second, inHours: 72)
        _ = try await clinic.services.appointments.reschedule(
            id,
            AppointmentMove(
                startsAt: draft.startsAt, endsAt: draft.endsAt, practitionerID: second), .any,
            clinic.system, in: clinic.context, deadline: clinic.deadline)
        _ = try await clinic.perform(.checkIn, id)
        let other = try await clinic.book(clinic.draft(patient, second, inHours: 96))
        _ = try await clinic.perform(.cancel, other, reason: "test")
        let expected = [
            ("booked", [first], 1), ("rescheduled", [first, second], 2), ("changed", [second], 3),
            ("booked", [second], 1), ("cancelled", [second], 2),
        ].map { name, calendars, version in
            Set(
                (calendars.map { "calendar:\($0)" } + ["patient:\(patient)"]).map {
                    "appointment.\(name) \($0) \(version)"
                })
        }
        try await follower.socket.wait { follower.socket.events.count == 11 }
        let heard = follower.socket.events.map {
            "\($0["event"]?.asString ?? "") \($0["topic"]?.asString ?? "") \($0["version"]?.asInteger ?? 0)"
        }
        #expect(Set(heard) == expected.reduce([]) { $0.union($1) })
        #expect(Set(follower.socket.events.map(\.text)).count == heard.count)
        for event in follower.socket.events {
            #expect([id, other].map(\.description).contains(event["id"]?.asString))
            #expect(
                Set(event.asObject?.names ?? []) == [
                    "type", "topic", "sequence", "event", "id", "version", "at", "eventId",
                ])
        }
        let places = follower.socket.events.compactMap { $0["sequence"]?.asInteger }
        #expect(places == places.sorted())
        await follower.say(["type": "ping", "id": "p"])
        #expect(follower.socket.all("pong").last?["sequence"]?.asInteger == places.last)
    }

    @Test("a patient's record: created by the desk, changed, deleted")
    func patients() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let follower = try await Follower(clinic, try await owner(clinic))
        await follower.follow("patient:\(patient)")
        _ = try await clinic.services.patients.update(
            patient,
            PatientPatch(json: ["phone": "+15550100123"], today: clinic.services.patients.today),
            try IfMatch(field: "\"v1\""), clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        try await clinic.services.patients.delete(
            patient, try IfMatch(field: "\"v2\""), clinic.system, in: clinic.context,
            deadline: clinic.deadline)
        try await follower.socket.wait { follower.socket.events.count == 2 }
        #expect(
            follower.socket.heard == [
                "patient.updated patient:\(patient)", "patient.deleted patient:\(patient)",
            ])
        // Nothing of a patient is in what was sent, nor in Redis.
        let sent = follower.socket.messages.map(\.text).joined()
        for secret in ["Testa", "Demofield", "15550100123"] { #expect(!sent.contains(secret)) }
        let again = try await Follower(clinic, try await owner(clinic))
        await again.follow("patient:\(patient)")
        #expect(again.socket.errors == ["not-found"])
    }

    @Test("patients follow themselves, nobody else and no calendar; each decision is recorded")
    func ownScope() async throws {
        let clinic = try await LiveClinic.make()
        let (patient, other) = (try await clinic.register(), try await clinic.register())
        let practitioner = try await clinic.practitioner()
        let follower = try await Follower(
            clinic, try await clinic.patientActor(patient, email: "patient@clinic.example"))
        await follower.follow(
            "patient:\(patient)", "patient:\(other)", "calendar:\(practitioner)")
        #expect(follower.socket.errors == ["forbidden", "forbidden"])
        #expect(
            follower.socket.all("subscribed").first?["topics"]
                == .array([.string("patient:\(patient)")]))
        try await clinic.book(clinic.draft(other, practitioner))
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 96))
        try await follower.socket.wait { follower.socket.events.count == 1 }
        #expect(follower.socket.heard == ["appointment.booked patient:\(patient)"])
        let recorded = try await clinic.psql(
            """
            SELECT action || ' ' || entity || ' ' || outcome FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action IN ('subscribe', 'deny')
            ORDER BY 1
            """)
        #expect(
            recorded.split(separator: "\n") == [
                "deny calendar denied", "deny patient denied", "subscribe patient success",
            ])
    }

    @Test("ids of another clinic and ids of nobody are answered alike, and give nothing")
    func foreignIDs() async throws {
        let (home, away) = (try await LiveClinic.make(), try await LiveClinic.make())
        let patient = try await away.register()
        let practitioner = try await away.practitioner()
        let follower = try await Follower(home, try await owner(home))
        let nobody = home.services.dependencies.makeUUID()
        await follower.follow(
            "patient:\(patient)", "calendar:\(practitioner)", "patient:\(nobody)",
            "calendar:\(nobody)")
        #expect(follower.socket.errors == Array(repeating: "not-found", count: 4))
        #expect(follower.socket.all("subscribed").isEmpty)
        let recorded = try await home.psql(
            """
            SELECT entity || ' ' || outcome FROM audit_event
            WHERE tenant_id = '\(home.context.id)' AND action = 'subscribe' ORDER BY 1
            """)
        #expect(
            recorded.split(separator: "\n") == [
                "calendar failure", "calendar failure", "patient failure", "patient failure",
            ])
        try await away.book(away.draft(patient, practitioner))
        #expect(follower.socket.events.isEmpty)
    }

    @Test("who comes back with the last place hears what was missed, and nothing twice")
    func resume() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let actor = try await owner(clinic)
        let before = try await Follower(clinic, actor)
        await before.follow("calendar:\(practitioner)")
        try await clinic.book(clinic.draft(patient, practitioner))
        try await before.socket.wait { before.socket.events.count == 1 }
        before.session.ended()
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 60))
        try await clinic.book(clinic.draft(patient, practitioner, inHours: 61))
        let after = try await Follower(clinic, actor)
        await after.follow(
            "calendar:\(practitioner)", after: before.socket.events[0]["sequence"]?.asInteger)
        try await after.socket.wait { after.socket.events.count == 2 }
        #expect(after.socket.all("resync").isEmpty)
        let lost = try await Follower(clinic, actor)
        await lost.follow("calendar:\(practitioner)", after: 7)
        #expect(lost.socket.all("resync").count == 1)
        #expect(lost.socket.messages.last?["type"]?.asString == "resync")
    }

    // MARK: Delivery

    @Test("a revoked session hears nothing more, whoever revoked it and whether the cache knew it")
    func revoked() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let witness = try await Follower(clinic, try await owner(clinic))
        await witness.follow("calendar:\(practitioner)")
        for (number, knows) in [true, false].enumerated() {
            let actor = try await owner(clinic)
            let follower = try await Follower(clinic, actor)
            await follower.follow("calendar:\(practitioner)", "patient:\(patient)")
            try await clinic.services.auth.logout(
                actor, in: clinic.context, deadline: clinic.deadline)
            if !knows, let session = actor.sessionID {
                try await forget("session:\(session)", clinic)
            }
            try await clinic.book(clinic.draft(patient, practitioner, inHours: 50 + number))
            try await witness.socket.wait { witness.socket.events.count == number + 1 }
            #expect(follower.socket.closed == .sessionEnded)
            #expect(follower.socket.events.isEmpty)
            await follower.say(["type": "ping"])
            #expect(follower.socket.all("pong").isEmpty)
        }
    }

    @Test("an account that is disabled loses its sockets without an event")
    func disabled() async throws {
        let clinic = try await LiveClinic.make()
        let practitioner = try await clinic.practitioner()
        let actor = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let follower = try await Follower(clinic, actor)
        await follower.follow("calendar:\(practitioner)")
        let id = try #require(actor.accountID)
        _ = try await clinic.services.staff.update(
            id, AccountPatch(json: ["status": "disabled"]), try IfMatch(field: "\"v1\""),
            clinic.system,
            in: clinic.context, deadline: clinic.deadline)
        await clinic.services.events.reviewAll()
        #expect(follower.socket.closed == .sessionEnded)
        #expect(clinic.services.events.socketCount == 0)
    }

    @Test("who is logged in no more asks for nothing: no topic is looked up, none is recorded")
    func askedAfterTheEnd() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let actor = try await owner(clinic)
        let follower = try await Follower(clinic, actor)
        try await clinic.services.auth.logout(actor, in: clinic.context, deadline: clinic.deadline)
        let nobody = clinic.services.dependencies.makeUUID()
        await follower.follow("patient:\(patient)", "patient:\(nobody)")
        #expect(follower.socket.closed == .sessionEnded)
        #expect(follower.socket.messages.compactMap { $0["type"]?.asString } == ["welcome"])
        let recorded = try await clinic.psql(
            """
            SELECT count(*) FROM audit_event
            WHERE tenant_id = '\(clinic.context.id)' AND action IN ('subscribe', 'deny')
            """)
        #expect(recorded == "0")
    }

    @Test("a clinic that is closed to everybody closes its sockets")
    func suspended() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        let follower = try await Follower(clinic, actor)
        await follower.follow("calendar:\(try await clinic.practitioner())")
        #expect(follower.socket.all("subscribed").count == 1)
        // As the shard has it before this process hears of it. The cache has forgotten the session: the shard is asked.
        let services = (clinic.ground.services, clinic.ground.shard)
        let tenant = clinic.context.id
        _ = try await offLoop {
            try services.0.psql(
                services.1.owner,
                "UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id = '\(tenant)'")
        }
        try await forget("session:\(try #require(actor.sessionID))", clinic)
        await clinic.services.events.review([follower.session], of: tenant)
        #expect(follower.socket.closed == .sessionEnded)
        #expect(clinic.services.events.socketCount == 0)
    }

    @Test("whose login cannot be looked at is told to come again, and given nothing meanwhile")
    func unknownLogin() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        let follower = try await Follower(clinic, actor)
        let topic = "calendar:\(try await clinic.practitioner())"
        await follower.follow(topic)
        // The clinic is on no shard that this process knows.
        let (services, shard, tenant) = (
            clinic.ground.services, clinic.ground.shard, clinic.context.id
        )
        _ = try await offLoop {
            try services.psql(
                shard.owner,
                """
                UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id = '\(tenant)';
                UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(tenant)';
                """)
        }
        try await forget("session:\(try #require(actor.sessionID))", clinic)
        await clinic.services.events.review([follower.session], of: tenant)
        #expect(follower.socket.closed == .tryAgainLater)
        #expect(clinic.services.events.socketCount == 0)
        follower.session.receive(
            try event("appointment.booked", topic, at: clinic.clock.now), topic: topic)
        #expect(follower.socket.events.isEmpty)
    }

    @Test("a clinic that this process knows to be closed loses its sockets without an event")
    func suspendedMeanwhile() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        await follower.follow("calendar:\(try await clinic.practitioner())")
        try await clinic.ground.suspend(clinic.context.id)
        await clinic.services.events.reviewAll()
        #expect(follower.socket.closed == .sessionEnded)
        #expect(clinic.services.events.socketCount == 0)
    }

    @Test("logins of sockets are looked at from time to time, as long as there are sockets")
    func reviews() async throws {
        let clinic = try await LiveClinic.make()
        clinic.services.events.reviewInterval = .milliseconds(1)
        var followers: [Follower] = []
        for number in 0..<3 {
            followers.append(
                try await Follower(
                    clinic,
                    try await clinic.staff(.nurse, email: "nurse\(number)@clinic.example")))
        }
        for follower in followers.dropLast() {
            #expect(follower.socket.closed == nil)
            try await clinic.services.auth.logout(
                follower.session.actor, in: clinic.context, deadline: clinic.deadline)
            try await follower.socket.wait { follower.socket.closed != nil }
            #expect(follower.socket.closed == .sessionEnded)
        }
        #expect(followers.last?.socket.closed == nil)
        followers.last?.session.ended()
    }

    @Test("however many sockets are opened, one timer waits for the next look at their logins")
    func reviewTimer() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        let before = Loop.shared.statistics.timers
        let sessions = (0..<3).map { _ in
            clinic.services.events.begin(
                EventAdmission(
                    context: clinic.context, actor: actor,
                    endsAt: clinic.clock.now + .seconds(600)),
                on: TestSocket())
        }
        for session in sessions { session.ended() }
        // Nothing else has run meanwhile. The timers of the sockets have gone with them.
        #expect(Loop.shared.statistics.timers == before + 1)
    }

    @Test("a session that has lasted its time is over, though the cache calls it active")
    func expiredSession() async throws {
        let clinic = try await LiveClinic.make()
        let tokens = try await clinic.login()
        let follower = try await Follower(clinic, try await clinic.admitCached(tokens.accessToken))
        let events = clinic.services.events
        await events.review([follower.session], of: clinic.context.id)
        #expect(follower.socket.closed == nil)
        clinic.clock.advance(by: SessionPolicy().absolute)
        await events.review([follower.session], of: clinic.context.id)
        #expect(follower.socket.closed == .sessionEnded)
    }

    @Test("a session whose account is another's now is over")
    func foreignAccount() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let follower = try await Follower(clinic, actor)
        let session = try #require(actor.sessionID)
        let account = try #require(nurse.accountID)
        _ = try await clinic.psql(
            """
            UPDATE session SET account_id = '\(account)'
            WHERE tenant_id = '\(clinic.context.id)' AND id = '\(session)'
            """)
        try await forget("session:\(session)", clinic)
        await clinic.services.events.review([follower.session], of: clinic.context.id)
        #expect(follower.socket.closed == .sessionEnded)
    }

    @Test("roles that are taken away close their topics before the next event")
    func rolesTaken() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let actor = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let follower = try await Follower(clinic, actor)
        await follower.follow("calendar:\(practitioner)", "patient:\(patient)")
        let witness = try await Follower(clinic, try await owner(clinic))
        await witness.follow("calendar:\(practitioner)")
        let session = try #require(actor.sessionID)
        let account = try #require(actor.accountID)
        // No role of the staff is without appointments: a name that grants nothing.
        _ = try await clinic.psql("UPDATE account SET roles = '{none}' WHERE id = '\(account)'")
        await clinic.context.renewSession(session, deadline: clinic.deadline)
        try await clinic.book(clinic.draft(patient, practitioner))
        try await witness.socket.wait { witness.socket.events.count == 1 }
        #expect(follower.socket.events.isEmpty)
        #expect(follower.socket.errors == ["forbidden", "forbidden"])
        await follower.follow("calendar:\(practitioner)")
        #expect(follower.socket.errors.count == 3)
    }

    @Test("a socket ends with the login that opened it, and says to come with a new ticket")
    func expired() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let follower = try await Follower(clinic, try await owner(clinic))
        await follower.follow("calendar:\(practitioner)")
        clinic.clock.advance(by: .seconds(15 * 60 + 1))
        try await clinic.book(clinic.draft(patient, practitioner))
        try await follower.socket.wait { follower.socket.closed != nil }
        #expect(follower.socket.closed == .ticketExpired)
        #expect(follower.socket.events.isEmpty)
    }

    @Test("a socket that hears nothing ends with its login as well, also if that ended before")
    func expiredWithoutEvent() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await owner(clinic)
        for rest in [Duration.zero, .seconds(-1)] {
            let socket = TestSocket()
            _ = clinic.services.events.begin(
                EventAdmission(
                    context: clinic.context, actor: actor, endsAt: clinic.clock.now + rest),
                on: socket)
            try await socket.wait { socket.closed != nil }
            #expect(socket.closed == .ticketExpired)
        }
        #expect(clinic.services.events.socketCount == 0)
    }

    // MARK: The protocol

    @Test("a topic that nobody asked for is not told, nor an event that nobody knows")
    func strangeEvents() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        let patient = try await clinic.register()
        let topic = "patient:\(patient)"
        func tell(_ name: String) throws {
            follower.session.receive(
                try event(name, topic, at: clinic.clock.now), topic: topic)
        }
        try tell("patient.changed")
        #expect(follower.socket.events.isEmpty)
        await follower.follow(topic)
        // That the patient was registered may come in between.
        func heard(_ name: String) -> Int {
            follower.socket.heard.count { $0 == "\(name) \(topic)" }
        }
        try tell("billing.paid")
        try tell("patient.changed")
        #expect(heard("billing.paid") == 0 && heard("patient.changed") == 1)
        follower.session.ended()
    }

    @Test("a subscription that fails leaves none of its topics, also what was followed before")
    func failedSubscription() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        let kept = "calendar:\(try await clinic.practitioner())"
        let lost = "patient:\(try await clinic.register())"
        func hears(_ topic: String) throws -> Bool {
            let before = follower.socket.events.count
            follower.session.receive(
                try event("appointment.booked", topic, at: clinic.clock.now), topic: topic)
            return follower.socket.events.count > before
        }
        await follower.follow(kept)
        #expect(try hears(kept))
        // What Redis has there is no stream of ours: its end cannot be found.
        let run = "events:run"
        try await forget(run, clinic)
        _ = try await clinic.ground.redis.send(
            ["LPUSH", .text("s1:{\(clinic.context.id)}:1:\(run)"), "x"],
            deadline: clinic.deadline)
        await follower.follow(lost)
        #expect(follower.socket.errors == ["unavailable"])
        #expect(try !hears(lost) && hears(kept))
        await follower.follow(kept)
        #expect(follower.socket.errors == ["unavailable", "unavailable"])
        #expect(try !hears(kept))
        follower.session.missed(topic: kept, upTo: try #require(EventSequence(1)))
        #expect(follower.socket.all("resync").isEmpty && follower.socket.closed == nil)
        try await forget(run, clinic)
        await follower.follow(kept, lost)
        #expect(follower.socket.all("subscribed").count == 2)
        #expect(try hears(kept) && hears(lost))
        follower.session.ended()
    }

    @Test("so many requests of a socket are done at once, and no more")
    func requestRate() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        for _ in 0..<EventSocketLimits.requestsBurst { await follower.say(["type": "ping"]) }
        #expect(follower.socket.errors.isEmpty)
        await follower.say(["type": "ping"])
        #expect(follower.socket.errors == ["rate-limited"])
        follower.session.ended()
    }

    @Test("what is no request is refused by its code, and a socket of nothing else is ended")
    func faults() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        let many = JSONValue.array(
            (0..<65).map { .string("calendar:018f0000-0000-7000-8000-\(100_000_000_000 + $0)") })
        let cases: [(JSONValue, String)] = [
            ("text", "malformed"), ([:], "malformed"), (["type": 5], "malformed"),
            (["type": "listen"], "unknown-type"),
            (["type": "subscribe"], "malformed"),
            (["type": "subscribe", "topics": []], "malformed"),
            (["type": "subscribe", "topics": ["queue:1"]], "invalid-topic"),
            (["type": "subscribe", "topics": ["patient:"]], "invalid-topic"),
            (["type": "subscribe", "topics": ["patient:x"], "afte": 1], "malformed"),
            (["type": "subscribe", "topics": ["patient:x"], "after": -1], "malformed"),
            (["type": "subscribe", "topics": ["patient:x"], "after": "1"], "malformed"),
            (["type": "subscribe", "topics": many], "too-many-topics"),
            (["type": "ping", "id": .string(String(repeating: "i", count: 65))], "malformed"),
            (["type": "listen"], "unknown-type"),
            (["type": "ping", "id": 1], "malformed"),
        ]
        let longest = JSONValue.string(String(repeating: "i", count: 64))
        await follower.say(["type": "ping", "id": longest])
        #expect(follower.socket.all("pong").last?["id"] == longest)
        for (message, code) in cases {
            await follower.say(message)
            #expect(follower.socket.errors.last == code, "\(message.text)")
        }
        await follower.session.handle(Array("{".utf8))
        #expect(follower.socket.errors.last == "malformed")
        #expect(follower.socket.closed == nil)
        for _ in 0..<100 { await follower.session.handle([0xFF]) }
        #expect(follower.socket.closed == .abuse)
        #expect(follower.socket.errors.count <= EventSocketLimits.faultsMax)
    }

    @Test("refusals are counted in a row: what is done between them begins the count anew")
    func faultsInARow() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await owner(clinic))
        // The one that is right is the last that the rate lets through.
        for _ in 1..<EventSocketLimits.faultsMax { await follower.session.handle([0xFF]) }
        await follower.say(["type": "ping"])
        #expect(follower.socket.all("pong").count == 1)
        for _ in 1..<EventSocketLimits.faultsMax { await follower.session.handle([0xFF]) }
        #expect(follower.socket.closed == nil)
        await follower.session.handle([0xFF])
        #expect(follower.socket.closed == .abuse)
    }

    @Test("topics are counted over all requests of a socket, each of them once")
    func topicsMax() async throws {
        let clinic = try await LiveClinic.make()
        var topics: [String] = []
        for number in 0...EventSocketLimits.topicsMax {
            topics.append("calendar:\(try await clinic.practitioner("Dr. \(number)"))")
        }
        let last = topics.removeLast()
        let follower = try await Follower(clinic, try await owner(clinic))
        func ask(_ type: String, _ topics: [String]) async {
            await follower.say([
                "type": .string(type), "topics": .array(topics.map { .string($0) }),
            ])
        }
        await ask("subscribe", topics)
        await ask("subscribe", [topics[0]])
        #expect(follower.socket.errors.isEmpty)
        await ask("subscribe", [last])
        #expect(follower.socket.errors == ["too-many-topics"])
        await ask("unsubscribe", [topics[0]])
        await ask("subscribe", [last])
        #expect(follower.socket.errors.count == 1)
        #expect(follower.socket.all("subscribed").count == 3)
        follower.session.ended()
    }

    @Test("who has left a topic hears it no more")
    func leaving() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let follower = try await Follower(clinic, try await owner(clinic))
        await follower.follow("calendar:\(practitioner)", "patient:\(patient)")
        await follower.say([
            "type": "unsubscribe", "id": "u",
            "topics": [
                .string(
                    "calendar:\(practitioner)".uppercased().replacing("CALENDAR", with: "calendar"))
            ],
        ])
        #expect(
            follower.socket.all("unsubscribed").first?["topics"]
                == .array([.string("calendar:\(practitioner)")]))
        try await clinic.book(clinic.draft(patient, practitioner))
        try await follower.socket.wait { follower.socket.events.count == 1 }
        #expect(follower.socket.heard == ["appointment.booked patient:\(patient)"])
    }
}
