import HCCore
import HCTesting
import Testing

@testable import HCIO

/// First messages of clients, byte by byte: what no library of a client would send.
@Suite("Hellos of TLS clients", .onLoop) @LoopActor struct TLSHelloTests {
    private nonisolated static let host: [UInt8] = [0, 3, 0x61, 0x2E, 0x62]

    private nonisolated static func sized(_ bytes: [UInt8]) -> [UInt8] {
        [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes
    }

    private nonisolated static func share(_ group: UInt8, _ count: Int) -> [UInt8] {
        [0, group] + sized([UInt8](repeating: 9, count: count))
    }

    /// A record of a ClientHello that either version could go on with (RFC 8446 4.1.2, RFC 5246 7.4.1.2).
    ///
    /// - Parameters:
    ///   - name: the content of its server_name extension; none, if nil.
    ///   - shares: the entries of its key_share extension; none for TLS 1.2.
    private nonisolated static func hello(
        name: [UInt8]?, shares: [UInt8] = share(29, 32), version: TLSVersion = .tls13
    ) -> [UInt8] {
        func field(_ type: UInt8, _ content: [UInt8]) -> [UInt8] { [0, type] + sized(content) }
        // Groups, one of them of GREASE (RFC 8701), and signatures.
        var fields =
            field(10, sized([0x0A, 0x0A, 0, 29, 0, 23]))
            + field(13, sized([4, 3, 8, 4, 4, 1]))
        if let name { fields += field(0, name) }
        if version == .tls13 {
            fields += field(43, [2, 3, 4]) + field(51, sized(shares))
        }
        let body =
            [3, 3] + [UInt8](repeating: 5, count: 32) + [0]
            + sized([0x13, 1, 0xC0, 0x2B, 0xC0, 0x2F]) + [1, 0] + sized(fields)
        return [22, 3, 1] + sized([1, 0] + sized(body))
    }

    /// What the server answers, and why it gave up if it did.
    private func answer(
        to bytes: [UInt8]
    ) async throws -> (record: [UInt8], counted: [TLSFailure.Reason]) {
        let (serverEnd, clientEnd) = MemoryStream.pair()
        let metrics = TLSMetrics(MetricsRegistry())
        let server = TLSStream(over: serverEnd, try TLSFixture.server(metrics: metrics))
        server.handshake { _ in }
        let heard = Recorder()
        clientEnd.start(delegate: heard, reading: true)
        _ = bytes.withUnsafeBytes { clientEnd.write($0) }
        try await heard.wait { !$0.received.isEmpty }
        clientEnd.close()
        server.close()
        return (heard.received, TLSFailure.Reason.allCases.filter { metrics.failures($0) > 0 })
    }

    private enum Alert: UInt8 {
        case unexpectedMessage = 10
        case illegalParameter = 47
        case decodeError = 50
        case unrecognizedName = 112
    }

    /// The alert is fatal and the failure is counted.
    private func expectRefusal(
        _ bytes: [UInt8], _ alert: Alert, _ reason: TLSFailure.Reason = .malformed
    ) async throws {
        let answer = try await answer(to: bytes)
        #expect(answer.record == [21, 3, answer.record[2], 0, 2, 2, alert.rawValue])
        #expect(answer.counted == [reason])
    }

    @Test(
        "without a name, with one, and with one that is no host's, there is a handshake",
        arguments: [
            nil, sized([0] + host), sized([0, 0, 1, 0x61]), sized([0, 0, 3, 0x61, 0x20, 0x62]),
        ] as [[UInt8]?], [TLSVersion.tls13, .tls12])
    func goodNames(_ name: [UInt8]?, _ version: TLSVersion) async throws {
        let answer = try await answer(to: Self.hello(name: name, version: version))
        // A ServerHello.
        #expect(answer.record.count > 5 && answer.record[0] == 22 && answer.record[5] == 2)
    }

    @Test(
        "a list of names that is malformed is refused as such: empty, with an empty name, two names",
        arguments: [
            [], [0], [0, 0], [0, 1, 0], [0, 2, 0, 0], [0, 3, 0, 0, 0], [0, 3, 0, 0, 9],
            [0, 4, 0, 0, 9, 0x61], [0, 9, 0, 0, 1, 0x61], [0, 4, 0, 0, 2, 0x61],
            [0, 4, 1, 0, 1, 0x61], [0xFF, 0xFF, 0, 0xFF, 0xFF, 0x61],
            [0, 6, 0, 0, 0, 0, 0, 0], [0, 7, 0, 0, 1, 0x61, 0, 0, 0],
            sized([0] + host + [0] + host),
        ] as [[UInt8]], [TLSVersion.tls13, .tls12])
    func badNames(_ name: [UInt8], _ version: TLSVersion) async throws {
        try await expectRefusal(Self.hello(name: name, version: version), .decodeError)
    }

    @Test("a name with a zero in it is nobody's")
    func zeroInName() async throws {
        try await expectRefusal(Self.hello(name: [0, 4, 0, 0, 1, 0]), .unrecognizedName)
    }

    @Test("a share for each of two curves, and any of groups that nobody knows, are no fault")
    func keyShares() async throws {
        let grease: [UInt8] = [0x0A, 0x0A, 0, 1, 0]
        let curves = Self.share(29, 32) + Self.share(23, 65)
        for shares in [Self.share(29, 32), curves, grease + Self.share(29, 32) + grease] {
            let answer = try await answer(to: Self.hello(name: nil, shares: shares))
            #expect(answer.record.first == 22)
        }
    }

    @Test(
        "two shares for one curve are refused (RFC 8446 4.2.8), in any place",
        arguments: [
            share(29, 32) + share(29, 32), share(29, 32) + share(23, 65) + share(29, 32),
            share(23, 65) + share(29, 32) + share(23, 65),
        ])
    func twoShares(_ shares: [UInt8]) async throws {
        try await expectRefusal(Self.hello(name: nil, shares: shares), .illegalParameter)
    }

    @Test("shares that do not fit their list are refused", arguments: [1, 2, 3, 4, 5, 35])
    func cutShares(_ count: Int) async throws {
        let shares = Array(Self.share(29, 32).prefix(count))
        try await expectRefusal(Self.hello(name: nil, shares: shares), .decodeError)
    }

    /// A sender must not send one (RFC 8446 5.1); who receives it without encryption may let it pass, and OpenSSL does.
    @Test("a few records without content are let pass, and many come to an end before the hello")
    func emptyRecords() async throws {
        func records(_ count: Int) -> [UInt8] {
            (0..<count).flatMap { _ in [22, 3, 1, 0, 0] as [UInt8] } + Self.hello(name: nil)
        }
        #expect(try await answer(to: records(1)).record.first == 22)
        try await expectRefusal(records(40), .unexpectedMessage, .uselessRecords)
    }
}
