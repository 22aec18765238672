import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

@Suite("Events: what a socket asks for and is told", .onLoop)
@LoopActor
struct EventProtocolLiveTests {
    @Test("a topic that nobody asked for is not told, nor an event that nobody knows")
    func strangeEvents() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await clinic.owner())
        let patient = try await clinic.register()
        let topic = "patient:\(patient)"
        func tell(_ name: String) throws {
            follower.session.receive(
                try .made(name, topic, at: clinic.clock.now), topic: topic)
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
        let follower = try await Follower(clinic, try await clinic.owner())
        let kept = "calendar:\(try await clinic.practitioner())"
        let lost = "patient:\(try await clinic.register())"
        func hears(_ topic: String) throws -> Bool {
            let before = follower.socket.events.count
            follower.session.receive(
                try .made("appointment.booked", topic, at: clinic.clock.now), topic: topic)
            return follower.socket.events.count > before
        }
        await follower.follow(kept)
        #expect(try hears(kept))
        let run = try await clinic.breakStream()
        await follower.follow(lost)
        #expect(follower.socket.errors == ["unavailable"])
        #expect(try !hears(lost) && hears(kept))
        await follower.follow(kept)
        #expect(follower.socket.errors == ["unavailable", "unavailable"])
        #expect(try !hears(kept))
        #expect(!clinic.isRead)
        follower.session.missed(topic: kept, upTo: try #require(EventSequence(1)))
        #expect(follower.socket.all("resync").isEmpty && follower.socket.closed == nil)
        try await clinic.forget(run)
        await follower.follow(kept, lost)
        #expect(follower.socket.all("subscribed").count == 2)
        #expect(try hears(kept) && hears(lost))
        follower.session.ended()
    }

    @Test("what cannot be done for our own fault is none of the client's")
    func unavailableIsNoFault() async throws {
        let clinic = try await LiveClinic.make()
        let topic = "calendar:\(try await clinic.practitioner())"
        let witness = try await Follower(clinic, try await clinic.owner())
        await witness.follow(topic)
        let follower = try await Follower(clinic, try await clinic.owner())
        for _ in 1..<EventSocketLimits.faultsMax { await follower.session.handle([0xFF]) }
        let run = try await clinic.breakStream()
        await follower.follow(topic)
        try await clinic.forget(run)
        #expect(follower.socket.errors.last == "unavailable")
        #expect(follower.socket.closed == nil)
        await follower.session.handle([0xFF])
        #expect(follower.socket.closed == .abuse)
        witness.session.ended()
    }

    @Test("so many requests of a socket are done at once, and no more")
    func requestRate() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await clinic.owner())
        for _ in 0..<EventSocketLimits.requestsBurst { await follower.say(["type": "ping"]) }
        #expect(follower.socket.errors.isEmpty)
        await follower.say(["type": "ping"])
        #expect(follower.socket.errors == ["rate-limited"])
        follower.session.ended()
    }

    @Test("what is no request is refused by its code, and a socket of nothing else is ended")
    func faults() async throws {
        let clinic = try await LiveClinic.make()
        let follower = try await Follower(clinic, try await clinic.owner())
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
            (["type": "unsubscribe", "topics": many], "too-many-topics"),
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
        let follower = try await Follower(clinic, try await clinic.owner())
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
        let follower = try await Follower(clinic, try await clinic.owner())
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

    @Test("a topic that is named twice is followed once; who follows none has no place")
    func namedTwice() async throws {
        let clinic = try await LiveClinic.make()
        let topic = "calendar:\(try await clinic.practitioner())"
        let follower = try await Follower(clinic, try await clinic.owner())
        await follower.follow(topic, topic)
        #expect(
            follower.socket.all("subscribed").map { $0["topics"] } == [.array([.string(topic)])])
        let other = try await Follower(clinic, try await clinic.owner())
        for socket in [follower, other] { await socket.say(["type": "ping"]) }
        #expect(follower.socket.all("pong").first?["sequence"]?.asInteger != nil)
        #expect(other.socket.all("pong").first?["sequence"] == nil)
        for socket in [follower, other] { socket.session.ended() }
    }

    @Test("who goes in the middle of a request follows nothing")
    func goneMeanwhile() async throws {
        let clinic = try await LiveClinic.make()
        let topic = "calendar:\(try await clinic.practitioner())"
        let nobody = clinic.services.dependencies.makeUUID()
        let follower = try await Follower(clinic, try await clinic.owner())
        follower.socket.onError = { follower.session.ended() }
        await follower.follow("patient:\(nobody)", topic)
        #expect(follower.socket.errors == ["not-found"])
        #expect(!clinic.isRead)
        #expect(clinic.services.events.socketCount == 0)
    }

    @Test("nothing is read for who has left every topic, has gone, or may follow none any more")
    func unread() async throws {
        let clinic = try await LiveClinic.make()
        let topic = "calendar:\(try await clinic.practitioner())"
        let actor = try await clinic.staff(.nurse, email: "nurse@clinic.example")
        func follow() async throws -> Follower {
            #expect(!clinic.isRead)
            let follower = try await Follower(clinic, actor)
            await follower.follow(topic)
            #expect(clinic.isRead)
            return follower
        }
        let leaving = try await follow()
        await leaving.say(["type": "unsubscribe", "topics": .array([.string(topic)])])
        let gone = try await follow()
        gone.session.ended()
        let barred = try await follow()
        barred.session.renew(RoleSet(names: ["none"]))
        #expect(!clinic.isRead)
        barred.session.missed(topic: topic, upTo: try #require(EventSequence(1)))
        #expect(barred.socket.all("resync").isEmpty)
        for socket in [leaving, barred] { socket.session.ended() }
    }

    @Test("who has left a topic hears it no more")
    func leaving() async throws {
        let clinic = try await LiveClinic.make()
        let patient = try await clinic.register()
        let practitioner = try await clinic.practitioner()
        let follower = try await Follower(clinic, try await clinic.owner())
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
