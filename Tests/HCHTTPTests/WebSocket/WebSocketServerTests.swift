import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("WebSocket over real sockets", .onLoop)
@LoopActor
struct WebSocketServerTests {
    @Test("the handshake of RFC 6455 1.3 is answered as it says")
    func handshake() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        let answer = try #require(client.answer)
        #expect(answer.status == 101)
        #expect(answer.value("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        #expect(answer.value("Upgrade") == "websocket")
        #expect(answer.values("Connection") == ["Upgrade"])
        #expect(answer.value("Content-Length") == nil)
        #expect(answer.value("Sec-WebSocket-Extensions") == nil)
        client.raw.close()
        await fixture.stop()
    }

    @Test("messages come back, also those that came with the handshake")
    func echo() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open(sending: RawFrame.text("first").masked())
        client.send(.text(""), .binary([0, 255]), .text("Grüße"))
        let large = RawFrame.binary((0..<60_000).map { UInt8(truncatingIfNeeded: $0) })
        client.send(large)
        #expect(
            try await client.frames(5)
                == [.text("first"), .text(""), .binary([0, 255]), .text("Grüße"), large])
        client.send(.close(1000))
        #expect(try await client.rest().last == .close(1000))
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.peer])
        await fixture.stop()
    }
}
