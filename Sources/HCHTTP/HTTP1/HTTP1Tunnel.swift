import HCIO

/// The stream of an HTTP/1.1 connection for what takes it over: the connection stays in the server's registry and
/// carries it, until one of both ends it.
@LoopActor
final class HTTP1Tunnel: ByteStream {
    private let carrier: HTTP1Connection
    private let stream: any ByteStream
    /// Nil once it has begun.
    private var waiting: HTTPTunnel?
    private var delegate: (any ByteStreamDelegate)?
    private var farEnd: (any HTTPTunnelConnection)?

    init(_ tunnel: HTTPTunnel, over stream: any ByteStream, carrier: HTTP1Connection) {
        waiting = tunnel
        self.stream = stream
        self.carrier = carrier
    }

    // MARK: The carrier's side

    var hasBegun: Bool { waiting == nil }

    /// The head of the answer is sent.
    func begin(received: [UInt8], hasReachedEnd: Bool, isDraining: Bool) {
        guard let tunnel = waiting else { return }
        waiting = nil
        let farEnd = tunnel.begin(self, received)
        guard !isClosed else { return }
        self.farEnd = farEnd
        if isDraining { farEnd.drain() }
        // It came before there was anybody to tell; and is told as a stream does, from outside.
        if hasReachedEnd { Loop.shared.atEndOfTick { self.end() } }
    }

    func receive(_ bytes: UnsafeRawBufferPointer) { delegate?.stream(self, didReceive: bytes) }
    func end() { delegate?.streamDidReachEnd(self) }
    func becomeWritable() { delegate?.streamIsWritable(self) }
    func fail(_ error: SystemError) { delegate?.stream(self, didFail: error) }
    func drain() { farEnd?.drain() }
    func closeFarEnd() { farEnd?.close() }

    /// Lets go of both.
    func detach() {
        waiting = nil
        delegate = nil
        farEnd = nil
    }

    // MARK: The tunnel's side

    func start(delegate: any ByteStreamDelegate, reading: Bool) {
        precondition(self.delegate == nil, "a stream is started once")
        self.delegate = delegate
        stream.setReading(reading)
    }

    func setReading(_ isOn: Bool) { stream.setReading(isOn) }
    func setWriteInterest(_ isOn: Bool) { stream.setWriteInterest(isOn) }

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        let outcome = stream.write(bytes)
        if case .wrote(let count) = outcome { carrier.countSent(count) }
        return outcome
    }

    func shutdownWrite() { stream.shutdownWrite() }
    func close() { carrier.tunnelClosed() }

    var isClosed: Bool { stream.isClosed }
    var remoteAddress: SocketAddress? { stream.remoteAddress }
    var localAddress: SocketAddress? { stream.localAddress }
}
