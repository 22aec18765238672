import HCCore

@testable import HCIO

/// One end of a connection in memory: what a socket does, with sizes that a test chooses. Callbacks come at the end of
/// a tick, never from within a call, as the protocol demands.
@LoopActor final class MemoryStream: ByteStream {
    private var peer: MemoryStream?
    private var delegate: (any ByteStreamDelegate)?
    private var inbox: [UInt8] = []
    private var position = 0
    private var isReading = false
    private var wantsWriting = false
    private var isPumping = false
    private var peerHasEnded = false
    private var endIsTold = false
    private(set) var isWriteShut = false
    private(set) var isClosed = false
    /// All that was ever written to this end.
    private(set) var written: [UInt8] = []

    /// What the way to this end holds.
    var capacity = 64 << 10
    /// What is read at once.
    var piece = Int.max
    /// What is written at once.
    var writePiece = Int.max

    var remoteAddress: SocketAddress? { nil }
    var localAddress: SocketAddress? { nil }

    static func pair() -> (MemoryStream, MemoryStream) {
        let (one, other) = (MemoryStream(), MemoryStream())
        one.peer = other
        other.peer = one
        return (one, other)
    }

    private var unreadCount: Int { inbox.count - position }

    func start(delegate: any ByteStreamDelegate, reading: Bool) {
        self.delegate = delegate
        isReading = reading
        pump()
    }

    func setReading(_ isOn: Bool) {
        isReading = isOn
        pump()
    }

    func setWriteInterest(_ isOn: Bool) {
        wantsWriting = isOn
        pump()
    }

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        guard !isClosed, !isWriteShut, let peer, !peer.isClosed else {
            return .failed(SystemError(errno: 32, call: "send"))
        }
        guard bytes.count > 0 else { return .wrote(0) }
        let count = min(bytes.count, peer.capacity - peer.unreadCount, writePiece)
        guard count > 0 else { return .wouldBlock }
        peer.inbox.append(contentsOf: bytes[..<count])
        written.append(contentsOf: bytes[..<count])
        peer.pump()
        return .wrote(count)
    }

    func shutdownWrite() {
        guard !isWriteShut, !isClosed else { return }
        isWriteShut = true
        peer?.peerHasEnded = true
        peer?.pump()
    }

    func close() {
        guard !isClosed else { return }
        shutdownWrite()
        isClosed = true
        delegate = nil
        let peer = peer
        self.peer = nil
        peer?.pump()
    }

    private func pump() {
        guard !isPumping, !isClosed else { return }
        isPumping = true
        Loop.shared.atEndOfTick {
            self.isPumping = false
            self.deliver()
        }
    }

    private func deliver() {
        guard !isClosed, let delegate else { return }
        if isReading, unreadCount > 0 {
            let count = min(unreadCount, piece)
            let bytes = Array(inbox[position..<(position + count)])
            position += count
            if position == inbox.count {
                inbox = []
                position = 0
            }
            peer?.pump()
            bytes.withUnsafeBytes { delegate.stream(self, didReceive: $0) }
        } else if isReading, peerHasEnded, !endIsTold {
            endIsTold = true
            delegate.streamDidReachEnd(self)
        }
        if wantsWriting, !isClosed, let peer, peer.unreadCount < peer.capacity {
            delegate.streamIsWritable(self)
        } else if wantsWriting, !isClosed, peer == nil || peer?.isClosed == true {
            delegate.streamIsWritable(self)
        }
        let mayRead = isReading && (unreadCount > 0 || (peerHasEnded && !endIsTold))
        let mayWrite = wantsWriting && (peer.map { $0.unreadCount < $0.capacity } ?? false)
        if mayRead || mayWrite { pump() }
    }
}
