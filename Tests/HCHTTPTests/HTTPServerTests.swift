import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP server over real sockets", .onLoop)
@LoopActor
struct HTTPServerTests {
    private func echo() throws -> ServerFixture {
        try ServerFixture { request in
            let content = try await request.body.collect(max: 1 << 20)
            let text = "\(request.method.name) \(request.host) \(request.path) "
            return HTTPResponse(.ok, body: .bytes(Array(text.utf8) + content))
        }
    }

    @Test("an answer has its length, date, request id and security fields")
    func plainAnswer() async throws {
        let fixture = try echo()
        let answer = try #require(
            try await fixture.send(
                "GET /a HTTP/1.1\r\nHost: Sunrise\r\nX-Request-Id: abc-1\r\n\r\n"))
        #expect(answer.status == 200)
        #expect(answer.content == "GET sunrise /a ")
        #expect(answer.value("X-Request-Id") == "abc-1")
        #expect(answer.value("Date")?.hasSuffix(" GMT") == true)
        #expect(answer.value("X-Content-Type-Options") == "nosniff")
        #expect(answer.values("Content-Length") == ["15"])
        #expect(answer.value("Connection") == nil)
        await fixture.stop()
    }

    @Test("a request id that is not a short word is replaced")
    func requestID() async throws {
        let fixture = try echo()
        let answer = try #require(
            try await fixture.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\r\n\r\n"))
        let id = try #require(answer.value("X-Request-Id"))
        #expect(UUID(id) != nil)
        await fixture.stop()
    }

    @Test("a thousand pipelined requests are answered in order")
    func pipelining() async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send((0..<1000).map { "GET /\($0) HTTP/1.1\r\nHost: a\r\n\r\n" }.joined())
        let answers = try await client.answers(1000)
        #expect(answers.map(\.content) == (0..<1000).map { "GET a /\($0) " })
        client.close()
        await fixture.stop()
    }

    @Test("pipelined requests wait for a handler that waits, and both kinds are answered in order")
    func pipeliningBehindAWait() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            if request.path == "/slow" { try await gate.pass() }
            return HTTPResponse(.ok, body: .bytes(Array(request.path.utf8)))
        }
        let client = try await fixture.connect()
        client.send(
            ["/a", "/slow", "/b", "/c"].map { "GET \($0) HTTP/1.1\r\nHost: a\r\n\r\n" }.joined())
        try await gate.arrivals(1)
        let before = try await client.answers(1)
        #expect(before.map(\.content) == ["/a"])
        gate.open()
        #expect(try await client.answers(4).map(\.content) == ["/a", "/slow", "/b", "/c"])
        client.close()
        await fixture.stop()
    }

    @Test("a half-closed client gets every answer")
    func halfClose() async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdownWrite()
        try await client.end()
        #expect(RawAnswer.parse(client.received).map(\.content) == ["GET a /1 ", "GET a /2 "])
        #expect(client.failure == nil)
        await fixture.stop()
    }

    @Test("HEAD has the length of GET and no content; the connection goes on")
    func head() async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n")
        try await client.wait { RawAnswer.parse($0.received, heads: [0]).count == 2 }
        let answers = RawAnswer.parse(client.received, heads: [0])
        #expect(answers[0].value("Content-Length") == "10")
        #expect(answers[1].content == "GET a /y ")
        client.close()
        await fixture.stop()
    }

    @Test(
        "a HEAD that is refused has no content either, whatever is wrong with it",
        arguments: [
            ("HEAD / HTTP/1.1\r\n\r\n", 400), ("HEAD / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
            ("HEAD a HTTP/1.1\r\nHost: a\r\n\r\n", 400), ("\r\nHEAD / HTTP/9.9\r\n\r\n", 505),
            ("HEAD /\(String(repeating: "a", count: 9000)) HTTP/1.1\r\n", 414),
            (
                "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                400
            ),
        ])
    func refusedHead(request: String, status: Int) async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send(request)
        try await client.end()
        let answer = RawAnswer.parse(client.received, heads: [0]).first
        #expect(answer?.status == status)
        #expect(answer?.value("Content-Length").flatMap { Int($0) }.map { $0 > 0 } == true)
        #expect(client.text.hasSuffix("\r\n\r\n"))
        client.close()
        await fixture.stop()
    }

    @Test("204 and 304 have neither content nor length")
    func withoutContent() async throws {
        let fixture = try ServerFixture { request in
            HTTPResponse(request.path == "/204" ? .noContent : .notModified, body: .text("no"))
        }
        let client = try await fixture.connect()
        client.send("GET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\n")
        let answers = try await client.answers(2)
        #expect(answers.map(\.status) == [204, 304])
        #expect(answers.allSatisfy { $0.value("Content-Length") == nil && $0.content.isEmpty })
        #expect(!client.text.contains("\r\n\r\nno"))
        client.close()
        await fixture.stop()
    }

    @Test("an HTTP/1.0 client is served and left, unless it asks to stay")
    func http10() async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        let answers = try await client.answers(1)
        #expect(answers[0].value("Connection") == "keep-alive")
        client.send("GET / HTTP/1.0\r\n\r\n")
        try await client.end()
        #expect(RawAnswer.parse(client.received).last?.value("Connection") == "close")
        await fixture.stop()
    }

    @Test("a chunked content is read, and a stream is sent in chunks, or until the end to HTTP/1.0")
    func chunkedBothWays() async throws {
        let fixture = try ServerFixture { request in
            let content = try await request.body.collect(max: 100)
            return HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream { writer in
                        for byte in content { try await writer.write([byte]) }
                    }))
        }
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in ["3\r\nab", "c\r\n", "2\r", "\nde\r\n0\r\n\r", "\n"] { client.send(piece) }
        let answer = try #require(try await client.answer())
        #expect(answer.content == "abcde")
        #expect(answer.value("Transfer-Encoding") == "chunked")
        client.send("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nxyz")
        try await client.end()
        #expect(client.text.hasSuffix("\r\n\r\nxyz"))
        await fixture.stop()
    }

    @Test("100 (Continue) is sent when the handler asks for the content, not before")
    func expectContinue() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            try await gate.pass()
            if request.path == "/refuse" { return HTTPResponse(.forbidden) }
            return HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 10)))
        }
        let client = try await fixture.connect()
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        try await gate.arrivals(1)
        #expect(client.received.isEmpty)
        gate.open()
        try await client.wait { $0.text.hasSuffix("100 Continue\r\n\r\n") }
        client.send("abc")
        let answers = try await client.answers(2)
        #expect(answers.map(\.status) == [100, 200])
        #expect(answers[1].content == "abc")

        client.send(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        try await client.end()
        let last = try #require(RawAnswer.parse(client.received).last)
        #expect(last.status == 403)
        #expect(last.value("Connection") == "close")
        await fixture.stop()
    }

    @Test("a violation gets its problem document, is counted, and ends the connection in peace")
    func refusal() async throws {
        let fixture = try echo()
        let client = try await fixture.connect()
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(String(repeating: "x", count: 200_000))
        try await client.end()
        #expect(client.failure == nil)
        let answer = try #require(RawAnswer.parse(client.received).first)
        #expect(answer.status == 400)
        #expect(answer.value("Content-Type") == "application/problem+json")
        #expect(answer.value("X-Frame-Options") == "DENY")
        #expect(answer.value("Connection") == "close")
        let id = try #require(answer.value("X-Request-Id"))
        #expect(
            answer.content == """
                {"type":"urn:hc:problem:length-with-transfer-coding","title":"Bad Request",\
                "status":400,"code":"length-with-transfer-coding","requestId":"\(id)"}
                """)
        #expect(fixture.metrics.refusals(.lengthWithTransferCoding) == 1)
        await fixture.stop()
    }

    @Test("an announced content above the limit is 413 before it is read; the answer is not lost")
    func contentTooLarge() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.http1.bodyBytesMax = 1000
        let fixture = try ServerFixture(configuration: configuration) { request in
            HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 10_000)))
        }
        let announced = try await fixture.connect()
        announced.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        announced.send([UInt8](repeating: 0x61, count: 1_000_000))
        try await announced.end()
        #expect(announced.failure == nil)
        #expect(RawAnswer.parse(announced.received).map(\.status) == [413])

        let counted = try await fixture.connect()
        counted.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in 0..<3 { counted.send("190\r\n\(String(repeating: "b", count: 400))\r\n") }
        try await counted.end()
        #expect(counted.failure == nil)
        #expect(RawAnswer.parse(counted.received).map(\.status) == [413])
        await fixture.stop()
    }

    @Test("a small content that nobody read is thrown away; behind a large one the connection ends")
    func unreadContent() async throws {
        let fixture = try ServerFixture { _ in HTTPResponse(.ok, body: .text("ok")) }
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        #expect(try await client.answers(1).count == 1)
        client.send(String(repeating: "x", count: 5000) + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try await client.answers(2).allSatisfy { $0.value("Connection") == nil })
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n")
        try await client.end()
        #expect(RawAnswer.parse(client.received).last?.value("Connection") == "close")
        #expect(client.failure == nil)
        await fixture.stop()
    }

    @Test("a handler that does not read holds the client back")
    func bodyBackPressure() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            try await gate.pass()
            var count = 0
            while let chunk = try await request.body.nextChunk() { count += chunk.count }
            return HTTPResponse(.ok, body: .bytes(Array("\(count)".utf8)))
        }
        let client = try await fixture.connect()
        let count = 32 << 20
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(count)\r\n\r\n")
        client.send([UInt8](repeating: 0x61, count: count))
        try await gate.arrivals(1)
        for _ in 0..<200 { await Task.yield() }
        // What is gone is in the kernel's buffers and in one read of ours.
        #expect(client.unsentCount > count / 2)
        gate.open()
        #expect(try await client.answer()?.content == "\(count)")
        client.close()
        await fixture.stop()
    }

    @Test("a client that does not read holds a stream's writer back")
    func streamBackPressure() async throws {
        var written = 0
        let piece = [UInt8](repeating: 0x62, count: 16 << 10)
        let total = 4000 * piece.count
        let counter = WrittenCounter()
        let fixture = try ServerFixture { _ in
            HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream(count: total) { writer in
                        for _ in 0..<4000 {
                            try await writer.write(piece)
                            counter.count += piece.count
                        }
                    }))
        }
        let client = try await fixture.connect(reading: false)
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in 0..<1000 {
            await Task.yield()
            written = counter.count
        }
        #expect(written < total / 2)
        client.setReading(true)
        try await client.wait { $0.received.count > total }
        #expect(counter.count == total)
        client.close()
        await fixture.stop()
    }

    @Test("a stream that breaks its promise or fails cuts the connection")
    func brokenStream() async throws {
        let fixture = try ServerFixture { request in
            HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream(count: request.path == "/short" ? 10 : nil) { writer in
                        try await writer.write([0x61])
                        if request.path == "/throw" { throw Problem.internalError }
                    }))
        }
        for path in ["/short", "/throw"] {
            let client = try await fixture.connect()
            client.send("GET \(path) HTTP/1.1\r\nHost: a\r\n\r\n")
            try await client.end()
            #expect(RawAnswer.parse(client.received).isEmpty)
        }
        await fixture.stop()
    }

    @Test("a content that ends early reaches nobody as whole")
    func shortContent() async throws {
        let failures = WrittenCounter()
        let fixture = try ServerFixture { request in
            do {
                return HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 100)))
            } catch is RequestBodyError {
                failures.count += 1
                return HTTPResponse(.badRequest)
            }
        }
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        client.shutdownWrite()
        try await client.end()
        #expect(!client.text.contains("200 OK"))
        await fixture.stop()
    }
}

@LoopActor
final class WrittenCounter {
    var count = 0
}
