import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("Work for a client that has gone", .onLoop)
@LoopActor
struct AbandonedWorkTests {
    /// Handlers that wait until they are let go or given up.
    @LoopActor
    private final class Work {
        let gate = Gate()
        private(set) var givenUp: [HTTPMethod] = []
        private(set) var finished: [HTTPMethod] = []

        func respond(_ request: HTTPRequest) async throws -> HTTPResponse {
            do {
                try await gate.pass()
            } catch is CancellationError {
                givenUp.append(request.method)
                throw CancellationError()
            }
            finished.append(request.method)
            return HTTPResponse(.ok, body: .text("done"))
        }

        func wait(_ isMet: () -> Bool) async throws {
            let limit = Deadline.after(RawClient.patience, from: Loop.now)
            while !isMet() {
                try #require(!limit.isExpired(at: Loop.now))
                try await Loop.shared.sleep(for: .milliseconds(1))
            }
        }
    }

    private func fixture(_ work: Work, clock: ManualClock? = nil) throws -> ServerFixture {
        var configuration = HTTPServerConfiguration()
        configuration.http2CleartextIsEnabled = true
        return try ServerFixture(clock: clock, configuration: configuration) {
            try await work.respond($0)
        }
    }

    @Test("a GET is given up when its client has closed the connection")
    func closed() async throws {
        let (work, clock) = (Work(), ManualClock())
        let fixture = try fixture(work, clock: clock)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try await work.gate.arrivals(1)
        client.close()
        try await fixture.settle()
        #expect(work.givenUp.isEmpty, "it may only have nothing more to send")
        fixture.advance(by: .seconds(2))
        try await work.wait { work.givenUp == [.get] }
        #expect(fixture.server.connectionCount == 0)
        await fixture.stop()
    }

    @Test("a client that has only ended its side is asked, and gets its answer")
    func halfClosed() async throws {
        let (work, clock) = (Work(), ManualClock())
        let fixture = try fixture(work, clock: clock)
        let client = try await fixture.connect()
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try await work.gate.arrivals(1)
        client.shutdownWrite()
        try await fixture.settle()
        fixture.advance(by: .seconds(2))
        try await client.wait { !$0.received.isEmpty }
        #expect(client.text == "HTTP/1.1 100 Continue\r\n\r\n")
        fixture.advance(by: .seconds(2))
        work.gate.open()
        try await client.end()
        #expect(client.text.hasSuffix("done"))
        #expect(client.text.split(separator: "100 Continue").count == 2, "asked once")
        #expect(work.givenUp.isEmpty)
        await fixture.stop()
    }

    @Test("what asks for a change is finished, whoever hears of it")
    func change() async throws {
        let (work, clock) = (Work(), ManualClock())
        let fixture = try fixture(work, clock: clock)
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        try await work.gate.arrivals(1)
        client.close()
        try await fixture.settle()
        fixture.advance(by: .seconds(2))
        try await fixture.settle()
        work.gate.open()
        try await work.wait { !work.finished.isEmpty || !work.givenUp.isEmpty }
        #expect(work.finished == [.post])
        await fixture.stop()
    }

    @Test("a connection that breaks gives up its GET and finishes its POST")
    func broken() async throws {
        for (method, isFinished) in [(HTTPMethod.get, false), (.post, true)] {
            let work = Work()
            let fixture = try fixture(work)
            let stream = SippingStream()
            fixture.serve(stream)
            stream.give("\(method.name) / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            try await work.gate.arrivals(1)
            stream.leave()
            try await Loop.shared.lookAround()
            work.gate.open()
            try await work.wait { !work.finished.isEmpty || !work.givenUp.isEmpty }
            #expect(work.finished == (isFinished ? [method] : []))
            await fixture.stop()
        }
    }

    @Test("what takes too long is given up, also what asks for a change")
    func tooLong() async throws {
        let (work, clock) = (Work(), ManualClock())
        let fixture = try fixture(work, clock: clock)
        let client = try await fixture.connect()
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        let other = try await HTTP2Client.connect(fixture)
        other.send { $0.headers(1, FrameBuilder.post + [("content-length", "0")]) }
        try await work.gate.arrivals(2)
        fixture.advance(by: .seconds(32))
        #expect(try await client.answer()?.status == 503)
        #expect(try await other.answer().status == "503")
        try await work.wait { work.givenUp == [.post, .post] }
        for client in [client, other.raw] { client.close() }
        await fixture.stop()
    }

    @Test("a stream that is reset gives up its GET and finishes its POST")
    func streams() async throws {
        let work = Work()
        let fixture = try fixture(work)
        let client = try await HTTP2Client.connect(fixture)
        client.send {
            $0.headers(1)
            $0.headers(3, FrameBuilder.post + [("content-length", "0")])
        }
        try await work.gate.arrivals(2)
        client.send {
            $0.reset(1)
            $0.reset(3)
        }
        try await work.wait { work.givenUp == [.get] }
        work.gate.open()
        try await work.wait { work.finished == [.post] }
        client.close()
        await fixture.stop()
    }
}
