import HCCore
import HCIO
import HCRedis
import HCTenancy
import HCTesting
import Testing

@testable import HCClinic

/// A socket that keeps what is sent.
@LoopActor
final class TestSocket: EventSocket {
    private(set) var messages: [JSONValue] = []
    private(set) var closed: EventCloseReason?
    /// Called in the middle of a request that is refused in part.
    var onError: @LoopActor () -> Void = {}
    private var waiters: [(condition: @LoopActor () -> Bool, waiter: Waiter<Void>)] = []

    func send(_ text: ByteBuffer) {
        #expect(closed == nil, "nothing is sent after the end")
        do {
            messages.append(try JSONReader.parse(text.bytes))
        } catch {
            Issue.record("no JSON: \(text.string)")
        }
        if messages.last?["type"]?.asString == "error" { onError() }
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
        try await waiter.wait(until: .after(.seconds(30), from: Loop.now))
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
struct Follower {
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

extension LiveClinic {
    func owner() async throws -> Actor { try await admit(try await login().accessToken) }

    /// As after a restart of Redis: whoever is asked about is looked up on the shard.
    func forget(_ name: String) async throws {
        _ = try await ground.redis.send(
            ["DEL", .text("s1:{\(context.id)}:1:\(name)")], deadline: deadline)
    }

    /// What Redis has there is no stream of ours: its end cannot be found, until the name is forgotten again.
    func breakStream() async throws -> String {
        let name = "events:run"
        try await forget(name)
        _ = try await ground.redis.send(
            ["LPUSH", .text("s1:{\(context.id)}:1:\(name)"), "x"], deadline: deadline)
        return name
    }

    /// Whether the clinic's stream is read for anybody.
    var isRead: Bool { ground.door.events?.position(of: context.id) != nil }
}

extension TenantEvent {
    static func made(_ name: String, _ topic: String, at time: Timestamp) throws -> TenantEvent {
        TenantEvent(
            id: UUID(high: 1, low: 1), sequence: try #require(EventSequence(1)), name: name,
            topics: [topic], entity: .zero, version: 1, at: time)
    }
}
