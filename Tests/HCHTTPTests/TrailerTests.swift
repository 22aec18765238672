import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

/// Fields behind the content (RFC 9110 6.5).
@Suite("trailers", .onLoop)
@LoopActor
struct TrailerTests {
    private static let checksum: HTTPFieldName = "X-Checksum"

    /// Answers what `content` says, and behind it a checksum, what was not announced, and what may not be there.
    private func fixture(
        _ content: String = "content", count: Int? = nil, status: HTTPStatus = .ok
    ) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.http2CleartextIsEnabled = true
        return try ServerFixture(configuration: configuration) { _ in
            HTTPResponse(
                status,
                body: .stream(
                    ResponseStream(
                        count: count, trailers: [Self.checksum, .setCookie, "Age", .etag]
                    ) { writer in
                        try await writer.write(Array(content.utf8))
                        return HTTPHeaders([
                            (Self.checksum, "1\r\nX-Injected: 1"), ("X-Other", "2"),
                            (.setCookie, "a=b"), ("Age", "3"), (.etag, "\"4\""),
                        ])
                    }))
        }
    }

    private func names(_ fields: [(String, String)]) -> [String] { fields.map { $0.0 } }

    // MARK: Answers over HTTP/1

    @Test(
        "a client that wants trailers gets those that were announced and may be there",
        arguments: [nil, 7] as [Int?])
    func chunked(_ count: Int?) async throws {
        let fixture = try fixture(count: count)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        let answer = try #require(try await client.answer())
        #expect(answer.values("Transfer-Encoding") == ["chunked"])
        #expect(answer.value("Content-Length") == nil)
        #expect(answer.values("Trailer") == ["X-Checksum, ETag"])
        #expect(answer.content == "content")
        #expect(names(answer.trailers) == ["X-Checksum", "ETag"])
        #expect(answer.trailers.first?.1 == "1  X-Injected: 1")
        // The connection goes on behind them.
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: deflate, Trailers\r\n\r\n")
        #expect(try await client.answers(2).last?.trailers.count == 2)
        client.close()
        await fixture.stop()
    }

    @Test(
        "what a client acts on when the head is there is never named, in whatever case",
        arguments: [
            "Content-Length", "transfer-encoding", "SET-COOKIE", "Age", "clear-site-data",
            "Access-Control-Allow-Origin", "access-control-anything", "Strict-Transport-Security",
        ]
            as [HTTPFieldName])
    func forbiddenInAnswers(_ name: HTTPFieldName) {
        let stream = ResponseStream(trailers: [name, Self.checksum, name]) { _ in HTTPHeaders() }
        #expect(stream.trailers == [Self.checksum])
    }

    @Test("others get the content as if there were none")
    func unwanted() async throws {
        let fixture = try fixture(count: 7)
        for field in ["", "TE: deflate\r\n", "TE: trailers2\r\n"] {
            let answer = try await fixture.send("GET / HTTP/1.1\r\nHost: a\r\n\(field)\r\n")
            #expect(answer?.value("Content-Length") == "7")
            #expect(answer?.value("Trailer") == nil)
            #expect(answer?.content == "content")
        }
        let old = try await fixture.send("GET / HTTP/1.0\r\nTE: trailers\r\n\r\n")
        #expect(old?.value("Content-Length") == "7")
        #expect(old?.value("Trailer") == nil)
        await fixture.stop()
    }

    @Test("answers without content have none", arguments: [HTTPStatus.noContent, .notModified])
    func withoutContent(_ status: HTTPStatus) async throws {
        let fixture = try fixture(status: status)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n")
        try await client.end()
        #expect(!client.text.contains("X-Checksum"))
        #expect(client.text.hasSuffix("\r\n\r\n"))
        #expect(RawAnswer.parse(client.received).map(\.status) == [status.code, status.code])
        let http2 = try await HTTP2Client.connect(fixture)
        http2.send { $0.headers(1) }
        let answer = try await http2.answer()
        #expect(answer.status == "\(status.code)")
        #expect(answer.trailers.isEmpty && answer.value("trailer") == nil)
        http2.close()
        await fixture.stop()
    }

    @Test("content that is not as long as it was to be is cut, trailers or not")
    func wrongCount() async throws {
        let fixture = try fixture(count: 9)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        try await client.end()
        #expect(!client.text.contains("X-Checksum: "))
        #expect(RawAnswer.parse(client.received).isEmpty)
        await fixture.stop()
    }

    @Test("content that is compressed on its way keeps what follows it")
    func compressed() async throws {
        let pool = EncoderPool()
        let coded = pool.encode(
            ResponseStream(trailers: [Self.checksum]) { writer in
                try await writer.write(Array("content".utf8))
                return HTTPHeaders([(Self.checksum, "1")])
            }, .gzip)
        #expect(coded.trailers == [Self.checksum])
        #expect(try await coded.write(NullWriter())[Self.checksum] == "1")
    }

    private final class NullWriter: ResponseWriter {
        func write(_ bytes: [UInt8]) async throws {}
    }

    // MARK: Answers over HTTP/2

    @Test("over HTTP/2 they end the stream in its stead, after the last content")
    func http2() async throws {
        let fixture = try fixture(count: 7)
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        let answer = try await client.answer()
        #expect(answer.value("trailer") == "X-Checksum, ETag")
        #expect(answer.value("content-length") == "7")
        #expect(answer.text == "content")
        #expect(names(answer.trailers) == ["x-checksum", "etag"])
        let frames = client.frames.filter { $0.stream == 1 }
        #expect(frames.map(\.type) == [1, 0, 1])
        #expect(frames.map(\.endsStream) == [false, false, true])
        client.send {
            $0.headers(3, FrameBuilder.get.map { $0.0 == ":method" ? ($0.0, "HEAD") : $0 })
        }
        let head = try await client.answer(3)
        #expect(head.isComplete && head.trailers.isEmpty && head.content.isEmpty)
        client.close()
        await fixture.stop()
    }

    @Test(
        "trailers wait behind content that the client has no room for", arguments: [0, 3, 200_000])
    func flowControl(_ count: Int) async throws {
        let fixture = try fixture(String(repeating: "x", count: count))
        var opening = FrameBuilder(bytes: FrameBuilder.preface)
        opening.settings([(4, 2)])
        let client = try await HTTP2Client.connect(fixture, opening)
        client.send { $0.headers(1) }
        if count > 2 {
            try await client.wait { frames in
                frames.contains { $0.type == 0 && $0.payload.count == 2 }
            }
            #expect(client.answers[1]?.trailers.isEmpty == true)
            client.send {
                $0.windowUpdate(0, 1_000_000)
                $0.windowUpdate(1, 1_000_000)
            }
        }
        let answer = try await client.answer()
        #expect(answer.content.count == count)
        #expect(names(answer.trailers) == ["x-checksum", "etag"])
        #expect(fixture.metrics.http2.openStreams.value == 0)
        client.close()
        await fixture.stop()
    }

    // MARK: Requests

    /// Answers the content, and the trailers as they are before and after it was read.
    private func reader() throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.http2CleartextIsEnabled = true
        return try ServerFixture(configuration: configuration) { request in
            let before = request.body.trailers.count
            let content = try await request.body.collect(max: 1000)
            let after = request.body.trailers.pairs.map { "\($0.name.lowercased())=\($0.value)" }
            let text = "\(before) \(String(decoding: content, as: UTF8.self)) \(after)"
            return HTTPResponse(.ok, body: .bytes(Array(text.utf8)))
        }
    }

    @Test("a handler reads a request's trailers when it has read its content")
    func request() async throws {
        let fixture = try reader()
        let expected = #"0 abc ["x-a=1", "x-b=2", "x-a=3"]"#
        let answer = try await fixture.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                + "3\r\nabc\r\n0\r\nX-A: 1\r\nX-B:\t2 \r\nX-A: 3\r\n\r\n")
        #expect(answer?.content == expected)
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.data(1, "abc")
            $0.headers(1, [("x-a", "1"), ("x-b", "2"), ("x-a", "3")])
        }
        #expect(try await client.answer().text == expected)
        client.send {
            $0.headers(3, FrameBuilder.post, ends: false)
            $0.data(3, "abc", ends: true)
        }
        #expect(try await client.answer(3).text == "0 abc []")
        client.close()
        await fixture.stop()
    }

    @Test("what may not follow the content fails it, whoever reads it")
    func forbidden() async throws {
        let fixture = try reader()
        for name in ["Host", "Content-Length", "Authorization", "X-Forwarded-For", "TE"] {
            let answer = try await fixture.send(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + "3\r\nabc\r\n0\r\n\(name): 1\r\n\r\n")
            #expect(answer?.status == 400, "\(name)")
        }
        await fixture.stop()
    }
}
