import HCIO

/// Writes a stream's content to its connection, in chunks or as it is.
@LoopActor
final class HTTP1ResponseWriter: ResponseWriter {
    private let connection: HTTP1Connection
    private let isChunked: Bool
    private var remaining: Int?
    /// The names of the fields that may follow.
    private let trailers: [HTTPFieldName]
    private var waiter: CheckedContinuation<Void, Never>?

    init(
        _ connection: HTTP1Connection, isChunked: Bool, remaining: Int?, trailers: [HTTPFieldName]
    ) {
        self.connection = connection
        self.isChunked = isChunked
        self.remaining = remaining
        self.trailers = trailers
    }

    func write(_ bytes: [UInt8]) async throws {
        guard !connection.isClosed else { throw ResponseWriterError.disconnected }
        guard !bytes.isEmpty else { return }
        if let left = remaining {
            guard bytes.count <= left else { throw ResponseWriterError.wrongCount }
            remaining = left - bytes.count
        }
        let mayGoOn = connection.write { output in
            if isChunked {
                HTTP1Writer.writeChunk(bytes, into: &output)
            } else {
                output.append(contentsOf: bytes)
            }
        }
        if !mayGoOn {
            precondition(waiter == nil, "a stream has one writer at a time")
            await withCheckedContinuation { waiter = $0 }
        }
        guard !connection.isClosed else { throw ResponseWriterError.disconnected }
    }

    func finish(_ fields: HTTPHeaders) throws {
        if let remaining, remaining > 0 { throw ResponseWriterError.wrongCount }
        guard isChunked, !connection.isClosed else { return }
        let fields = fields.trailers(trailers)
        _ = connection.write { HTTP1Writer.writeLastChunk(fields, into: &$0) }
    }

    func resume() {
        guard let waiter else { return }
        self.waiter = nil
        waiter.resume()
    }
}
