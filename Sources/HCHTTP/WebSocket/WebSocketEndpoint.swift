package import HCCore
package import HCIO

/// One use of WebSockets by a worker: what is allowed, who is connected, and what the sockets share so that an idle
/// one holds next to nothing: a compressor, a buffer, one timer.
@LoopActor
package final class WebSocketEndpoint {
    package let configuration: WebSocketConfiguration
    package let metrics: WebSocketMetrics
    let pool: WebSocketDeflatePool?
    private let clocks: Clocks
    private let onFailure: @LoopActor (any Error) -> Void
    private let onEnd: @LoopActor (WebSocketEnding) -> Void

    private var sockets: [WebSocket?] = []
    private var freePlaces: [Int] = []
    /// For which tick each place is armed. It stays when a socket ends, as in `HTTPServer`: the wheel does not turn
    /// while there are no sockets, so each of those that come one after the other would leave an entry in it.
    private var armedTicks: [Int64] = []
    package private(set) var count = 0

    /// The time of the callback that is being worked on.
    private(set) var now: MonotonicTime
    private var wheel: TimeoutWheel
    private var wheelTimer: Timer?
    private var random = SystemRandomNumberGenerator()
    /// Where small frames are put together for one write.
    var scratch: [UInt8] = []

    /// - Parameters:
    ///   - onFailure: hears of what handlers throw that is no end of their connection: bugs.
    ///   - onEnd: hears how each socket ended.
    /// - Precondition: `configuration.problems()` is empty.
    package init(
        _ configuration: WebSocketConfiguration = WebSocketConfiguration(),
        metrics: WebSocketMetrics, clocks: Clocks = .system,
        onFailure: @escaping @LoopActor (any Error) -> Void = { _ in },
        onEnd: @escaping @LoopActor (WebSocketEnding) -> Void = { _ in }
    ) {
        let problems = configuration.problems()
        precondition(problems.isEmpty, "\(problems)")
        self.configuration = configuration
        self.metrics = metrics
        self.clocks = clocks
        self.onFailure = onFailure
        self.onEnd = onEnd
        pool = configuration.deflate.map { WebSocketDeflatePool($0) }
        now = clocks.monotonic()
        wheel = TimeoutWheel(resolution: configuration.timeoutResolution, now: now)
    }

    /// Accepts the handshake of `request` and serves the socket from then on.
    ///
    /// Whatever may refuse the client (its ticket, its origin, its rights) is decided before this is called.
    /// `serve` is the socket's own task. It begins when the head of the answer is sent and is cancelled when the
    /// connection has ended. When it returns the socket is closed with 1000, when it throws with 1011.
    ///
    /// - Parameter subprotocols: what this route speaks; the client's first choice among them is taken, and none if
    ///   it asks for none of them (RFC 6455 4.2.2).
    /// - Throws: 426 for what is no WebSocket of version 13, 400 for a malformed handshake, 503 when
    ///   `socketsMax` are open.
    package func accept(
        _ request: HTTPRequest, subprotocols: [String] = [],
        _ serve: @escaping @LoopActor (WebSocket) async throws -> Void
    ) throws(Problem) -> HTTPResponse {
        let handshake: WebSocketHandshake.Request
        switch WebSocketHandshake.read(request) {
        case .success(let valid): handshake = valid
        case .failure(let refused):
            metrics.refused(refused.refusal)
            throw refused.problem
        }
        guard count < configuration.socketsMax else {
            metrics.refused(.tooMany)
            throw .tooManySockets
        }
        var response = HTTPResponse(handshake.accept == nil ? .ok : .switchingProtocols)
        if let accept = handshake.accept {
            response.headers.append(WebSocketHandshake.accept, accept)
        }
        let agreement = configuration.deflate.flatMap {
            WebSocketDeflateAgreement.choose(handshake.offers, $0)
        }
        if let agreement {
            response.headers.append(WebSocketHandshake.extensions, agreement.fieldValue)
        }
        let subprotocol = handshake.subprotocols.first { subprotocols.contains($0) }
        if let subprotocol {
            response.headers.append(WebSocketHandshake.subprotocol, subprotocol)
        }
        response.body = .tunnel(
            HTTPTunnel { stream, received in
                self.open(stream, received, agreement, subprotocol, serve)
            })
        return response
    }

    private func open(
        _ stream: any ByteStream, _ received: [UInt8], _ agreement: WebSocketDeflateAgreement?,
        _ subprotocol: String?, _ serve: @escaping @LoopActor (WebSocket) async throws -> Void
    ) -> WebSocket {
        readClock()
        let place = freePlaces.popLast() ?? sockets.count
        if place == sockets.count {
            sockets.append(nil)
            armedTicks.append(TimeoutWheel.unarmed)
        }
        let socket = WebSocket(
            stream, endpoint: self, place: place, deflate: agreement, subprotocol: subprotocol)
        sockets[place] = socket
        count += 1
        metrics.opened.increment()
        metrics.open.add(1)
        startWheel()
        socket.start(received, serve)
        return socket
    }

    func ended(_ socket: WebSocket, _ ending: WebSocketEnding) {
        guard sockets[socket.place] === socket else { return }
        sockets[socket.place] = nil
        freePlaces.append(socket.place)
        count -= 1
        metrics.open.add(-1)
        metrics.ended(ending.kind)
        if count == 0 {
            wheelTimer?.cancel()
            wheelTimer = nil
        }
        onEnd(ending)
    }

    func failed(_ error: any Error) { onFailure(error) }

    /// What a client that is sent away is told: "retry-after=" and seconds with two decimals.
    func retryHint() -> String {
        let range = configuration.retryAfter
        let milliseconds = Int64.random(
            in: range.lowerBound.inMilliseconds...range.upperBound.inMilliseconds, using: &random)
        let hundredths = milliseconds / 10
        let fraction = hundredths % 100
        return "retry-after=\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
    }

    // MARK: Time

    func readClock() { now = clocks.monotonic() }

    /// Entries in the wheel.
    var armedCount: Int { wheel.count }

    func arm(_ socket: WebSocket, at time: MonotonicTime) {
        let place = socket.place
        guard wheel.tick(of: time) < armedTicks[place] else { return }
        armedTicks[place] = wheel.arm(place, at: time)
    }

    /// Ends waits that are over. The endpoint's own timer calls it; a test that has its own clock calls it too.
    package func checkTimeouts() {
        readClock()
        for entry in wheel.advance(to: now) {
            guard armedTicks[entry.connection] == entry.tick else { continue }
            armedTicks[entry.connection] = TimeoutWheel.unarmed
            sockets[entry.connection]?.checkTimeouts(now)
        }
    }

    private func startWheel() {
        guard wheelTimer == nil else { return }
        wheelTimer = Loop.shared.schedule(
            at: .after(configuration.timeoutResolution, from: Loop.now)
        ) {
            self.wheelTimer = nil
            self.checkTimeouts()
            if self.count > 0 { self.startWheel() }
        }
    }
}

extension Problem {
    fileprivate static let tooManySockets = Problem(
        .serviceUnavailable, code: "overloaded", title: "Service Unavailable",
        detail: "Too many WebSockets are open. Try again.",
        headers: HTTPHeaders([(.retryAfter, "5")]))
}
