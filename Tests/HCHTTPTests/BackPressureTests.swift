import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("What a client and a handler do not take waits where it is", .onLoop)
@LoopActor
struct BackPressureTests {
    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test("content waits with the client while the handler does not ask for it")
    func content() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            try await gate.pass()
            let count = try await request.body.collect(max: 1 << 20).count
            return HTTPResponse(.ok, body: .bytes(Array("\(count) taken".utf8)))
        }
        let kept = fixture.server.configuration.bodyBufferBytesMax
        let stream = SippingStream()
        fixture.serve(stream)
        stream.give("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(2 * kept)\r\n\r\n")
        try await gate.arrivals(1)
        stream.give([UInt8](repeating: 0x61, count: kept - 1))
        #expect(stream.isReading)
        stream.give([0x61])
        #expect(!stream.isReading)
        gate.open()
        try await Loop.shared.wait { stream.isReading }
        stream.give([UInt8](repeating: 0x61, count: kept))
        stream.sip(1 << 20)
        try await Loop.shared.wait { stream.takenCount > 0 }
        #expect(stream.isReading)
        stream.leave()
        await fixture.stop()
    }

    @Test("further requests wait with the client while one is answered")
    func pipeline() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let stream = SippingStream()
        stream.sip(1 << 20)
        fixture.serve(stream)
        stream.give(Self.get)
        try await gate.arrivals(1)
        let count = fixture.server.configuration.pipelineBytesMax / Self.get.utf8.count + 1
        stream.give(String(repeating: Self.get, count: count))
        #expect(!stream.isReading)
        #expect(gate.arrivedCount == 1)
        gate.open()
        try await gate.arrivals(1 + count)
        #expect(stream.isReading)
        stream.leave()
        await fixture.stop()
    }

    @Test("no further request is begun while the client does not take its answers")
    func answers() async throws {
        let responder = ReadyResponder()
        let fixture = try ServerFixture(responder: responder)
        let stream = SippingStream()
        fixture.serve(stream)
        stream.give(String(repeating: Self.get, count: 50))
        #expect((1...2).contains(responder.count))
        stream.sip(8 << 20)
        try await Loop.shared.wait { responder.count == 50 }
        stream.leave()
        await fixture.stop()
    }

    @Test("a client of HTTP/2 that asks and does not read is not read")
    func heads() async throws {
        let responder = ReadyResponder(bodyBytes: 0)
        let fixture = try ServerFixture(responder: responder)
        let stream = SippingStream()
        fixture.serve(stream, using: .http2)
        stream.give(FrameBuilder.opening.bytes)
        // No window holds back the heads of answers.
        for number in 0..<5000 where stream.isReading {
            var builder = FrameBuilder()
            builder.headers(UInt32(2 * number + 1))
            stream.give(builder.bytes)
        }
        #expect(!stream.isReading)
        stream.sip(8 << 20)
        try await Loop.shared.wait { stream.isReading }
        stream.leave()
        await fixture.stop()
    }

    /// Answers at once, with more than may wait for a client, unless it is told otherwise.
    @LoopActor
    private final class ReadyResponder: HTTPResponder {
        private let bodyBytes: Int
        private(set) var count = 0

        init(bodyBytes: Int = 65 << 10) {
            self.bodyBytes = bodyBytes
        }

        func answer(_ request: HTTPRequest) -> HTTPAnswer {
            count += 1
            return .ready(
                HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: bodyBytes))))
        }
    }

    @Test("who makes content waits for the client", arguments: [HTTPWireProtocol.http1, .http2])
    func writer(wireProtocol: HTTPWireProtocol) async throws {
        let pieces = Pieces()
        let fixture = try ServerFixture { _ in
            HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream { writer in
                        while pieces.written < 64 {
                            try await writer.write([UInt8](repeating: 0x61, count: 32 << 10))
                            pieces.written += 1
                        }
                    }))
        }
        let stream = SippingStream()
        fixture.serve(stream, using: wireProtocol)
        if wireProtocol == .http2 {
            stream.sip(64 << 10)
            var opening = FrameBuilder.opening
            opening.headers(1)
            stream.give(opening.bytes)
        } else {
            stream.give(Self.get)
        }
        try await Loop.shared.wait { pieces.written > 0 }
        for _ in 0..<10 { try await Loop.shared.lookAround() }
        #expect(pieces.written < 12)
        stream.sip(8 << 20)
        if wireProtocol == .http2 {
            var update = FrameBuilder()
            update.windowUpdate(0, 8 << 20)
            update.windowUpdate(1, 8 << 20)
            stream.give(update.bytes)
        }
        try await Loop.shared.wait { pieces.written == 64 }
        stream.leave()
        await fixture.stop()
    }

    @LoopActor
    private final class Pieces {
        var written = 0
    }

    @Test(
        "a client that does not end its side after the last answer has so long",
        arguments: [HTTPWireProtocol.http1, .http2])
    func lingerTime(wireProtocol: HTTPWireProtocol) async throws {
        let fixture = try ServerFixture(clock: ManualClock()) { _ in HTTPResponse(.ok) }
        let stream = SippingStream()
        stream.sip(1 << 20)
        fixture.serve(stream, using: wireProtocol)
        stream.give("NO REQUEST, AND NO PREFACE\r\n\r\n")
        #expect(stream.isWriteShut)
        fixture.advance(by: fixture.server.configuration.lingerTimeout - .seconds(1))
        #expect(!stream.isClosed)
        fixture.advance(by: .seconds(3))
        #expect(stream.isClosed)
        #expect(fixture.metrics.timeouts(.linger) == 1)
        await fixture.stop()
    }

    @Test(
        "of a client that goes on after the last answer so much is thrown away",
        arguments: [HTTPWireProtocol.http1, .http2])
    func linger(wireProtocol: HTTPWireProtocol) async throws {
        let fixture = try ServerFixture { _ in HTTPResponse(.ok) }
        let stream = SippingStream()
        stream.sip(1 << 20)
        fixture.serve(stream, using: wireProtocol)
        stream.give("NO REQUEST, AND NO PREFACE\r\n\r\n")
        #expect(stream.isWriteShut)
        let piece = [UInt8](repeating: 0x61, count: 64 << 10)
        for _ in 0..<fixture.server.configuration.lingerBytesMax / piece.count {
            stream.give(piece)
        }
        #expect(!stream.isClosed)
        stream.give(piece)
        #expect(stream.isClosed)
        await fixture.stop()
    }
}
