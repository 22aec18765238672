/// A connection that carries bytes both ways and never waits: a socket, or TLS on top of one.
///
/// Bytes that arrive are handed to the delegate out of a buffer that all streams share; they must be used or
/// copied before the callback returns. Nothing that is written is kept either: `write` says how much was
/// taken and the caller keeps the rest until `streamIsWritable`. So an idle stream costs about
/// a hundred bytes.
@LoopActor package protocol ByteStream: AnyObject {
    /// Begins to watch the connection. To be called once. The stream keeps the delegate alive, and the
    /// loop the stream, until it is closed.
    func start(delegate: any ByteStreamDelegate, reading: Bool)

    /// Whether bytes are read at all. Not reading is back-pressure: the peer's writes come to a stop.
    /// A system call only where it makes a difference.
    func setReading(_ isOn: Bool)

    /// Whether `streamIsWritable` is called. On only while the caller keeps bytes that were not taken.
    func setWriteInterest(_ isOn: Bool)

    /// Writes at once what the connection takes.
    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite

    /// Tells the peer that no more comes; reading goes on. Nothing may be written after it.
    func shutdownWrite()

    /// Ends the connection and lets go of the delegate, which is not called any more. May be called at
    /// any time, from callbacks too, and again.
    func close()

    /// Ends the connection without saying that what was written is all: for an answer that cannot be finished.
    /// As `close()` where the stream knows no difference; TLS leaves its close_notify out.
    func cut()

    var isClosed: Bool { get }

    /// Whether bytes have arrived that nobody has read. A system call: for the moment before a connection is given
    /// up. A stream that cannot tell says no.
    var hasInput: Bool { get }

    /// Nil once it is closed, or when the peer has no address.
    var remoteAddress: SocketAddress? { get }
    var localAddress: SocketAddress? { get }
}

extension ByteStream {
    package var hasInput: Bool { false }
    package func cut() { close() }
}

/// What became of a write.
package enum StreamWrite: Equatable {
    /// So many bytes were taken, at least one (0 for an empty write). If it is less than was given, the
    /// connection takes no more for now.
    case wrote(Int)
    case wouldBlock
    /// The peer is gone (ECONNRESET, EPIPE) or the socket has failed: the stream is to be closed. A
    /// stream with a protocol of its own underneath says EPROTO for what breaks that.
    case failed(SystemError)
}

/// Who hears of a stream. All calls come on the loop, never from within a call of the stream's methods.
@LoopActor package protocol ByteStreamDelegate: AnyObject {
    /// Bytes arrived, at least one. The memory is the loop's: valid only until this returns.
    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer)

    /// The peer will send no more (a half-close): writing may go on. Called once, and reading is off
    /// from then on.
    func streamDidReachEnd(_ stream: any ByteStream)

    /// There is room to write again; called again and again until the interest is taken back.
    func streamIsWritable(_ stream: any ByteStream)

    /// The connection broke. The stream has been closed already; this is the last call.
    func stream(_ stream: any ByteStream, didFail error: SystemError)
}
