import HCCore
import HCIO

/// The beginning of a connection that a proxy makes for somebody: waits for the PROXY protocol header, and then for
/// nothing more. It comes before TLS.
@LoopActor
final class ProxyPreface: HTTPServerConnection {
    private let server: HTTPServer
    private let pass: ConnectionPass
    private let stream: ProxiedStream
    private let then: @LoopActor (any ByteStream, ConnectionPass) -> Void
    private let startedAt: MonotonicTime
    let place: Int
    var armedTick = TimeoutWheel.unarmed

    init(
        _ stream: any ByteStream, _ pass: ConnectionPass, place: Int, server: HTTPServer,
        then: @escaping @LoopActor (any ByteStream, ConnectionPass) -> Void
    ) {
        self.stream = ProxiedStream(stream)
        self.pass = pass
        self.place = place
        self.server = server
        self.then = then
        startedAt = server.now
    }

    var idleness: ConnectionIdleness { .fresh(since: startedAt) }

    func start() {
        server.arm(self, at: startedAt + server.configuration.proxyHeaderTimeout)
        stream.begin { outcome in
            self.server.readClock()
            switch outcome {
            case .header(let header): self.received(header)
            case .malformed: self.refuse(.proxyHeader)
            // A proxy that looks whether the port is open: no refusal.
            case .gone: self.close()
            }
        }
    }

    private func received(_ header: ProxyHeader) {
        if case .client(let address) = header.source {
            guard pass.proxied(for: address, isSecure: header.isSecure) else {
                return refuse(.address)
            }
            stream.clientAddress = address
        }
        server.handOver(self) { then(stream, $0) }
    }

    private func refuse(_ reason: ConnectionGate.Refusal) {
        server.metrics.refused(reason)
        close()
    }

    func drain() {}

    func endIfIdle() {
        if !stream.hasReceived { close() }
    }

    func close() {
        stream.close()
        server.connectionEnded(self)
    }

    func checkTimeouts(_ now: MonotonicTime) { refuse(.proxyTimeout) }
}

/// A stream that begins with a PROXY protocol header, and without it for whoever uses the stream.
@LoopActor
final class ProxiedStream: ByteStream, ByteStreamDelegate {
    enum Beginning {
        case header(ProxyHeader)
        case malformed(ProxyHeader.Failure)
        /// The peer ended before its header did.
        case gone
    }

    private let base: any ByteStream
    private var onBeginning: (@LoopActor (Beginning) -> Void)?
    private var delegate: (any ByteStreamDelegate)?
    /// Part of the header; after it, what came behind it and was not given on. At most one read beyond
    /// `ProxyHeader.Limits.bytesMax`.
    private var kept: [UInt8] = []
    private var isReading = false
    private var isDelivering = false
    /// Whom the proxy named.
    var clientAddress: SocketAddress?

    init(_ base: any ByteStream) {
        self.base = base
    }

    /// Reads the header. `done` is called once, unless the stream is closed before.
    func begin(_ done: @escaping @LoopActor (Beginning) -> Void) {
        onBeginning = done
        base.start(delegate: self, reading: true)
    }

    /// Whether a byte of the header came.
    var hasReceived: Bool { !kept.isEmpty }

    // MARK: For whoever uses it

    func start(delegate: any ByteStreamDelegate, reading: Bool) {
        precondition(self.delegate == nil, "a stream is started once")
        self.delegate = delegate
        setReading(reading)
    }

    func setReading(_ isOn: Bool) {
        isReading = isOn
        if kept.isEmpty {
            base.setReading(isOn)
        } else if isOn {
            deliverSoon()
        }
    }

    func setWriteInterest(_ isOn: Bool) { base.setWriteInterest(isOn) }
    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite { base.write(bytes) }
    func shutdownWrite() { base.shutdownWrite() }

    func close() {
        onBeginning = nil
        delegate = nil
        kept = []
        base.close()
    }

    var isClosed: Bool { base.isClosed }
    var remoteAddress: SocketAddress? { clientAddress ?? base.remoteAddress }
    var localAddress: SocketAddress? { base.localAddress }

    /// What came behind the header is given when the caller of `start` or `setReading` is done.
    private func deliverSoon() {
        guard !isDelivering else { return }
        isDelivering = true
        Loop.shared.atEndOfTick {
            self.isDelivering = false
            guard self.isReading, !self.kept.isEmpty, let delegate = self.delegate else { return }
            let bytes = self.kept
            self.kept = []
            bytes.withUnsafeBytes { delegate.stream(self, didReceive: $0) }
            if !self.base.isClosed { self.base.setReading(self.isReading) }
        }
    }

    // MARK: From below

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        guard let onBeginning else {
            delegate?.stream(self, didReceive: bytes)
            return
        }
        kept.append(contentsOf: bytes)
        do throws(ProxyHeader.Failure) {
            guard
                let header = try kept.withBytes({ input throws(ProxyHeader.Failure) in
                    try ProxyHeader(input)
                })
            else { return }
            kept = Array(kept[header.byteCount...])
            self.onBeginning = nil
            // Until somebody has started to use the stream, and what is kept is given on.
            base.setReading(false)
            onBeginning(.header(header))
        } catch {
            self.onBeginning = nil
            onBeginning(.malformed(error))
        }
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        if let onBeginning {
            self.onBeginning = nil
            return onBeginning(.gone)
        }
        delegate?.streamDidReachEnd(self)
    }

    func streamIsWritable(_ stream: any ByteStream) {
        delegate?.streamIsWritable(self)
    }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        if let onBeginning {
            self.onBeginning = nil
            return onBeginning(.gone)
        }
        let delegate = delegate
        self.delegate = nil
        kept = []
        delegate?.stream(self, didFail: error)
    }
}
