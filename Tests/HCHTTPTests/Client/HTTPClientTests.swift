import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("The outbound client, against our own server", .onLoop)
@LoopActor
struct HTTPClientTests {
    /// Answers with what was asked.
    private func echo() throws -> ServerFixture {
        try ServerFixture { request in
            let content = try await request.body.collect(max: 32 << 20)
            switch request.path {
            case "/large":
                return HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 100_000)))
            case "/count": return HTTPResponse(.ok, body: .bytes(Array("\(content.count)".utf8)))
            default: break
            }
            let text = "\(request.method.name) \(request.host) \(request.path) "
            var response = HTTPResponse(.ok, body: .bytes(Array(text.utf8) + content))
            response.headers.append("Asked-Type", request.headers[.contentType] ?? "none")
            return response
        }
    }

    private var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }

    @Test("a request reaches the server under any host name; the answer is complete")
    func request() async throws {
        let fixture = try echo()
        let port = fixture.address.port
        let client = HTTPClient.testing()
        let got = try await client.send(
            .testing(.get, "http://hillview.localhost:\(port)/v1/x?a=b"), deadline: deadline)
        #expect(got.status == .ok)
        #expect(got.text == "GET hillview.localhost /v1/x ")
        #expect(got.headers["asked-type"] == "none")
        let posted = try await client.send(
            .testing(
                .post, "http://a.example:\(port)/p",
                headers: HTTPHeaders([(.contentType, "application/json")]),
                content: .bytes(Array("{}".utf8))), deadline: deadline)
        #expect(posted.text == "POST a.example /p {}")
        #expect(posted.headers["asked-type"] == "application/json")
        for method in [HTTPMethod.put, .patch, .delete, .options] {
            let hasContent = method != .delete
            let answer = try await client.send(
                .testing(
                    method, "http://a:\(port)/", content: hasContent ? .bytes([0x21]) : .none),
                deadline: deadline)
            #expect(answer.text == "\(method.name) a / \(hasContent ? "!" : "")")
            #expect(answer.headers["asked-type"] == "none")
        }
        let head = try await client.send(
            .testing(.head, "http://a:\(port)/", responseBytesMax: 1), deadline: deadline)
        #expect(head.body.isEmpty && head.headers[.contentLength] == "9")
        let empty = try await client.send(.testing(.post, "http://a:\(port)/"), deadline: deadline)
        #expect(empty.text == "POST a / ")
        await fixture.stop()
    }

    @Test("too much content, other schemes, reserved fields and closed ports are errors")
    func bounds() async throws {
        let fixture = try echo()
        let port = fixture.address.port
        let client = HTTPClient.testing()
        let deadline = deadline
        func send(_ request: OutboundRequest) async throws -> OutboundResponse {
            try await client.send(request, deadline: deadline)
        }
        await #expect(throws: HTTPClientError.tooLarge(.content)) {
            try await send(.testing(.get, "http://a:\(port)/large", responseBytesMax: 99_999))
        }
        let whole = try await send(
            .testing(.get, "http://a:\(port)/large", responseBytesMax: 100_000))
        #expect(whole.body.count == 100_000)
        await #expect(throws: HTTPClientError.invalidURL(.scheme)) {
            try await send(.testing(.get, "file:///etc/hostname"))
        }
        await #expect(throws: HTTPClientError.invalidHeader("Transfer-Encoding")) {
            try await send(
                .testing(
                    .post, "http://a:\(port)/", headers: HTTPHeaders([(.transferEncoding, "x")])))
        }
        await fixture.stop()
        await #expect(throws: HTTPClientError.connect) {
            try await send(.testing(.get, "http://a:\(port)/"))
        }
        #expect(client.transfersInFlight == 0)
    }

    @Test("a thousand requests share a few connections, and none of them leaves the loop")
    func reuse() async throws {
        let fixture = try echo()
        let port = fixture.address.port
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.transfers.transfersPerOriginMax = 4
        configuration.transfers.queuedPerOriginMax = 1000
        configuration.transfers.queuedMax = 1000
        let client = HTTPClient.testing(configuration)
        let deadline = deadline
        let foreign = Loop.shared.foreignJobs
        var answered = 0
        var left = 1000
        let done = Waiter<Void>()
        for index in 0..<1000 {
            Loop.shared.spawn {
                let answer = try? await client.send(
                    .testing(.get, "http://a:\(port)/\(index)"), deadline: deadline)
                if answer?.text == "GET a /\(index) " { answered += 1 }
                left -= 1
                if left == 0 { done.succeed(()) }
            }
        }
        try await done.wait(until: deadline)
        #expect(answered == 1000)
        #expect(client.connectionsOpened <= 4)
        #expect(client.connectionsOpen == client.connectionsOpened)
        #expect(fixture.metrics.connectionsCount <= 4)
        #expect(Loop.shared.foreignJobs == foreign)
        await fixture.stop()
    }

    @Test("a deadline ends a request that is not answered, and its connection with it")
    func timeout() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let client = HTTPClient.testing()
        let soon = Deadline.after(.milliseconds(100), from: Loop.now)
        await #expect(throws: HTTPClientError.timeout(.answer)) {
            try await client.send(
                .testing(.get, "http://a:\(fixture.address.port)/"), deadline: soon)
        }
        #expect(client.connectionsOpen == 0 && client.connectionsOpened == 1)
        gate.open()
        await fixture.stop()
    }

    @Test("a client that is dropped closes what it kept open")
    func dropped() async throws {
        let fixture = try echo()
        let registry = MetricsRegistry()
        let metrics = HTTPClientMetrics(registry, client: "test")
        var client: HTTPClient? = HTTPClient.testing(metrics: metrics)
        _ = try await client?.send(
            .testing(.get, "http://a:\(fixture.address.port)/"), deadline: deadline)
        #expect(metrics.openConnections.value == 1)
        #expect(metrics.connectionsOpened.value == 1)
        client = nil
        #expect(metrics.openConnections.value == 0)
        var page = ByteBuffer()
        registry.snapshot().render(to: &page)
        let text = String(decoding: page.bytes, as: UTF8.self)
        let line = #"hc_outbound_requests_total{client="test",outcome="2xx",target="test"} 1"#
        #expect(text.contains(line))
        await fixture.stop()
    }

    nonisolated static let commands: [([String], String)] = [
        (["/a"], "GET curl.example /a "),
        (["-X", "PUT", "-d", "x=y", "/p"], "PUT curl.example /p x=y"),
        (
            ["-H", "Transfer-Encoding: chunked", "-d", "chunky", "/p"],
            "POST curl.example /p chunky"
        ),
        (["-H", "Expect: 100-continue", "-d", "waited", "/p"], "POST curl.example /p waited"),
        (["--http1.0", "/old"], "GET curl.example /old "),
        (["-o", "-", "/a", "--next", "-s", "/b"], "GET curl.example /a GET curl.example /b "),
        (["--data-binary", "@/proc/self/exe", "/count"], ""),
    ]

    @Test("curl itself understands and is understood", arguments: commands)
    func curl(_ arguments: [String], _ expected: String) async throws {
        let fixture = try echo()
        let port = fixture.address.port
        let urls = arguments.map { $0.hasPrefix("/") ? "http://curl.example:\(port)\($0)" : $0 }
        let common = ["-sS", "--max-time", "20", "--noproxy", "*"]
        let target = ["--connect-to", "::127.0.0.1:\(port)"]
        let pool = BlockingPool()
        let output = try await pool.run(deadline: deadline) {
            // Each part of --next has options of its own.
            var line = common + target
            for argument in urls {
                line.append(argument)
                if argument == "--next" { line += target }
            }
            return try Subprocess.run("/usr/bin/curl", line)
        }
        if expected.isEmpty {
            #expect((Int(output) ?? 0) > 100_000)
        } else {
            #expect(output == expected)
        }
        await fixture.stop()
    }
}

extension HTTPClient {
    /// Every name is this machine.
    static func testing(
        _ configuration: HTTPClientConfiguration = HTTPClientConfiguration(.trusted),
        metrics: HTTPClientMetrics? = nil
    ) -> HTTPClient {
        HTTPClient(
            configuration, lookup: .fixed([.loopback(port: 0)]), metrics: metrics,
            random: SeededRandom(seed: 7))
    }
}

extension OutboundRequest {
    static func testing(
        _ method: HTTPMethod = .get, _ url: String, headers: HTTPHeaders = HTTPHeaders(),
        content: Content = .none, responseBytesMax: Int = 8 << 20
    ) -> OutboundRequest {
        OutboundRequest(
            OutboundTarget("test"), method, url, headers: headers, content: content,
            responseBytesMax: responseBytesMax)
    }
}
