import COpenSSL
import HCCore
import HCTesting
import Testing

@testable import HCIO

/// What a peer cannot make us keep, read or wait for.
@Suite("Bounds of TLS streams", .onLoop) @LoopActor struct TLSBoundTests {
    /// Sends as the client what it says itself, and asks for new keys: the server must answer each time.
    private func askForKeys(_ pair: TLSPair) throws -> StreamWrite {
        let pointer = try #require(pair.client.pointer)
        _ = TLSEngine.run {
            SSL_key_update(pointer, SSL_KEY_UPDATE_REQUESTED)
            return SSL_do_handshake(pointer)
        }
        var written = 0
        _ = TLSEngine.run { SSL_write_ex(pointer, "x", 1, &written) }
        let output = TLSEngine.takeOutput()
        return output.withUnsafeBytes { pair.clientEnd.write($0) }
    }

    @Test("a peer that makes us answer and does not read is not read either")
    func answersThatNobodyReads() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        try await pair.settle()
        pair.client.setReading(false)
        pair.clientEnd.capacity = 0
        // Ten thousand answers would be a quarter of a megabyte.
        var asked = 0
        while asked < 10_000, case .wrote = try askForKeys(pair) {
            asked += 1
            if asked.isMultiple(of: 100) { try await pair.settle() }
        }
        let bound = TLSStream.Limits.pendingBytesMax
        #expect(pair.server.keptCount > bound / 2, "it did answer")
        // What one read brought is gone through whole: at most as many answers as there were questions in it.
        #expect(pair.server.keptCount <= bound + (64 << 10))
        #expect(pair.heardByServer.received.count < asked, "it does not read any more")
        pair.clientEnd.close()
        pair.close()
    }

    /// A connection that is broken by its client and then neither read nor closed by it.
    private func broken(_ timeouts: TLSEndTimeouts) async throws -> TLSPair {
        let pair = try await TLSPair.shaken(
            TLSFixture.server { $0.timeouts = timeouts }, TLSFixture.client())
        pair.client.setReading(false)
        let record: [UInt8] = [23, 3, 3, 0, 40] + [UInt8](repeating: 7, count: 40)
        _ = record.withUnsafeBytes { pair.clientEnd.write($0) }
        try await pair.heardByServer.wait { $0.failure != nil }
        return pair
    }

    @Test(
        "after a failure the peer's input is thrown away for a while, and then the socket is closed"
    )
    func lingering() async throws {
        var timeouts = TLSEndTimeouts()
        timeouts.lingering = .milliseconds(1)
        let pair = try await broken(timeouts)
        try await eventually { pair.serverEnd.isClosed }
        pair.close()
    }

    @Test("and no more of it than the bound")
    func lingeredBytes() async throws {
        var timeouts = TLSEndTimeouts()
        timeouts.lingering = .seconds(86_400)
        let pair = try await broken(timeouts)
        let piece = [UInt8](repeating: 0, count: TLSStream.Limits.lingerBytesMax / 4)
        for _ in 0..<4 {
            _ = piece.withUnsafeBytes { pair.clientEnd.write($0) }
            try await pair.settle()
        }
        #expect(!pair.serverEnd.isClosed)
        _ = piece.withUnsafeBytes { pair.clientEnd.write($0) }
        try await eventually { pair.serverEnd.isClosed }
        pair.close()
    }

    @Test("of many that break, only so many linger")
    func lingeringMax() async throws {
        var timeouts = TLSEndTimeouts()
        timeouts.lingering = .seconds(86_400)
        let (server, client) = (
            try TLSFixture.server { $0.timeouts = timeouts }, try TLSFixture.client()
        )
        var ends: [(server: MemoryStream, client: MemoryStream)] = []
        for _ in 0...TLSStream.Limits.lingeringMax {
            let (serverEnd, clientEnd) = MemoryStream.pair()
            let stream = TLSStream(over: serverEnd, server)
            let failed = Waiter<Void>()
            stream.handshake { _ in failed.succeed(()) }
            clientEnd.start(delegate: Recorder(), reading: true)
            _ = [UInt8](repeating: 0, count: 40).withUnsafeBytes { clientEnd.write($0) }
            try await failed.wait(until: .soon)
            ends.append((serverEnd, clientEnd))
        }
        #expect(ends.filter(\.server.isClosed).count == 1)
        for end in ends { end.client.close() }
        try await eventually { ends.allSatisfy(\.server.isClosed) }
        withExtendedLifetime(client) {}
    }

    @Test("a closed stream whose peer does not read is let go of in the end")
    func closing() async throws {
        var timeouts = TLSEndTimeouts()
        timeouts.closing = .milliseconds(1)
        let pair = try await TLSPair.shaken(
            TLSFixture.server { $0.timeouts = timeouts }, TLSFixture.client())
        pair.client.setReading(false)
        pair.clientEnd.capacity = 1000
        let content = [UInt8](repeating: 1, count: 50_000)
        _ = content.withUnsafeBytes { pair.server.write($0) }
        pair.server.close()
        #expect(!pair.serverEnd.isClosed)
        await TLSStream.waitForClosing(until: .soon)
        #expect(pair.serverEnd.isClosed)
        pair.close()
    }

    @Test("any number wait for the last bytes at once, also after one has given up")
    func closingWaiters() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        pair.client.setReading(false)
        pair.clientEnd.capacity = 1000
        let content = [UInt8](repeating: 1, count: 50_000)
        _ = content.withUnsafeBytes { pair.server.write($0) }
        pair.server.close()
        await TLSStream.waitForClosing(until: Deadline(Loop.now))
        #expect(!pair.serverEnd.isClosed)
        async let one: Void = TLSStream.waitForClosing(until: .soon)
        async let other: Void = TLSStream.waitForClosing(until: .soon)
        try await pair.settle()
        pair.client.setReading(true)
        _ = await (one, other)
        #expect(pair.serverEnd.isClosed)
        pair.close()
    }

    @Test("the client is told how long its session lasts", arguments: [TLSVersion.tls13, .tls12])
    func lifetimeOfSessions(_ version: TLSVersion) async throws {
        let pair = try await TLSPair.shaken(
            TLSFixture.server(), TLSFixture.client { $0.versionMax = version })
        try await pair.settle()
        let pointer = try #require(pair.client.pointer)
        let session = try #require(SSL_get1_session(pointer))
        defer { SSL_SESSION_free(session) }
        #expect(SSL_SESSION_has_ticket(session) == 1)
        #expect(SSL_SESSION_get_ticket_lifetime_hint(session) == 6 * 3600)
        pair.close()
    }

    @Test("a connection does not keep its staple")
    func stapleIsGone() async throws {
        let pair = try await TLSPair.shaken(TLSFixture.server(), TLSFixture.client())
        let (client, server) = (pair.client.pointer, pair.server.pointer)
        #expect(pair.clientStapleCount(try #require(client)) > 0)
        #expect(pair.clientStapleCount(try #require(server)) <= 0)
        pair.close()
    }

    // MARK: Names

    @Test("names of hosts are ASCII in lower case, without the dot at their end")
    func hosts() {
        func normalised(_ text: String, wildcard: Bool = false) -> String? {
            TLSHost.normalised(Array(text.utf8), allowsWildcard: wildcard)
        }
        let longest = String(repeating: "a", count: 255)
        #expect(normalised("Praxis.Example.") == "praxis.example")
        #expect(normalised(longest) == longest)
        for text in ["", ".", "..a", ".a", longest + "a", "a b", "a/b", "ä", "a\0", "*.a", "[::1]"]
        {
            #expect(normalised(text) == nil, "\(text)")
        }
        #expect(normalised("*.A.example", wildcard: true) == "*.a.example")
        for text in ["*", "*.", "*a", "a.*", "**.a", "*.*.a"] {
            #expect(normalised(text, wildcard: true) == nil, "\(text)")
        }
    }

    /// Waits for something that the loop will make true without telling.
    private func eventually(_ condition: () -> Bool) async throws {
        let deadline = Deadline.soon
        while !condition() {
            guard !deadline.isExpired(at: Loop.now) else {
                throw FixtureError("it did not come to pass")
            }
            try await Loop.shared.sleep(for: .microseconds(100))
        }
    }
}
