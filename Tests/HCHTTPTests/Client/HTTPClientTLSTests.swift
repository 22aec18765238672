import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("The outbound client over TLS and HTTP/2", .onLoop)
@LoopActor
struct HTTPClientTLSTests {
    private var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }

    /// A server for `clinic.example` with a certificate of its own, and that certificate as the authority.
    private final class Fixture {
        let server: HTTPServer
        let port: UInt16
        let directory: String

        @LoopActor
        init(_ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse) throws {
            var template = Array("/tmp/hc-client-tls-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
            let path = String(
                decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            directory = path
            guard mkdir("\(path)/served", 0o700) == 0 else { throw FixtureError("mkdir failed") }
            for name in ["served/server", "other"] {
                try Subprocess.run(
                    "/usr/bin/openssl",
                    [
                        "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-sha256", "-nodes", "-days", "2",
                        "-subj", "/CN=test", "-addext", "subjectAltName=DNS:clinic.example",
                        "-keyout", "\(path)/\(name).key", "-out", "\(path)/\(name).crt",
                    ])
            }
            let loading = TLSCertificates.load(
                directory: "\(path)/served", baseDomain: "clinic.example",
                now: Clocks.system.now())
            let configuration = HTTPServerConfiguration()
            let certificates = try #require(loading.certificates, "\(loading.problems)")
            let context = try TLSContext(
                server: TLSServerConfiguration(
                    certificates: certificates,
                    applicationProtocols: HTTPServer.applicationProtocols(configuration)),
                clocks: .system)
            server = HTTPServer(
                configuration, responder: ClosureResponder(respond),
                metrics: HTTPServerMetrics(MetricsRegistry()))
            let listener = try Listener(try Listener.bind(.loopback(port: 0)))
            port = listener.localAddress?.port ?? 0
            try server.listen(on: listener, tls: context)
        }

        func url(_ path: String, host: String = "clinic.example") -> String {
            "https://\(host):\(port)\(path)"
        }

        @LoopActor
        func client(trusting name: String? = "served/server") -> HTTPClient {
            var configuration = HTTPClientConfiguration(.trusted)
            configuration.certificateAuthorities = name.map { "\(directory)/\($0).crt" }
            configuration.retry = .never
            return HTTPClient.testing(configuration)
        }

        @LoopActor
        func stop() async throws {
            server.stopAccepting(emptyingQueue: false)
            _ = await server.drain(
                idleUntil: Deadline(Loop.now), deadline: Deadline(Loop.now))
            try Subprocess.run("/bin/rm", ["-rf", directory])
        }
    }

    private func fixture() throws -> Fixture {
        try Fixture { request in
            let content = try await request.body.collect(max: 1 << 20)
            let text = "\(request.version.text) \(request.isSecure) \(content.count)"
            return HTTPResponse(.ok, body: .bytes(Array(text.utf8)))
        }
    }

    @Test("many requests are streams of one connection")
    func multiplexed() async throws {
        let fixture = try fixture()
        let client = fixture.client()
        let deadline = deadline
        let url = fixture.url("/")
        var answers: [String] = []
        let done = Waiter<Void>()
        for _ in 0..<12 {
            Loop.shared.spawn {
                let request = OutboundRequest.testing(
                    .post, url, content: .bytes([UInt8](repeating: 0x61, count: 1000)))
                do {
                    answers.append(try await client.send(request, deadline: deadline).text)
                } catch {
                    answers.append("\(error)")
                }
                if answers.count == 12 { done.succeed(()) }
            }
        }
        try await done.wait(until: deadline)
        #expect(answers == [String](repeating: "HTTP/2 true 1000", count: 12))
        #expect(client.connectionsOpened == 1)
        try await fixture.stop()
    }

    @Test("what is streamed has a connection of its own")
    func streamed() async throws {
        let fixture = try fixture()
        let client = fixture.client()
        let request = OutboundRequest.testing(.get, fixture.url("/"))
        #expect(try await client.send(request, deadline: deadline).text == "HTTP/2 true 0")
        let stream = OutboundContentStream(count: 3) { try await $0.write([1, 2, 3]) }
        let uploaded = try await client.send(
            .testing(.put, fixture.url("/"), content: .stream(stream)), deadline: deadline)
        #expect(uploaded.text == "HTTP/1.1 true 3")
        let text = try await client.withResponse(to: request, deadline: deadline) { response in
            var bytes: [UInt8] = []
            while let chunk = try await response.nextChunk() { bytes += chunk }
            return String(decoding: bytes, as: UTF8.self)
        }
        #expect(text == "HTTP/1.1 true 0")
        #expect(client.connectionsOpened == 2)
        try await fixture.stop()
    }

    private func failure(
        of request: OutboundRequest, _ client: HTTPClient
    ) async -> HTTPClientError? {
        do throws(HTTPClientError) {
            _ = try await client.send(request, deadline: deadline)
            return nil
        } catch {
            return error
        }
    }

    @Test("certificates of strangers, for others, and no certificates at all are not accepted")
    func strangers() async throws {
        let fixture = try fixture()
        let request = OutboundRequest.testing(.get, fixture.url("/"))
        for name in ["other", nil] {
            let error = await failure(of: request, fixture.client(trusting: name))
            #expect(error?.code == "tls" && error?.mayHaveBeenSent == false)
        }
        let elsewhere = OutboundRequest.testing(.get, fixture.url("/", host: "praxis.example"))
        #expect(await failure(of: elsewhere, fixture.client())?.code == "tls")
        let plain = try FaultServer { connection, _ in connection.answer() }
        let wrong = OutboundRequest.testing(.get, "https://clinic.example:\(plain.port)/")
        let hasty = fixture.client()
        let begun = Loop.shared.spawn {
            // A server that does not speak TLS answers nothing to a hello: it is the connect timeout's to end.
            try? await plain.wait { $0.connections.first?.received.isEmpty == false }
            plain.connections.first?.send("HTTP/1.1 400 Bad Request\r\n\r\n")
        }
        let error = await failure(of: wrong, hasty)
        #expect(error?.code == "tls", "\(String(describing: error))")
        await begun.value
        plain.stop()
        try await fixture.stop()
    }
}
