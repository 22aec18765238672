import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("Cross-origin resource sharing", .onLoop)
@LoopActor
struct CrossOriginTests {
    private final class Context: Sendable {}

    private let registry = MetricsRegistry()

    /// `sunrise` lets two origins in, `lakeside` none, `careless` what is none, and there is no other host.
    private func fixture() throws -> ServerFixture {
        var router = Router<Context>()
        router.add(RouteDescription(.get, "/v1/things", name: "list", access: .open)) { _, _ in
            .json(text: "[]")
        }
        router.add(RouteDescription(.post, "/v1/things", name: "make", access: .open)) { _, _ in
            throw Problem(.conflict, code: "taken", title: "Conflict")
        }
        let application = Application(
            router,
            middleware: [
                CrossOriginMiddleware(registry: registry) { request, _ in
                    switch request.host {
                    case "sunrise":
                        CrossOriginPolicy(origins: [
                            "https://desk.example:8443", "https://portal.example",
                        ])
                    case "lakeside": CrossOriginPolicy(origins: [])
                    case "careless": CrossOriginPolicy(origins: ["null", "*"])
                    default: nil
                    }
                },
                HostStage(),
            ],
            makeContext: { _, _ in Context() }, problem: { _, _, _ in .internalError })
        return try ServerFixture(responder: application)
    }

    /// What is asked of an unknown host is not found.
    private struct HostStage: Middleware {
        func enter(_ request: HTTPRequest, _ context: Context) throws -> StageEntry {
            guard ["sunrise", "lakeside", "careless"].contains(request.host) else {
                throw Problem.notFound
            }
            return .next
        }
    }

    private func send(
        _ fixture: ServerFixture, _ method: String, _ path: String = "/v1/things",
        host: String = "sunrise", origin: String?, fields: String = ""
    ) async throws -> RawAnswer {
        let field = origin.map { "Origin: \($0)\r\n" } ?? ""
        return try #require(
            try await fixture.send(
                "\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\n\(field)\(fields)\r\n"))
    }

    private func fields(_ answer: RawAnswer) -> [String] {
        answer.fields.map(\.0).filter { $0.hasPrefix("Access-Control-") }
    }

    private static let preflight = "Access-Control-Request-Method: POST\r\n"

    @Test("an allowed origin is named on answers and refusals alike, and credentials never are")
    func allowed() async throws {
        let fixture = try fixture()
        for (method, path, status) in [
            ("GET", "/v1/things", 200), ("POST", "/v1/things", 409), ("GET", "/nothing", 404),
            ("DELETE", "/v1/things", 405), ("OPTIONS", "/v1/things", 204),
        ] {
            let answer = try await send(fixture, method, path, origin: "https://portal.example")
            #expect(answer.status == status)
            #expect(answer.values("Access-Control-Allow-Origin") == ["https://portal.example"])
            #expect(answer.values("Vary") == ["Origin"])
            #expect(answer.value("Access-Control-Allow-Credentials") == nil)
            let exposed = answer.value("Access-Control-Expose-Headers") ?? ""
            for name in ["ETag", "Location", "Retry-After", "X-Request-Id", "RateLimit"] {
                #expect(exposed.contains(name))
            }
        }
        await fixture.stop()
    }

    @Test("a preflight is answered by the route table")
    func preflight() async throws {
        let fixture = try fixture()
        let answer = try await send(
            fixture, "OPTIONS", origin: "https://desk.example:8443",
            fields: CrossOriginTests.preflight
                + "Access-Control-Request-Headers: authorization, if-match\r\n")
        #expect(answer.status == 204)
        #expect(answer.value("Access-Control-Allow-Origin") == "https://desk.example:8443")
        #expect(answer.value("Access-Control-Allow-Methods") == "GET, HEAD, POST, OPTIONS")
        #expect(answer.value("Access-Control-Max-Age") == "600")
        let allowed = answer.value("Access-Control-Allow-Headers") ?? ""
        for name in ["Authorization", "Content-Type", "If-Match", "Idempotency-Key"] {
            #expect(allowed.contains(name))
        }
        #expect(!allowed.contains("*"))
        #expect(answer.content.isEmpty)
        // A path that is none has no methods, and its preflight fails.
        let missing = try await send(
            fixture, "OPTIONS", "/nothing", origin: "https://portal.example",
            fields: CrossOriginTests.preflight)
        #expect(missing.status == 404)
        #expect(missing.value("Access-Control-Allow-Methods") == nil)
        await fixture.stop()
    }

    @Test(
        "an origin that is not on the list to the letter gets nothing",
        arguments: [
            "https://other.example", "null", "*", "http://portal.example",
            "https://portal.example:443", "https://portal.example:8443", "https://Portal.example",
            "https://portal.example/", "https://portal.example.evil", "https://sub.portal.example",
            "https://evilportal.example", "https://portal.example, https://other.example", "",
        ])
    func refused(origin: String) async throws {
        let fixture = try fixture()
        let answer = try await send(fixture, "GET", origin: origin)
        #expect(answer.status == 200, "who is no browser would send no Origin")
        #expect(fields(answer) == [])
        #expect(answer.values("Vary") == ["Origin"])
        let preflight = try await send(
            fixture, "OPTIONS", origin: origin, fields: CrossOriginTests.preflight)
        #expect(preflight.status == 403)
        #expect(preflight.content.contains("origin-not-allowed"))
        #expect(preflight.values("Vary") == ["Origin"])
        #expect(fields(preflight) == [])
        await fixture.stop()
    }

    @Test("what names no origin is let in by no list", arguments: ["null", "*"])
    func careless(origin: String) async throws {
        let fixture = try fixture()
        let answer = try await send(fixture, "GET", host: "careless", origin: origin)
        #expect(answer.status == 200)
        #expect(fields(answer) == [])
        await fixture.stop()
    }

    @Test("two Origin fields are none")
    func repeated() async throws {
        let fixture = try fixture()
        let answer = try await send(
            fixture, "GET", origin: "https://portal.example",
            fields: "Origin: https://portal.example\r\n")
        #expect(fields(answer) == [])
        await fixture.stop()
    }

    @Test("a preflight tells nothing of hosts and paths: unknown ones get the same refusal")
    func nothingGivenAway() async throws {
        let fixture = try fixture()
        var answers: [String] = []
        for (host, path) in [
            ("sunrise", "/v1/things"), ("sunrise", "/nothing"), ("lakeside", "/v1/things"),
            ("nowhere", "/v1/things"), ("nowhere", "/nothing"),
        ] {
            let answer = try await send(
                fixture, "OPTIONS", path, host: host, origin: "https://other.example",
                fields: CrossOriginTests.preflight + "X-Request-Id: same\r\n")
            answers.append(
                "\(answer.status) \(answer.fields.filter { $0.0 != "Date" }) \(answer.content)")
        }
        #expect(Set(answers).count == 1)
        var page = ByteBuffer()
        registry.snapshot().render(to: &page)
        #expect(page.string.contains("hc_http_preflights_refused_total 5"))
        await fixture.stop()
    }

    @Test("without a list nothing varies; with one every answer does")
    func vary() async throws {
        let fixture = try fixture()
        #expect(try await send(fixture, "GET", origin: nil).value("Vary") == "Origin")
        let none = try await send(fixture, "GET", host: "lakeside", origin: nil)
        #expect(none.value("Vary") == nil)
        let foreign = try await send(
            fixture, "GET", host: "lakeside", origin: "https://portal.example")
        #expect(foreign.value("Vary") == nil)
        #expect(fields(foreign) == [])
        let unknown = try await send(
            fixture, "GET", host: "nowhere", origin: "https://portal.example")
        #expect(unknown.status == 404)
        #expect(fields(unknown) == [])
        await fixture.stop()
    }
}

@Suite("Security fields", .onLoop)
@LoopActor
struct SecurityFieldTests {
    private final class Context: Sendable {}

    @Test("every kind of answer has them: answers, refusals of routes and of the parser, timeouts")
    func everywhere() async throws {
        let expected = [
            "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
            "Permissions-Policy":
                "camera=(), display-capture=(), geolocation=(), microphone=()",
            "Content-Security-Policy":
                "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ]
        var router = Router<Context>()
        router.add(RouteDescription(.get, "/ok", name: "ok", access: .open)) { _, _ in
            .json(text: "{}")
        }
        router.add(RouteDescription(.get, "/moved", name: "moved", access: .open)) { _, _ in
            HTTPResponse(308, headers: HTTPHeaders([(.location, "/ok")]))
        }
        router.add(RouteDescription(.get, "/same", name: "same", access: .open)) { _, _ in
            HTTPResponse(.notModified)
        }
        router.add(RouteDescription(.get, "/bug", name: "bug", access: .open)) { _, _ in
            throw RequestBodyError.disconnected
        }
        router.add(RouteDescription(.get, "/stream", name: "stream", access: .open)) { _, _ in
            HTTPResponse(.ok, body: .stream(ResponseStream { try await $0.write([0x61]) }))
        }
        router.add(RouteDescription(.get, "/slow", name: "slow", access: .open)) { _, _ in
            try await Waiter<HTTPResponse>().wait(until: .never)
        }
        let cross = CrossOriginMiddleware<Context>(registry: MetricsRegistry()) { _, _ in nil }
        let application = Application(
            router, middleware: [cross], makeContext: { _, _ in Context() },
            problem: { _, _, _ in .internalError })
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock, responder: application)

        func check(_ status: Int, _ answer: RawAnswer?) throws {
            let answer = try #require(answer)
            #expect(answer.status == status)
            for (name, value) in expected {
                #expect(answer.values(name) == [value], "\(status): \(name)")
            }
            #expect(answer.value("Server") == nil)
            #expect(answer.value("X-Powered-By") == nil)
        }
        for (line, status) in [
            ("GET /ok", 200), ("HEAD /ok", 200), ("GET /moved", 308), ("GET /same", 304),
            ("GET /bug", 500), ("GET /stream", 200), ("GET /none", 404), ("POST /ok", 405),
            ("OPTIONS /ok", 204), ("OPTIONS *", 204), ("TRACE /ok", 501), ("GET /../x", 400),
            ("GET /" + String(repeating: "a", count: 600), 414),
        ] {
            let client = try await fixture.connect()
            client.send("\(line) HTTP/1.1\r\nHost: a\r\n\r\n")
            let heads: Set<Int> = line.hasPrefix("HEAD") ? [0] : []
            try await client.wait { RawAnswer.parse($0.received, heads: heads).count == 1 }
            try check(status, RawAnswer.parse(client.received, heads: heads).first)
            client.close()
        }
        try check(
            403,
            try await fixture.send(
                "OPTIONS /ok HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\n"
                    + "Access-Control-Request-Method: GET\r\n\r\n"))
        try check(505, try await fixture.send("GET /ok HTTP/2.1\r\nHost: a\r\n\r\n"))
        try check(400, try await fixture.send("GET /ok HTTP/1.1\r\n\r\n"))
        let slow = try await fixture.connect()
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        let half = try await fixture.connect()
        half.send("GET /half")
        _ = try await fixture.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
        fixture.advance(by: .seconds(120))
        try check(503, try await slow.answer())
        try check(408, try await half.answer())
        await fixture.stop()
    }
}
