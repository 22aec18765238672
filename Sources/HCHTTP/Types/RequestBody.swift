package import HCIO

/// What delivers a body: a connection or a stream of one. It learns when somebody waits, and only then reads on.
@LoopActor
protocol RequestBodySource: AnyObject {
    func bodyIsWanted()
}

/// The content of a request, in pieces as they arrive. One reader at a time.
///
/// While nobody asks, the socket is not read: at most one read's worth of bytes waits here.
@LoopActor
package final class RequestBody {
    private enum State {
        case receiving
        case complete
        case failed(any Error)
    }

    /// The body of a request that has none.
    package static let empty = RequestBody(complete: [])

    /// The length that was announced; nil for a chunked body.
    package let announcedCount: Int?
    private var state: State
    private var buffered: [UInt8]
    private var waiter: CheckedContinuation<Void, Never>?
    private weak var source: (any RequestBodySource)?

    /// A body that is there already: for tests and for requests made inside the server.
    package init(complete bytes: [UInt8]) {
        announcedCount = bytes.count
        state = .complete
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
        if let announcedCount, announcedCount > max { throw Problem.contentTooLarge(max: max) }
        guard var whole = try await nextChunk() else { return [] }
        guard whole.count <= max else { throw Problem.contentTooLarge(max: max) }
        if case .complete = state, buffered.isEmpty { return whole }
        // What is announced may never come: room is made for a part of it only.
        if let announcedCount { whole.reserveCapacity(min(announcedCount, 1 << 20)) }
        while let chunk = try await nextChunk() {
            guard whole.count + chunk.count <= max else { throw Problem.contentTooLarge(max: max) }
            whole.append(contentsOf: chunk)
        }
        return whole
    }

    /// The next piece, nil at the end of the content.
    ///
    /// - Throws: a `Problem` if the client broke the protocol, was too slow or sent too much;
    ///   `RequestBodyError.disconnected` if it went away; `CancellationError` if the task was cancelled.
    package func nextChunk() async throws -> [UInt8]? {
        while true {
            if !buffered.isEmpty {
                let chunk = buffered
                buffered = []
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

    func finish() {
        guard case .receiving = state else { return }
        state = .complete
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
