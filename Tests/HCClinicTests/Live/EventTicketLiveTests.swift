import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite("Events: tickets, and how many sockets there are", .onLoop)
@LoopActor
struct EventTicketLiveTests {
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

    @Test("of many who present a ticket at once, one is admitted")
    func singleUse() async throws {
        let clinic = try await LiveClinic.make()
        let ticket = try await ticket(clinic, try await clinic.owner())
        let outcomes = await concurrently(20) { _ in try await redeem(ticket, clinic) }
        #expect(outcomes.count { $0.value != nil } == 1)
        #expect(
            outcomes.compactMap(\.clinicError?.code) == Array(repeating: .invalidTicket, count: 19))
    }

    @Test("a ticket lives for 30 seconds, Redis has only its hash, and the issue is recorded")
    func life() async throws {
        let clinic = try await LiveClinic.make()
        let ticket = try await ticket(clinic, try await clinic.owner())
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
        let ticket = try await ticket(home, try await home.owner())
        for text in [ticket, String(repeating: "A", count: 43), "", "x", ticket + "A"] {
            #expect(try await code { try await redeem(text, away) } == .invalidTicket)
        }
        _ = try await redeem(ticket, home)
    }

    @Test("a ticket of a session that was ended meanwhile opens nothing")
    func endedMeanwhile() async throws {
        let clinic = try await LiveClinic.make()
        let actor = try await clinic.owner()
        let ticket = try await ticket(clinic, actor)
        try await clinic.services.auth.logout(actor, in: clinic.context, deadline: clinic.deadline)
        #expect(try await code { try await redeem(ticket, clinic) } == .invalidTicket)
    }

    @Test("a ticket is good no longer than the login that it was asked for with")
    func ticketOfALoginThatEnds() async throws {
        let clinic = try await LiveClinic.make()
        let owner = try await clinic.owner()
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
        let actor = try await clinic.owner()
        var followers: [Follower] = []
        for _ in 0..<EventSocketLimits.socketsPerSessionMax {
            followers.append(try await Follower(clinic, actor))
        }
        let late = try await ticket(clinic, actor)
        #expect(try await code { try await redeem(late, clinic) } == .tooManySockets)
        followers.removeLast().session.ended()
        _ = try await Follower(clinic, actor)
    }
}
