import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("PROXY protocol headers")
struct ProxyHeaderTests {
    static func header(
        command: UInt8 = 0x21, family: UInt8 = 0x11, addresses: [UInt8]? = nil, tlvs: [UInt8] = [],
        length: Int? = nil
    ) -> [UInt8] {
        let body = (addresses ?? ipv4) + tlvs
        let count = length ?? body.count
        return ProxyHeader.signature
            + [command, family, UInt8(count >> 8), UInt8(count & 255)] + body
    }

    /// 192.0.2.7:4711 to 203.0.113.1:443.
    static let ipv4: [UInt8] = [192, 0, 2, 7, 203, 0, 113, 1, 0x12, 0x67, 0x01, 0xBB]
    static let ipv6: [UInt8] =
        [0x20, 0x01, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [7]
        + [UInt8](repeating: 0, count: 15) + [1, 0x12, 0x67, 0x01, 0xBB]

    static func tlv(_ kind: UInt8, _ value: [UInt8]) -> [UInt8] {
        [kind, UInt8(value.count >> 8), UInt8(value.count & 255)] + value
    }

    /// A header with a right checksum, made by a table of the test's own.
    static func checked(_ tlvs: [UInt8]) -> [UInt8] {
        var bytes = header(tlvs: tlvs + tlv(0x03, [0, 0, 0, 0]))
        var table = (0..<256).map { UInt32($0) }
        for index in table.indices {
            for _ in 0..<8 {
                let low = table[index] & 1
                table[index] = table[index] / 2 ^ (low * 0x82F6_3B78)
            }
        }
        var sum = UInt32.max
        for byte in bytes { sum = table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] ^ sum >> 8 }
        sum = ~sum
        for index in 0..<4 {
            bytes[bytes.count - 4 + index] = UInt8(
                truncatingIfNeeded: sum >> UInt32(24 - 8 * index))
        }
        return bytes
    }

    struct Case: CustomTestStringConvertible {
        let testDescription: String
        let bytes: [UInt8]
        var source = ProxyHeader.Source.client(.ipv4(address: 0xC000_0207, port: 4711))
        var isSecure = false
    }

    static let understood: [Case] = [
        Case(testDescription: "TCP over IPv4", bytes: header()),
        Case(
            testDescription: "TCP over IPv6", bytes: header(family: 0x21, addresses: ipv6),
            source: .client(.ipv6(high: 0x2001_0DB8_0000_0000, low: 7, scope: 0, port: 4711))),
        Case(
            testDescription: "an IPv4 client in IPv6 form",
            bytes: header(
                family: 0x21,
                addresses: [UInt8](repeating: 0, count: 10) + [255, 255, 192, 0, 2, 7]
                    + [UInt8](repeating: 0, count: 16) + [0x12, 0x67, 0, 80])),
        Case(
            testDescription: "a Unix client has no address",
            bytes: header(family: 0x31, addresses: [UInt8](repeating: 0x61, count: 216)),
            source: .proxy),
        Case(
            testDescription: "LOCAL: the proxy itself, whatever it says",
            bytes: header(command: 0x20, family: 0xFF, addresses: [1, 2, 3]), source: .proxy),
        Case(
            testDescription: "LOCAL without anything",
            bytes: header(command: 0x20, family: 0, addresses: []), source: .proxy),
        Case(
            testDescription: "PROXY of an unspecified family",
            bytes: header(family: 0x00, addresses: [9, 9, 9]), source: .proxy),
        Case(
            testDescription: "extensions are skipped",
            bytes: header(
                tlvs: tlv(0x01, Array("h2".utf8)) + tlv(0x04, []) + tlv(0xEA, [1, 2, 3]))),
        Case(
            testDescription: "the client came by TLS",
            bytes: header(tlvs: tlv(0x20, [1, 0, 0, 0, 0] + tlv(0x21, Array("TLSv1.3".utf8)))),
            isSecure: true),
        Case(
            testDescription: "the client came without TLS",
            bytes: header(tlvs: tlv(0x20, [0, 0, 0, 0, 1]))),
        Case(testDescription: "a right checksum", bytes: checked(tlv(0xEA, [1, 2, 3]))),
        Case(
            testDescription: "the longest header",
            bytes: header(
                tlvs: tlv(0x04, [UInt8](repeating: 0, count: 4096 - 16 - 12 - 3)))),
    ]

    @Test(
        "a header is understood, however it is cut, and ends where it ends", arguments: understood)
    func isUnderstood(_ wanted: Case) throws {
        for tail in [[], Array("GET / HTTP/1.1\r\n".utf8)] as [[UInt8]] {
            let input = wanted.bytes + tail
            for count in input.indices where count < wanted.bytes.count {
                #expect(try input[..<count].withUnsafeBytes { try ProxyHeader($0) } == nil)
            }
            let header = try #require(try input.withUnsafeBytes { try ProxyHeader($0) })
            #expect(header.byteCount == wanted.bytes.count)
            #expect(header.source == wanted.source)
            #expect(header.isSecure == wanted.isSecure)
        }
    }

    static let refused: [(String, [UInt8], ProxyHeader.Failure)] = [
        ("HTTP", Array("GET / HTTP/1.1\r\n".utf8), .signature),
        ("version 1", Array("PROXY TCP4 192.0.2.7 203.0.113.1 4711 443\r\n".utf8), .signature),
        ("one wrong byte", [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0B], .signature),
        ("version 3", header(command: 0x31), .version),
        ("an unknown command", header(command: 0x22), .command),
        ("UDP", header(family: 0x12), .family),
        ("datagrams on a Unix socket", header(family: 0x32), .family),
        ("an unknown family", header(family: 0x41), .family),
        ("too long", header(length: 4081), .tooLong),
        ("as long as can be said", header(length: 65_535), .tooLong),
        ("too short for IPv4", header(addresses: [1, 2, 3, 4]), .addresses),
        ("too short for IPv6", header(family: 0x21), .addresses),
        ("too short for Unix", header(family: 0x31), .addresses),
        ("half an extension", header(tlvs: [0x01, 0]), .extensions),
        ("an extension beyond the end", header(tlvs: [0x01, 0, 2, 0x68]), .extensions),
        ("a checksum of three bytes", header(tlvs: tlv(0x03, [1, 2, 3])), .extensions),
        (
            "two checksums", header(tlvs: tlv(0x03, [1, 2, 3, 4]) + tlv(0x03, [1, 2, 3, 4])),
            .extensions
        ),
        ("a short word about TLS", header(tlvs: tlv(0x20, [1, 0, 0])), .extensions),
        ("a wrong checksum", header(tlvs: tlv(0x03, [1, 2, 3, 4])), .checksum),
        (
            "a bit that fell over",
            {
                var bytes = checked([])
                bytes[17] ^= 1
                return bytes
            }(), .checksum
        ),
    ]

    @Test("what is no header is refused, and no later than it is known", arguments: refused)
    func isRefused(_ name: String, _ bytes: [UInt8], _ failure: ProxyHeader.Failure) {
        #expect(throws: failure, "\(name)") {
            try bytes.withUnsafeBytes { try ProxyHeader($0) }
        }
    }

    @Test("the checksum is that of RFC 3720 B.4")
    func checksum() {
        for (bytes, value) in [
            ([UInt8](repeating: 0, count: 32), UInt32(0x8A91_36AA)),
            ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
            (Array(0..<32), 0x46DD_794E),
        ] {
            var sum = CRC32C()
            bytes.withUnsafeBytes { sum.add($0) }
            #expect(sum.value == value)
        }
    }
}

@Suite("a door for proxies, over real sockets", .onLoop)
@LoopActor
struct ProxyProtocolTests {
    private func fixture(
        clock: ManualClock? = nil, trusted: String = "127.0.0.0/8",
        _ change: (inout HTTPServerConfiguration) -> Void = { _ in }
    ) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.proxyProtocol = [.plain]
        configuration.trustedProxies = TrustedProxies([try #require(AddressBlock(trusted))])
        change(&configuration)
        return try ServerFixture(clock: clock, configuration: configuration) { request in
            let content = try await request.body.collect(max: 1 << 20)
            let text =
                "\(request.remoteAddress) \(request.isSecure ? "https" : "http") \(request.host) "
            return HTTPResponse(.ok, body: .bytes(Array(text.utf8) + content))
        }
    }

    private static let post =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"

    @Test("the client that the proxy names is the request's; what follows is read without a gap")
    func named() async throws {
        let fixture = try fixture()
        let whole = ProxyHeaderTests.header() + Array(Self.post.utf8)
        for cut in [0, 1, 12, 16, 27, 28, 29, 40, whole.count] {
            let client = try await fixture.connect()
            client.send(Array(whole[..<cut]))
            try await client.pause()
            client.send(Array(whole[cut...]))
            #expect(try await client.answer()?.content == "192.0.2.7:4711 http a hello")
            client.send(Self.post)
            #expect(try await client.answers(2).count == 2)
            client.close()
        }
        await fixture.stop()
    }

    @Test("what a proxy says of TLS, and the fields of a proxy behind it")
    func chained() async throws {
        let fixture = try fixture { configuration in
            configuration.trustedProxies = TrustedProxies(
                ["127.0.0.0/8", "192.0.2.7"].compactMap { AddressBlock($0) })
        }
        let client = try await fixture.connect()
        let tls = ProxyHeaderTests.tlv(0x20, [1, 0, 0, 0, 0])
        client.send(ProxyHeaderTests.header(tlvs: tls))
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n")
        #expect(try await client.answer()?.content == "198.51.100.9:0 https a ")
        client.close()
        await fixture.stop()
    }

    @Test("a health check of the proxy itself is served as its own")
    func local() async throws {
        let fixture = try fixture()
        let client = try await fixture.connect()
        client.send(ProxyHeaderTests.header(command: 0x20, family: 0, addresses: []))
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try await client.answer()?.content.hasPrefix("127.0.0.1:") == true)
        client.close()
        await fixture.stop()
    }

    @Test("nothing is served without a header, and nobody but a proxy is listened to")
    func refused() async throws {
        let fixture = try fixture()
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try await client.end()
        #expect(client.received.isEmpty)
        #expect(fixture.metrics.refusals(ConnectionGate.Refusal.proxyHeader) == 1)
        await fixture.stop()

        let strict = try self.fixture(trusted: "192.0.2.0/24")
        do {
            let client = try await strict.connect()
            client.send(ProxyHeaderTests.header())
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            try await client.end()
            #expect(client.received.isEmpty)
        } catch let error as SystemError {
            #expect(error.errno == 104)
        }
        #expect(strict.metrics.refusals(ConnectionGate.Refusal.notProxy) == 1)
        await strict.stop()
    }

    @Test("a header that does not come in time ends the connection")
    func timeout() async throws {
        let fixture = try fixture(clock: ManualClock())
        let client = try await fixture.connect()
        client.send(Array(ProxyHeaderTests.header()[..<20]))
        try await client.pause()
        fixture.advance(by: .seconds(4))
        #expect(fixture.server.connectionCount == 1)
        fixture.advance(by: .seconds(3))
        try await client.end()
        #expect(fixture.metrics.refusals(ConnectionGate.Refusal.proxyTimeout) == 1)
        #expect(fixture.server.connectionCount == 0)
        #expect(fixture.server.gate.openCount == 0)
        await fixture.stop()
    }

    @Test("the client's address is capped, not the proxy's")
    func capped() async throws {
        let fixture = try fixture { $0.connectionsPerAddressMax = 1 }
        let first = try await fixture.connect()
        first.send(ProxyHeaderTests.header() + Array(Self.post.utf8))
        #expect(try await first.answer()?.status == 200)
        let second = try await fixture.connect()
        second.send(ProxyHeaderTests.header() + Array(Self.post.utf8))
        try await second.end()
        #expect(second.received.isEmpty)
        var other = ProxyHeaderTests.header()
        other[19] = 8
        let third = try await fixture.connect()
        third.send(other + Array(Self.post.utf8))
        #expect(try await third.answer()?.status == 200)
        for client in [first, second, third] { client.close() }
        await fixture.stop()
    }

    @Test("ambiguous fields of a trusted proxy are 400 with a reason, and end the connection")
    func ambiguous() async throws {
        let fixture = try fixture { $0.proxyProtocol = [] }
        let answer = try await fixture.send(
            "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n"
        )
        #expect(answer?.status == 400)
        #expect(answer?.content.contains(#""code":"forwarded-conflict""#) == true)
        #expect(answer?.value("Connection") == "close")
        #expect(fixture.metrics.refusals(ForwardedError.conflict) == 1)
        await fixture.stop()
    }

    @Test("draining ends a proxy's silent connection and serves one whose header has begun")
    func drain() async throws {
        let fixture = try fixture()
        let silent = try await fixture.connect()
        let begun = try await fixture.connect()
        let whole = ProxyHeaderTests.header() + Array(Self.post.utf8)
        begun.send(Array(whole[..<20]))
        try await begun.pause()
        fixture.server.stopAccepting(emptyingQueue: true)
        let server = fixture.server
        let finished = Waiter<Int>()
        Loop.shared.spawn {
            let now = Loop.now
            finished.succeed(
                await server.drain(
                    idleUntil: Deadline(now), deadline: .after(.seconds(20), from: now)))
        }
        try await silent.end()
        begun.send(Array(whole[20...]))
        let answer = try await begun.answer()
        #expect(answer?.status == 200)
        #expect(answer?.value("Connection") == "close")
        begun.close()
        #expect(try await finished.wait(until: .after(.seconds(20), from: Loop.now)) == 0)
    }
}
