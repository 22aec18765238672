import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP/2 connections", .onLoop)
@LoopActor
struct HTTP2ServerTests {
    private func fixture(
        clock: ManualClock? = nil,
        with changes: [@Sendable (inout HTTPServerConfiguration) -> Void] = [],
        _ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse
    ) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.http2CleartextIsEnabled = true
        for change in changes { change(&configuration) }
        return try ServerFixture(clock: clock, configuration: configuration, respond)
    }

    private func post(_ more: [(String, String)] = []) -> [(String, String)] {
        FrameBuilder.post + more
    }

    // MARK: Answers

    @Test("prior knowledge is HTTP/2 from the first byte, and the same handlers answer")
    func hello() async throws {
        let fixture = try fixture { request in
            HTTPResponse(
                .ok, headers: HTTPHeaders([("X-Version", request.version.text), (.etag, "\"1\"")]),
                body: .text("hello"))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1, FrameBuilder.get + [("x-request-id", "mine-1")]) }
        let answer = try await client.answer()
        #expect(answer.status == "200")
        #expect(answer.text == "hello")
        #expect(answer.value("x-version") == "HTTP/2")
        #expect(answer.value("etag") == "\"1\"")
        #expect(answer.value("content-length") == "5")
        #expect(answer.value("x-request-id") == "mine-1")
        #expect(answer.value("x-content-type-options") == "nosniff")
        #expect(answer.value("date")?.hasSuffix(" GMT") == true)
        #expect(answer.value("connection") == nil)
        #expect(answer.fields.allSatisfy { $0.0 == $0.0.lowercased() })
        #expect(fixture.metrics.http2.streams.value == 1)
        #expect(fixture.metrics.http2.openStreams.value == 0)
        client.close()
        await fixture.stop()
    }

    @Test("where prior knowledge is switched off the preface is refused as over HTTP/1.1")
    func switchedOff() async throws {
        let fixture = try ServerFixture { _ in HTTPResponse(.ok) }
        let client = try await fixture.connect()
        client.send(FrameBuilder.opening.bytes)
        #expect(try await client.answer()?.status == 505)
        client.close()
        await fixture.stop()
    }

    @Test("the preface is only one at the very beginning of a connection")
    func latePreface() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        _ = try await client.answers(1)
        client.send(FrameBuilder.opening.bytes)
        #expect(try await client.answers(2).last?.status == 505)
        client.close()
        await fixture.stop()
    }

    @Test("the preface may come byte by byte")
    func slowPreface() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok, body: .text("hello")) }
        let client = try await HTTP2Client.connect(fixture, FrameBuilder())
        var builder = FrameBuilder.opening
        builder.headers(1)
        for byte in builder.bytes {
            client.raw.send([byte])
            try await fixture.settle()
        }
        #expect(try await client.answer().text == "hello")
        client.close()
        await fixture.stop()
    }

    @Test("no content is END_STREAM on HEADERS: for an empty answer, HEAD, 204 and 304")
    func emptyAnswers() async throws {
        let fixture = try fixture { request in
            switch request.path {
            case "/204": HTTPResponse(.noContent, body: .text("no"))
            case "/304": HTTPResponse(.notModified, body: .text("no"))
            case "/empty": HTTPResponse(.ok)
            default: HTTPResponse(.ok, body: .text("hello"))
            }
        }
        let client = try await HTTP2Client.connect(fixture)
        func fields(_ method: String, _ path: String) -> [(String, String)] {
            [(":method", method), (":path", path)]
                + FrameBuilder.get.filter {
                    $0.0 == ":scheme" || $0.0 == ":authority"
                }
        }
        client.send {
            $0.headers(1, fields("GET", "/204"))
            $0.headers(3, fields("GET", "/304"))
            $0.headers(5, fields("GET", "/empty"))
            $0.headers(7, fields("HEAD", "/"))
        }
        let answers = try await client.answers(4)
        #expect(!client.frames.contains { $0.type == 0 })
        #expect([1, 3, 5, 7].map { answers[$0]?.status } == ["204", "304", "200", "200"])
        #expect(
            [1, 3, 5, 7].map { answers[$0]?.value("content-length") } == [nil, nil, "0", "5"])
        client.close()
        await fixture.stop()
    }

    @Test("a hundred requests at once are answered, each its own way")
    func manyStreams() async throws {
        let gate = Gate()
        let fixture = try fixture { request in
            if request.path.hasSuffix("0") { try await gate.pass() }
            return HTTPResponse(.ok, body: .bytes(Array(request.path.utf8)))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { builder in
            for index in 0..<100 {
                builder.headers(
                    UInt32(2 * index + 1),
                    FrameBuilder.get.map { $0.0 == ":path" ? ($0.0, "/\(index)") : $0 })
            }
        }
        try await client.answers(90)
        #expect(fixture.metrics.http2.openStreams.value == 10)
        gate.open()
        let answers = try await client.answers(100)
        for index in 0..<100 { #expect(answers[UInt32(2 * index + 1)]?.text == "/\(index)") }
        client.close()
        await fixture.stop()
    }

    @Test("a stream's writer waits for the client's window")
    func streamedAnswer() async throws {
        let log = Log()
        let fixture = try fixture { _ in
            HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream { writer in
                        for _ in 0..<40 {
                            try await writer.write([UInt8](repeating: 0x61, count: 10_000))
                            log.count += 1
                        }
                    }))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        try await client.wait { frames in
            frames.filter { $0.type == 0 }.map(\.payload.count).reduce(0, +) == 65_535
        }
        try await fixture.settle()
        #expect(log.count < 20, "the window and one buffer")
        client.send {
            $0.windowUpdate(0, 1 << 20)
            $0.windowUpdate(1, 1 << 20)
        }
        let answer = try await client.answer()
        #expect(answer.content.count == 400_000)
        #expect(answer.isComplete && answer.value("content-length") == nil)
        #expect(log.count == 40)
        client.close()
        await fixture.stop()
    }

    @LoopActor
    final class Log {
        var count = 0
        var errors: [String] = []
        var texts: [String] = []
    }

    @Test("a writer that throws or counts wrongly resets its stream, and no other")
    func failingWriter() async throws {
        struct Broken: Error {}
        let fixture = try fixture { request in
            guard request.path == "/" else { return HTTPResponse(.ok, body: .text("well")) }
            return HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream(count: 9) { writer in
                        try await writer.write([1, 2, 3])
                        throw Broken()
                    }))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        #expect(try await client.answer(1).resetCode == .internalError)
        client.send { $0.headers(3, FrameBuilder.get.map { $0.0 == ":path" ? ($0.0, "/b") : $0 }) }
        #expect(try await client.answer(3).text == "well")
        #expect(fixture.metrics.http2.faults(.writerFailed) == 1)
        client.close()
        await fixture.stop()
    }

    @Test("an answer with more fields than a client takes resets its stream")
    func hugeAnswer() async throws {
        let fixture = try fixture { request in
            let count = request.path == "/" ? 70_000 : 20_000
            return HTTPResponse(
                .ok, headers: HTTPHeaders([("X-Long", String(repeating: "~", count: count))]))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        #expect(try await client.answer(1).resetCode == .internalError)
        client.send { $0.headers(3, FrameBuilder.get.map { $0.0 == ":path" ? ($0.0, "/b") : $0 }) }
        try await client.wait { $0.contains { $0.type == 9 && $0.stream == 3 } }
        #expect(fixture.metrics.http2.faults(.answerTooLarge) == 1)
        client.close()
        await fixture.stop()
    }

    // MARK: Content

    @Test("content is given to the handler as it comes, and the window is opened as it is taken")
    func content() async throws {
        let gate = Gate()
        let fixture = try fixture(with: [
            {
                $0.http2.streamWindowBytes = 65_535
                $0.http2.connectionWindowBytes = 65_535
            }
        ]) { request in
            try await gate.pass()
            let content = try await request.body.collect(max: 1 << 20)
            return HTTPResponse(.ok, body: .bytes(Array("\(content.count)".utf8)))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.settingsAcknowledged()
            $0.headers(1, post(), ends: false)
            for _ in 0..<3 { $0.frame(0, stream: 1, [UInt8](repeating: 1, count: 16_384)) }
        }
        try await gate.arrivals(1)
        try await fixture.settle()
        #expect(!client.frames.contains { $0.type == 8 }, "nobody has taken anything")
        gate.open()
        try await client.wait { $0.filter { $0.type == 8 }.count >= 2 }
        client.send { $0.frame(0, flags: 1, stream: 1, [UInt8](repeating: 1, count: 16_384)) }
        #expect(try await client.answer().text == "65536")
        client.close()
        await fixture.stop()
    }

    @Test("content that a handler leaves does not take the connection's window from others")
    func leftContent() async throws {
        let gate = Gate()
        let fixture = try fixture(with: [
            {
                $0.http2.streamWindowBytes = 65_535
                $0.http2.connectionWindowBytes = 65_535
            }
        ]) { request in
            if request.path == "/" { return HTTPResponse(.ok, body: .text("enough")) }
            return HTTPResponse(
                .ok, body: .bytes(try await request.body.collect(max: 1 << 20)))
        }
        _ = gate
        let client = try await HTTP2Client.connect(fixture)
        for round in 0..<4 {
            let stream = UInt32(2 * round + 1)
            client.send {
                $0.headers(stream, post(), ends: false)
                for _ in 0..<2 { $0.frame(0, stream: stream, [UInt8](repeating: 1, count: 16_384)) }
                $0.frame(0, flags: 1, stream: stream, [UInt8](repeating: 1, count: 16_384))
            }
            #expect(try await client.answer(stream).text == "enough")
            try await client.wait { $0.filter { $0.type == 8 && $0.stream == 0 }.count > round }
        }
        client.close()
        await fixture.stop()
    }

    @Test("100 is sent when the handler asks for the content, and not otherwise")
    func expectContinue() async throws {
        let fixture = try fixture { request in
            guard request.path == "/read" else { return HTTPResponse(.ok) }
            return HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 100)))
        }
        let client = try await HTTP2Client.connect(fixture)
        let fields = post([("expect", "100-continue")])
        client.send {
            $0.headers(1, fields.map { $0.0 == ":path" ? ($0.0, "/read") : $0 }, ends: false)
            $0.headers(3, fields, ends: false)
        }
        try await client.wait { $0.contains { $0.type == 1 && $0.stream == 1 } }
        #expect(try await client.answer(3).interim.isEmpty)
        client.send { $0.data(1, "content", ends: true) }
        let answer = try await client.answer(1)
        #expect(answer.interim == ["100"])
        #expect(answer.text == "content")
        client.close()
        await fixture.stop()
    }

    @Test("an early answer stops the rest: the window stays shut, and a client that waits is told")
    func earlyAnswer() async throws {
        let clock = ManualClock()
        let fixture = try fixture(clock: clock, with: [{ $0.http1.bodyBytesMax = 1000 }]) {
            request in
            _ = try await request.body.collect(max: 10)
            return HTTPResponse(.ok)
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1, post([("content-length", "2000")]), ends: false)
            $0.headers(3, post([("content-length", "20")]), ends: false)
            $0.headers(5, post(), ends: false)
            $0.data(5, String(repeating: "x", count: 900))
            $0.data(5, String(repeating: "x", count: 900))
        }
        let answers = try await client.answers(3)
        #expect([1, 3, 5].map { answers[$0]?.status } == ["413", "413", "413"])
        #expect(answers.values.allSatisfy { $0.resetCode == nil })
        client.send { $0.data(3, String(repeating: "x", count: 20), ends: true) }
        try await fixture.settle()
        fixture.advance(by: .seconds(7))
        try await client.wait { $0.filter { $0.type == 3 }.count == 2 }
        #expect(client.answers[1]?.resetCode == .noError)
        #expect(client.answers[3]?.resetCode == nil)
        #expect(client.answers[5]?.resetCode == .noError)
        client.close()
        await fixture.stop()
    }

    @Test("a client that resets its request or goes away is no reader any more")
    func clientResets() async throws {
        let log = Log()
        let gate = Gate()
        let fixture = try fixture { request in
            do {
                _ = try await request.body.collect(max: 1000)
            } catch {
                log.errors.append("\(error)")
            }
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1, post(), ends: false)
            $0.headers(3, post(), ends: false)
        }
        try await fixture.settle()
        client.send { $0.reset(1) }
        try await gate.arrivals(1)
        #expect(fixture.metrics.http2.peerResets.value == 1)
        #expect(fixture.metrics.http2.openStreams.value == 2, "its handler is not through")
        client.close()
        try await gate.arrivals(2)
        gate.open()
        try await fixture.settle()
        #expect(log.errors == ["disconnected", "disconnected"])
        // The other's client had only sent its last.
        #expect(fixture.metrics.lateAnswers.value == 1)
        #expect(fixture.metrics.http2.openStreams.value == 0)
        await fixture.stop()
    }

    @Test("a request that is withdrawn in the same breath is never begun")
    func withdrawn() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1)
            $0.reset(1)
            $0.headers(3)
        }
        #expect(try await client.answer(3).status == "200")
        #expect(fixture.metrics.requests.value == 1)
        client.close()
        await fixture.stop()
    }

    @Test("handlers of requests that were reset count towards the limit until they are through")
    func runningHandlersCount() async throws {
        let gate = Gate()
        let fixture = try fixture(with: [{ $0.http2.concurrentStreamsMax = 2 }]) { _ in
            try await gate.pass()
            return HTTPResponse(.ok, body: .text("done"))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1)
            $0.headers(3)
        }
        try await gate.arrivals(2)
        client.send {
            $0.reset(1)
            $0.reset(3)
            $0.headers(5)
        }
        #expect(try await client.answer(5).resetCode == .refusedStream)
        #expect(gate.arrivedCount == 2)
        gate.open()
        try await fixture.settle()
        client.send { $0.headers(7) }
        #expect(try await client.answer(7).text == "done")
        client.close()
        await fixture.stop()
    }

    @Test("a client that has sent all it will is still answered")
    func halfClose() async throws {
        let gate = Gate()
        let fixture = try fixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok, body: .text("done"))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        try await gate.arrivals(1)
        client.raw.shutdownWrite()
        try await fixture.settle()
        gate.open()
        #expect(try await client.answer().text == "done")
        try await client.raw.end()
        #expect(client.goaways.count == 1)
        #expect(fixture.server.connectionCount == 0)
        client.close()
        await fixture.stop()
    }

    @Test("a broken rule ends the connection after its GOAWAY was read")
    func brokenRule() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.data(0, "x") }
        try await client.raw.end()
        #expect(client.raw.failure == nil)
        #expect(client.goaways.map(\.goawayCode) == [1])
        #expect(fixture.metrics.http2.faults(.protocolError) == 1)
        #expect(fixture.metrics.http2.goaways.value == 1)
        client.close()
        await fixture.stop()
    }

    // MARK: Tunnels

    @Test("a WebSocket runs on one stream beside requests (RFC 8441)")
    func webSocket() async throws {
        let endpoint = WebSocketEndpoint(
            WebSocketConfiguration(), metrics: WebSocketMetrics(MetricsRegistry()),
            clocks: .system
        ) { _ in
        } onEnd: { _ in
        }
        let fixture = try fixture { request in
            guard request.path == "/ws" else { return HTTPResponse(.ok, body: .text("plain")) }
            return try endpoint.accept(request, subprotocols: [], WebSocketFixture.echo)
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(
                1,
                [
                    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                    (":path", "/ws"), (":authority", "a.example"), ("sec-websocket-version", "13"),
                ], ends: false)
            $0.frame(0, stream: 1, RawFrame.text("hello").masked())
            $0.headers(3)
        }
        #expect(try await client.answer(3).text == "plain")
        try await client.wait { $0.contains { $0.type == 0 && $0.stream == 1 } }
        #expect(client.answers[1]?.status == "200")
        #expect(client.answers[1]?.value("content-length") == nil)
        #expect(client.answers[1]?.content == RawFrame.text("hello").unmasked)
        let long = String(repeating: "y", count: 60_000)
        client.send { builder in
            var rest = RawFrame.text(long).masked()[...]
            while !rest.isEmpty {
                builder.frame(0, stream: 1, Array(rest.prefix(16_000)))
                rest = rest.dropFirst(16_000)
            }
        }
        try await client.wait { frames in
            frames.filter { $0.type == 0 && $0.stream == 1 }.map(\.payload.count).reduce(0, +)
                > 60_000
        }
        client.send {
            $0.frame(0, stream: 1, RawFrame.close(1000).masked())
        }
        try await client.wait { $0.contains { $0.stream == 1 && $0.endsStream } }
        client.send { $0.frame(0, flags: 1, stream: 1) }
        try await fixture.settle()
        #expect(client.answers[1]?.resetCode == nil)
        #expect(fixture.metrics.http2.openStreams.value == 0)
        client.close()
        await fixture.stop()
    }

    @Test("a tunnel learns of a reset, and its close is one")
    func tunnelEnds() async throws {
        let fixture = try fixture { _ in
            HTTPResponse(
                .ok, body: .tunnel(HTTPTunnel { stream, _ in TestTunnel(stream) }))
        }
        TestTunnel.log = []
        let client = try await HTTP2Client.connect(fixture)
        let fields = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
            (":path", "/ws"), (":authority", "a.example"),
        ]
        client.send {
            $0.headers(1, fields, ends: false)
            $0.headers(3, fields, ends: false)
            $0.headers(5)
        }
        #expect(try await client.answer(5).resetCode == .internalError, "that was no tunnel")
        client.send {
            $0.data(1, "a")
            $0.data(3, "close")
        }
        #expect(try await client.answer(3).resetCode == .cancel)
        client.send { $0.reset(1) }
        try await fixture.settle()
        #expect(TestTunnel.log == ["a", "close", "failed"])
        client.close()
        await fixture.stop()
    }
}

/// Closes when it is told "close".
@LoopActor
private final class TestTunnel: HTTPTunnelConnection, ByteStreamDelegate {
    static var log: [String] = []
    private let stream: any ByteStream

    init(_ stream: any ByteStream) {
        self.stream = stream
        stream.start(delegate: self, reading: true)
    }

    func drain() {}
    func close() { stream.close() }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        let text = String(decoding: bytes, as: UTF8.self)
        TestTunnel.log.append(text)
        if text == "close" { stream.close() }
    }

    func streamDidReachEnd(_ stream: any ByteStream) {}
    func streamIsWritable(_ stream: any ByteStream) {}
    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        TestTunnel.log.append("failed")
    }
}
