import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("WebSocket timeouts", .onLoop)
@LoopActor
struct WebSocketTimeoutTests {
    @Test("a silent client is pinged, and kept as long as it answers")
    func ping() async throws {
        let fixture = try WebSocketFixture(clock: ManualClock())
        let client = try await fixture.open()
        for round in 1...3 {
            fixture.advance(by: .seconds(32))
            #expect(try await client.frames(round).count == round)
            #expect(client.frames.last == .ping())
            client.send(.pong())
            client.send(.text("\(round)"))
            // The echo shows that the pong was seen before time goes on.
            try await client.raw.wait { _ in client.frames.last == .text("\(round)") }
            client.raw.forget(RawFrame.text("\(round)").unmasked)
        }
        fixture.advance(by: .seconds(29))
        #expect(fixture.endpoint.count == 1)
        client.raw.close()
        await fixture.stop()
    }

    @Test("sockets that come and go leave nothing behind to be looked at")
    func churn() async throws {
        let fixture = try WebSocketFixture(clock: ManualClock())
        for number in 1...50 {
            let client = try await fixture.open()
            client.send(.close(1000))
            #expect(try await client.rest().last?.closeCode == 1000)
            client.raw.close()
            #expect(try await fixture.endings(number).count == number)
        }
        #expect(fixture.endpoint.count == 0)
        #expect(fixture.endpoint.armedCount <= 2)
        let last = try await fixture.open()
        fixture.advance(by: .seconds(32))
        #expect(try await last.frames(1) == [.ping()])
        last.raw.close()
        await fixture.stop()
    }

    @Test("a client that answers no ping is gone")
    func silence() async throws {
        let fixture = try WebSocketFixture(clock: ManualClock())
        let client = try await fixture.open()
        fixture.advance(by: .seconds(32))
        #expect(try await client.frames(1) == [.ping()])
        fixture.advance(by: .seconds(18))
        #expect(fixture.endpoint.count == 1)
        fixture.advance(by: .seconds(4))
        #expect(try await fixture.endings().map(\.kind) == [.silent])
        #expect(try await client.rest().last?.closeCode == 1011)
        client.raw.close()
        await fixture.stop()
    }

    @Test("a client that does not answer our good-bye is cut")
    func unanswered() async throws {
        let fixture = try WebSocketFixture(clock: ManualClock()) { $0.close(.normal) }
        let client = try await fixture.open()
        _ = try await client.frames(1)
        fixture.advance(by: .seconds(4))
        #expect(fixture.endpoint.count == 1)
        fixture.advance(by: .seconds(3))
        #expect(try await fixture.endings().map(\.kind) == [.unanswered])
        try await client.raw.end()
        client.raw.close()
        await fixture.stop()
    }

    @Test("a handler has its time with what came before a good-bye, and no more")
    func busyHandler() async throws {
        let gate = Gate()
        let fixture = try WebSocketFixture(clock: ManualClock()) { socket in
            _ = try await socket.receive()
            try await gate.pass()
        }
        let client = try await fixture.open()
        client.send(.text("work"), .close(1000))
        try await gate.arrivals(1)
        fixture.advance(by: .seconds(4))
        #expect(client.frames.isEmpty)
        fixture.advance(by: .seconds(3))
        #expect(try await client.rest() == [.close(1000)])
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.peer])
        gate.open()
        await fixture.stop()
    }

    @Test("a client that keeps its side open after the good-byes is cut")
    func lingering() async throws {
        let fixture = try WebSocketFixture(clock: ManualClock())
        let client = try await fixture.open()
        client.send(.close(1000))
        _ = try await client.rest()
        #expect(fixture.endpoint.count == 1)
        fixture.advance(by: .seconds(7))
        #expect(try await fixture.endings().map(\.kind) == [.peer])
        #expect(fixture.fixture.server.connectionCount == 0)
        client.raw.close()
        await fixture.stop()
    }

    @Test("a client that takes nothing for too long is cut")
    func stalled() async throws {
        let block = WebSocketMessage(binary: [UInt8](repeating: 7, count: 256 << 10))
        var sent = 0
        let fixture = try WebSocketFixture(clock: ManualClock()) { socket in
            while true {
                try await socket.send(block)
                sent += 1
            }
        }
        let client = WebSocketClient(try await fixture.fixture.connect(reading: false))
        client.raw.send(WebSocketFixture.handshake())
        try await fixture.settled { sent }
        fixture.advance(by: .seconds(28))
        #expect(fixture.endpoint.count == 1)
        fixture.advance(by: .seconds(4))
        #expect(try await fixture.endings().map(\.kind) == [.stalled])
        client.raw.close()
        await fixture.stop()
    }

    @Test("HTTP's own timeouts do not end a socket")
    func notHTTPs() async throws {
        let clock = ManualClock()
        var configuration = WebSocketConfiguration()
        configuration.pingInterval = .seconds(3600)
        let fixture = try WebSocketFixture(clock: clock, configuration: configuration)
        let client = try await fixture.open()
        fixture.fixture.advance(by: .seconds(1000))
        client.send(.text("there"))
        #expect(try await client.frames(1) == [.text("there")])
        client.raw.close()
        await fixture.stop()
    }
}
