import HCCore
package import HCIO

/// One request to somebody else.
package struct OutboundRequest: Sendable {
    package enum Content: Sendable {
        case none
        case bytes([UInt8])
        /// Content that is made while it is sent, once for each attempt.
        case stream(OutboundContentStream)
    }

    package enum Redirects: Sendable, Equatable {
        /// A redirect is an answer like any other.
        case answer
        /// So many are followed, each checked as the first URL was.
        case follow(max: Int)
    }

    package var target: OutboundTarget
    package var method: HTTPMethod
    package var url: String
    package var headers: HTTPHeaders
    package var content: Content
    /// Content of the answer above it fails the request.
    package var responseBytesMax: Int
    package var redirects = Redirects.answer
    /// Nil for the client's own.
    package var retry: RetryPolicy.Limits?
    /// Each attempt is signed anew.
    package var signature: SignatureV4?
    package var trace: OutboundTrace?

    package init(
        _ target: OutboundTarget, _ method: HTTPMethod = .get, _ url: String,
        headers: HTTPHeaders = HTTPHeaders(), content: Content = .none,
        responseBytesMax: Int = 8 << 20
    ) {
        self.target = target
        self.method = method
        self.url = url
        self.headers = headers
        self.content = content
        self.responseBytesMax = responseBytesMax
    }

    /// Whether sending it twice has the effect of sending it once.
    package var isRepeatable: Bool { method.isIdempotent || headers.contains(.idempotencyKey) }

    /// Fields that say how a message is framed and where it goes: only who sends it knows.
    static let reserved: [HTTPFieldName] = [
        .connection, .contentLength, .expect, .host, .keepAlive, .proxyAuthorization, .te, .trailer,
        .transferEncoding, .upgrade, .traceparent, .tracestate, "HTTP2-Settings",
        "Proxy-Connection",
    ]
}

/// Content of a request that is not held in memory. `write` is called once for each attempt; the content ends when
/// it returns. If it throws, the request fails. When the request ends first, its task is cancelled and not waited for.
package struct OutboundContentStream: Sendable {
    /// The exact number of bytes that will be written; nil if unknown (chunked).
    package let count: Int?
    package let write: @LoopActor (any OutboundContentWriter) async throws -> Void

    package init(
        count: Int? = nil,
        _ write: @escaping @LoopActor (any OutboundContentWriter) async throws -> Void
    ) {
        self.count = count
        self.write = write
    }
}

/// Where a stream's content goes.
@LoopActor
package protocol OutboundContentWriter: AnyObject, Sendable {
    /// Sends a piece. Returns when more may be given: a server that reads slowly slows the writer.
    ///
    /// - Throws: `HTTPClientError` when the request is over.
    func write(_ bytes: [UInt8]) async throws
}

/// An answer with all its content.
package struct OutboundResponse: Sendable {
    package let status: HTTPStatus
    package let headers: HTTPHeaders
    package let body: [UInt8]
    /// Where it came from: not the request's URL after a redirect.
    package let url: OutboundURL

    package var text: String { String(decoding: body, as: UTF8.self) }
}

/// An answer whose content comes in pieces. While nobody asks, the connection is not read.
@LoopActor
package final class OutboundResponseStream {
    package nonisolated let status: HTTPStatus
    package nonisolated let headers: HTTPHeaders
    package nonisolated let url: OutboundURL
    private let transfer: CurlTransfer
    private let deadline: Deadline

    init(_ transfer: CurlTransfer, _ head: OutboundHead, _ url: OutboundURL, _ deadline: Deadline) {
        self.transfer = transfer
        self.url = url
        self.deadline = deadline
        status = head.status
        headers = head.headers
    }

    /// The next piece, nil at the end of the content.
    package func nextChunk() async throws(HTTPClientError) -> [UInt8]? {
        try await transfer.nextChunk(until: deadline)
    }
}
