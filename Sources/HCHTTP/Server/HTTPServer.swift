package import HCCore
package import HCIO

/// What the server needs of a connection, whatever its protocol.
@LoopActor
protocol HTTPServerConnection: AnyObject {
    var place: Int { get }
    /// Whether it may be asked to leave when there is no room.
    var idleness: ConnectionIdleness { get }
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
    case http2
}

/// Serves connections of one loop: accepts, keeps them in a registry, ends what waits too long, drains.
@LoopActor
package final class HTTPServer {
    package let configuration: HTTPServerConfiguration
    package let metrics: HTTPServerMetrics
    private let responder: any HTTPResponder
    private let clocks: Clocks

    private var listeners: [Listener] = []
    private var connections: [(any HTTPServerConnection)?] = []
    /// The pass of the connection at the same place.
    private var passes: [ConnectionPass?] = []
    private var freePlaces: [Int] = []
    /// For which tick each place is armed. It stays when a connection ends: the next at its place is looked at no
    /// later for it, and connections that come and go leave nothing in the wheel.
    private var armedTicks: [Int64] = []
    private let secureHeaders: HTTPHeaders
    let gate: ConnectionGate
    private var eviction = EvictionSweep()
    package private(set) var connectionCount = 0
    package private(set) var isDraining = false

    /// The time of the callback that is being worked on.
    private(set) var now: MonotonicTime
    private var wallClock: Timestamp
    private var nextWallClock: MonotonicTime
    private(set) var date: DateLine
    private var ids: RequestIDGenerator
    /// The id that was made last: an answer to what is no request has one too.
    private(set) var lastRequestID: RequestID?

    private var wheel: TimeoutWheel
    private var wheelTimer: Timer?
    private var spareBuffer: [UInt8] = []
    /// The fields of the answer that is being written by an HTTP/2 connection: one is written at a time.
    private(set) lazy var http2Fields = HTTP2FieldList()
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
        secureHeaders = configuration.secureHeaders
        gate = ConnectionGate(
            connectionsMax: configuration.connectionsMax,
            perAddressMax: configuration.connectionsPerAddressMax,
            trusted: configuration.trustedProxies)
        now = clocks.monotonic()
        wallClock = clocks.now()
        date = DateLine(wallClock)
        nextWallClock = now
        var random = SystemRandomNumberGenerator()
        ids = RequestIDGenerator(seed: random.next())
        wheel = TimeoutWheel(resolution: configuration.timeoutResolution, now: now)
        readClock()
    }

    // MARK: Connections

    /// Accepts from `listener` until `stopAccepting` or `drain`.
    package func listen(
        on listener: Listener, named name: HTTPListenerName = .plain
    ) throws(SystemError) {
        try listen(on: listener, named: name) { self.serve($0, $1) }
    }

    func listen(
        on listener: Listener, named name: HTTPListenerName,
        then next: @escaping @LoopActor (any ByteStream, ConnectionPass) -> Void
    ) throws(SystemError) {
        listeners.append(listener)
        try listener.start { stream, address in
            self.accept(stream, from: address, by: name, then: next)
        }
    }

    /// The way in: room is found or made, a proxy says whom it speaks for, and then `next` takes the connection,
    /// which has not been read from (but by the proxy's header). A connection that is refused is reset at once.
    func accept(
        _ stream: PlainStream, from address: SocketAddress, by listener: HTTPListenerName,
        then next: @escaping @LoopActor (any ByteStream, ConnectionPass) -> Void
    ) {
        readClock()
        let isProxied = configuration.proxyProtocol.contains(listener)
        if isProxied, !configuration.trustedProxies.contains(address) {
            return refuse(stream, .notProxy)
        }
        var verdict = gate.admit(address.unmapped, by: listener)
        if case .full = verdict, makeRoom() {
            verdict = gate.admit(address.unmapped, by: listener)
        }
        switch verdict {
        case .admitted(let pass):
            guard isProxied else { return next(stream, pass) }
            enter(pass) { place in
                ProxyPreface(stream, pass, place: place, server: self, then: next)
            }
        case .full: refuse(stream, .total)
        case .refused(let reason): refuse(stream, reason)
        }
    }

    private func refuse(_ stream: PlainStream, _ reason: ConnectionGate.Refusal) {
        metrics.refused(reason)
        do throws(SystemError) {
            try stream.abort()
        } catch {
            // The peer has gone already.
            stream.close()
        }
    }

    /// Asks the connection that can best be spared to leave.
    private func makeRoom() -> Bool {
        guard
            let victim = eviction.next(
                of: connections.count, now: now, idleness: { connections[$0]?.idleness })
        else { return false }
        metrics.evicted(victim.kind)
        connections[victim.place]?.close()
        return true
    }

    /// Serves an admitted connection, which is open and not started yet.
    package func serve(
        _ stream: any ByteStream, _ pass: ConnectionPass, isSecure: Bool = false,
        using wireProtocol: HTTPWireProtocol = .http1
    ) {
        readClock()
        let origin = ConnectionOrigin(
            pass, isSecure: isSecure, trusted: configuration.trustedProxies)
        switch wireProtocol {
        case .http1:
            metrics.opened(pass, .http1)
            enter(pass) { place in
                HTTP1Connection(stream, from: origin, place: place, server: self)
            }
        case .http2:
            metrics.opened(pass, .http2)
            enter(pass) { place in
                HTTP2Connection(stream, from: origin, place: place, server: self)
            }
        }
    }

    /// A client without TLS speaks HTTP/2 from the first byte on (RFC 9113 3.3): its connection goes on as such.
    ///
    /// - Returns: to whom the one that began now gives everything that comes of the stream.
    func continueAsHTTP2(
        _ connection: any HTTPServerConnection, _ stream: any ByteStream, _ origin: ConnectionOrigin
    ) -> HTTP2Connection? {
        var successor: HTTP2Connection?
        handOver(connection) { pass in
            metrics.opened(pass, .http2)
            enter(pass) { place in
                let made = HTTP2Connection(
                    stream, from: origin, place: place, server: self, isStarted: true)
                successor = made
                return made
            }
        }
        return successor
    }

    /// Gives a connection its place and starts it. Its pass is ended with it (`connectionEnded`).
    func enter(_ pass: ConnectionPass, _ make: (_ place: Int) -> any HTTPServerConnection) {
        let place = freePlaces.popLast() ?? connections.count
        if place == connections.count {
            connections.append(nil)
            passes.append(nil)
            armedTicks.append(TimeoutWheel.unarmed)
        }
        let connection = make(place)
        connections[place] = connection
        passes[place] = pass
        connectionCount += 1
        startWheel()
        connection.start()
    }

    /// A connection that was a beginning only is continued by another: its place is given up, its pass goes on.
    func handOver(
        _ connection: any HTTPServerConnection, to next: (ConnectionPass) -> Void
    ) {
        guard connections[connection.place] === connection, let pass = passes[connection.place]
        else { return }
        passes[connection.place] = nil
        next(pass)
        connectionEnded(connection)
    }

    func connectionEnded(_ connection: any HTTPServerConnection) {
        guard connections[connection.place] === connection else { return }
        connections[connection.place] = nil
        freePlaces.append(connection.place)
        connectionCount -= 1
        if let pass = passes[connection.place] {
            passes[connection.place] = nil
            metrics.closed(pass)
            pass.end()
        }
        guard connectionCount == 0 else { return }
        wheelTimer?.cancel()
        wheelTimer = nil
        drained?.succeed(())
    }

    // MARK: The end

    /// Lets no further connection into the queues of the listening sockets, in any process: before the last
    /// `stopAccepting` of sockets that nobody serves after us.
    package func stopQueueing() throws(SystemError) {
        for listener in listeners { try listener.stopQueueing() }
    }

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

    /// Ends every connection without dropping a request: all that have arrived are answered, and the last of these
    /// answers says that it is. A connection without a request may still bring one until `idleUntil`, for
    /// its client may be sending it just now; then it is shut on our side first.
    ///
    /// - Returns: how many connections had to be cut at `deadline`.
    /// - Precondition: `stopAccepting` was called.
    package func drain(idleUntil: Deadline, deadline: Deadline) async -> Int {
        precondition(listeners.isEmpty, "drain comes after stopAccepting")
        precondition(drained == nil, "drain is called once")
        isDraining = true
        for connection in connections { connection?.drain() }
        guard connectionCount > 0 else {
            await TLSStream.waitForClosing(until: deadline)
            return 0
        }
        let drained = Waiter<Void>()
        self.drained = drained
        let idle = Loop.shared.schedule(at: idleUntil.earlier(of: deadline)) {
            self.readClock()
            for connection in self.connections { connection?.endIfIdle() }
        }
        defer { idle.cancel() }
        do {
            try await drained.wait(until: deadline)
            await TLSStream.waitForClosing(until: deadline)
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

    /// Entries in the wheel.
    var armedCount: Int { wheel.count }

    func arm(_ connection: any HTTPServerConnection, at time: MonotonicTime) {
        let place = connection.place
        guard wheel.tick(of: time) < armedTicks[place] else { return }
        armedTicks[place] = wheel.arm(place, at: time)
    }

    /// Ends waits that are over. The server's own timer calls it; a test that has its own clock calls it too.
    package func checkTimeouts() {
        readClock()
        for entry in wheel.advance(to: now) {
            guard armedTicks[entry.connection] == entry.tick else { continue }
            armedTicks[entry.connection] = TimeoutWheel.unarmed
            connections[entry.connection]?.checkTimeouts(now)
        }
    }

    private func startWheel() {
        guard wheelTimer == nil else { return }
        wheelTimer = Loop.shared.schedule(
            at: .after(configuration.timeoutResolution, from: Loop.now)
        ) {
            self.wheelTimer = nil
            self.checkTimeouts()
            if self.connectionCount > 0 { self.startWheel() }
        }
    }

    // MARK: What connections share

    /// The fields of every answer. By TLS the client is told to come by TLS only (RFC 6797 7.2: and never without).
    func commonHeaders(isSecure: Bool) -> HTTPHeaders {
        isSecure ? secureHeaders : configuration.commonHeaders
    }

    /// Writes the head of an answer of HTTP/1. Here, where the fields of every answer are: they are lent to who writes
    /// them, and what is handed out is counted.
    func writeHead(
        _ response: HTTPResponse, _ plan: HTTP1ConnectionMachine.AnswerPlan,
        trailers: [HTTPFieldName], id: RequestID?, isSecure: Bool, into output: inout [UInt8]
    ) {
        if isSecure {
            HTTP1Writer.writeHead(
                response, plan, trailers: trailers, id: id, date: date, common: secureHeaders,
                into: &output)
        } else {
            HTTP1Writer.writeHead(
                response, plan, trailers: trailers, id: id, date: date,
                common: configuration.commonHeaders, into: &output)
        }
    }

    /// Asked of the server, for both protocols: what answers need not be kept alive for the question then.
    func answer(_ request: HTTPRequest) -> HTTPAnswer { responder.answer(request) }

    func makeRequestID() -> RequestID {
        // Not lent from here, which the runtime would be asked about each time.
        var ids = ids
        let id = ids.make(at: wallClock + (now - wallClockReadAt))
        self.ids = ids
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
