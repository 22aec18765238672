import COpenSSL
import HCCore
import HCTesting
import Testing

@testable import HCIO

@Suite("TLS over a stream", .onLoop) @LoopActor struct TLSStreamTests {
    private static func bytes(_ count: Int) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(count))
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    // MARK: Handshakes

    @Test(
        "TLS 1.3 is spoken with an AEAD suite and the first of our protocols",
        arguments: [TLSVersion.tls13, .tls12])
    func versions(_ version: TLSVersion) async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(metrics: metrics),
            try TLSFixture.client {
                $0.versionMax = version
                $0.applicationProtocols = ["http/1.1", "h2"]
            })
        let made = try #require(pair.handshake)
        #expect(made.version == version && !made.isResumed)
        #expect(made.applicationProtocol == "h2")
        #expect(made.serverName == "sunrise.clinics.example")
        #expect(made.cipher.contains("AES128-GCM") || made.cipher.contains("AES_128_GCM"))
        #expect(metrics.handshakes(version, isResumed: false) == 1)
        pair.close()
    }

    @Test("a client that names no protocol gets none, one that names only others is refused")
    func protocols() async throws {
        let quiet = try await TLSPair.shaken(try TLSFixture.server(), try TLSFixture.client())
        #expect(quiet.handshake != nil && quiet.handshake?.applicationProtocol == nil)
        quiet.close()
        let other = try await TLSPair.shaken(
            try TLSFixture.server(), try TLSFixture.client { $0.applicationProtocols = ["smtp"] })
        #expect(other.serverFailure == .noApplicationProtocol)
        #expect(other.clientResult?.failure?.reason == .alertReceived)
    }

    @Test(
        "bytes pass in any pieces, both ways at once", arguments: [1, 3, 1000, Int.max],
        [TLSVersion.tls13, .tls12])
    func pieces(_ piece: Int, _ version: TLSVersion) async throws {
        let pair = TLSPair(
            try TLSFixture.server(), try TLSFixture.client { $0.versionMax = version })
        for end in [pair.serverEnd, pair.clientEnd] {
            end.piece = piece
            end.writePiece = piece
        }
        try await pair.shake()
        let count = piece < 10 ? 20_000 : 1_000_000
        let (up, down) = (Self.bytes(count), Self.bytes(count + 1))
        let fromClient = Sender(pair.client, up, pair.heardByClient)
        let fromServer = Sender(pair.server, down, pair.heardByServer)
        fromClient.send()
        fromServer.send()
        try await pair.heardByServer.waitAlso { $0.received.count == up.count }
        try await pair.heardByClient.waitAlso { $0.received.count == down.count }
        #expect(pair.heardByServer.received == up)
        #expect(pair.heardByClient.received == down)
        #expect(pair.server.keptCount == 0 && pair.client.keptCount == 0)
        pair.close()
    }

    // MARK: Bounds

    @Test("a peer that does not read stops the writer, and what is kept is bounded")
    func backPressure() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        pair.client.setReading(false)
        let content = Self.bytes(4 << 20)
        let sender = Sender(pair.server, content, pair.heardByServer)
        sender.send()
        try await pair.settle()
        #expect(sender.sent < content.count && sender.blockedCount > 0)
        #expect(pair.server.keptCount <= TLSStream.Limits.plaintextPerWrite + 1024)
        #expect(pair.heardByClient.received.isEmpty)
        pair.client.setReading(true)
        try await pair.heardByClient.wait { $0.received.count == content.count }
        #expect(pair.heardByClient.received == content)
        pair.close()
    }

    @Test("what arrived when its owner stopped reading waits, and comes when reading goes on")
    func pausedReading() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        // Stops at the first bytes; more has been read from the socket by then.
        pair.heardByServer.onEvent = { pair.server.setReading(false) }
        let content = Self.bytes(300_000)
        let sender = Sender(pair.client, content, pair.heardByClient)
        sender.send()
        try await pair.settle()
        let first = pair.heardByServer.received.count
        #expect(first > 0 && first < content.count)
        #expect(pair.server.keptCount <= 64 << 10)
        pair.heardByServer.onEvent = {}
        pair.server.setReading(true)
        try await pair.heardByServer.wait { $0.received.count == content.count }
        #expect(pair.heardByServer.received == content)
        pair.close()
    }

    @Test("a client that asks for new keys for ever is cut off")
    func keyUpdates() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(metrics: metrics), try TLSFixture.client())
        let pointer = try #require(pair.client.pointer)
        for _ in 0...TLSStream.Limits.uselessRecordsMax {
            _ = TLSEngine.run {
                SSL_key_update(pointer, SSL_KEY_UPDATE_REQUESTED)
                return SSL_do_handshake(pointer)
            }
            let output = TLSEngine.takeOutput()
            _ = output.withUnsafeBytes { pair.clientEnd.write($0) }
        }
        try await pair.heardByServer.wait { $0.failure != nil }
        #expect(metrics.breaks(.uselessRecords) == 1)
        pair.close()
    }

    @Test("a few new keys between bytes are nothing special")
    func fewKeyUpdates() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        for round in 1...100 {
            let pointer = try #require(pair.client.pointer)
            _ = TLSEngine.run {
                SSL_key_update(pointer, SSL_KEY_UPDATE_REQUESTED)
                return SSL_do_handshake(pointer)
            }
            let output = TLSEngine.takeOutput()
            _ = output.withUnsafeBytes { pair.clientEnd.write($0) }
            #expect(pair.client.write("x") == .wrote(1))
            try await pair.heardByServer.wait { $0.received.count == round }
            #expect(pair.server.write("y") == .wrote(1))
            try await pair.heardByClient.wait { $0.received.count == round }
        }
        pair.close()
    }

    // MARK: Ends

    @Test(
        "close_notify ends one direction; the other goes on", arguments: [TLSVersion.tls13, .tls12])
    func halfClose(_ version: TLSVersion) async throws {
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(), try TLSFixture.client { $0.versionMax = version })
        #expect(pair.client.write("question") == .wrote(8))
        pair.client.shutdownWrite()
        try await pair.heardByServer.wait { $0.hasEnded }
        #expect(pair.heardByServer.received == Array("question".utf8))
        #expect(pair.client.write("more") == .failed(SystemError(errno: 32, call: "SSL_write")))
        #expect(pair.server.write("answer") == .wrote(6))
        pair.server.close()
        try await pair.heardByClient.wait { $0.hasEnded }
        #expect(pair.heardByClient.received == Array("answer".utf8))
        #expect(pair.heardByClient.failure == nil && pair.heardByServer.failure == nil)
        pair.close()
    }

    @Test("a connection that ends without close_notify is broken, not ended")
    func truncation() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(metrics: metrics), try TLSFixture.client())
        #expect(pair.client.write("part") == .wrote(4))
        pair.client.cut()
        try await pair.heardByServer.wait { $0.failure != nil }
        #expect(pair.heardByServer.received == Array("part".utf8))
        #expect(!pair.heardByServer.hasEnded)
        #expect(metrics.truncations.value == 1 && metrics.breaks(.truncated) == 1)
        pair.close()
    }

    @Test("where the protocol above frames its messages, such an end is an end")
    func toleratedTruncation() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(metrics: metrics), try TLSFixture.client())
        pair.server.toleratesTruncation = true
        pair.client.cut()
        try await pair.heardByServer.wait { $0.hasEnded }
        #expect(pair.heardByServer.failure == nil && metrics.truncations.value == 1)
        pair.close()
    }

    @Test("a close while the socket takes nothing still sends all that was taken, and close_notify")
    func closeWithPendingBytes() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        pair.client.setReading(false)
        pair.clientEnd.capacity = 1000
        let content = Self.bytes(50_000)
        let result = content.withUnsafeBytes { pair.server.write($0) }
        #expect(result == .wrote(content.count))
        #expect(pair.server.keptCount > 0)
        pair.server.close()
        #expect(pair.server.isClosed && !pair.serverEnd.isClosed)
        pair.client.setReading(true)
        await TLSStream.waitForClosing(until: .soon)
        #expect(pair.serverEnd.isClosed)
        try await pair.heardByClient.wait { $0.received.count == content.count }
        // There was room for the bytes, and close_notify came behind them.
        try await pair.heardByClient.wait { $0.hasEnded || $0.failure != nil }
        #expect(pair.heardByClient.hasEnded && pair.heardByClient.failure == nil)
        pair.close()
    }

    @Test("a record that was changed on its way breaks the connection, with an alert")
    func changedRecord() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(metrics: metrics), try TLSFixture.client())
        let record: [UInt8] = [23, 3, 3, 0, 40] + Self.bytes(40)
        _ = record.withUnsafeBytes { pair.clientEnd.write($0) }
        try await pair.heardByServer.wait { $0.failure != nil }
        try await pair.heardByClient.wait { $0.failure != nil }
        #expect(metrics.breaks(.badRecord) == 1)
        #expect(pair.server.isClosed)
        pair.close()
    }

    @Test("what came before a broken record is heard")
    func contentBeforeBrokenRecord() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        #expect(pair.client.write("good") == .wrote(4))
        let record: [UInt8] = [23, 3, 3, 0, 40] + Self.bytes(40)
        _ = record.withUnsafeBytes { pair.clientEnd.write($0) }
        try await pair.heardByServer.wait { $0.failure != nil }
        #expect(pair.heardByServer.received == Array("good".utf8))
        pair.close()
    }

    // MARK: What is no TLS

    private func greet(_ bytes: [UInt8], _ metrics: TLSMetrics) async throws -> [UInt8] {
        let (serverEnd, clientEnd) = MemoryStream.pair()
        let server = TLSStream(
            over: serverEnd,
            try TLSFixture.server(metrics: metrics) {
                $0.plaintextAnswer = { _ in Array("TLS, please".utf8) }
            })
        let failed = Waiter<TLSFailure>()
        server.handshake { result in
            if case .failure(let failure) = result { failed.succeed(failure) }
        }
        let heard = Recorder()
        clientEnd.start(delegate: heard, reading: true)
        _ = bytes.withUnsafeBytes { clientEnd.write($0) }
        _ = try await failed.wait(until: .soon)
        try await heard.wait { $0.hasEnded }
        clientEnd.close()
        #expect(server.isClosed)
        return heard.received
    }

    @Test("HTTP without TLS is answered in its own words")
    func plaintext() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let answer = try await greet(Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), metrics)
        #expect(answer == Array("TLS, please".utf8))
        #expect(metrics.failures(.plaintext) == 1)
    }

    @Test(
        "bytes that are no handshake get an alert",
        arguments: [
            [UInt8](repeating: 0, count: 40),
            [0x80, 0x2E, 1, 3, 1] + [UInt8](repeating: 1, count: 60),
            [22, 3, 1, 0, 5, 1, 0xFF, 0xFF, 0xFF, 0],
            [22, 3, 1, 0xFF, 0xFF] + [UInt8](repeating: 9, count: 50),
            [23, 3, 3, 0, 4, 1, 2, 3, 4], [21, 3, 3, 0, 2, 2, 40],
        ])
    func garbage(_ bytes: [UInt8]) async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let answer = try await greet(bytes, metrics)
        // An alert record, or nothing for what does not even begin like TLS or is an alert itself.
        #expect(answer.isEmpty || (answer.count == 7 && answer[0] == 21 && answer[5] == 2))
        #expect(metrics.failures(.plaintext) == 0)
    }

    @Test("a client that goes away in the middle of its handshake is forgotten")
    func disconnect() async throws {
        let metrics = TLSMetrics(MetricsRegistry())
        let (serverEnd, clientEnd) = MemoryStream.pair()
        let server = TLSStream(over: serverEnd, try TLSFixture.server(metrics: metrics))
        let failed = Waiter<TLSFailure>()
        server.handshake { result in
            if case .failure(let failure) = result { failed.succeed(failure) }
        }
        clientEnd.start(delegate: Recorder(), reading: true)
        _ = [UInt8]([22, 3, 1, 2]).withUnsafeBytes { clientEnd.write($0) }
        clientEnd.close()
        #expect(try await failed.wait(until: .soon).reason == .disconnected)
        #expect(serverEnd.isClosed && metrics.failures(.disconnected) == 1)
    }

    // MARK: Certificates

    @Test(
        "the name that is asked for chooses the certificate",
        arguments: [
            ("praxis.example", "custom"), ("PRAXIS.example", "custom"),
            ("sunrise.clinics.example", "base"), ("clinics.example", "base"),
            ("a.b.clinics.example", "base"), ("unknown.example", "base"),
        ])
    func serverNames(_ name: String, _ expected: String) async throws {
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(), try TLSFixture.client(name) { $0.authority = nil })
        let pointer = try #require(pair.client.pointer)
        let shown = try #require(SSL_get0_peer_certificate(pointer))
        #expect(X509_cmp(shown, try TLSFixture.certificate(expected).certificate) == 0)
        // A name that nobody knows is not acknowledged (RFC 6066 3); OpenSSL tells by forgetting it.
        #expect(pair.handshake?.serverName == name.lowercased())
        pair.close()
    }

    @Test("without a name, the default")
    func noServerName() async throws {
        let pair = try await TLSPair.shaken(
            try TLSFixture.server(), try TLSFixture.client(nil) { $0.authority = nil })
        let pointer = try #require(pair.client.pointer)
        let shown = try #require(SSL_get0_peer_certificate(pointer))
        #expect(X509_cmp(shown, try TLSFixture.certificate("base").certificate) == 0)
        #expect(pair.handshake?.serverName == nil)
        pair.close()
    }

    @Test("new certificates are for new handshakes; open connections go on, old sessions too")
    func replacedCertificates() async throws {
        let context = try TLSFixture.server()
        let client = try TLSFixture.client("praxis.example") { $0.authority = nil }
        let before = try await TLSPair.shaken(context, client)
        try await before.settle()
        try context.replaceCertificates(try TLSFixture.certificates(["stranger"]))
        let fresh = try TLSFixture.client("praxis.example") { $0.authority = nil }
        let after = try await TLSPair.shaken(context, fresh)
        let pointer = try #require(after.client.pointer)
        let shown = try #require(SSL_get0_peer_certificate(pointer))
        #expect(X509_cmp(shown, try TLSFixture.certificate("stranger").certificate) == 0)
        #expect(before.client.write("still here") == .wrote(10))
        try await before.heardByServer.wait { $0.received.count == 10 }
        let resumed = try await TLSPair.shaken(context, client)
        #expect(resumed.handshake?.isResumed == true)
        for pair in [before, after, resumed] { pair.close() }
    }

    @Test("the staple is sent with its certificate, to who asks, until it is out of date")
    func staple() async throws {
        let clock = ManualClock(now: TLSFixture.now)
        let context = try TLSFixture.server(clocks: clock.clocks)
        func stapleBytes(_ name: String) async throws -> Int {
            let pair = try await TLSPair.shaken(
                context, try TLSFixture.client(name) { $0.authority = nil })
            let pointer = try #require(pair.client.pointer)
            defer { pair.close() }
            return pair.clientStapleCount(pointer)
        }
        let size = try TLSFixture.certificate("base").staple.count
        #expect(size > 0)
        #expect(try await stapleBytes("sunrise.clinics.example") == size)
        #expect(try await stapleBytes("praxis.example") <= 0)
        clock.advance(by: .seconds(8 * 86_400))
        #expect(try await stapleBytes("sunrise.clinics.example") <= 0)
    }
}

extension Result where Failure == TLSFailure {
    var failure: TLSFailure? {
        if case .failure(let failure) = self { return failure }
        return nil
    }
}

extension TLSPair {
    func clientStapleCount(_ pointer: OpaquePointer) -> Int {
        var bytes: UnsafePointer<UInt8>?
        return hc_ssl_get_ocsp_response(pointer, &bytes)
    }
}

extension Recorder {
    /// As `wait`, for a recorder whose events somebody else needs too.
    func waitAlso(_ condition: @escaping @LoopActor (Recorder) -> Bool) async throws {
        try await wait(for: condition)
    }
}
