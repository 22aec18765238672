import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite("Events: sockets end with the logins that opened them", .onLoop)
@LoopActor
struct EventLoginLiveTests {
    @Test("a revoked session hears nothing more, whoever revoked it and whether the cache knew it")
    func revoked() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let witness = try await Follower(clinic, try await clinic.owner())
        await witness.follow("calendar:\(practitioner)")
        for (number, knows) in [true, false].enumerated() {
            let actor = try await clinic.owner()
            let follower = try await Follower(clinic, actor)
            await follower.follow("calendar:\(practitioner)", "patient:\(patient)")
            try await clinic.services.auth.logout(
                actor, in: clinic.context, deadline: clinic.deadline)
            if !knows, let session = actor.sessionID {
                try await clinic.forget("session:\(session)")
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
        let actor = try await clinic.owner()
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
        let actor = try await clinic.owner()
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
        try await clinic.forget("session:\(try #require(actor.sessionID))")
        await clinic.services.events.review([follower.session], of: tenant)
        #expect(follower.socket.closed == .sessionEnded)
        #expect(clinic.services.events.socketCount == 0)
    }

    @Test("whose login cannot be looked at is told to come again, and given nothing meanwhile")
    func unknownLogin() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await clinic.owner()
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
        try await clinic.forget("session:\(try #require(actor.sessionID))")
        await clinic.services.events.review([follower.session], of: tenant)
        #expect(follower.socket.closed == .tryAgainLater)
        #expect(clinic.services.events.socketCount == 0)
        follower.session.receive(
            try .made("appointment.booked", topic, at: clinic.clock.now), topic: topic)
        #expect(follower.socket.events.isEmpty)
    }

    @Test("a clinic that this process knows to be closed loses its sockets without an event")
    func suspendedMeanwhile() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await clinic.owner())
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
        let actor = try await clinic.owner()
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
        let actor = try await clinic.owner()
        let nurse = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        let follower = try await Follower(clinic, actor)
        let session = try #require(actor.sessionID)
        let account = try #require(nurse.accountID)
        _ = try await clinic.psql(
            """
            UPDATE session SET account_id = '\(account)'
            WHERE tenant_id = '\(clinic.context.id)' AND id = '\(session)'
            """)
        try await clinic.forget("session:\(session)")
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
        let witness = try await Follower(clinic, try await clinic.owner())
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
        let follower = try await Follower(clinic, try await clinic.owner())
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
        let actor = try await clinic.owner()
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
}
