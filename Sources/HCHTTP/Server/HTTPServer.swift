package import HCCore
package import HCIO

/// What the server needs of a connection, whatever its protocol.
@LoopActor
protocol HTTPServerConnection: AnyObject {
    var place: Int { get }
    var armedTick: Int64 { get set }
    func start()
    /// From now on each answer is the connection's last, or its protocol's way of saying so.
    func drain()
    /// Ends the connection gently if no request is in progress.
    func endIfIdle()
    func close()
    func checkTimeouts(_ now: MonotonicTime)
}

/// What is spoken on a connection: decided before its first byte is read (by ALPN, once there is TLS).
package enum HTTPWireProtocol: Sendable {
    case http1
}

/// Serves connections of one loop: accepts, keeps them in a registry, ends what waits too long, drains.
@LoopActor
package final class HTTPServer {
    package let configuration: HTTPServerConfiguration
    package let metrics: HTTPServerMetrics
    let responder: any HTTPResponder
    private let clocks: Clocks

    private var listeners: [Listener] = []
    private var connections: [(any HTTPServerConnection)?] = []
    private var freePlaces: [Int] = []
    package private(set) var connectionCount = 0
    package private(set) var isDraining = false

    /// The time of the callback that is being worked on.
    private(set) var now: MonotonicTime
    private var wallClock: Timestamp
    private var nextWallClock: MonotonicTime
    private var date = DateLine()
    private var ids: RequestIDGenerator
    /// The id that was made last: an answer to what is no request has one too.
    private(set) var lastRequestID: RequestID?

    private var wheel: TimeoutWheel
    private var wheelTimer: Timer?
    private var spareBuffer: [UInt8] = []
    private var drained: Waiter<Void>?

    /// - Precondition: `configuration.problems()` is empty.
    package init(
        _ configuration: HTTPServerConfiguration, responder: any HTTPResponder,
        metrics: HTTPServerMetrics, clocks: Clocks = .system
    ) {
        let problems = configuration.problems()
        precondition(problems.isEmpty, "\(problems)")
        self.configuration = configuration
        self.responder = responder
        self.metrics = metrics
        self.clocks = clocks
        now = clocks.monotonic()
        wallClock = clocks.now()
        nextWallClock = now
        var random = SystemRandomNumberGenerator()
        ids = RequestIDGenerator(seed: random.next())
        wheel = TimeoutWheel(resolution: configuration.timeoutResolution, now: now)
        readClock()
    }

    // MARK: Connections

    /// Accepts from `listener` until `stopAccepting` or `drain`.
    package func listen(on listener: Listener) throws(SystemError) {
        listeners.append(listener)
        try listener.start { stream, address in self.serve(stream, from: address) }
    }

    /// Serves one connection, which is open and not started yet.
    package func serve(
        _ stream: any ByteStream, from address: SocketAddress, isSecure: Bool = false,
        using wireProtocol: HTTPWireProtocol = .http1
    ) {
        readClock()
        let place = freePlaces.popLast() ?? connections.count
        if place == connections.count { connections.append(nil) }
        let connection: any HTTPServerConnection
        switch wireProtocol {
        case .http1:
            connection = HTTP1Connection(
                stream, from: address, isSecure: isSecure, place: place, server: self)
        }
        connections[place] = connection
        connectionCount += 1
        metrics.connections.increment()
        metrics.openConnections.set(connectionCount)
        if connectionCount == configuration.connectionsMax {
            for listener in listeners { listener.pause() }
        }
        startWheel()
        connection.start()
    }

    func connectionEnded(_ connection: any HTTPServerConnection) {
        guard connections[connection.place] === connection else { return }
        connections[connection.place] = nil
        freePlaces.append(connection.place)
        connectionCount -= 1
        metrics.openConnections.set(connectionCount)
        if connectionCount == configuration.connectionsMax - 1, !isDraining {
            for listener in listeners { listener.resume() }
        }
        guard connectionCount == 0 else { return }
        wheelTimer?.cancel()
        wheelTimer = nil
        drained?.succeed(())
    }

    // MARK: The end

    /// Closes the listening sockets of this process.
    ///
    /// - Parameter emptyingQueue: takes first what the kernel has accepted already: for a socket that nobody else
    ///   has open, whose queue would be lost. A socket that another process inherits keeps its queue.
    package func stopAccepting(emptyingQueue: Bool) {
        for listener in listeners {
            if emptyingQueue {
                listener.resume()
                var before = -1
                while listener.acceptedCount != before {
                    before = listener.acceptedCount
                    listener.handle(.readable)
                }
            }
            listener.close()
        }
        listeners = []
    }

    /// Ends every connection without dropping a request: those in progress are answered, and each answer from now
    /// on is its connection's last. A connection without a request may still bring one until `idleUntil`, for
    /// its client may be sending it just now; then it is shut on our side first.
    ///
    /// - Returns: how many connections had to be cut at `deadline`.
    /// - Precondition: `stopAccepting` was called.
    package func drain(idleUntil: Deadline, deadline: Deadline) async -> Int {
        precondition(listeners.isEmpty, "drain comes after stopAccepting")
        precondition(drained == nil, "drain is called once")
        isDraining = true
        for connection in connections { connection?.drain() }
        guard connectionCount > 0 else { return 0 }
        let drained = Waiter<Void>()
        self.drained = drained
        let idle = Loop.shared.schedule(at: idleUntil.earlier(of: deadline)) {
            self.readClock()
            for connection in self.connections { connection?.endIfIdle() }
        }
        defer { idle.cancel() }
        do {
            try await drained.wait(until: deadline)
            return 0
        } catch {
            let cut = connectionCount
            for connection in connections { connection?.close() }
            return cut
        }
    }

    // MARK: Time

    /// Called at the beginning of each callback: one clock read for all that happens in it.
    func readClock() {
        now = clocks.monotonic()
        guard now >= nextWallClock else { return }
        wallClock = clocks.now()
        date.update(wallClock)
        let intoSecond = wallClock.microseconds - wallClock.seconds * 1_000_000
        nextWallClock = now + .microseconds(max(1, 1_000_000 - intoSecond))
        wallClockReadAt = now
    }

    private var wallClockReadAt = MonotonicTime.zero
    var dateLine: [UInt8] { date.bytes }

    func arm(_ connection: any HTTPServerConnection, at time: MonotonicTime) {
        guard wheel.tick(of: time) < connection.armedTick else { return }
        connection.armedTick = wheel.arm(connection.place, at: time)
    }

    /// Ends waits that are over. The server's own timer calls it; a test that has its own clock calls it too.
    package func checkTimeouts() {
        readClock()
        for entry in wheel.advance(to: now) {
            guard let connection = connections[entry.connection],
                connection.armedTick == entry.tick
            else { continue }
            connection.armedTick = TimeoutWheel.unarmed
            connection.checkTimeouts(now)
        }
    }

    private func startWheel() {
        guard wheelTimer == nil else { return }
        wheelTimer = Loop.shared.schedule(
            at: .after(configuration.timeoutResolution, from: Loop.shared.now)
        ) {
            self.wheelTimer = nil
            self.checkTimeouts()
            if self.connectionCount > 0 { self.startWheel() }
        }
    }

    // MARK: What connections share

    func makeRequestID() -> RequestID {
        let id = ids.make(at: wallClock + (now - wallClockReadAt))
        lastRequestID = id
        return id
    }

    /// The client's own id if it is an acceptable one, else a new one.
    func requestID(of headers: HTTPHeaders) -> RequestID {
        let received = headers.withValue(.xRequestId) { RequestID(received: $0) } ?? nil
        return received ?? makeRequestID()
    }

    /// The buffer in which an answer is written: one for all, for one answer is written at a time. Who needs it
    /// for longer keeps it, and the next gets another.
    func takeBuffer() -> [UInt8] {
        let buffer = spareBuffer
        spareBuffer = []
        return buffer
    }

    func giveBack(_ buffer: inout [UInt8]) {
        if buffer.capacity <= 256 << 10, buffer.capacity > spareBuffer.capacity {
            buffer.removeAll(keepingCapacity: true)
            swap(&buffer, &spareBuffer)
        }
        buffer = []
    }
}
