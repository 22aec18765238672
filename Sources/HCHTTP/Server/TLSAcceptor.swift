package import HCCore
package import HCIO

extension HTTPServer {
    /// ALPN names of what this configuration serves, the best first.
    package static func applicationProtocols(_ configuration: HTTPServerConfiguration) -> [String] {
        configuration.http2IsEnabled ? ["h2", "http/1.1"] : ["http/1.1"]
    }

    /// What a client gets that speaks HTTP without TLS to a port that has TLS: its request is not read, and the answer
    /// is whole, with its date and the security fields.
    package nonisolated static func plaintextAnswer(at now: Timestamp) -> [UInt8] {
        let response = Problem(
            .badRequest, code: "tls-required", title: "Bad Request",
            detail: "This port speaks TLS: write https instead of http."
        ).response(for: nil)
        var output: [UInt8] = []
        HTTP1Writer.writeHead(
            response,
            HTTP1ConnectionMachine.AnswerPlan(
                framing: .length(response.body.count ?? 0), sendsContent: true,
                connectionField: .close),
            trailers: [], id: nil, date: DateLine(now),
            common: HTTPServerConfiguration.securityHeaders, into: &output)
        response.body.write(into: &output)
        return output
    }

    /// Accepts from `listener`, makes the TLS handshake with each client and then serves it.
    package func listen(on listener: Listener, tls: TLSContext) throws(SystemError) {
        let acceptor = TLSAcceptor(listener, tls, server: self)
        try listen(on: listener, named: .tls) { acceptor.accept($0, $1) }
    }
}

/// The handshakes of one listener: each has a deadline, and all together a bound.
///
/// At the bound the listener rests, and connections wait in the kernel's queue: a machine that is too slow for what
/// comes finishes what it has begun. But clients that begin handshakes and say nothing must not stop all others, so
/// while it is full, handshakes that are older than `tlsCrowdedTimeout` are given up.
@LoopActor
final class TLSAcceptor {
    private let listener: Listener
    let context: TLSContext
    private unowned let server: HTTPServer
    /// By the order in which they began.
    private var handshakes: [Int: TLSHandshakeConnection] = [:]
    private var next = 0
    /// The number of the oldest that is under way, or the next if none is. It follows each that ends: numbers of
    /// all that ever were would be gone through when there is no time for it, with the first flood.
    private var oldest = 0
    private var isResting = false

    init(_ listener: Listener, _ context: TLSContext, server: HTTPServer) {
        self.listener = listener
        self.context = context
        self.server = server
    }

    /// Numbers from the oldest that is under way to the next.
    var spanCount: Int { next - oldest }

    var isFull: Bool { handshakes.count >= server.configuration.tlsHandshakesMax }

    func accept(_ stream: any ByteStream, _ pass: ConnectionPass) {
        let number = next
        next += 1
        server.enter(pass) { place in
            let handshake = TLSHandshakeConnection(
                TLSStream(over: stream, context), number: number, place: place, acceptor: self,
                server: server)
            handshakes[number] = handshake
            return handshake
        }
        context.metrics?.inProgress.set(handshakes.count)
        guard isFull, !isResting else { return }
        isResting = true
        listener.pause()
        watchOldest()
    }

    func ended(_ number: Int) {
        guard handshakes.removeValue(forKey: number) != nil else { return }
        while oldest < next, handshakes[oldest] == nil { oldest += 1 }
        context.metrics?.inProgress.set(handshakes.count)
        guard isResting, !isFull else { return }
        isResting = false
        if !server.isDraining { listener.resume() }
    }

    private func watchOldest() { handshakes[oldest]?.watch() }

    /// Gives up all that have had their time.
    func giveWay() {
        while let handshake = handshakes[oldest], handshake.isLate {
            let number = oldest
            handshake.giveUp(.overload)
            ended(number)
        }
    }
}

/// A connection whose TLS handshake is under way.
@LoopActor
final class TLSHandshakeConnection: HTTPServerConnection {
    private let stream: TLSStream
    private let number: Int
    private let acceptor: TLSAcceptor
    private let server: HTTPServer
    private let startedAt: MonotonicTime
    let place: Int

    init(
        _ stream: TLSStream, number: Int, place: Int, acceptor: TLSAcceptor, server: HTTPServer
    ) {
        self.stream = stream
        self.number = number
        self.place = place
        self.acceptor = acceptor
        self.server = server
        startedAt = server.now
    }

    var idleness: ConnectionIdleness { .fresh(since: startedAt) }

    func start() {
        // HTTP knows by its own framing whether a message is complete.
        stream.toleratesTruncation = true
        server.arm(self, at: startedAt + server.configuration.tlsHandshakeTimeout)
        stream.handshake { result in
            self.server.readClock()
            self.acceptor.ended(self.number)
            switch result {
            case .success(let handshake): self.succeeded(handshake)
            case .failure: self.server.connectionEnded(self)
            }
        }
    }

    private func succeeded(_ handshake: TLSHandshake) {
        acceptor.context.metrics?.duration.observe(server.now - startedAt)
        server.handOver(self) { pass in
            server.serve(
                stream, pass, isSecure: true,
                using: handshake.applicationProtocol == "h2" ? .http2 : .http1)
        }
    }

    /// The listener is full, and this is the oldest.
    func watch() {
        server.arm(self, at: startedAt + server.configuration.tlsCrowdedTimeout)
    }

    /// A client whose handshake was accepted may still send its request.
    func drain() {}

    func endIfIdle() { giveUp(.cancelled) }

    func close() { giveUp(.cancelled) }

    func checkTimeouts(_ now: MonotonicTime) {
        if now >= startedAt + server.configuration.tlsHandshakeTimeout {
            giveUp(.timeout)
        } else {
            server.arm(self, at: startedAt + server.configuration.tlsHandshakeTimeout)
            if acceptor.isFull, isLate { acceptor.giveWay() }
        }
    }

    /// Older than a handshake may become while there are too many.
    var isLate: Bool { server.now >= startedAt + server.configuration.tlsCrowdedTimeout }

    func giveUp(_ reason: TLSFailure.Reason) {
        guard !stream.isClosed else { return }
        acceptor.context.metrics?.failed(reason)
        stream.close()
        acceptor.ended(number)
        server.connectionEnded(self)
    }
}
