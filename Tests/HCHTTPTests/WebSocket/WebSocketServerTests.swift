import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("WebSocket over real sockets", .onLoop)
@LoopActor
struct WebSocketServerTests {
    // MARK: The handshake

    @Test("the handshake of RFC 6455 1.3 is answered as it says")
    func handshake() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        let answer = try #require(client.answer)
        #expect(answer.status == 101)
        #expect(answer.value("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        #expect(answer.value("Upgrade") == "websocket")
        #expect(answer.values("Connection") == ["Upgrade"])
        #expect(answer.value("Content-Length") == nil)
        #expect(answer.value("Sec-WebSocket-Extensions") == nil)
        #expect(answer.value("Sec-WebSocket-Protocol") == nil)
        client.raw.close()
        await fixture.stop()
    }

    struct Handshake: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let text: String
        let status: Int
        let refusal: WebSocketHandshake.Refusal?

        init(
            _ name: String, _ text: String, _ status: Int,
            _ refusal: WebSocketHandshake.Refusal? = nil
        ) {
            testDescription = name
            self.text = text
            self.status = status
            self.refusal = refusal
        }
    }

    nonisolated static func changed(_ name: String, to values: String...) -> String {
        WebSocketFixture.handshake(leavingOut: [name], with: values.map { (name, $0) })
    }

    nonisolated static let handshakes: [Handshake] = [
        Handshake("as it should be", WebSocketFixture.handshake(), 101),
        Handshake("fields in other letters", changed("Upgrade", to: "WebSocket"), 101),
        Handshake("keep-alive too", changed("Connection", to: "keep-alive, Upgrade"), 101),
        Handshake("the second choice", changed("Upgrade", to: "h2c, websocket"), 101),
        Handshake("no Upgrade", changed("Upgrade"), 426, .noUpgrade),
        Handshake("another protocol", changed("Upgrade", to: "h2c"), 426, .noUpgrade),
        Handshake(
            "more subprotocols than anybody speaks",
            WebSocketFixture.handshake(with: [
                ("Sec-WebSocket-Protocol", (0...32).map { "p\($0)" }.joined(separator: ","))
            ]), 400, .subprotocols),
        Handshake("no Connection", changed("Connection"), 426, .noUpgrade),
        Handshake("Connection: close", changed("Connection", to: "close"), 426, .noUpgrade),
        Handshake(
            "HTTP/1.0", WebSocketFixture.handshake(version: "HTTP/1.0"), 426, .noUpgrade),
        Handshake("POST", WebSocketFixture.handshake(method: "POST"), 426, .noUpgrade),
        Handshake(
            "content", WebSocketFixture.handshake(with: [("Content-Length", "1")]) + "x", 426,
            .noUpgrade),
        Handshake("no version", changed("Sec-WebSocket-Version"), 426, .version),
        Handshake("version 8", changed("Sec-WebSocket-Version", to: "8"), 426, .version),
        Handshake("two versions", changed("Sec-WebSocket-Version", to: "13", "13"), 400, .version),
        Handshake("no key", changed("Sec-WebSocket-Key"), 400, .key),
        Handshake("a short key", changed("Sec-WebSocket-Key", to: "dGhlIHNhbXBsZQ=="), 400, .key),
        Handshake(
            "a key of other letters", changed("Sec-WebSocket-Key", to: "dGhlIHNhbXBsZSBub25j!Q=="),
            400, .key),
        Handshake(
            "two keys",
            changed("Sec-WebSocket-Key", to: WebSocketFixture.key, WebSocketFixture.key), 400, .key
        ),
        Handshake(
            "extensions that are no list", changed("Sec-WebSocket-Extensions", to: "a;;"), 400,
            .extensions),
        Handshake(
            "a subprotocol that is no name", changed("Sec-WebSocket-Protocol", to: "a b"), 400,
            .subprotocols),
        Handshake(
            "a subprotocol twice", changed("Sec-WebSocket-Protocol", to: "a, a"), 400,
            .subprotocols),
    ]

    @Test("a handshake is accepted or refused", arguments: handshakes)
    func refusals(_ one: Handshake) async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.fixture.connect()
        client.send(one.text)
        let answer = try #require(try await client.answer())
        #expect(answer.status == one.status)
        if one.status == 426 {
            #expect(answer.value("Upgrade") == "websocket")
            #expect(answer.value("Connection")?.hasPrefix("Upgrade") == true)
            #expect(answer.value("Sec-WebSocket-Version") == "13")
        }
        for refusal in WebSocketHandshake.Refusal.allCases {
            #expect(fixture.metrics.refusals(refusal) == (refusal == one.refusal ? 1 : 0))
        }
        client.close()
        await fixture.stop()
    }

    @Test("a route that does not upgrade answers as to any other request")
    func ignored() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.fixture.connect()
        client.send(WebSocketFixture.handshake("/plain"))
        #expect(try await client.answer()?.content == "plain")
        // And the connection goes on as it was.
        client.send(WebSocketFixture.handshake("/plain"))
        #expect(try await client.answers(2).count == 2)
        client.close()
        await fixture.stop()
    }

    @Test("the client's first choice of the subprotocols that the route speaks is taken")
    func subprotocols() async throws {
        var chosen: [String?] = []
        let fixture = try WebSocketFixture(subprotocols: ["b", "c"]) { socket in
            chosen.append(socket.subprotocol)
            _ = try await socket.receive()
        }
        for (offered, taken) in [("a, c", "c"), ("c,b", "c"), ("b", "b"), ("x", nil)] {
            let client = try await fixture.open(with: [("Sec-WebSocket-Protocol", offered)])
            #expect(client.answer?.value("Sec-WebSocket-Protocol") == taken)
            client.raw.close()
        }
        #expect(chosen == ["c", "c", "b", nil])
        await fixture.stop()
    }

    @Test("a socket more than there may be is 503")
    func tooMany() async throws {
        var configuration = WebSocketConfiguration()
        configuration.socketsMax = 1
        let fixture = try WebSocketFixture(configuration: configuration)
        let first = try await fixture.open()
        let second = try await fixture.fixture.connect()
        second.send(WebSocketFixture.handshake())
        #expect(try await second.answer()?.status == 503)
        #expect(fixture.metrics.refusals(.tooMany) == 1)
        first.raw.close()
        second.close()
        await fixture.stop()
    }

    @Test("a request behind an upgrade is the tunnel's, not HTTP's")
    func notPipelined() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open(sending: Array("GET / HTTP/1.1\r\n\r\n".utf8))
        // 0x47: no mask, RSV1 and opcode 7.
        #expect(try await client.rest() == [.close(1002)])
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.violation])
        await fixture.stop()
    }

    @Test("requests before an upgrade are answered before it")
    func afterRequests() async throws {
        let fixture = try WebSocketFixture()
        let client = WebSocketClient(try await fixture.fixture.connect())
        client.raw.send(
            Array("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
                + Array(WebSocketFixture.handshake().utf8) + RawFrame.text("x").masked())
        let wanted = RawFrame.text("x").unmasked
        try await client.raw.wait { $0.received.suffix(3).elementsEqual(wanted) }
        let answers = RawAnswer.parse(client.raw.received)
        #expect(answers.map(\.status) == [200, 101])
        client.raw.close()
        await fixture.stop()
    }

    // MARK: Messages

    @Test("messages come back, also those that came with the handshake")
    func echo() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open(sending: RawFrame.text("first").masked())
        client.send(.text(""), .binary([0, 255]), .text("Grüße"))
        let large = RawFrame.binary((0..<60_000).map { UInt8(truncatingIfNeeded: $0) })
        client.send(large)
        #expect(
            try await client.frames(5)
                == [.text("first"), .text(""), .binary([0, 255]), .text("Grüße"), large])
        client.send(.close(1000))
        #expect(try await client.rest().last == .close(1000))
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.peer])
        await fixture.stop()
    }

    @Test("compressed messages come back compressed")
    func compressed() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open(
            with: [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")])
        #expect(
            client.answer?.value("Sec-WebSocket-Extensions")
                == "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
        let text = String(repeating: "Hello ", count: 1000)
        var compressed: [UInt8] = []
        let deflater = WebSocketDeflater(windowBits: 15, level: 6, memoryLevel: 8)
        Array(text.utf8).withUnsafeBytes {
            deflater.compress($0, forgets: true, into: &compressed)
        }
        client.send(RawFrame(0xC1, compressed))
        let frame = try #require(try await client.frames(1).first)
        #expect(frame.first == 0xC1)
        var inflated: [UInt8] = []
        let inflater = WebSocketInflater()
        try frame.content.withUnsafeBytes {
            try inflater.inflate($0, onto: &inflated, countMax: 1 << 20)
        }
        #expect(String(decoding: inflated, as: UTF8.self) == text)
        client.raw.close()
        await fixture.stop()
    }

    @Test("every ping is answered, before messages that wait")
    func pings() async throws {
        let gate = Gate()
        let fixture = try WebSocketFixture { socket in
            while let message = try await socket.receive() {
                try await gate.pass()
                try await socket.send(message)
            }
        }
        let client = try await fixture.open()
        client.send(.text("a"))
        client.raw.send((0..<10).flatMap { RawFrame.ping("\($0)").masked() })
        #expect(try await client.frames(10) == (0..<10).map { RawFrame.pong("\($0)") })
        gate.open()
        #expect(try await client.frames(11).last == .text("a"))
        client.raw.close()
        await fixture.stop()
    }

    @Test("a ping inside a message is answered at once")
    func pingBetweenFragments() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        client.send(RawFrame(0x01, [0x41]), .ping("p"))
        #expect(try await client.frames(1) == [.pong("p")])
        client.send(RawFrame(0x80, [0x42]))
        #expect(try await client.frames(2).last == .text("AB"))
        client.raw.close()
        await fixture.stop()
    }

    // MARK: Good-byes

    @Test("a peer's good-bye is answered with its own code after what came before it")
    func peerCloses() async throws {
        let fixture = try WebSocketFixture()
        for (close, answer) in [
            (RawFrame.close(1000, "bye"), RawFrame.close(1000)), (.close(), .close()),
            (.close(4321), .close(4321)),
        ] {
            let client = try await fixture.open()
            client.send(.text("a"), .text("b"), close)
            #expect(try await client.rest() == [.text("a"), .text("b"), answer])
            client.raw.close()
        }
        let endings = try await fixture.endings(3)
        #expect(endings.map { $0.code?.number } == [1000, nil, 4321])
        #expect(endings.first?.reason == "bye")
        await fixture.stop()
    }

    @Test("what comes behind a good-bye is not looked at")
    func afterClose() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        client.send(.close(1000), .text("x"), .ping("y"), .close(1001), RawFrame(0xFF))
        #expect(try await client.rest() == [.close(1000)])
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.peer])
        await fixture.stop()
    }

    @Test("an offence is answered with its code after what came before it")
    func violations() async throws {
        let fixture = try WebSocketFixture()
        for (offence, code) in [
            (RawFrame(0x83), 1002), (RawFrame(0x81, [0xFF]), 1007),
            (RawFrame.binary([UInt8](repeating: 0, count: 70_000)), 1009),
        ] {
            let client = try await fixture.open()
            client.send(.text("a"), offence, .ping("not any more"))
            let frames = try await client.rest()
            #expect(frames.first == .text("a"))
            #expect(frames.dropFirst().map(\.closeCode) == [code])
            client.raw.close()
        }
        #expect(
            try await fixture.endings(3).map(\.kind) == [.violation, .violation, .violation])
        #expect(fixture.metrics.violations(.reservedOpcode) == 1)
        #expect(fixture.metrics.violations(.invalidUTF8) == 1)
        #expect(fixture.metrics.violations(.frameTooLarge) == 1)
        await fixture.stop()
    }

    @Test("a handler hears of the end: nil of a good one, an error of a bad one")
    func whatHandlersSee() async throws {
        var seen: [String] = []
        let fixture = try WebSocketFixture { socket in
            do {
                while try await socket.receive() != nil {}
                seen.append("nil")
            } catch let ending as WebSocketEnding {
                seen.append(ending.kind.rawValue)
            }
        }
        for frame in [RawFrame.close(1000), RawFrame(0x83)] {
            let client = try await fixture.open()
            client.send(frame)
            _ = try await client.rest()
            client.raw.close()
        }
        let lost = try await fixture.open()
        lost.raw.close()
        _ = try await fixture.endings(3)
        #expect(seen == ["nil", "violation", "lost"])
        await fixture.stop()
    }

    @Test("a handler that returns says good-bye, one that throws says that it failed")
    func handlersEnd() async throws {
        struct Broken: Error {}
        let fixture = try WebSocketFixture { socket in
            let message = try await socket.receive()
            if message?.text == "fail" { throw Broken() }
            if message?.text == "own" {
                socket.close(WebSocketCloseCode(4001) ?? .normal, reason: "enough")
            }
        }
        for (text, expected) in [
            ("x", RawFrame.close(1000)), ("fail", .close(1011)), ("own", .close(4001, "enough")),
        ] {
            let client = try await fixture.open()
            client.send(.text(text))
            #expect(try await client.frames(1) == [expected])
            client.send(.close(1000))
            try await client.raw.end()
            client.raw.close()
        }
        #expect(try await fixture.endings(3).map(\.kind) == [.handler, .failed, .handler])
        #expect(fixture.failures == ["Broken()"])
        await fixture.stop()
    }

    @Test("messages that cross our good-bye are dropped, and the peer's is awaited")
    func crossing() async throws {
        let fixture = try WebSocketFixture { socket in socket.close(.normal) }
        let client = try await fixture.open()
        _ = try await client.frames(1)
        client.send(.text("late"), .ping("late"))
        client.send(RawFrame(0x01, [0x41]), RawFrame(0x80, [0x42]), .close(1000))
        #expect(try await client.rest() == [.close(1000)])
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.handler])
        await fixture.stop()
    }

    // MARK: The server's end

    @Test("a draining server closes its sockets with 1012 and a hint, and is drained when they are")
    func drain() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        fixture.fixture.server.stopAccepting(emptyingQueue: false)
        async let cut = fixture.fixture.server.drain(
            idleUntil: .after(.seconds(60), from: Loop.now),
            deadline: .after(.seconds(60), from: Loop.now))
        let frame = try #require(try await client.frames(1).first)
        #expect(frame.closeCode == 1012)
        let hint = try #require(frame.closeReason.split(separator: "=").last.flatMap { Double($0) })
        #expect(frame.closeReason.hasPrefix("retry-after="))
        #expect((0.5...10).contains(hint))
        client.send(.close(1012))
        try await client.raw.end()
        client.raw.close()
        #expect(await cut == 0)
        #expect(try await fixture.endings().map(\.kind) == [.drained])
        #expect(fixture.fixture.server.connectionCount == 0)
    }

    @Test("an upgrade that is accepted while the server drains is closed with 1012")
    func upgradeWhileDraining() async throws {
        let fixture = try WebSocketFixture()
        let client = WebSocketClient(try await fixture.fixture.connect())
        client.raw.send(String(WebSocketFixture.handshake().dropLast()))
        fixture.fixture.server.stopAccepting(emptyingQueue: true)
        async let cut = fixture.fixture.server.drain(
            idleUntil: .after(.seconds(60), from: Loop.now),
            deadline: .after(.seconds(60), from: Loop.now))
        await Task.yield()
        client.raw.send("\r\n")
        #expect(try await client.frames(1).map(\.closeCode) == [1012])
        client.send(.close(1012))
        try await client.raw.end()
        client.raw.close()
        #expect(await cut == 0)
    }

    @Test("what has not ended at the deadline is cut, and counted")
    func cutAtDeadline() async throws {
        let fixture = try WebSocketFixture()
        let client = try await fixture.open()
        fixture.fixture.server.stopAccepting(emptyingQueue: false)
        let cut = await fixture.fixture.server.drain(
            idleUntil: Deadline(Loop.now), deadline: Deadline(Loop.now))
        #expect(cut == 1)
        try await client.raw.end()
        #expect(try await fixture.endings().map(\.kind) == [.drained])
        #expect(fixture.endpoint.count == 0)
        client.raw.close()
    }

    // MARK: Pressure

    @Test("a handler that does not receive stops the client, and nothing is lost")
    func inputPressure() async throws {
        let gate = Gate()
        var configuration = WebSocketConfiguration()
        configuration.limits = WebSocketLimits(messageBytesMax: 1 << 20)
        var received = 0
        let fixture = try WebSocketFixture(configuration: configuration) { socket in
            try await gate.pass()
            while let message = try await socket.receive() { received += message.count }
        }
        let client = try await fixture.open()
        // More than all buffers of the kernel hold.
        let frame = RawFrame.binary([UInt8](repeating: 1, count: 1 << 20)).masked()
        for _ in 0..<40 { client.raw.send(frame) }
        #expect(client.raw.unsentCount > 0)
        gate.open()
        client.send(.close(1000))
        _ = try await client.rest()
        #expect(received == 40 << 20)
        client.raw.close()
        await fixture.stop()
    }

    @Test("a client that does not read stops a sender, and gets everything when it reads")
    func outputPressure() async throws {
        var sent = 0
        let block = WebSocketMessage(binary: [UInt8](repeating: 7, count: 256 << 10))
        let fixture = try WebSocketFixture { socket in
            for _ in 0..<100 {
                try await socket.send(block)
                sent += 1
            }
        }
        let client = WebSocketClient(try await fixture.fixture.connect(reading: false))
        client.raw.send(WebSocketFixture.handshake())
        // The handler is at work until its queue and the kernel are full.
        try await fixture.settled { sent }
        #expect(sent < 100)
        client.raw.setReading(true)
        try await client.raw.wait { $0.received.count > 100 << 18 && client.frames.count == 101 }
        #expect(sent == 100)
        #expect(client.frames.last == .close(1000))
        client.raw.close()
        await fixture.stop()
    }

    @Test("a slow reader of a feed is dropped with 1013, and what it did not get is not kept")
    func slowConsumer() async throws {
        var configuration = WebSocketConfiguration()
        configuration.queueMessagesMax = 4
        let message = WebSocketMessage(binary: [UInt8](repeating: 7, count: 100 << 10))
        configuration.queueBytesMax = 1 << 20
        var pushed = 0
        let fixture = try WebSocketFixture(configuration: configuration) { socket in
            while socket.push(message) {
                pushed += 1
                await Task.yield()
            }
            #expect(socket.queuedCount <= 2)
            _ = try await socket.receive()
        }
        let client = WebSocketClient(try await fixture.fixture.connect(reading: false))
        client.raw.send(WebSocketFixture.handshake())
        try await fixture.settled { pushed }
        client.raw.setReading(true)
        try await client.raw.wait { _ in client.frames.last?.closeCode != nil }
        client.send(.close(1013))
        let frames = try await client.rest()
        #expect(frames.count < pushed)
        let last = try #require(frames.last)
        #expect(last.closeCode == 1013)
        #expect(last.closeReason.hasPrefix("retry-after="))
        client.raw.close()
        #expect(try await fixture.endings().map(\.kind) == [.slow])
        await fixture.stop()
    }

    @Test("pings of a client that takes no pongs do not pile up")
    func pingFlood() async throws {
        var socketSeen: WebSocket?
        let fixture = try WebSocketFixture { socket in
            socketSeen = socket
            _ = try await socket.receive()
        }
        let client = WebSocketClient(try await fixture.fixture.connect(reading: false))
        client.raw.send(WebSocketFixture.handshake())
        let pings = [[UInt8]](
            repeating: RawFrame.ping(String(repeating: "p", count: 125)).masked(), count: 1000
        ).flatMap { $0 }
        for _ in 0..<200 { client.raw.send(pings) }
        try await fixture.settled { client.raw.unsentCount }
        #expect(client.raw.unsentCount > 0)
        let queued = try #require(socketSeen).queuedBytes
        #expect(queued <= 33 * 127)
        client.raw.close()
        _ = try await fixture.endings()
        await fixture.stop()
    }

    // MARK: What waits

    /// A socket whose client takes what the test says.
    private func open(_ fixture: WebSocketFixture) async throws -> SippingStream {
        let stream = SippingStream()
        fixture.fixture.serve(stream)
        stream.sip(1 << 20)
        stream.give(WebSocketFixture.handshake())
        try await Loop.shared.wait { fixture.endpoint.count == 1 }
        return stream
    }

    @Test("so many messages wait for a handler, and so many bytes", arguments: [1, 40_000])
    func inbox(size: Int) async throws {
        let gate = Gate()
        var received = 0
        let fixture = try WebSocketFixture { socket in
            try await gate.pass()
            while try await socket.receive() != nil { received += 1 }
        }
        let stream = try await open(fixture)
        let configuration = fixture.endpoint.configuration
        let max =
            size == 1
            ? configuration.inboxMessagesMax : configuration.inboxBytesMax / size + 1
        let frame = RawFrame.binary([UInt8](repeating: 1, count: size)).masked()
        for _ in 1..<max { stream.give(frame) }
        #expect(stream.isReading)
        stream.give(frame)
        #expect(!stream.isReading)
        gate.open()
        try await Loop.shared.wait { received == max }
        #expect(stream.isReading)
        stream.leave()
        await fixture.stop()
    }

    @Test("nothing is taken for sending behind our good-bye")
    func afterGoodBye() async throws {
        var taken: [Bool] = []
        let fixture = try WebSocketFixture { socket in
            socket.close(.normal)
            let message = WebSocketMessage(.text, validated: [0x61])
            taken = [socket.trySend(message), socket.push(message)]
            await #expect(throws: WebSocketEnding.self) { try await socket.send(message) }
        }
        let client = try await fixture.open()
        client.send(.close(1000))
        #expect(try await client.rest() == [.close(1000)])
        #expect(taken == [false, false])
        await fixture.stop()
    }

    @Test("a handler that waits for something else is cancelled when its client has gone")
    func cancelled() async throws {
        let gate = Gate()
        var isCancelled = false
        let fixture = try WebSocketFixture { _ in
            do {
                try await gate.pass()
            } catch is CancellationError {
                isCancelled = true
            }
        }
        let stream = try await open(fixture)
        try await gate.arrivals(1)
        stream.leave()
        try await Loop.shared.wait { isCancelled }
        await fixture.stop()
    }

    @Test("a queue holds so many messages however small, and control frames wait for a frame begun")
    func queue() {
        var configuration = WebSocketConfiguration()
        configuration.queueMessagesMax = 2
        var queue = WebSocketSendQueue()
        queue.append([1, 2, 3])
        #expect(queue.hasRoom(for: 1, configuration))
        queue.append([4])
        #expect(!queue.hasRoom(for: 0, configuration))
        queue.advance(2)
        queue.appendUrgent([9])
        var sent: [UInt8] = []
        while !queue.isEmpty {
            var scratch: [UInt8] = []
            let piece = queue.withNext(gathering: &scratch, upTo: 100) { Array($0) }
            sent += piece
            queue.advance(piece.count)
        }
        #expect(sent == [3, 9, 4])
    }
}

extension WebSocketFixture {
    /// Waits until a number does not change any more: the loop has come to rest.
    func settled(_ number: @LoopActor () -> Int) async throws {
        var last = number()
        var calm = 0
        let end = Deadline.after(RawClient.patience, from: Loop.now)
        while calm < 50, !end.isExpired(at: Loop.now) {
            let waiter = Waiter<Void>()
            Loop.shared.post { waiter.succeed(()) }
            try await waiter.wait(until: end)
            calm = number() == last && last != 0 ? calm + 1 : 0
            last = number()
        }
    }
}
