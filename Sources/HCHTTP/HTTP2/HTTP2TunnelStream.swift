import HCCore
import HCIO

/// One HTTP/2 stream as a connection of its own (RFC 8441): END_STREAM is the end of a direction, RST_STREAM a
/// broken connection, and the windows are what a socket's buffers are.
@LoopActor
final class HTTP2TunnelStream: ByteStream {
    /// Nil once it is closed.
    private var carrier: HTTP2Stream?
    private var delegate: (any ByteStreamDelegate)?
    /// What came and was not read: never more than the stream's window.
    private var received: [UInt8] = []
    private var isReading = false
    private var isWaitingToWrite = false
    private var isInputComplete = false
    private var hasToldEnd = false
    private var isOutputComplete = false
    private var isPlanned = false
    private let bytesMax: Int
    package let remoteAddress: SocketAddress?
    package let localAddress: SocketAddress?

    init(_ carrier: HTTP2Stream) {
        self.carrier = carrier
        bytesMax = carrier.connection.session.limits.streamOutputBytesMax
        remoteAddress = carrier.connection.origin.address
        localAddress = carrier.connection.stream.localAddress
    }

    var isClosed: Bool { carrier == nil }

    func start(delegate: any ByteStreamDelegate, reading: Bool) {
        precondition(self.delegate == nil, "a stream is started once")
        self.delegate = delegate
        setReading(reading)
    }

    func setReading(_ isOn: Bool) {
        isReading = isOn
        if isOn, !received.isEmpty || isInputComplete { plan() }
    }

    func setWriteInterest(_ isOn: Bool) {
        isWaitingToWrite = isOn
        if isOn, room > 0 { plan() }
    }

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        guard let carrier, !isOutputComplete else {
            return .failed(SystemError(errno: 32, call: "HTTP/2 stream"))
        }
        guard !bytes.isEmpty else { return .wrote(0) }
        let count = min(bytes.count, room)
        guard count > 0 else { return .wouldBlock }
        carrier.writeToTunnel(bytes.slice(0..<count))
        return .wrote(count)
    }

    private var room: Int {
        guard let carrier else { return 0 }
        return max(0, bytesMax - carrier.connection.session.waitingCount(carrier.slot))
    }

    func shutdownWrite() {
        guard let carrier, !isOutputComplete else { return }
        isOutputComplete = true
        carrier.finishTunnel()
    }

    func close() {
        guard let carrier else { return }
        if !isOutputComplete, isInputComplete {
            // The client is through too: both directions end properly.
            isOutputComplete = true
            carrier.finishTunnel()
        }
        self.carrier = nil
        delegate = nil
        received = []
        carrier.closeTunnel(isComplete: isOutputComplete)
    }

    /// Delegates are not called from within a stream's own methods.
    private func plan() {
        guard !isPlanned else { return }
        isPlanned = true
        Loop.shared.atEndOfTick {
            self.isPlanned = false
            self.deliver()
        }
    }

    private func deliver() {
        if isReading, !received.isEmpty, let delegate {
            let bytes = received
            received = []
            bytes.withUnsafeBytes { delegate.stream(self, didReceive: $0) }
            carrier?.consume(bytes.count)
        }
        if received.isEmpty, isInputComplete, !hasToldEnd, let delegate {
            hasToldEnd = true
            isReading = false
            delegate.streamDidReachEnd(self)
        }
        if isWaitingToWrite, room > 0 { delegate?.streamIsWritable(self) }
    }

    // MARK: From the connection

    func receive(_ bytes: UnsafeRawBufferPointer) {
        guard isReading, received.isEmpty, let delegate else {
            guard carrier != nil else { return }
            received.append(contentsOf: bytes)
            if isReading { plan() }
            return
        }
        delegate.stream(self, didReceive: bytes)
        carrier?.consume(bytes.count)
    }

    func inputEnded() {
        isInputComplete = true
        plan()
    }

    func roomToWrite() {
        if isWaitingToWrite { delegate?.streamIsWritable(self) }
    }

    /// The stream was reset, or its connection is gone.
    func broke() {
        guard carrier != nil else { return }
        carrier = nil
        received = []
        let delegate = delegate
        self.delegate = nil
        delegate?.stream(self, didFail: SystemError(errno: 104, call: "HTTP/2 stream"))
    }
}
