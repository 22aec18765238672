import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("a server that is attacked, over real sockets", .onLoop)
@LoopActor
struct ProtectionServerTests {
    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    private func fixture(
        clock: ManualClock? = nil, _ change: (inout HTTPServerConfiguration) -> Void
    ) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        change(&configuration)
        return try ServerFixture(clock: clock, configuration: configuration) { _ in
            HTTPResponse(.ok, body: .text("hello"))
        }
    }

    private func served(_ fixture: ServerFixture) async throws -> RawClient {
        let client = try await fixture.connect()
        client.send(Self.get)
        #expect(try await client.answer()?.status == 200)
        return client
    }

    /// Whether one more connection gets a reset, be it before or after it has seen itself connected.
    private func isReset(_ fixture: ServerFixture) async throws -> Bool {
        let client: RawClient
        do {
            client = try await fixture.connect()
        } catch let error as SystemError {
            return error.errno == 104
        }
        client.send(Self.get)
        try await client.end()
        return client.failure?.errno == 104 && client.received.isEmpty
    }

    // MARK: Connections

    @Test("an address has so many connections, the next is reset, and one that ends makes room")
    func perAddress() async throws {
        let fixture = try fixture { $0.connectionsPerAddressMax = 2 }
        let first = try await served(fixture)
        let second = try await served(fixture)
        #expect(try await isReset(fixture))
        #expect(fixture.metrics.refusals(ConnectionGate.Refusal.address) == 1)
        first.close()
        // Its end is seen when another connection's bytes are: the loop serves sockets in turn.
        second.send(Self.get)
        _ = try await second.answers(2)
        let fourth = try await served(fixture)
        for client in [second, fourth] { client.close() }
        await fixture.stop()
    }

    @Test("a trusted proxy may have as many connections as there are")
    func perAddressOfProxy() async throws {
        let fixture = try fixture {
            $0.connectionsPerAddressMax = 1
            $0.trustedProxies = TrustedProxies([AddressBlock("127.0.0.0/8")].compactMap { $0 })
        }
        var clients: [RawClient] = []
        for _ in 0..<4 { clients.append(try await served(fixture)) }
        for client in clients { client.close() }
        await fixture.stop()
    }

    @Test("when there is no room the connection that has been idle longest leaves")
    func eviction() async throws {
        let clock = ManualClock()
        let fixture = try fixture(clock: clock) { $0.connectionsMax = 3 }
        let oldest = try await served(fixture)
        clock.advance(by: .seconds(1))
        let middle = try await served(fixture)
        clock.advance(by: .seconds(1))
        let youngest = try await served(fixture)
        clock.advance(by: .seconds(1))
        oldest.send(Self.get)
        _ = try await oldest.answers(2)

        let newcomer = try await served(fixture)
        try await middle.end()
        #expect(fixture.metrics.evictions(.idle) == 1)
        #expect(fixture.server.connectionCount == 3)
        youngest.send(Self.get)
        #expect(try await youngest.answers(2).count == 2)
        for client in [oldest, youngest, newcomer] { client.close() }
        await fixture.stop()
    }

    @Test("a request in progress never makes room: with nobody idle the newcomer is reset")
    func busy() async throws {
        let gate = Gate()
        var configuration = HTTPServerConfiguration()
        configuration.connectionsMax = 2
        let fixture = try ServerFixture(configuration: configuration) { _ in
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let clients = [try await fixture.connect(), try await fixture.connect()]
        for client in clients { client.send(Self.get) }
        try await gate.arrivals(2)
        #expect(try await isReset(fixture))
        #expect(fixture.metrics.refusals(ConnectionGate.Refusal.total) == 1)
        gate.open()
        for client in clients {
            #expect(try await client.answer()?.status == 200)
            client.close()
        }
        await fixture.stop()
    }

    @Test("who has not got all of an answer makes no room, nor a stream in progress")
    func unfinished() async throws {
        for wireProtocol in [HTTPWireProtocol.http1, .http2] {
            let gate = Gate()
            var configuration = HTTPServerConfiguration()
            configuration.connectionsMax = 1
            let fixture = try ServerFixture(configuration: configuration) { _ in
                if wireProtocol == .http2 { try await gate.pass() }
                return HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 32 << 10)))
            }
            let stream = SippingStream()
            fixture.serve(stream, using: wireProtocol)
            if wireProtocol == .http2 {
                stream.sip(64 << 10)
                var opening = FrameBuilder.opening
                opening.headers(1)
                stream.give(opening.bytes)
                try await gate.arrivals(1)
            } else {
                stream.give(Self.get)
                try await Loop.shared.wait { fixture.metrics.requests.value == 1 }
                try await Loop.shared.lookAround()
            }
            #expect(try await isReset(fixture))
            #expect(!stream.isClosed, "\(wireProtocol)")
            let before = stream.takenCount
            gate.open()
            stream.sip(64 << 10)
            try await Loop.shared.wait { stream.takenCount > before + 32 << 10 }
            // With all of it taken it is idle, and leaves for another.
            let newcomer = try await served(fixture)
            #expect(stream.isClosed, "\(wireProtocol)")
            newcomer.close()
            await fixture.stop()
        }
    }

    @Test("a flood of silent connections drives out itself, not those who have asked something")
    func flood() async throws {
        let clock = ManualClock()
        let fixture = try fixture(clock: clock) { $0.connectionsMax = 20 }
        var honest: [RawClient] = []
        for _ in 0..<8 { honest.append(try await served(fixture)) }
        clock.advance(by: .seconds(10))
        var silent: [RawClient] = []
        for _ in 0..<60 { silent.append(try await fixture.connect()) }
        // A newcomer with a request is served in the midst of it.
        let newcomer = try await served(fixture)
        for client in honest {
            client.send(Self.get)
            #expect(try await client.answers(2).count == 2)
        }
        #expect(fixture.metrics.evictions(.idle) == 0)
        #expect(fixture.metrics.evictions(.fresh) == 60 + 8 + 1 - 20)
        #expect(fixture.server.connectionCount == 20)
        for client in honest + silent + [newcomer] { client.close() }
        await fixture.stop()
    }

    // MARK: Rates

    @Test("a head that drips is 408 long before the time of any head is over")
    func drippingHead() async throws {
        let fixture = try fixture(clock: ManualClock()) { _ in }
        let client = try await fixture.connect()
        for _ in 0..<21 where !client.isClosed {
            client.send("G")
            try await fixture.settle()
            fixture.advance(by: .seconds(1))
        }
        fixture.advance(by: .seconds(1))
        try await client.end()
        #expect(RawAnswer.parse(client.received).map(\.status) == [408])
        #expect(fixture.metrics.timeouts(.head) == 1)
        await fixture.stop()
    }

    @Test("a large head that keeps the rate is waited for beyond the grace")
    func slowButSteadyHead() async throws {
        let fixture = try fixture(clock: ManualClock()) { _ in }
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\n")
        for index in 0..<30 {
            client.send("X-\(index): \(String(repeating: "v", count: 600))\r\n")
            try await fixture.settle()
            fixture.advance(by: .seconds(1))
        }
        client.send("\r\n")
        #expect(try await client.answer()?.status == 200)
        client.close()
        await fixture.stop()
    }

    @Test("nor does a client of HTTP/2 that takes what was made for it in sips")
    func slowReaderOfHTTP2() async throws {
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 60 << 10)))
        }
        let stream = SippingStream()
        fixture.serve(stream, using: .http2)
        var opening = FrameBuilder.opening
        opening.headers(1)
        stream.give(opening.bytes)
        try await Loop.shared.wait { fixture.metrics.requests.value == 1 }
        for _ in 0..<20 where !stream.isClosed {
            stream.sip(1)
            fixture.advance(by: .seconds(29))
        }
        #expect(stream.isClosed)
        #expect(fixture.metrics.timeouts(.answer) == 1)
        #expect(fixture.metrics.timeouts(.write) == 0)
        await fixture.stop()
    }

    @Test("a client that takes its answer in sips does not hold the connection for ever")
    func slowReader() async throws {
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 32 << 20)))
        }
        let stream = SippingStream()
        fixture.serve(stream)
        stream.give(Self.get)
        for _ in 0..<20 where !stream.isClosed {
            // Never 30 seconds without a byte: the limit for a standstill does not strike.
            stream.sip(1)
            fixture.advance(by: .seconds(29))
        }
        #expect(stream.isClosed)
        #expect(fixture.metrics.timeouts(.answer) == 1)
        #expect(fixture.metrics.timeouts(.write) == 0)
        await fixture.stop()
    }

    @Test("a window that opens by a byte now and then does not hold an HTTP/2 stream for ever")
    func slowWindow() async throws {
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 1 << 20)))
        }
        let stream = SippingStream()
        stream.sip(1 << 20)
        fixture.serve(stream, using: .http2)
        var opening = FrameBuilder(bytes: FrameBuilder.preface)
        opening.settings([(4, 10)])
        opening.settingsAcknowledged()
        opening.headers(1)
        stream.give(opening.bytes)
        for _ in 0..<5 where fixture.metrics.timeouts(.answer) == 0 {
            var update = FrameBuilder()
            update.windowUpdate(1, 1)
            stream.give(update.bytes)
            fixture.advance(by: .seconds(29))
        }
        #expect(fixture.metrics.timeouts(.answer) == 1)
        #expect(fixture.metrics.timeouts(.write) == 0)
        stream.leave()
        await fixture.stop()
    }

    @Test("the last answer of a connection, too, may be read slowly")
    func steadyLastAnswer() async throws {
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 100 << 10)))
        }
        let stream = SippingStream()
        fixture.serve(stream)
        stream.give("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in 0..<55 {
            stream.sip(2048)
            fixture.advance(by: .seconds(1))
        }
        #expect(stream.takenCount > 100 << 10)
        stream.leave()
        await fixture.stop()
    }

    @Test("a client that reads slowly but steadily gets its whole answer")
    func steadyReader() async throws {
        let clock = ManualClock()
        let fixture = try ServerFixture(clock: clock) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 600 << 10)))
        }
        let stream = SippingStream()
        fixture.serve(stream)
        stream.give(Self.get)
        for _ in 0..<310 {
            stream.sip(2048)
            fixture.advance(by: .seconds(1))
        }
        #expect(!stream.isClosed)
        #expect(stream.takenCount > 600 << 10)
        stream.leave()
        await fixture.stop()
    }
}

/// A connection whose client takes exactly what the test says.
@LoopActor
final class SippingStream: ByteStream {
    private var delegate: (any ByteStreamDelegate)?
    private var room = 0
    private(set) var takenCount = 0
    private(set) var isClosed = false
    private(set) var isReading = true
    private(set) var isWriteShut = false
    private var wantsWrite = false

    func give(_ text: String) { give(Array(text.utf8)) }

    func give(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { delegate?.stream(self, didReceive: $0) }
    }

    func sip(_ count: Int) {
        room += count
        if wantsWrite { delegate?.streamIsWritable(self) }
    }

    /// The client goes away.
    func leave() {
        let delegate = delegate
        close()
        delegate?.stream(self, didFail: SystemError(errno: 104, call: "recv"))
    }

    func start(delegate: any ByteStreamDelegate, reading: Bool) { self.delegate = delegate }
    func setReading(_ isOn: Bool) { isReading = isOn }
    func setWriteInterest(_ isOn: Bool) { wantsWrite = isOn }

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        let count = min(room, bytes.count)
        room -= count
        takenCount += count
        return count > 0 ? .wrote(count) : .wouldBlock
    }

    func shutdownWrite() { isWriteShut = true }

    func close() {
        isClosed = true
        delegate = nil
    }

    var remoteAddress: SocketAddress? { nil }
    var localAddress: SocketAddress? { nil }
}
