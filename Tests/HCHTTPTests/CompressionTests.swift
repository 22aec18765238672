import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

/// Content as an API gives it: alike, and long enough.
private func document(_ count: Int = 400) -> [UInt8] {
    Array(
        (0..<count).map {
            #"{"id":\#($0),"givenName":"Ada","familyName":"Lovelace \#($0 * 7919)"}"#
        }
        .joined(separator: ",").utf8)
}

@Suite("Encoders", .onLoop)
@LoopActor
struct EncoderTests {
    @Test("what is encoded is decoded by the libraries' own decoders, whatever its length")
    func roundTrip() async throws {
        var random = SeededRandom(seed: UInt64.random(in: 0...UInt64.max))
        let pool = EncoderPool()
        for _ in 0..<40 {
            let count = Int.random(in: 0...300_000, using: &random)
            // Half of it random, half alike: both ways of a coder are taken.
            var bytes = random.bytes(count / 2)
            bytes += [UInt8](repeating: 0x61, count: count - count / 2)
            for coding in ContentCoding.allCases {
                let output = try #require(await pool.encode(.bytes(bytes), coding))
                #expect(
                    Codings.decode(output.bytes, coding.name.description) == bytes,
                    "seed \(random.seed), \(coding), \(count) bytes")
            }
        }
    }

    @Test("every kind of content that is there can be encoded, and twice to the same bytes")
    func kinds() async throws {
        let pool = EncoderPool()
        var buffer = ByteBuffer(document())
        buffer.consume(1)
        for coding in ContentCoding.allCases {
            for body: HTTPResponse.Body in [.bytes(document()), .buffer(buffer), .text("a text")] {
                let first = try #require(await pool.encode(body, coding))
                let second = try #require(await pool.encode(body, coding))
                #expect(first == second, "a strong tag names exact bytes")
                #expect(first.readableCount < body.count ?? 0 || body.count == 6)
                #expect(
                    Codings.decode(first.bytes, coding.name.description)?.count == body.count)
            }
        }
    }

    @Test("others have their turn between two slices")
    func turns() async throws {
        let pool = EncoderPool()
        let content = [UInt8](repeating: 0x61, count: 4 * pool.configuration.sliceBytes)
        let before = Loop.shared.statistics.ticks
        _ = await pool.encode(.bytes(content), .gzip)
        #expect(Loop.shared.statistics.ticks - before >= 3)
    }

    @Test("memory of brotli states is kept up to its bound, and used again")
    func brotliMemory() throws {
        let memory = BrotliMemory(keptBytesMax: 1 << 20)
        for _ in 0..<3 {
            var output = ByteBuffer()
            let encoder = try BrotliEncoder(quality: 4, count: 1000, memory: memory)
            try document().withUnsafeBytes { try encoder.encode($0, .finish, into: &output) }
            #expect(!output.isEmpty)
        }
        #expect(memory.keptBytes > 0)
        #expect(memory.keptBytes <= memory.keptBytesMax)
        let none = BrotliMemory(keptBytesMax: 0)
        _ = try BrotliEncoder(quality: 4, count: nil, memory: none)
        #expect(none.keptBytes == 0)
    }

    @Test("a stream can be decoded up to each of its pieces as soon as that is written")
    func flushing() async throws {
        let pool = EncoderPool()
        var random = SeededRandom(seed: UInt64.random(in: 0...UInt64.max))
        for coding in ContentCoding.allCases {
            let pieces = (0..<20).map { _ in
                random.bytes(Int.random(in: 0...5000, using: &random))
            }
            let sink = Sink()
            var sent: [UInt8] = []
            let coded = pool.encode(
                ResponseStream { writer in
                    for piece in pieces {
                        try await writer.write(piece)
                        sent += piece
                        #expect(sink.decoded(coding, isPartial: true) == sent, "\(random.seed)")
                    }
                }, coding)
            #expect(try await coded.write(sink).isEmpty)
            #expect(sink.decoded(coding, isPartial: false) == sent)
            #expect(pool.streamCount == 0)
        }
    }

    @Test("a stream that breaks its promise of length, or fails, fails coded as well")
    func brokenStreams() async {
        let pool = EncoderPool()
        for count in [3, 5] {
            let coded = pool.encode(
                ResponseStream(count: count) { try await $0.write([1, 2, 3, 4]) }, .gzip)
            await #expect(throws: ResponseWriterError.wrongCount) {
                try await coded.write(Sink())
            }
        }
        let failing = pool.encode(
            ResponseStream { _ in throw ResponseWriterError.disconnected }, .brotli)
        await #expect(throws: ResponseWriterError.disconnected) { try await failing.write(Sink()) }
        #expect(pool.streamCount == 0)
    }

    @LoopActor
    private final class Sink: ResponseWriter {
        private var received: [UInt8] = []

        func write(_ bytes: [UInt8]) async throws { received += bytes }

        func decoded(_ coding: ContentCoding, isPartial: Bool) -> [UInt8]? {
            switch coding {
            case .brotli: Codings.brotliDecode(received, isPartial: isPartial)
            case .gzip:
                Codings.inflateAll(received, windowBits: 15 + 16, isPartial: isPartial)
            case .deflate: Codings.inflateAll(received, windowBits: 15, isPartial: isPartial)
            }
        }
    }
}

@Suite("Compressed answers", .onLoop)
@LoopActor
struct CompressionMiddlewareTests {
    private final class Context: Sendable {}

    private let pool: EncoderPool
    private let metrics = CompressionMetrics(MetricsRegistry())

    init() {
        pool = EncoderPool()
    }

    /// One route per kind of answer.
    private func fixture(_ answers: [String: HTTPResponse], compresses: Bool = true) throws
        -> ServerFixture
    {
        var router = Router<Context>()
        for (path, answer) in answers {
            router.add(
                RouteDescription(
                    .get, path, name: path, access: .open, mayCompress: compresses)
            ) { _, _ in answer }
        }
        let application = Application(
            router, middleware: [CompressionMiddleware(pool, metrics: metrics)],
            makeContext: { _, _ in Context() }, problem: { _, _, _ in .internalError })
        return try ServerFixture(responder: application)
    }

    private func json(_ bytes: [UInt8], _ fields: [(HTTPFieldName, String)] = []) -> HTTPResponse {
        HTTPResponse(
            .ok, headers: HTTPHeaders([(.contentType, "application/json")] + fields),
            body: .bytes(bytes))
    }

    private func get(
        _ fixture: ServerFixture, _ path: String, accept: String?, method: String = "GET",
        version: String = "HTTP/1.1", fields: String = ""
    ) async throws -> (head: RawAnswer, content: [UInt8]) {
        let client = try await fixture.connect()
        defer { client.close() }
        let wish = accept.map { "Accept-Encoding: \($0)\r\n" } ?? ""
        client.send(
            "\(method) \(path) \(version)\r\nHost: a\r\nConnection: close\r\n\(wish)\(fields)\r\n")
        try await client.end()
        let end = try #require(
            client.received.indices.dropLast(3).first {
                client.received[$0..<$0 + 4].elementsEqual([13, 10, 13, 10])
            })
        let head = try #require(
            RawAnswer.parse(Array(client.received[..<end]) + [13, 10, 13, 10], heads: [0]).first)
        var content = Array(client.received[(end + 4)...])
        if head.value("Transfer-Encoding") == "chunked" { content = unchunk(content) }
        return (head, content)
    }

    private func unchunk(_ bytes: [UInt8]) -> [UInt8] {
        var rest = bytes[...]
        var whole: [UInt8] = []
        while let end = rest.firstIndex(of: 13) {
            let size = Int(String(decoding: rest[..<end], as: UTF8.self), radix: 16) ?? 0
            whole += rest[(end + 2)..<(end + 2 + size)]
            rest = rest[(end + 4 + size)...]
        }
        return whole
    }

    @Test(
        "the same document in every coding, with its length, its tag and what it varies by",
        arguments: [nil, "gzip", "deflate", "br", "identity", "gzip, br", "zstd"])
    func codings(accept: String?) async throws {
        let fixture = try fixture(["/d": json(document(), [(.etag, "\"v5\"")])])
        let (head, content) = try await get(fixture, "/d", accept: accept)
        let coding = head.value("Content-Encoding")
        let expected = ["gzip": "gzip", "deflate": "deflate", "br": "br", "gzip, br": "br"]
        #expect(coding == expected[accept ?? ""])
        #expect(Codings.decode(content, coding) == document())
        #expect(head.values("Content-Length") == ["\(content.count)"])
        #expect(head.values("Vary") == ["Accept-Encoding"])
        #expect(head.value("ETag") == (coding.map { "\"v5-\($0)\"" } ?? "\"v5\""))
        if coding != nil { #expect(content.count < document().count / 2) }
        await fixture.stop()
    }

    @Test("HEAD has the fields of GET")
    func head() async throws {
        let fixture = try fixture(["/d": json(document(), [(.etag, "\"v5\"")])])
        let get = try await get(fixture, "/d", accept: "gzip").head
        let head = try await self.get(fixture, "/d", accept: "gzip", method: "HEAD")
        #expect(head.content.isEmpty)
        for name in ["Content-Length", "Content-Encoding", "ETag", "Vary", "Content-Type"] {
            #expect(head.head.value(name) == get.value(name), "\(name)")
        }
        await fixture.stop()
    }

    @Test("content above a slice is coded in turns with the loop, to one length")
    func slices() async throws {
        let large = document(20_000)
        let fixture = try fixture(["/d": json(large)])
        let (head, content) = try await get(fixture, "/d", accept: "gzip")
        #expect(head.value("Content-Length") == "\(content.count)")
        #expect(Codings.decode(content, "gzip") == large)
        await fixture.stop()
    }

    @Test("small content is left alone, unless the client takes nothing else")
    func small() async throws {
        let fixture = try fixture([
            "/small": json(Array("[1]".utf8)), "/none": HTTPResponse(.noContent),
            "/empty": json([]),
        ])
        for accept in ["gzip", "br, gzip", "*"] {
            let (head, content) = try await get(fixture, "/small", accept: accept)
            #expect(head.value("Content-Encoding") == nil)
            #expect(head.value("Vary") == nil)
            #expect(content == Array("[1]".utf8))
        }
        let (head, content) = try await get(fixture, "/small", accept: "identity;q=0, gzip")
        #expect(head.value("Content-Encoding") == "gzip")
        #expect(Codings.decode(content, "gzip") == Array("[1]".utf8))
        // Nothing that it accepts is there: its wish is disregarded, never a 406.
        let refused = try await get(fixture, "/small", accept: "identity;q=0")
        #expect(refused.head.status == 200)
        #expect(refused.content == Array("[1]".utf8))
        for path in ["/none", "/empty"] {
            let (head, content) = try await get(fixture, path, accept: "identity;q=0, gzip")
            #expect(head.value("Content-Encoding") == nil)
            #expect(content.isEmpty)
        }
        await fixture.stop()
    }

    @Test("what must not be touched is not touched")
    func exceptions() async throws {
        var secret = json(document())
        secret.mayCompress = false
        var partial = json(document())
        partial.status = 206
        let fixture = try fixture([
            "/secret": secret, "/partial": partial,
            "/cookie": json(document(), [(.setCookie, "a=b")]),
            "/coded": json(document(), [(.contentEncoding, "zstd")]),
            "/range": json(document(), [(.contentRange, "bytes 0-1/2")]),
            "/fixed": json(document(), [(.cacheControl, "private, No-Transform")]),
            "/jpeg": HTTPResponse(
                .ok, headers: HTTPHeaders([(.contentType, "image/jpeg")]), body: .bytes(document())),
            "/untyped": HTTPResponse(.ok, body: .bytes(document())),
        ])
        for path in [
            "/secret", "/partial", "/cookie", "/coded", "/range", "/fixed", "/jpeg", "/untyped",
        ] {
            let (head, content) = try await get(fixture, path, accept: "gzip, br")
            #expect(content == document(), "\(path)")
            #expect(head.values("Content-Encoding").count == (path == "/coded" ? 1 : 0))
            #expect(head.value("Vary") == nil)
        }
        await fixture.stop()
    }

    @Test("a route that does not say so is never compressed, nor is what is no route")
    func routes() async throws {
        let fixture = try fixture(["/d": json(document())], compresses: false)
        let (head, content) = try await get(fixture, "/d", accept: "gzip")
        #expect(head.value("Content-Encoding") == nil)
        #expect(content == document())
        let missing = try await get(fixture, "/x", accept: "gzip, identity;q=0")
        #expect(missing.head.status == 404)
        #expect(missing.head.value("Content-Encoding") == nil)
        await fixture.stop()
    }

    @Test("a stream is coded in pieces; of too many the last are sent as they are")
    func streams() async throws {
        var answer = HTTPResponse(
            .ok,
            headers: HTTPHeaders([
                (.contentType, "application/x-ndjson"), (.etag, "\"v1\""),
            ]),
            body: .stream(
                ResponseStream(count: 3 * document().count) { writer in
                    for _ in 0..<3 { try await writer.write(document()) }
                }))
        answer.headers.append(.vary, "Origin" as StaticString)
        let fixture = try fixture(["/s": answer])
        let (head, content) = try await get(fixture, "/s", accept: "br")
        #expect(head.value("Content-Encoding") == "br")
        #expect(head.value("Content-Length") == nil)
        #expect(head.value("ETag") == "W/\"v1\"")
        #expect(head.values("Vary") == ["Origin, Accept-Encoding"])
        #expect(Codings.decode(content, "br") == document() + document() + document())
        // HTTP/1.0 has no chunks: the end of the connection ends the content.
        let old = try await get(fixture, "/s", accept: "gzip", version: "HTTP/1.0")
        #expect(Codings.decode(old.content, "gzip") == document() + document() + document())
        await fixture.stop()

        var configuration = CompressionConfiguration()
        configuration.streamsMax = 0
        let full = try CompressionMiddlewareTests(pool: EncoderPool(configuration))
            .fixture(["/s": answer])
        let plain = try await get(full, "/s", accept: "br")
        #expect(plain.head.value("Content-Encoding") == nil)
        #expect(plain.content == document() + document() + document())
        await full.stop()
    }

    private init(pool: EncoderPool) throws {
        self.pool = pool
    }

    @Test("304 has the tag of the form that the client holds")
    func revalidation() async throws {
        let fixture = try fixture([
            "/d": HTTPResponse(.notModified, headers: HTTPHeaders([(.etag, "\"v5\"")]))
        ])
        for (held, accept, tag) in [
            ("\"v5-gzip\"", "gzip", "\"v5-gzip\""), ("\"v5\"", "gzip", "\"v5\""),
            ("\"v5-gzip\"", "br", "\"v5\""), ("\"v5-br\", \"v4\"", "br, gzip", "\"v5-br\""),
        ] {
            let (head, _) = try await get(
                fixture, "/d", accept: accept, fields: "If-None-Match: \(held)\r\n")
            #expect(head.status == 304)
            #expect(head.value("ETag") == tag)
            #expect(head.value("Vary") == "Accept-Encoding")
        }
        await fixture.stop()
    }

    @Test(
        "media types that are compressed",
        arguments: [
            ("application/json", true), ("Application/JSON; charset=utf-8", true),
            ("text/html", true), ("text/plain ; x=y", true), ("application/problem+json", true),
            ("image/svg+xml", true), ("application/fhir+json", true), ("text/", false),
            ("image/png", false), ("application/gzip", false), ("application/pdf", false),
            ("application/octet-stream", false), ("", false), ("json", false), ("+json", false),
            ("application/jsonx", false),
        ])
    func mediaTypes(type: String, isCompressible: Bool) {
        let bytes = Array(type.utf8)
        #expect(
            bytes.withUnsafeBytes { CompressionConfiguration.isCompressible(mediaType: $0) }
                == isCompressible)
    }
}
