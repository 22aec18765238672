import HCIO

/// The socket between a supervisor and one of its workers: lines both ways.
///
/// What the kernel does not take at once waits here, up to `pendingBytesMax`; a peer that reads so little is stuck
/// and the message is dropped: heartbeats and metrics are sent again anyway.
@LoopActor
final class WorkerChannel: ByteStreamDelegate {
    private let stream: PlainStream
    private let onMessage: @LoopActor (WorkerMessage) -> Void
    /// The peer is gone, or is not one of ours.
    private let onEnd: @LoopActor () -> Void
    private var splitter: LineSplitter
    private var pending: [UInt8]
    private(set) var hasEnded = false
    /// Ours until `close`, for whoever has to leave it open to another program.
    let descriptor: Int32

    static let pendingBytesMax = 8 << 20

    /// - Parameters:
    ///   - received, unsent: what a channel on the same socket was in the middle of, in the program before.
    init(
        _ socket: consuming OwnedDescriptor, received: [UInt8] = [], unsent: [UInt8] = [],
        onMessage: @escaping @LoopActor (WorkerMessage) -> Void,
        onEnd: @escaping @LoopActor () -> Void
    ) {
        descriptor = socket.rawValue
        stream = PlainStream(socket)
        splitter = LineSplitter(rest: received)
        pending = unsent
        self.onMessage = onMessage
        self.onEnd = onEnd
    }

    func start() {
        stream.start(delegate: self, reading: true)
        if !pending.isEmpty { flush() }
    }

    /// The beginning of a message that has not arrived whole.
    var received: [UInt8] { splitter.rest }
    /// What the socket has not taken.
    var unsent: [UInt8] { pending }

    func send(_ message: WorkerMessage) {
        guard !hasEnded else { return }
        let line = message.line
        guard pending.count + line.count <= WorkerChannel.pendingBytesMax else { return }
        pending += line
        flush()
    }

    func close() {
        hasEnded = true
        stream.close()
    }

    private func flush() {
        while !pending.isEmpty {
            switch pending.withUnsafeBytes({ stream.write($0) }) {
            case .wrote(let count):
                pending.removeFirst(count)
            case .wouldBlock:
                stream.setWriteInterest(true)
                return
            case .failed:
                end()
                return
            }
        }
        stream.setWriteInterest(false)
    }

    private func end() {
        guard !hasEnded else { return }
        close()
        onEnd()
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        guard let lines = splitter.feed(bytes) else { return end() }
        for line in lines {
            guard let message = WorkerMessage(line: line) else { return end() }
            onMessage(message)
        }
    }

    func streamDidReachEnd(_ stream: any ByteStream) { end() }
    func streamIsWritable(_ stream: any ByteStream) { flush() }
    func stream(_ stream: any ByteStream, didFail error: SystemError) { end() }
}
