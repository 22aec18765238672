import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP timeouts and draining", .onLoop)
@LoopActor
struct HTTPTimeoutTests {
    private func hello(clock: ManualClock? = nil) throws -> ServerFixture {
        try ServerFixture(clock: clock) { _ in HTTPResponse(.ok, body: .text("hello")) }
    }

    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test("an idle connection is kept 65 seconds after its last answer and then closed silently")
    func keepAlive() async throws {
        let fixture = try hello(clock: ManualClock())
        let client = try await fixture.connect()
        client.send(Self.get)
        _ = try await client.answers(1)
        fixture.advance(by: .seconds(60))
        client.send(Self.get)
        _ = try await client.answers(2)
        fixture.advance(by: .seconds(64))
        #expect(fixture.server.connectionCount == 1)
        fixture.advance(by: .seconds(2))
        try await client.end()
        #expect(RawAnswer.parse(client.received).count == 2)
        #expect(fixture.metrics.timeouts(.keepAlive) == 1)
        #expect(fixture.server.connectionCount == 0)
        await fixture.stop()
    }

    @Test("connections that come and go leave nothing behind to be looked at")
    func churn() async throws {
        let fixture = try hello(clock: ManualClock())
        for _ in 0..<50 {
            let client = try await fixture.connect()
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            try await client.end()
            client.close()
            try await Loop.shared.wait { fixture.server.connectionCount == 0 }
        }
        #expect(fixture.server.armedCount <= 4)
        let last = try await fixture.connect()
        try await fixture.settle()
        fixture.advance(by: .seconds(70))
        try await last.end()
        await fixture.stop()
    }

    @Test("a head that takes longer than 66 seconds is 408, however often a byte comes")
    func slowHead() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.headGrace = .seconds(600)
        let fixture = try ServerFixture(clock: ManualClock(), configuration: configuration) { _ in
            HTTPResponse(.ok)
        }
        let client = try await fixture.connect()
        for _ in 0..<11 {
            client.send("G")
            try await fixture.settle()
            fixture.advance(by: .seconds(6))
        }
        fixture.advance(by: .seconds(2))
        try await client.end()
        #expect(RawAnswer.parse(client.received).map(\.status) == [408])
        #expect(fixture.metrics.timeouts(.head) == 1)
        await fixture.stop()
    }

    @Test("a HEAD that does not end is 408 without content")
    func slowHeadOfHead() async throws {
        let fixture = try hello(clock: ManualClock())
        let client = try await fixture.connect()
        client.send("HEAD / HTTP/1.1\r\n")
        try await fixture.settle()
        fixture.advance(by: .seconds(68))
        try await client.end()
        #expect(RawAnswer.parse(client.received, heads: [0]).map(\.status) == [408])
        #expect(client.text.hasSuffix("\r\n\r\n"))
        await fixture.stop()
    }

    @Test("a connection that sends nothing at all is closed without an answer")
    func silence() async throws {
        let fixture = try hello(clock: ManualClock())
        let client = try await fixture.connect()
        try await fixture.settle()
        fixture.advance(by: .seconds(68))
        try await client.end()
        #expect(client.received.isEmpty)
        await fixture.stop()
    }

    @Test("a handler that is too slow is answered for with 503; its own answer is dropped")
    func slowHandler() async throws {
        let gate = Gate()
        let fixture = try ServerFixture(clock: ManualClock()) { request in
            // A handler that does not look at its task's cancellation.
            do { try await gate.pass() } catch {}
            return HTTPResponse(.ok)
        }
        let client = try await fixture.connect()
        client.send(Self.get)
        try await gate.arrivals(1)
        fixture.advance(by: .seconds(29))
        #expect(client.received.isEmpty)
        fixture.advance(by: .seconds(3))
        try await client.end()
        gate.open()
        let answer = try #require(RawAnswer.parse(client.received).first)
        #expect(answer.status == 503)
        #expect(answer.value("Retry-After") == "1")
        #expect(answer.content.contains(#""code":"deadline-exceeded""#))
        #expect(RawAnswer.parse(client.received).count == 1)
        #expect(fixture.metrics.timeouts(.request) == 1)
        await fixture.stop()
    }

    @Test("content that drips is 408 though a byte comes every second")
    func slowContent() async throws {
        let fixture = try ServerFixture(clock: ManualClock()) { request in
            HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 1000)))
        }
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        for _ in 0..<14 where !client.isClosed {
            client.send("x")
            try await fixture.settle()
            fixture.advance(by: .seconds(1))
        }
        try await client.end()
        #expect(RawAnswer.parse(client.received).map(\.status) == [408])
        #expect(fixture.metrics.timeouts(.body) == 1)
        await fixture.stop()
    }

    @Test("an answer that is sent while content comes does not wait for content for ever")
    func slowContentOfStream() async throws {
        let fixture = try ServerFixture(clock: ManualClock()) { request in
            HTTPResponse(
                .ok,
                body: .stream(
                    ResponseStream { writer in
                        while let chunk = try await request.body.nextChunk() {
                            try await writer.write(chunk)
                        }
                    }))
        }
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")
        try await client.wait { $0.text.hasSuffix("x\r\n") }
        fixture.advance(by: .seconds(12))
        try await client.end()
        #expect(fixture.metrics.timeouts(.body) == 1)
        #expect(!client.text.hasSuffix("0\r\n\r\n"), "the end is missing, and can be seen to be")
        await fixture.stop()
    }

    @Test("a client that reads nothing is cut")
    func writeStall() async throws {
        let fixture = try ServerFixture(clock: ManualClock()) { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 32 << 20)))
        }
        let client = try await fixture.connect(reading: false)
        client.send(Self.get)
        try await fixture.settle()
        #expect(fixture.metrics.requests.value == 1)
        fixture.advance(by: .seconds(32))
        #expect(fixture.metrics.timeouts(.write) == 1)
        #expect(fixture.server.connectionCount == 0)
        client.close()
        await fixture.stop()
    }

    @Test(
        "draining answers what is in progress and what comes late, says close, and reports the end")
    func drain() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { request in
            if request.path == "/slow" { try await gate.pass() }
            return HTTPResponse(.ok, body: .text("done"))
        }
        let idle = try await fixture.connect()
        idle.send(Self.get)
        _ = try await idle.answers(1)
        let quiet = try await fixture.connect()
        quiet.send(Self.get)
        _ = try await quiet.answers(1)
        let busy = try await fixture.connect()
        busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        try await gate.arrivals(1)

        // Connected, and not accepted before the server stops accepting: it is in the kernel's queue.
        let queued = try await fixture.connect()
        queued.send(Self.get)
        fixture.server.stopAccepting(emptyingQueue: true)
        let now = Loop.now
        let server = fixture.server
        let waiter = Waiter<Int>()
        Loop.shared.spawn {
            let cut = await server.drain(
                idleUntil: .after(.milliseconds(300), from: now),
                deadline: .after(.seconds(20), from: now))
            waiter.succeed(cut)
        }
        idle.send(Self.get)
        #expect(try await idle.answers(2).last?.value("Connection") == "close")
        #expect(try await queued.answers(1).last?.value("Connection") == "close")
        try await quiet.end()
        #expect(quiet.failure == nil)
        gate.open()
        #expect(try await busy.answers(1).map(\.content) == ["done"])
        for client in [idle, quiet, busy, queued] {
            try await client.end()
            #expect(client.failure == nil)
            client.close()
        }
        let cut = try await waiter.wait(until: .after(.seconds(20), from: Loop.now))
        #expect(cut == 0)
        #expect(fixture.server.connectionCount == 0)
    }

    @Test("what is not over by the deadline of a drain is cut and counted")
    func drainDeadline() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let client = try await fixture.connect()
        client.send(Self.get)
        try await gate.arrivals(1)
        fixture.server.stopAccepting(emptyingQueue: true)
        let now = Loop.now
        let cut = await fixture.server.drain(
            idleUntil: Deadline(now), deadline: .after(.milliseconds(50), from: now))
        #expect(cut == 1)
        gate.open()
        try await client.end()
        #expect(client.received.isEmpty)
    }
}

extension ServerFixture {
    /// Lets everything that was sent arrive: a request on another connection, sent after it, has been answered
    /// or refused. The loop serves sockets in turn.
    func settle() async throws {
        for _ in 0..<3 {
            let probe = try await connect()
            probe.send("PROBE / HTTP/1.1\r\n\r\n")
            try await probe.end()
            probe.close()
        }
    }
}
