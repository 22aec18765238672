import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP/2 timeouts and draining", .onLoop)
@LoopActor
struct HTTP2TimeoutTests {
    private func fixture(
        clock: ManualClock? = ManualClock(),
        _ change: (inout HTTPServerConfiguration) -> Void = { _ in },
        _ respond: @escaping @LoopActor (HTTPRequest) async throws -> HTTPResponse
    ) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.http2CleartextIsEnabled = true
        change(&configuration)
        return try ServerFixture(clock: clock, configuration: configuration, respond)
    }

    @Test("a preface that does not come in time ends the connection")
    func preface() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await HTTP2Client.connect(
            fixture, FrameBuilder(bytes: FrameBuilder.preface))
        try await fixture.settle()
        fixture.advance(by: .seconds(12))
        try await client.raw.end()
        #expect(fixture.metrics.timeouts(.head) == 1)
        #expect(client.goaways.map(\.goawayCode) == [1])
        client.close()
        await fixture.stop()
    }

    @Test("a connection without requests is kept 65 seconds, whatever else it says, and then told")
    func keepAlive() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        _ = try await client.answer()
        fixture.advance(by: .seconds(60))
        #expect(fixture.server.connectionCount == 1)
        client.send { $0.ping() }
        try await fixture.settle()
        fixture.advance(by: .seconds(7))
        try await client.raw.end()
        #expect(client.goaways.map(\.goawayCode) == [0])
        #expect(fixture.metrics.timeouts(.keepAlive) == 1)
        client.close()
        await fixture.stop()
    }

    @Test("a handler that is too slow is answered for with 503, and the connection goes on")
    func slowHandler() async throws {
        let gate = Gate()
        let fixture = try fixture { request in
            guard request.path == "/" else { return HTTPResponse(.ok) }
            do { try await gate.pass() } catch {}
            return HTTPResponse(.ok)
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        try await gate.arrivals(1)
        fixture.advance(by: .seconds(29))
        #expect(client.answers.isEmpty)
        fixture.advance(by: .seconds(3))
        let answer = try await client.answer()
        #expect(answer.status == "503")
        #expect(answer.text.contains(#""code":"deadline-exceeded""#))
        gate.open()
        client.send { $0.headers(3, FrameBuilder.get.map { $0.0 == ":path" ? ($0.0, "/b") : $0 }) }
        #expect(try await client.answer(3).status == "200")
        #expect(fixture.metrics.timeouts(.request) == 1)
        #expect(fixture.metrics.lateAnswers.value == 1)
        client.close()
        await fixture.stop()
    }

    @Test("content that drips is 408 on its stream")
    func slowContent() async throws {
        let fixture = try fixture { request in
            HTTPResponse(.ok, body: .bytes(try await request.body.collect(max: 1000)))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1, FrameBuilder.post, ends: false) }
        for _ in 0..<14 {
            client.send { $0.data(1, "x") }
            try await fixture.settle()
            fixture.advance(by: .seconds(1))
        }
        #expect(try await client.answer().status == "408")
        #expect(fixture.metrics.timeouts(.body) == 1)
        client.close()
        await fixture.stop()
    }

    @Test("a field block that is not completed ends the connection")
    func slowBlock() async throws {
        let fixture = try fixture { _ in HTTPResponse(.ok) }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1, isOpen: true) }
        try await fixture.settle()
        fixture.advance(by: .seconds(22))
        try await client.raw.end()
        #expect(client.goaways.map(\.goawayCode) == [11])
        #expect(fixture.metrics.http2.faults(.slowHead) == 1)
        client.close()
        await fixture.stop()
    }

    @Test("a client that never opens its window loses the stream, and keeps the connection")
    func zeroWindow() async throws {
        let fixture = try fixture { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 1 << 20)))
        }
        var opening = FrameBuilder(bytes: FrameBuilder.preface)
        opening.settings([(4, 0)])
        let client = try await HTTP2Client.connect(fixture, opening)
        client.send { $0.headers(1) }
        try await client.wait { $0.contains { $0.type == 1 } }
        fixture.advance(by: .seconds(20))
        client.send { $0.windowUpdate(1, 10) }
        try await client.wait { $0.contains { $0.type == 0 } }
        fixture.advance(by: .seconds(20))
        #expect(client.answers[1]?.resetCode == nil, "it has taken something")
        fixture.advance(by: .seconds(32))
        #expect(try await client.answer().resetCode == .cancel)
        #expect(fixture.metrics.timeouts(.write) == 1)
        #expect(fixture.metrics.http2.openStreams.value == 0)
        client.send { $0.ping() }
        try await client.wait { $0.contains { $0.type == 6 } }
        client.close()
        await fixture.stop()
    }

    @Test("a client that does not read its socket is cut, and what waits for it is bounded")
    func writeStall() async throws {
        let fixture = try fixture { _ in
            HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 64 << 20)))
        }
        let raw = try await fixture.connect(reading: false)
        var opening = FrameBuilder(bytes: FrameBuilder.preface)
        opening.settings([(4, (1 << 31) - 1)])
        opening.windowUpdate(0, 1 << 30)
        opening.headers(1)
        raw.send(opening.bytes)
        // Until the kernel's buffers are full: what is still sent then is the answers to `settle`.
        var before: UInt64 = 0
        repeat {
            before = fixture.metrics.sentBytes.value
            try await fixture.settle()
        } while fixture.metrics.sentBytes.value > before + 10_000
        #expect(fixture.metrics.requests.value == 1)
        #expect(before < 32 << 20)
        fixture.advance(by: .seconds(32))
        #expect(fixture.metrics.timeouts(.write) == 1)
        #expect(fixture.server.connectionCount == 0)
        raw.close()
        await fixture.stop()
    }

    @Test(
        "a drain tells twice: requests that cross the first notice are served, then the end is named"
    )
    func drain() async throws {
        let gate = Gate()
        let fixture = try fixture(clock: nil) { request in
            if request.path == "/" { try await gate.pass() }
            return HTTPResponse(.ok, body: .text("done"))
        }
        func other(_ builder: inout FrameBuilder, _ stream: UInt32) {
            builder.headers(stream, FrameBuilder.get.map { $0.0 == ":path" ? ($0.0, "/b") : $0 })
        }
        let busy = try await HTTP2Client.connect(fixture)
        busy.send { $0.headers(1) }
        let idle = try await HTTP2Client.connect(fixture)
        idle.send { other(&$0, 1) }
        _ = try await idle.answer()
        try await gate.arrivals(1)

        fixture.server.stopAccepting(emptyingQueue: true)
        let now = Loop.now
        let server = fixture.server
        let waiter = Waiter<Int>()
        Loop.shared.spawn {
            let cut = await server.drain(
                idleUntil: .after(.milliseconds(200), from: now),
                deadline: .after(.seconds(20), from: now))
            waiter.succeed(cut)
        }
        try await busy.wait { $0.contains { $0.type == 6 } }
        #expect(busy.goaways.map(\.goawayLast) == [UInt32(Int32.max)])
        // Sent before the notice was seen.
        busy.send { other(&$0, 3) }
        #expect(try await busy.answer(3).text == "done")
        busy.send { $0.frame(6, flags: 1, Array("hc-drain".utf8)) }
        try await busy.wait { $0.filter { $0.type == 7 }.count == 2 }
        #expect(busy.goaways.last?.goawayLast == 3)
        busy.send { other(&$0, 5) }
        gate.open()
        #expect(try await busy.answer(1).text == "done")
        try await busy.raw.end()
        try await idle.raw.end()
        #expect(busy.answers[5] == nil)
        #expect(busy.raw.failure == nil && idle.raw.failure == nil)
        busy.close()
        idle.close()
        #expect(try await waiter.wait(until: .after(.seconds(20), from: Loop.now)) == 0)
    }

    @Test("a client that does not answer the PING of a drain gets its end after two seconds")
    func drainWithoutAnswer() async throws {
        let gate = Gate()
        let fixture = try fixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok, body: .text("done"))
        }
        let client = try await HTTP2Client.connect(fixture)
        client.send { $0.headers(1) }
        try await gate.arrivals(1)
        fixture.server.stopAccepting(emptyingQueue: true)
        let server = fixture.server
        Loop.shared.spawn {
            _ = await server.drain(
                idleUntil: .never, deadline: .after(.seconds(20), from: Loop.now))
        }
        try await client.wait { $0.contains { $0.type == 6 } }
        fixture.advance(by: .seconds(4))
        try await client.wait { $0.filter { $0.type == 7 }.count == 2 }
        gate.open()
        #expect(try await client.answer().text == "done")
        try await client.raw.end()
        client.close()
    }
}
