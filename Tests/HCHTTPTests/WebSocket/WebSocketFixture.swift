import HCCore
import HCIO
import HCTesting

@testable import HCHTTP

/// A server whose every path is a WebSocket.
@LoopActor
final class WebSocketFixture {
    let fixture: ServerFixture
    let endpoint: WebSocketEndpoint
    let metrics: WebSocketMetrics

    init(
        clock: ManualClock? = nil,
        configuration: WebSocketConfiguration = WebSocketConfiguration(),
        server: HTTPServerConfiguration = HTTPServerConfiguration(), subprotocols: [String] = [],
        _ serve: @escaping @LoopActor (WebSocket) async throws -> Void = WebSocketFixture.echo
    ) throws {
        let log = Log()
        let metrics = WebSocketMetrics(MetricsRegistry())
        let endpoint = WebSocketEndpoint(
            configuration, metrics: metrics, clocks: clock?.clocks ?? .system
        ) { error in
            log.failures.append("\(error)")
        } onEnd: { ending in
            log.ended(ending)
        }
        self.metrics = metrics
        self.endpoint = endpoint
        self.log = log
        fixture = try ServerFixture(clock: clock, configuration: server) { request in
            if request.path == "/plain" { return HTTPResponse(.ok, body: .text("plain")) }
            if request.path == "/collect" { _ = try await request.body.collect(max: 1000) }
            return try endpoint.accept(request, subprotocols: subprotocols, serve)
        }
    }

    private let log: Log

    /// What the endpoint told.
    @LoopActor
    final class Log {
        var failures: [String] = []
        private(set) var endings: [WebSocketEnding] = []
        var awaited: (count: Int, waiter: Waiter<Void>)?

        func ended(_ ending: WebSocketEnding) {
            endings.append(ending)
            if let awaited, endings.count >= awaited.count { awaited.waiter.succeed(()) }
        }
    }

    var failures: [String] { log.failures }

    /// How the sockets ended, once so many have.
    func endings(_ count: Int = 1) async throws -> [WebSocketEnding] {
        if log.endings.count < count {
            let waiter = Waiter<Void>()
            log.awaited = (count, waiter)
            try await waiter.wait(until: .after(RawClient.patience, from: Loop.now))
        }
        return log.endings
    }

    static let echo: @LoopActor (WebSocket) async throws -> Void = { socket in
        while let message = try await socket.receive() { try await socket.send(message) }
    }

    nonisolated static let key = "dGhlIHNhbXBsZSBub25jZQ=="

    nonisolated static func handshake(
        _ path: String = "/", method: String = "GET", version: String = "HTTP/1.1",
        leavingOut dropped: [String] = [], with added: [(String, String)] = []
    ) -> String {
        let base = [
            ("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", key),
        ]
        let fields = base.filter { !dropped.contains($0.0) } + added
        return "\(method) \(path) \(version)\r\n"
            + fields.map { "\($0): \($1)\r\n" }.joined() + "\r\n"
    }

    /// A client whose handshake was accepted.
    func open(
        _ path: String = "/", with added: [(String, String)] = [], sending first: [UInt8] = []
    ) async throws -> WebSocketClient {
        let client = WebSocketClient(try await fixture.connect())
        client.raw.send(
            Array(WebSocketFixture.handshake(path, with: added).utf8) + first)
        try await client.opened()
        return client
    }

    func advance(by duration: Duration) {
        fixture.clock?.advance(by: duration)
        endpoint.checkTimeouts()
    }

    func stop() async { await fixture.stop() }
}

@LoopActor
final class WebSocketClient {
    let raw: RawClient

    init(_ raw: RawClient) {
        self.raw = raw
    }

    /// Where the head of the answer ends.
    private var headCount: Int? {
        let bytes = raw.received
        guard bytes.count >= 4 else { return nil }
        return (0...bytes.count - 4).first { bytes[$0..<$0 + 4].elementsEqual([13, 10, 13, 10]) }
            .map { $0 + 4 }
    }

    func opened() async throws {
        try await raw.wait { _ in self.headCount != nil }
    }

    var answer: RawAnswer? { RawAnswer.parse(Array(raw.received.prefix(headCount ?? 0))).first }

    var frames: [RawFrame] {
        headCount.map { RawFrame.parse(raw.received[$0...]) } ?? []
    }

    func send(_ frames: RawFrame...) {
        raw.send(frames.flatMap { $0.masked() })
    }

    /// Waits for so many frames; fewer come if the connection ends before.
    func frames(_ count: Int) async throws -> [RawFrame] {
        try await raw.wait { _ in self.frames.count >= count }
        return frames
    }

    /// All frames until the server shuts its side.
    func rest() async throws -> [RawFrame] {
        try await raw.end()
        return frames
    }
}
