import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

/// What a drain owes to clients that have sent before they were told.
@Suite("HTTP drain", .onLoop)
@LoopActor
struct HTTPDrainTests {
    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    private func drain(_ server: HTTPServer, idle: Duration) -> Waiter<Int> {
        server.stopAccepting(emptyingQueue: true)
        let waiter = Waiter<Int>()
        let now = Loop.now
        Loop.shared.spawn {
            let cut = await server.drain(
                idleUntil: .after(idle, from: now), deadline: .after(.seconds(20), from: now))
            waiter.succeed(cut)
        }
        return waiter
    }

    private func outcome(_ waiter: Waiter<Int>) async throws -> Int {
        try await waiter.wait(until: .after(.seconds(20), from: Loop.now))
    }

    @Test(
        "requests that arrived behind one in progress are all answered, and the last answer says close"
    )
    func pipeline() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            if request.path == "/slow" { try await gate.pass() }
            return HTTPResponse(.ok, body: .text("done"))
        }
        let client = try await fixture.connect()
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + Self.get + Self.get)
        try await gate.arrivals(1)
        let drained = drain(fixture.server, idle: .seconds(10))
        // Sent after the drain began, and before its client could know.
        client.send(Self.get)
        gate.open()
        let answers = try await client.answers(4)
        #expect(answers.map { $0.value("Connection") } == [nil, nil, nil, "close"])
        try await client.end()
        #expect(client.failure == nil)
        client.close()
        #expect(try await outcome(drained) == 0)
    }

    @Test("a request that has arrived when the patience with the idle ends is read and answered")
    func arrivedAtTheEnd() async throws {
        let fixture = try ServerFixture { _ in HTTPResponse(.ok, body: .text("done")) }
        let waiting = FakeStream()
        waiting.hasInput = true
        let idle = FakeStream()
        fixture.serve(waiting)
        fixture.serve(idle)
        let drained = drain(fixture.server, idle: .zero)
        try await idle.shut.wait(until: .after(.seconds(20), from: Loop.now))
        #expect(!waiting.shut.isOpen)
        waiting.hasInput = false
        waiting.deliver(Self.get)
        try await waiting.shut.wait(until: .after(.seconds(20), from: Loop.now))
        #expect(waiting.written.contains("200 OK"))
        #expect(waiting.written.contains("Connection: close"))
        waiting.end()
        idle.end()
        #expect(try await outcome(drained) == 0)
    }
}

/// A connection whose bytes come when the test says so.
@LoopActor
private final class FakeStream: ByteStream {
    var hasInput = false
    private(set) var written = ""
    private(set) var isClosed = false
    let shut = HCIO.Gate()
    private var delegate: (any ByteStreamDelegate)?

    func start(delegate: any ByteStreamDelegate, reading: Bool) { self.delegate = delegate }
    func setReading(_ isOn: Bool) {}
    func setWriteInterest(_ isOn: Bool) {}

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        written += String(decoding: bytes, as: UTF8.self)
        return .wrote(bytes.count)
    }

    func shutdownWrite() { shut.open() }

    func close() {
        isClosed = true
        delegate = nil
    }

    var remoteAddress: SocketAddress? { nil }
    var localAddress: SocketAddress? { nil }

    func deliver(_ text: String) {
        Array(text.utf8).withUnsafeBytes { delegate?.stream(self, didReceive: $0) }
    }

    func end() { delegate?.streamDidReachEnd(self) }
}
