import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("gzip of requests")
struct GzipDecoderTests {
    private enum Outcome: Equatable {
        case content([UInt8])
        case failure(ContentDecodingError)
    }

    private func decode(
        _ pieces: [[UInt8]], limits: ContentDecodingLimits = ContentDecodingLimits()
    ) throws -> Outcome {
        let decoder = try GzipDecoder(limits)
        var whole: [UInt8] = []
        do throws(ContentDecodingError) {
            for piece in pieces {
                decoder.receive(piece)
                while let made = try decoder.next() {
                    #expect(made.count <= limits.pieceBytesMax)
                    whole += made
                }
            }
            try decoder.finish()
            return .content(whole)
        } catch {
            // The first error stays.
            #expect(throws: error) { try decoder.next() }
            #expect(throws: error) { try decoder.finish() }
            return .failure(error)
        }
    }

    private func cut(_ bytes: [UInt8], _ random: inout SeededRandom) -> [[UInt8]] {
        var pieces: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Int.random(in: 1...max(1, rest.count / 2), using: &random)
            pieces.append(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        return pieces
    }

    @Test("what was encoded comes back, however it is cut and of however many members it is")
    func roundTrip() throws {
        var random = SeededRandom(seed: UInt64.random(in: 0...UInt64.max))
        for _ in 0..<60 {
            var encoded: [UInt8] = []
            var whole: [UInt8] = []
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let part = random.bytes(Int.random(in: 0...100_000, using: &random))
                encoded += Codings.gzip(part, level: Int32.random(in: 0...9, using: &random))
                whole += part
            }
            #expect(
                try decode(cut(encoded, &random)) == .content(whole), "seed \(random.seed)")
        }
    }

    @Test("no content is no content")
    func empty() throws {
        #expect(try decode([]) == .content([]))
        #expect(try decode([Codings.gzip([])]) == .content([]))
    }

    @Test("every byte that is changed, missing or added is noticed")
    func damage() throws {
        let plain = Array("The quick brown fox jumps over the lazy dog.".utf8)
        let encoded = Codings.gzip(plain)
        for end in 1..<encoded.count {
            #expect(try decode([Array(encoded[..<end])]) == .failure(.truncated), "\(end)")
        }
        for added: [UInt8] in [[0], [0, 0, 0], [0x1E], Array("trailer".utf8)] {
            #expect(try decode([encoded + added]) == .failure(.trailingBytes))
            #expect(try decode([encoded, added]) == .failure(.trailingBytes))
        }
        #expect(try decode([encoded + [0x1F]]) == .failure(.truncated))
        #expect(try decode([encoded + [0x1F, 0x8C]]) == .failure(.malformed))
        // The checksum and the length at the end, each bit (RFC 1952 2.3.1).
        for index in (encoded.count - 8)..<encoded.count {
            var damaged = encoded
            damaged[index] ^= 0x10
            #expect(try decode([damaged]) == .failure(.malformed), "\(index)")
        }
    }

    @Test(
        "what is no gzip is told so",
        arguments: [
            Array("{\"a\":1}".utf8), [0x78, 0x9C, 3, 0, 0, 0, 0, 1], [0, 0], [0x1F, 0x8B, 7, 0],
            [0x1F, 0x8B, 8, 0xE0, 0, 0, 0, 0, 0, 3],
        ])
    func malformed(bytes: [UInt8]) throws {
        #expect(try decode([bytes]) == .failure(.malformed))
    }

    @Test("a bomb is seen after one piece, whatever it would become")
    func bombs() throws {
        let bomb = Codings.gzip([UInt8](repeating: 0, count: 20 << 20), level: 9)
        #expect(bomb.count < 32 << 10)
        let decoder = try GzipDecoder()
        decoder.receive(bomb)
        var made = 0
        #expect(throws: ContentDecodingError.ratioTooHigh) {
            while let piece = try decoder.next() { made += piece.count }
        }
        let limits = ContentDecodingLimits()
        #expect(made <= limits.ratioFreeBytes + limits.pieceBytesMax)
        // Many small members are no way around it.
        let member = Codings.gzip([UInt8](repeating: 0, count: 60_000), level: 9)
        let many = Array((0..<50).map { _ in member }.joined())
        #expect(try decode([many]) == .failure(.ratioTooHigh))
    }

    @Test("a document that is very alike is accepted while it is small")
    func alike() throws {
        let plain = [UInt8](repeating: 0x20, count: 60_000)
        #expect(try decode([Codings.gzip(plain, level: 9)]) == .content(plain))
    }
}

@Suite("Requests with coded content", .onLoop)
@LoopActor
struct RequestDecodingTests {
    private final class Context: Sendable {}

    private let metrics = CompressionMetrics(MetricsRegistry())

    private func fixture(bodyBytesMax: Int = 1 << 20) throws -> ServerFixture {
        var router = Router<Context>()
        router.add(
            RouteDescription(
                .post, "/d", name: "whole", access: .open, bodyBytesMax: bodyBytesMax)
        ) { request, _ in
            HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: bodyBytesMax)))
        }
        router.add(
            RouteDescription(.post, "/pieces", name: "pieces", access: .open)
        ) { request, _ in
            var count = 0
            while let piece = try await request.body.nextChunk() { count += piece.count }
            return HTTPResponse(.ok, body: .bytes(Array("\(count)".utf8)))
        }
        router.add(RouteDescription(.post, "/unread", name: "unread", access: .open)) { _, _ in
            HTTPResponse(.ok, body: .text("unread"))
        }
        let application = Application(
            router, middleware: [RequestDecodingMiddleware(metrics: metrics)],
            makeContext: { _, _ in Context() }, problem: { _, _, _ in .internalError })
        return try ServerFixture(responder: application)
    }

    private func post(
        _ fixture: ServerFixture, _ path: String, _ content: [UInt8], coding: String? = "gzip",
        isChunked: Bool = false
    ) async throws -> RawAnswer {
        let client = try await fixture.connect()
        defer { client.close() }
        var head = "POST \(path) HTTP/1.1\r\nHost: a\r\n"
        if let coding { head += "Content-Encoding: \(coding)\r\n" }
        if isChunked {
            client.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            for start in stride(from: 0, to: content.count, by: 1000) {
                let piece = content[start..<min(content.count, start + 1000)]
                client.send(Array("\(String(piece.count, radix: 16))\r\n".utf8) + piece + [13, 10])
            }
            client.send("0\r\n\r\n")
        } else {
            client.send(head + "Content-Length: \(content.count)\r\n\r\n")
            client.send(content)
        }
        return try #require(try await client.answer())
    }

    private func code(_ answer: RawAnswer) throws -> String? {
        try JSONReader.parse(Array(answer.content.utf8))["code"]?.asString
    }

    @Test("content in gzip is read as if it were not", arguments: ["gzip", "x-gzip", "GZIP"])
    func gzip(coding: String) async throws {
        let fixture = try fixture()
        let text = String(repeating: "Ada Lovelace ", count: 800)
        for isChunked in [false, true] {
            let answer = try await post(
                fixture, "/d", Codings.gzip(Array(text.utf8)), coding: coding, isChunked: isChunked)
            #expect(answer.status == 200)
            #expect(answer.content == text)
            let pieces = try await post(
                fixture, "/pieces", Codings.gzip(Array(text.utf8)), coding: coding,
                isChunked: isChunked)
            #expect(pieces.content == "\(text.utf8.count)")
        }
        let identity = try await post(fixture, "/d", Array("a".utf8), coding: "identity")
        #expect(identity.content == "a")
        let nothing = try await post(fixture, "/d", [])
        #expect(nothing.status == 200)
        #expect(nothing.content == "")
        await fixture.stop()
    }

    @Test(
        "other codings are 415 and say what is understood",
        arguments: ["br", "deflate", "zstd", "gzip, gzip", "gzip, br", "compress", "gzip;q=1", "*"])
    func unknown(coding: String) async throws {
        let fixture = try fixture()
        let answer = try await post(fixture, "/d", [1, 2, 3], coding: coding)
        #expect(answer.status == 415)
        #expect(answer.value("Accept-Encoding") == "gzip")
        #expect(try code(answer) == "unsupported-content-coding")
        await fixture.stop()
    }

    @Test("the limit of a route is one of decoded bytes")
    func size() async throws {
        let fixture = try fixture(bodyBytesMax: 10_000)
        var random = SeededRandom(seed: 7)
        // Incompressible: the coded form is larger than the limit, the content is not.
        let exact = random.bytes(10_000).map { $0 % 26 + 97 }
        let encoded = Codings.gzip(exact, level: 0)
        #expect(encoded.count > 10_000)
        #expect(try await post(fixture, "/d", encoded).status == 200)
        for isChunked in [false, true] {
            let larger = try await post(
                fixture, "/d", Codings.gzip(exact + [97]), isChunked: isChunked)
            #expect(larger.status == 413)
            #expect(try code(larger) == "content-too-large")
        }
        // Coded content that is beyond any content of that size is not even read.
        let waste = try await post(fixture, "/d", [UInt8](repeating: 0, count: 80_000))
        #expect(waste.status == 413)
        await fixture.stop()

        // Content of several pieces is counted over all of them.
        let wide = try self.fixture(bodyBytesMax: 150_000)
        let several = random.bytes(150_000).map { $0 % 26 + 97 }
        #expect(try await post(wide, "/d", Codings.gzip(several)).content.utf8.count == 150_000)
        #expect(try await post(wide, "/d", Codings.gzip(several + [97])).status == 413)
        await wide.stop()
    }

    @Test("broken content is 400 with its reason, a bomb is 413, and the server goes on")
    func broken() async throws {
        let fixture = try fixture(bodyBytesMax: 40 << 20)
        let good = Codings.gzip(Array("good".utf8))
        for (content, status, expected) in [
            (Array("plain".utf8), 400, "malformed-content-coding"),
            (Array(good.dropLast()), 400, "malformed-content-coding"),
            (good + [0], 400, "malformed-content-coding"),
            (
                Codings.gzip([UInt8](repeating: 0, count: 20 << 20), level: 9), 413,
                "compression-ratio-too-high"
            ),
        ] {
            for path in ["/d", "/pieces"] {
                let answer = try await post(fixture, path, content)
                #expect(answer.status == status)
                #expect(try code(answer) == expected)
            }
            #expect(try await post(fixture, "/unread", content).content == "unread")
        }
        #expect(try await post(fixture, "/d", good).content == "good")
        #expect(metrics.refusals(.malformed) == 2)
        #expect(metrics.refusals(.truncated) == 2)
        #expect(metrics.refusals(.trailingBytes) == 2)
        #expect(metrics.refusals(.ratioTooHigh) == 2)
        await fixture.stop()
    }
}
