package import HCIO

/// What delivers a body: a connection or a stream of one. It learns when somebody waits, and only then reads on.
@LoopActor
protocol RequestBodySource: AnyObject {
    func bodyIsWanted()
    /// What had arrived was taken: room for as much again.
    func bodyWasTaken()
}

extension RequestBodySource {
    func bodyWasTaken() {}
}

/// The content of a request, in pieces as they arrive. One reader at a time.
///
/// While nobody asks, the socket is not read: at most one read's worth of bytes waits here.
@LoopActor
package final class RequestBody {
    private enum State {
        case receiving
        /// With what followed the content.
        case complete(HTTPHeaders)
        case failed(any Error)
    }

    /// The body of a request that has none.
    package static let empty = RequestBody(complete: [])

    /// The length that was announced, before decoding; nil for a chunked body.
    package let announcedCount: Int?
    private var state: State
    private var buffered: [UInt8]
    private var waiter: CheckedContinuation<Void, Never>?
    private weak var source: (any RequestBodySource)?
    /// Of content in gzip: all that is read goes through it.
    private var decoding: Decoding?

    private struct Decoding {
        let limits: ContentDecodingLimits
        let metrics: CompressionMetrics
        /// Made when the first piece is there: a request that nobody reads costs nothing.
        var decoder: GzipDecoder?
    }

    /// A body that is there already: for tests and for requests made inside the server.
    package init(complete bytes: [UInt8]) {
        announcedCount = bytes.count
        state = .complete(HTTPHeaders())
        buffered = bytes
    }

    init(announcedCount: Int?, source: any RequestBodySource) {
        self.announcedCount = announcedCount
        self.source = source
        state = .receiving
        buffered = []
    }

    /// The whole content.
    ///
    /// - Throws: a `Problem` 413 if it is larger than `max`, before more than `max` bytes are kept; what
    ///   `nextChunk` throws.
    package func collect(max: Int) async throws -> [UInt8] {
        // Coded content may be a little larger than what it holds.
        let receivedMax = max + (decoding?.limits.overheadBytesMax ?? 0)
        if let announcedCount, announcedCount > receivedMax {
            throw Problem.contentTooLarge(max: max)
        }
        guard var whole = try await nextChunk() else { return [] }
        guard whole.count <= max else { throw Problem.contentTooLarge(max: max) }
        if decoding == nil, case .complete = state, buffered.isEmpty { return whole }
        // What is announced may never come: room is made for a part of it only.
        if let announcedCount { whole.reserveCapacity(min(announcedCount, 1 << 20)) }
        while let chunk = try await nextChunk() {
            guard whole.count + chunk.count <= max else { throw Problem.contentTooLarge(max: max) }
            whole.append(contentsOf: chunk)
        }
        return whole
    }

    /// The next piece, nil at the end of the content. Decoded, if the content is coded: then at most
    /// `ContentDecodingLimits.pieceBytesMax`.
    ///
    /// - Throws: a `Problem` if the client broke the protocol, was too slow, sent too much or what cannot be
    ///   decoded; `RequestBodyError.disconnected` if it went away; `CancellationError` if the task was cancelled.
    package func nextChunk() async throws -> [UInt8]? {
        if decoding != nil { return try await nextDecoded() }
        return try await nextReceived()
    }

    /// The fields that followed the content (RFC 9110 6.5), checked like those of the head. Empty until the content
    /// was read to its end, and for a client that sent none. They are apart from the head's and change nothing of it.
    package var trailers: HTTPHeaders {
        guard case .complete(let trailers) = state, buffered.isEmpty else { return HTTPHeaders() }
        return trailers
    }

    /// From now on what is read is decoded from gzip.
    /// - Precondition: nothing was read yet.
    func decode(with limits: ContentDecodingLimits, metrics: CompressionMetrics) {
        precondition(decoding == nil, "decoded once")
        decoding = Decoding(limits: limits, metrics: metrics)
    }

    private func nextDecoded() async throws -> [UInt8]? {
        do {
            while true {
                if let piece = try decoding?.decoder?.next() { return piece }
                guard let received = try await nextReceived() else {
                    try decoding?.decoder?.finish()
                    return nil
                }
                if decoding?.decoder == nil, let limits = decoding?.limits {
                    decoding?.decoder = try GzipDecoder(limits)
                }
                decoding?.decoder?.receive(received)
            }
        } catch let error as ContentDecodingError {
            decoding?.metrics.refused(error)
            throw error.problem
        }
    }

    private func nextReceived() async throws -> [UInt8]? {
        while true {
            if !buffered.isEmpty {
                let chunk = buffered
                buffered = []
                source?.bodyWasTaken()
                return chunk
            }
            switch state {
            case .complete: return nil
            case .failed(let error): throw error
            case .receiving: break
            }
            try Task.checkCancellation()
            precondition(waiter == nil, "a body has one reader at a time")
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    waiter = continuation
                    source?.bodyIsWanted()
                }
            } onCancel: {
                Loop.shared.runOrPost { self.wake() }
            }
        }
    }

    // MARK: The source's side

    /// Whether a reader waits for bytes.
    var isWanted: Bool { waiter != nil }
    var bufferedCount: Int { buffered.count }
    var isReceiving: Bool {
        if case .receiving = state { true } else { false }
    }

    func receive(_ bytes: UnsafeRawBufferPointer) {
        guard case .receiving = state, !bytes.isEmpty else { return }
        buffered.append(contentsOf: bytes)
        wake()
    }

    func finish(_ trailers: HTTPHeaders = HTTPHeaders()) {
        guard case .receiving = state else { return }
        state = .complete(trailers)
        wake()
    }

    /// The rest will not come. Bytes that did come are still given first.
    func fail(_ error: any Error) {
        guard case .receiving = state else { return }
        state = .failed(error)
        wake()
    }

    private func wake() {
        guard let waiter else { return }
        self.waiter = nil
        waiter.resume()
    }
}

package enum RequestBodyError: Error {
    /// The client closed the connection before the end of the content.
    case disconnected
}
