import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("documents that the client holds already", .onLoop)
@LoopActor
struct RevalidationTests {
    private final class Context: Sendable {}

    private let content = String(repeating: #"{"name":"alike"},"#, count: 200)

    private func fixture() throws -> ServerFixture {
        var router = Router<Context>()
        for (path, status) in [("/document", HTTPStatus.ok), ("/gone", .notFound)] {
            router.add(
                RouteDescription(.get, path, name: path, access: .open, mayCompress: true)
            ) { [content] _, _ in
                var response = HTTPResponse(status, body: .bytes(Array(content.utf8)))
                response.headers.append(.contentType, "application/json" as StaticString)
                response.headers.append(.etag, "\"v7\"" as StaticString)
                response.headers.append(.cacheControl, "no-store" as StaticString)
                return response
            }
        }
        router.add(RouteDescription(.post, "/document", name: "post", access: .open)) { _, _ in
            HTTPResponse(.ok, headers: HTTPHeaders([(.etag, "\"v7\"")]), body: .text("made"))
        }
        let application = Application<Context>(
            router,
            middleware: [
                CompressionMiddleware(
                    EncoderPool(), metrics: CompressionMetrics(MetricsRegistry())),
                RevalidationMiddleware(),
            ],
            makeContext: { _, _ in Context() }, problem: { _, _, _ in .internalError })
        return try ServerFixture(responder: application)
    }

    private func ask(
        _ fixture: ServerFixture, _ held: String?, method: String = "GET",
        path: String = "/document",
        accepts: String? = nil
    ) async throws -> RawAnswer {
        var text =
            "\(method) \(path) HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n"
        if let held { text += "If-None-Match: \(held)\r\n" }
        if let accepts { text += "Accept-Encoding: \(accepts)\r\n" }
        let client = try await fixture.connect()
        client.send(text + "\r\n")
        try await client.end()
        let heads: Set<Int> = method == "HEAD" ? [0] : []
        return try #require(RawAnswer.parse(client.received, heads: heads).first)
    }

    @Test(
        "a listed tag, strong or weak, of the content or of its coded form, is answered with 304",
        arguments: [#""v7""#, #"W/"v7""#, #""v6", "v7""#, #""v7-gzip""#, "*"])
    func notModified(_ held: String) async throws {
        let fixture = try fixture()
        for method in ["GET", "HEAD"] {
            let answer = try await ask(fixture, held, method: method)
            #expect(answer.status == 304)
            #expect(answer.value("ETag") == #""v7""#)
            #expect(answer.value("Cache-Control") == "no-store")
            #expect(answer.value("Content-Type") == nil && answer.value("Content-Length") == nil)
            #expect(answer.content.isEmpty)
        }
        await fixture.stop()
    }

    @Test("a client that would get the coded form is told the coded form's tag")
    func coded() async throws {
        let fixture = try fixture()
        let answer = try await ask(fixture, nil, accepts: "gzip")
        let tag = try #require(answer.value("ETag"))
        #expect(tag == #""v7-gzip""#)
        let again = try await ask(fixture, tag, accepts: "gzip")
        #expect(again.status == 304)
        #expect(again.value("ETag") == tag)
        #expect(again.value("Vary") == "Accept-Encoding")
        await fixture.stop()
    }

    @Test("anything else is answered as if nothing had been asked")
    func modified() async throws {
        let fixture = try fixture()
        for held in [#""v6""#, "v7", #""v6"x, "v7""#, #""v7-other""#] {
            #expect(try await ask(fixture, held).status == 200, "\(held)")
        }
        #expect(try await ask(fixture, nil).status == 200)
        #expect(try await ask(fixture, #""v7""#, path: "/gone").status == 404)
        #expect(try await ask(fixture, #""v7""#, method: "POST").status == 200)
        await fixture.stop()
    }
}
