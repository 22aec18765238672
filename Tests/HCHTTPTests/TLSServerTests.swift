import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

/// The server behind TLS, over real sockets: with our own client, and with `openssl s_client` for what that one
/// would not do.
@Suite("HTTP server behind TLS", .onLoop)
@LoopActor
struct TLSServerTests {
    private static let files: Result<TestCertificates, any Error> = Result {
        let files = try TestCertificates()
        try files.make("authority")
        try files.make("base", hosts: ["*.clinics.example"], authority: "authority")
        try files.staple("base", authority: "authority")
        // One name with two kinds of key.
        let pair = ["pair.clinics.example"]
        try files.make("pair-ecdsa", hosts: pair, authority: "authority")
        try files.make("pair-rsa", hosts: pair, key: .rsa(2048), authority: "authority")
        try files.staple("pair-rsa", authority: "authority")
        for file in ["authority.crt", "authority.key"] { try files.move(file, to: "." + file) }
        return files
    }

    /// A server with a TLS listener.
    @LoopActor
    private final class Fixture {
        let server: HTTPServer
        let tls: TLSMetrics
        let http: HTTPServerMetrics
        let acceptor: TLSAcceptor
        let address: SocketAddress
        let clock: ManualClock

        init(
            _ configuration: HTTPServerConfiguration = HTTPServerConfiguration(),
            _ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse = {
                request in
                let content = try await request.body.collect(max: 64 << 20)
                let text = "\(request.host) \(request.isSecure) "
                return HTTPResponse(.ok, body: .bytes(Array(text.utf8) + content))
            }
        ) throws {
            // Not before the certificates: they are good from the second in which they were made.
            let directory = try files.get().directory
            clock = ManualClock(now: Clocks.system.now())
            http = HTTPServerMetrics(MetricsRegistry())
            tls = TLSMetrics(MetricsRegistry())
            server = HTTPServer(
                configuration, responder: ClosureResponder(respond), metrics: http,
                clocks: clock.clocks)
            let loading = TLSCertificates.load(
                directory: directory, baseDomain: "clinics.example", now: clock.now)
            let context = try TLSContext(
                server: TLSServerConfiguration(
                    certificates: try #require(loading.certificates),
                    applicationProtocols: ["http/1.1"],
                    tickets: TLSTickets(secrets: [
                        [UInt8](repeating: 1, count: 32).withUnsafeBytes { TLSTicketSecret($0) }
                    ]), plaintextAnswer: HTTPServer.plaintextAnswer(at:)),
                clocks: clock.clocks, metrics: tls)
            let listener = try Listener(try Listener.bind(.loopback(port: 0)))
            address = .loopback(port: listener.localAddress?.port ?? 0)
            let acceptor = TLSAcceptor(listener, context, server: server)
            self.acceptor = acceptor
            try server.listen(on: listener, named: .tls) { acceptor.accept($0, $1) }
        }

        func connect() async throws -> SecureClient {
            try await SecureClient.connect(address)
        }

        func advance(by duration: Duration) {
            clock.advance(by: duration)
            server.checkTimeouts()
        }

        func stop() async {
            server.stopAccepting(emptyingQueue: false)
            _ = await server.drain(
                idleUntil: Deadline(Loop.now), deadline: Deadline(Loop.now))
        }

        /// `openssl s_client`, which ends by itself after what it is given to say.
        func openssl(_ arguments: [String], saying text: String = "") async throws -> String {
            let port = address.port
            let name = ["-servername", "sunrise.clinics.example"]
            return try await BlockingPool().run(
                deadline: .after(.seconds(20), from: Loop.now)
            ) {
                let child = try Subprocess(
                    "/usr/bin/openssl",
                    ["s_client", "-connect", "127.0.0.1:\(port)"] + name + arguments)
                try child.write(text)
                child.closeInput()
                let output = try child.readToEnd()
                _ = try child.wait()
                return output
            }
        }
    }

    @Test(
        "a request by TLS is answered, is secure, and is told to come so again; one without is not")
    func answer() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.strictTransportSecurity = .seconds(600)
        let fixture = try Fixture(configuration)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: sunrise.clinics.example\r\n\r\n")
        let answer = try #require(try await client.answer())
        #expect(answer.content == "sunrise.clinics.example true ")
        #expect(answer.values("Strict-Transport-Security") == ["max-age=600"])
        client.send("BROKEN\r\n\r\n")
        let refusal = try #require(try await client.answers(2).last)
        #expect(refusal.status == 400)
        #expect(refusal.value("Strict-Transport-Security") == "max-age=600")
        #expect(fixture.tls.handshakes(.tls13, isResumed: false) == 1)
        client.close()
        await fixture.stop()

        let plain = try ServerFixture(configuration: configuration) { _ in HTTPResponse(.ok) }
        let other = try #require(try await plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        #expect(other.value("Strict-Transport-Security") == nil)
        await plain.stop()
    }

    @Test("eight megabytes go up and come back")
    func large() async throws {
        let fixture = try Fixture()
        let client = try await fixture.connect()
        let content = [UInt8](repeating: 0x78, count: 8 << 20)
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(content.count)\r\n\r\n")
        client.send(content)
        let answer = try #require(try await client.answer())
        #expect(answer.content.utf8.count == content.count + "a true ".utf8.count)
        client.close()
        await fixture.stop()
    }

    @Test("a handshake that is not made in time is cut")
    func slowHandshake() async throws {
        let fixture = try Fixture()
        let client = try await RawClient.connect(fixture.address)
        client.send([22, 3, 1])
        try await eventually { fixture.tls.inProgress.value == 1 }
        fixture.advance(by: .seconds(9))
        #expect(fixture.tls.failures(.timeout) == 0)
        fixture.advance(by: .seconds(3))
        try await client.end()
        #expect(fixture.tls.failures(.timeout) == 1)
        #expect(fixture.tls.inProgress.value == 0 && fixture.server.connectionCount == 0)
        await fixture.stop()
    }

    @Test("handshakes that have ended are not gone through again when places run out")
    func span() async throws {
        let fixture = try Fixture()
        for _ in 0..<3 {
            let client = try await fixture.connect()
            client.close()
        }
        // The server may still have to read what the last of them finished with.
        try await eventually { fixture.acceptor.spanCount == 0 }
        let slow = try await RawClient.connect(fixture.address)
        try await eventually { fixture.acceptor.spanCount == 1 }
        let client = try await fixture.connect()
        #expect(fixture.acceptor.spanCount == 2)
        slow.close()
        try await eventually { fixture.acceptor.spanCount == 0 }
        client.close()
        await fixture.stop()
    }

    @Test("when all places for handshakes are taken the others wait, and silent ones give way")
    func crowd() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.tlsHandshakesMax = 3
        let fixture = try Fixture(configuration)
        var silent: [RawClient] = []
        for _ in 0..<3 { silent.append(try await RawClient.connect(fixture.address)) }
        try await eventually { fixture.tls.inProgress.value == 3 }
        // It is in the kernel's queue, and its handshake is not begun.
        async let waiting = fixture.connect()
        try await Loop.shared.lookAround()
        #expect(fixture.tls.inProgress.value == 3)
        #expect(fixture.tls.handshakes(.tls13, isResumed: false) == 0)
        fixture.advance(by: .seconds(4))
        let client = try await waiting
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try await client.answer()?.status == 200)
        #expect(fixture.tls.failures(.overload) == 3)
        for client in silent { client.close() }
        client.close()
        await fixture.stop()
    }

    @Test("of those that hold the places only those give way that had their time")
    func ages() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.tlsHandshakesMax = 3
        let fixture = try Fixture(configuration)
        var silent: [RawClient] = []
        for count in 1...3 {
            if count == 3 { fixture.advance(by: .milliseconds(1500)) }
            silent.append(try await RawClient.connect(fixture.address))
            try await eventually { fixture.tls.inProgress.value == Double(count) }
        }
        async let waiting = fixture.connect()
        fixture.advance(by: .milliseconds(1500))
        let client = try await waiting
        try await eventually { fixture.tls.inProgress.value == 1 }
        #expect(fixture.tls.failures(.overload) == 2)
        for client in silent { client.close() }
        client.close()
        await fixture.stop()
    }

    @Test("a handshake that is under way when the server drains may still bring its request")
    func drain() async throws {
        let fixture = try Fixture()
        let raw = try await PlainStream.connect(
            to: fixture.address, deadline: .after(.seconds(20), from: Loop.now))
        try await eventually { fixture.tls.inProgress.value == 1 }
        fixture.server.stopAccepting(emptyingQueue: false)
        let later = Deadline.after(.seconds(20), from: Loop.now)
        async let cut = fixture.server.drain(idleUntil: later, deadline: later)
        let client = try await SecureClient.over(raw)
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        let answer = try #require(try await client.answer())
        #expect(answer.status == 200 && answer.value("Connection") == "close")
        client.close()
        #expect(await cut == 0)
    }

    @Test("HTTP without TLS on this port is told so")
    func plaintext() async throws {
        let fixture = try Fixture()
        let client = try await RawClient.connect(fixture.address)
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        let answer = try #require(try await client.answer())
        #expect(answer.status == 400 && answer.content.contains("tls-required"))
        #expect(answer.values("Date") == [DateLine.text(fixture.clock.now)])
        #expect(answer.values("Connection") == ["close"])
        for (name, value) in HTTPServerConfiguration.securityHeaders.pairs {
            #expect(answer.values(name) == [value])
        }
        try await client.end()
        #expect(fixture.tls.failures(.plaintext) == 1)
        client.close()
        await fixture.stop()
    }

    @Test(
        "old versions, and suites without forward secrecy or AEAD, are refused with the alert for it"
    )
    func refusedParameters() async throws {
        let fixture = try Fixture()
        let weak = ["-cipher", "ALL:@SECLEVEL=0"]
        for version in ["-tls1", "-tls1_1"] {
            let output = try await fixture.openssl([version] + weak)
            #expect(output.contains("SSL alert number 70"), "\(output)")
        }
        for cipher in [
            "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES128-SHA",
            "DHE-RSA-AES128-GCM-SHA256",
        ] {
            let output = try await fixture.openssl(["-tls1_2", "-cipher", "\(cipher):@SECLEVEL=0"])
            #expect(output.contains("SSL alert number 40"), "\(cipher): \(output)")
        }
        for arguments in [["-groups", "P-521"], ["-tls1_2", "-sigalgs", "ECDSA+SHA224"]] {
            let output = try await fixture.openssl(arguments)
            #expect(output.contains("SSL alert number 40"), "\(output)")
        }
        #expect(fixture.tls.failures(.protocolVersion) == 2)
        #expect(fixture.tls.failures(.noCommonParameters) == 6)
        await fixture.stop()
    }

    @Test("the suite is our choice, but a client that likes ChaCha20 best has no AES in hardware")
    func suites() async throws {
        let fixture = try Fixture()
        let (aes256, aes128) = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
        let chacha = "TLS_CHACHA20_POLY1305_SHA256"
        for (offer, chosen) in [
            ([aes256, aes128], aes128), ([aes256, chacha], aes256), ([chacha, aes128], chacha),
        ] {
            let output = try await fixture.openssl(["-ciphersuites", offer.joined(separator: ":")])
            #expect(output.contains("Cipher is \(chosen)"), "\(offer): \(output)")
        }
        await fixture.stop()
    }

    @Test("the client cannot renegotiate, and the staple comes with the certificate")
    func renegotiation() async throws {
        let fixture = try Fixture()
        // "R" on a line of its own asks for a renegotiation.
        let output = try await fixture.openssl(["-tls1_2", "-status"], saying: "R\n")
        #expect(output.contains("OCSP Response Status: successful"), "\(output)")
        #expect(output.contains("no renegotiation"), "\(output)")
        #expect(output.contains("Compression: NONE"))
        await fixture.stop()
    }

    @Test("a name with two kinds of key: each client gets what it can verify, with its own staple")
    func twoKeys() async throws {
        let fixture = try Fixture()
        func ask(_ version: String, _ algorithms: String) async throws -> String {
            try await fixture.openssl([
                "-servername", "pair.clinics.example", version, "-sigalgs", algorithms, "-status",
            ])
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let old = try await ask(version, "RSA-PSS+SHA256:RSA+SHA256")
            #expect(old.contains("CN = pair-rsa") && !old.contains("CN = pair-ecdsa"), "\(old)")
            #expect(old.contains("OCSP Response Status: successful"))
            let modern = try await ask(version, "ECDSA+SHA256")
            #expect(modern.contains("CN = pair-ecdsa"), "\(modern)")
            // It has none of its own, and is not given the other's.
            #expect(modern.contains("OCSP response: no response sent"))
            let both = try await ask(version, "ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256")
            #expect(both.contains("CN = pair-ecdsa"), "\(both)")
        }
        await fixture.stop()
    }

    /// Waits for something that the loop will make true without telling.
    private func eventually(_ condition: () -> Bool) async throws {
        try await Loop.shared.wait(for: condition)
    }
}

/// As `RawClient`, by TLS.
@LoopActor
final class SecureClient: ByteStreamDelegate {
    private let stream: TLSStream
    private(set) var received: [UInt8] = []
    private(set) var isEnded = false
    private var unsent: ArraySlice<UInt8> = []
    private var waiter: (isMet: (SecureClient) -> Bool, waiter: Waiter<Void>)?

    private init(_ stream: TLSStream) {
        self.stream = stream
    }

    private static var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }

    static func connect(_ address: SocketAddress) async throws -> SecureClient {
        try await over(try await PlainStream.connect(to: address, deadline: deadline))
    }

    static func over(_ socket: PlainStream) async throws -> SecureClient {
        var configuration = TLSClientConfiguration()
        configuration.serverName = "sunrise.clinics.example"
        configuration.applicationProtocols = ["http/1.1"]
        let stream = TLSStream(over: socket, try TLSContext(client: configuration))
        let client = SecureClient(stream)
        let done = Waiter<Void>()
        stream.handshake { result in
            switch result {
            case .success:
                stream.start(delegate: client, reading: true)
                done.succeed(())
            case .failure(let failure): done.fail(failure)
            }
        }
        try await done.wait(until: deadline)
        return client
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        unsent.append(contentsOf: bytes)
        flush()
    }

    private func flush() {
        while !unsent.isEmpty {
            guard case .wrote(let count) = unsent.withUnsafeBytes({ stream.write($0) }) else {
                break
            }
            unsent = unsent.dropFirst(count)
        }
        if !stream.isClosed { stream.setWriteInterest(!unsent.isEmpty) }
    }

    func answers(_ count: Int) async throws -> [RawAnswer] {
        let isMet: (SecureClient) -> Bool = { RawAnswer.parse($0.received).count >= count }
        if !isMet(self), !isEnded {
            let waiter = Waiter<Void>()
            self.waiter = (isMet, waiter)
            try await waiter.wait(until: SecureClient.deadline)
        }
        return RawAnswer.parse(received)
    }

    func answer() async throws -> RawAnswer? { try await answers(1).first }

    func close() { stream.close() }

    private func check() {
        guard let (isMet, waiter) = waiter, isMet(self) || isEnded else { return }
        self.waiter = nil
        waiter.succeed(())
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        received.append(contentsOf: bytes)
        // An answer of megabytes is not parsed again for each of its pieces.
        if received.count < 64 << 10 || received.count > 8 << 20 { check() }
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        isEnded = true
        check()
    }

    func streamIsWritable(_ stream: any ByteStream) { flush() }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        isEnded = true
        check()
    }
}
