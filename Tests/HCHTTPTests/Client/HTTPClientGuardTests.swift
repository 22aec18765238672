import HCCore
import HCIO
import HCTesting
import Synchronization
import Testing

@testable import HCHTTP

@Suite("The outbound client goes where it may", .onLoop)
@LoopActor
struct HTTPClientGuardTests {
    private var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }

    /// Guarded, with this machine opened for the test: 127.0.0.1 and nothing beside it.
    private func rules(_ port: UInt16) throws -> GuardRules {
        GuardRules(
            ports: [port], allowsPlainHTTP: true,
            exceptions: [try #require(AddressBlock("127.0.0.1"))])
    }

    private func configuration(_ rules: GuardRules) -> HTTPClientConfiguration {
        var configuration = HTTPClientConfiguration(.guarded(rules))
        configuration.retry = .never
        return configuration
    }

    @Test("names that resolve to what is refused are not connected to, in part or in whole")
    func names() async throws {
        let server = try FaultServer { connection, _ in connection.answer() }
        let addresses: [String: [SocketAddress]] = [
            "good.example": [.loopback(port: 0)],
            "bad.example": [.ipv4(address: 0x0A00_0001, port: 0)],
            "mixed.example": [.loopback(port: 0), .ipv4(address: 0x7F00_0002, port: 0)],
            "mapped.example": [.ipv6(high: 0, low: 0xFFFF_7F00_0001, scope: 0, port: 0)],
        ]
        let client = HTTPClient(
            configuration(try rules(server.port)),
            lookup: NameLookup { name, _ in addresses[name] ?? [] })
        let good = try await client.send(
            .testing(.get, server.url("/", host: "good.example")), deadline: deadline)
        #expect(good.status == .ok)
        for (host, kind) in [
            ("bad.example", AddressKind.private), ("mixed.example", .loopback),
            ("mapped.example", .embedded), ("127.0.0.2", .loopback),
            ("169.254.169.254", .linkLocal),
        ] {
            await #expect(throws: HTTPClientError.refusedAddress(.address(kind))) {
                try await client.send(
                    .testing(.get, server.url("/", host: host)), deadline: self.deadline)
            }
        }
        await #expect(throws: HTTPClientError.resolve) {
            try await client.send(
                .testing(.get, server.url("/", host: "none.example")), deadline: self.deadline)
        }
        #expect(server.connections.count == 1 && client.connectionsOpened == 1)
        server.stop()
    }

    @Test("a name that changes its mind reaches nobody")
    func rebinding() async throws {
        let server = try FaultServer { connection, _ in
            connection.answer()
            connection.closeWhenSent()
        }
        var answers: [SocketAddress] = [
            .loopback(port: 0), .ipv4(address: 0xA9FE_A9FE, port: 0), .loopback(port: 0),
        ]
        var configuration = configuration(try rules(server.port))
        configuration.resolveLifetime = .zero
        let client = HTTPClient(
            configuration, lookup: NameLookup { _, _ in [answers.removeFirst()] })
        let request = OutboundRequest.testing(.get, server.url("/", host: "fickle.example"))
        _ = try await client.send(request, deadline: deadline)
        await #expect(throws: HTTPClientError.refusedAddress(.address(.linkLocal))) {
            try await client.send(request, deadline: self.deadline)
        }
        _ = try await client.send(request, deadline: deadline)
        #expect(server.requestCount == 2)
        server.stop()
    }

    @Test("a name that was refused, or led nowhere, is looked up again")
    func forgotten() async throws {
        let server = try FaultServer { connection, _ in connection.answer() }
        var answers: [SocketAddress] = [
            .ipv4(address: 0x0A00_0001, port: 0), .ipv4(address: 0x7F00_0002, port: 0),
            .loopback(port: 0),
        ]
        let rules = GuardRules(
            ports: [server.port], allowsPlainHTTP: true,
            exceptions: [try #require(AddressBlock("127.0.0.0/8"))])
        let client = HTTPClient(
            configuration(rules), lookup: NameLookup { _, _ in [answers.removeFirst()] })
        let request = OutboundRequest.testing(.get, server.url("/", host: "fickle.example"))
        for error in [HTTPClientError.refusedAddress(.address(.private)), .connect] {
            await #expect(throws: error) {
                try await client.send(request, deadline: self.deadline)
            }
        }
        #expect(try await client.send(request, deadline: deadline).status == .ok)
        // Now it is remembered.
        #expect(try await client.send(request, deadline: deadline).status == .ok)
        server.stop()
    }

    @Test("of a name's addresses so many are tried")
    func manyAddresses() async throws {
        let server = try FaultServer { connection, _ in connection.answer() }
        for count in [OutboundResolver.addressesMax - 1, OutboundResolver.addressesMax] {
            let wrong = (0..<count).map {
                SocketAddress.ipv4(address: 0x7F00_0002 + UInt32($0), port: 0)
            }
            var configuration = HTTPClientConfiguration(.trusted)
            configuration.retry = .never
            let client = HTTPClient(
                configuration, lookup: NameLookup { _, _ in wrong + [.loopback(port: 0)] })
            let request = OutboundRequest.testing(.get, server.url("/", host: "many.example"))
            if count < OutboundResolver.addressesMax {
                #expect(try await client.send(request, deadline: deadline).status == .ok)
            } else {
                await #expect(throws: HTTPClientError.connect) {
                    try await client.send(request, deadline: self.deadline)
                }
            }
        }
        server.stop()
    }

    /// A transfer that nothing has checked yet: what curl itself is told to do.
    private func transfer(
        _ url: String, _ addresses: [SocketAddress], _ rules: GuardRules?, _ multi: CurlMulti
    ) throws -> CurlTransfer {
        CurlTransfer(
            TransferPlan(
                url: try OutboundURL(url), method: .get, headers: HTTPHeaders(), content: .none,
                addresses: addresses, isStreamed: false, isRepeatable: true,
                responseBytesMax: 1000, rules: rules),
            HTTPClientConfiguration(.trusted), on: multi)
    }

    @Test("a socket is opened for no address that is refused, whatever was said before")
    func socket() async throws {
        let server = try FaultServer { connection, _ in connection.answer() }
        let multi = CurlMulti(HTTPClientConfiguration(.trusted), nil)
        for url in [server.url("/"), server.url("/", host: "a.example")] {
            let transfer = try transfer(url, [.loopback(port: 0)], GuardRules(), multi)
            transfer.start()
            await #expect(throws: HTTPClientError.refusedAddress(.address(.loopback))) {
                try await transfer.awaitContent(until: self.deadline)
            }
        }
        #expect(multi.connections.opened == 0 && server.connections.isEmpty)
        server.stop()
    }

    @Test("a request is sent on no kept connection that leads to a refused address")
    func keptConnection() async throws {
        let server = try FaultServer { connection, _ in connection.answer() }
        let multi = CurlMulti(HTTPClientConfiguration(.trusted), nil)
        let url = server.url("/", host: "a.example")
        let trusted = try transfer(url, [.loopback(port: 0)], nil, multi)
        trusted.start()
        _ = try await trusted.awaitContent(until: deadline)
        let guarded = try transfer(url, [.loopback(port: 0)], GuardRules(), multi)
        guarded.start()
        await #expect(throws: HTTPClientError.refusedAddress(.address(.loopback))) {
            try await guarded.awaitContent(until: self.deadline)
        }
        #expect(server.requestCount == 1 && multi.connections.opened == 1)
        server.stop()
    }

    // MARK: Redirects

    @Test("redirects are answers, unless they are followed: then so many and no more")
    func redirects() async throws {
        let server = try FaultServer { connection, _ in
            let number = Int(connection.head.split(separator: " ")[1].dropFirst()) ?? 0
            if number == 0 {
                connection.answer("200 OK", "there")
            } else {
                connection.answer("302 Found", fields: "Location: /\(number - 1)\r\n")
            }
        }
        let client = HTTPClient.testing()
        var request = OutboundRequest.testing(.get, server.url("/3"))
        #expect(try await client.send(request, deadline: deadline).status.code == 302)
        request.redirects = .follow(max: 3)
        let there = try await client.send(request, deadline: deadline)
        #expect(there.text == "there" && there.url.path == "/0")
        request.redirects = .follow(max: 2)
        await #expect(throws: HTTPClientError.redirect(.tooMany)) {
            try await client.send(request, deadline: self.deadline)
        }
        #expect(client.transfersInFlight == 0)
        server.stop()
    }

    @Test("every hop is checked as the first URL was")
    func redirectGuard() async throws {
        let location = Mutex("")
        let server = try FaultServer { connection, _ in
            let target = location.withLock { $0 }
            connection.answer("307 Temporary Redirect", fields: "Location: \(target)\r\n")
        }
        let client = HTTPClient(
            configuration(try rules(server.port)), lookup: .fixed([.loopback(port: 0)]))
        var request = OutboundRequest.testing(.get, server.url("/"))
        request.redirects = .follow(max: 5)
        for (target, error) in [
            ("http://169.254.169.254:\(server.port)/", GuardRules.Refusal.address(.linkLocal)),
            ("http://[::1]:\(server.port)/", .address(.loopback)),
            ("http://127.0.0.1:22/", .port(22)), ("http://localhost:\(server.port)/", .localName),
        ] {
            location.withLock { $0 = target }
            await #expect(throws: HTTPClientError.refusedAddress(error)) {
                try await client.send(request, deadline: self.deadline)
            }
        }
        location.withLock { $0 = "file:///etc/passwd" }
        await #expect(throws: HTTPClientError.redirect(.location(.scheme))) {
            try await client.send(request, deadline: self.deadline)
        }
        server.stop()
    }

    private func hop(
        _ method: HTTPMethod, _ location: String, _ code: Int,
        from url: String = "https://a.example/x"
    ) throws -> OutboundHop {
        var request = OutboundRequest.testing(
            method, url,
            headers: HTTPHeaders([
                (.authorization, "Bearer secret"), (.cookie, "a=b"), ("X-Api-Key", "secret"),
                (.accept, "text/plain"), (.contentType, "text/plain"),
            ]), content: .bytes([1]))
        request.signature = SignatureV4(
            .init(accessKeyID: "A", secretAccessKey: Sensitive("B")), region: "r", service: "s3")
        return try OutboundHop(request).following(location, HTTPStatus(code))
    }

    @Test("credentials stay with the origin they are for")
    func credentials() throws {
        let same = try hop(.get, "/y", 302)
        #expect(same.headers[.authorization] == "Bearer secret" && same.signature != nil)
        for location in ["https://b.example/y", "https://a.example:8443/y"] {
            let other = try hop(.get, location, 302)
            #expect(other.headers.pairs.map(\.name) == ["Accept", "Content-Type"])
            #expect(other.signature == nil)
        }
        let upgraded = try hop(.get, "https://a.example/x", 301, from: "http://a.example/x")
        #expect(upgraded.headers[.authorization] == nil)
        #expect(throws: HTTPClientError.redirect(.downgrade)) {
            try hop(.get, "http://a.example/x", 301)
        }
    }

    nonisolated static let methods: [(HTTPMethod, Int, HTTPMethod)] = [
        (.post, 301, .get), (.post, 302, .get), (.post, 303, .get), (.post, 307, .post),
        (.post, 308, .post), (.put, 301, .put), (.put, 303, .get), (.get, 302, .get),
        (.head, 303, .head), (.head, 302, .head), (.delete, 307, .delete), (.patch, 302, .patch),
    ]

    @Test("the method changes where the status says so", arguments: methods)
    func methods(_ method: HTTPMethod, _ code: Int, _ expected: HTTPMethod) throws {
        let next = try hop(method, "/y", code)
        #expect(next.method == expected)
        if method != expected {
            guard case .none = next.content else {
                Issue.record("the content is still there")
                return
            }
            #expect(!next.headers.contains(.contentType))
        }
    }

    // MARK: What is sent along

    @Test("the trace goes on with a span for each attempt, and each attempt is signed")
    func traceAndSignature() async throws {
        var heads: [String] = []
        let server = try FaultServer { connection, index in
            heads.append(connection.head.lowercased())
            connection.answer(index == 0 ? "503 Service Unavailable" : "200 OK")
        }
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry.backoffInitial = .milliseconds(2)
        let client = HTTPClient.testing(configuration)
        var request = OutboundRequest.testing(.put, server.url("/b/k"), content: .bytes([0x61]))
        let context = try #require(
            TraceContext(traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        request.trace = OutboundTrace(context, state: "vendor=1")
        request.signature = SignatureV4(
            .init(accessKeyID: "A", secretAccessKey: Sensitive("B")), region: "r", service: "s3")
        _ = try await client.send(request, deadline: deadline)
        #expect(heads.count == 2)
        let lines = heads.map { head in
            head.split(separator: "\r\n").filter { $0.hasPrefix("traceparent: 00-0af76519") }
        }
        #expect(lines[0].count == 1 && lines[1].count == 1 && lines[0] != lines[1])
        for head in heads {
            #expect(head.contains("tracestate: vendor=1\r\n"))
            #expect(head.contains("authorization: aws4-hmac-sha256 credential=a/"))
            #expect(
                head.contains(
                    "x-amz-content-sha256: "
                        + "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"))
            #expect(!head.contains("expect:") && head.contains("content-length: 1\r\n"))
        }
        server.stop()
    }
}
