import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCApp
@testable import HCHTTP

@Suite("metrics of the edge", .onLoop)
@LoopActor
struct EdgeMetricsTests {
    /// A worker's stages around a route or two, over a real socket.
    private func serve(_ registry: MetricsRegistry) throws -> (HTTPServer, SocketAddress) {
        let clocks = Clocks.system
        var router = Router<RequestContext>()
        for (method, pattern, name) in [
            (HTTPMethod.get, "/v1/patients/{id}", "readPatient"),
            (.post, "/v1/patients", "createPatient"),
        ] {
            router.add(
                RouteDescription(method, pattern, name: name, access: .open, lane: .safety)
            ) { request, _ in
                HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 1000)))
            }
        }
        let application = Application(
            router,
            middleware: [
                ObservationMiddleware(
                    logger: Logger(level: .error, clocks: clocks) { _ in }, clocks: clocks,
                    registry: registry),
                AdmissionMiddleware(
                    limits: AdmissionControl.Limits(), registry: registry,
                    now: clocks.monotonic()),
            ],
            makeContext: { _, match in RequestContext(match: match) },
            problem: { error, _, _ in ErrorResponses.problem(for: error) ?? .internalError })
        var configuration = HTTPServerConfiguration()
        configuration.trustedProxies = TrustedProxies(
            [AddressBlock("127.0.0.0/8")].compactMap { $0 })
        let server = HTTPServer(
            configuration, responder: application, metrics: HTTPServerMetrics(registry),
            clocks: clocks)
        let listener = try Listener(try Listener.bind(.loopback(port: 0)))
        let address = SocketAddress.loopback(port: listener.localAddress?.port ?? 0)
        try server.listen(on: listener)
        return (server, address)
    }

    /// Sends bytes and reads until the server is done with the connection.
    private func send(_ text: String, to address: SocketAddress) async throws -> Int {
        let deadline = Deadline.after(.seconds(20), from: Loop.now)
        let stream = try await PlainStream.connect(to: address, deadline: deadline)
        let reader = Reader()
        stream.start(delegate: reader, reading: true)
        let bytes = Array(text.utf8)
        #expect(bytes.withUnsafeBytes { stream.write($0) } == .wrote(bytes.count))
        stream.shutdownWrite()
        try await reader.ended.wait(until: deadline)
        stream.close()
        return reader.count
    }

    private final class Reader: ByteStreamDelegate {
        let ended = Waiter<Void>()
        private(set) var count = 0

        nonisolated init() {}

        func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
            count += bytes.count
        }

        func streamDidReachEnd(_ stream: any ByteStream) { ended.succeed(()) }
        func streamIsWritable(_ stream: any ByteStream) {}
        func stream(_ stream: any ByteStream, didFail error: SystemError) { ended.succeed(()) }
    }

    /// One of each kind of request and nonsense; `number` makes everything that a client can choose another.
    private static func requests(_ number: Int) -> [String] {
        let common = "Host: h\(number).example\r\nUser-Agent: agent-\(number)\r\n"
        return [
            "GET /v1/patients/\(number)?q=\(number) HTTP/1.1\r\n\(common)X-\(number): 1\r\n\r\n",
            "POST /v1/patients HTTP/1.1\r\n\(common)Content-Length: 3\r\n\r\nabc",
            "GET /nothing/\(number) HTTP/1.1\r\n\(common)\r\n",
            "DELETE /v1/patients HTTP/1.1\r\n\(common)\r\n",
            "M\(number) / HTTP/1.1\r\n\(common)\r\n",
            "GET / HTTP/7.\(number)\r\n\(common)\r\n",
            "GET /v1/patients/1 HTTP/1.1\r\n\(common)X-Forwarded-For: 192.0.2.\(number % 250)\r\n\r\n",
            "GET /v1/patients/1 HTTP/1.1\r\n\(common)Forwarded: for=bad\(number)\r\n\r\n",
        ]
    }

    @Test("a thousand hosts, paths, methods and agents make no series that one did not make")
    func cardinality() async throws {
        let registry = MetricsRegistry()
        let (server, address) = try serve(registry)
        for text in Self.requests(0) { _ = try await send(text, to: address) }
        func page() throws -> PrometheusText {
            var text = ByteBuffer()
            registry.snapshot().render(to: &text)
            return try PrometheusText(text.string)
        }
        let before = try page()
        for number in 1...125 {
            for text in Self.requests(number) {
                #expect(try await send(text, to: address) > 0)
            }
        }
        let after = try page()
        #expect(Set(after.values.keys) == Set(before.values.keys))
        #expect(after.sum("hc_metrics_label_overflow_total") == 0)
        #expect(after.sum("hc_http_connections_total") == 126 * 8)
        #expect(after.sum("hc_http_connections_open") == 0)
        #expect(after.sum("hc_http_responses_total") == 126 * 8)
        #expect(after.sum("hc_http_responses_total", ["status": "404"]) == 126)
        #expect(
            after.sum("hc_http_request_seconds_count", ["route": "readPatient", "lane": "safety"])
                == 126 * 2)
        #expect(
            after.sum("hc_http_refusals_total", ["reason": "forwarded-malformed"]) == 126)
        #expect(after.sum("hc_http_received_bytes_total") > 126 * 8 * 40)
        #expect(after.sum("hc_http_sent_bytes_total") > 126 * 8 * 100)
        server.stopAccepting(emptyingQueue: false)
        _ = await server.drain(
            idleUntil: Deadline(Loop.now), deadline: Deadline(Loop.now))
    }

    @Test("the pages of two workers and their supervisor are one well-formed page")
    func merged() throws {
        var workers: [MetricsSnapshot] = []
        for _ in 0..<2 {
            let registry = MetricsRegistry()
            Loop.shared.metrics = LoopMetrics(registry)
            let metrics = HTTPServerMetrics(registry)
            metrics.responded(.ok)
            _ = AdmissionMiddleware(limits: .init(), registry: registry, now: .zero)
            workers.append(registry.snapshot())
        }
        Loop.shared.metrics = nil
        var page = MetricsRegistry().snapshot()
        page.mergeTotals(workers[0])
        for (slot, worker) in workers.enumerated() {
            #expect(page.merge(worker, worker: String(slot)) == [])
        }
        var text = ByteBuffer()
        page.render(to: &text)
        let read = try PrometheusText(text.string)
        #expect(read.sum("hc_http_responses_total", ["status": "200"]) == 3)
        #expect(read.values.keys.count { $0.name == "hc_http_requests_limit" } == 2)
    }
}

@Suite("the checker of metrics pages")
struct PrometheusTextTests {
    static let wrong = [
        "a 1", "# TYPE a gauge\na 1\n", "# HELP a x\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a x\n# HELP a y\n# TYPE a gauge\na 1\n",
        "# HELP a x\n# TYPE a counter\na 1\n", "# HELP a x\n# TYPE a gauge\na{b=1} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"1\",b=\"2\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na one\n",
        "# HELP a_total x\n# TYPE a_total counter\na_total -1\n",
        "# HELP a x\n# TYPE a gauge\n# HELP b x\n# TYPE b gauge\nb 1\na 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        "# HELP a x\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
    ]

    @Test("notices what is wrong", arguments: wrong)
    func notices(_ text: String) {
        #expect(throws: FixtureError.self) { try PrometheusText(text) }
    }

    @Test(
        "while a slot's worker is replaced, the gauges of both are told apart and counters add up")
    func replacedWorkers() {
        func snapshot(_ connections: Int) -> MetricsSnapshot {
            let registry = MetricsRegistry()
            registry.gauge("hc_open", "Open.").set(connections)
            registry.counter("hc_total", "All.").increment(by: connections)
            return registry.snapshot()
        }
        var page = MetricsSnapshot()
        page.merge(workers: [
            (slot: 0, metrics: snapshot(5)), (slot: 1, metrics: snapshot(7)),
            (slot: 0, metrics: snapshot(2)),
        ])
        #expect(page.value("hc_open", labels: [("worker", "0")]) == .gauge(2))
        #expect(page.value("hc_open", labels: [("worker", "0-old")]) == .gauge(5))
        #expect(page.value("hc_open", labels: [("worker", "1")]) == .gauge(7))
        #expect(page.value("hc_total") == .counter(14))
    }
}
