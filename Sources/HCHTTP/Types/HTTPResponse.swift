package import HCCore
package import HCIO

/// One answer. Date, Content-Length, Connection, the request id and the server's common fields are added where
/// it is written; a handler sets none of them.
package struct HTTPResponse: Sendable {
    package enum Body: Sendable {
        case none
        case bytes([UInt8])
        case buffer(ByteBuffer)
        case text(StaticString)
        case stream(ResponseStream)
        /// The connection, or the HTTP/2 stream, stops being HTTP when the head is sent: with status 101 to an
        /// `Upgrade` (RFC 9110 7.8), with 200 to an extended CONNECT (RFC 8441).
        case tunnel(HTTPTunnel)

        /// Nil for a stream of unknown length.
        var count: Int? {
            switch self {
            case .none, .tunnel: 0
            case .bytes(let bytes): bytes.count
            case .buffer(let buffer): buffer.readableCount
            case .text(let text): text.utf8CodeUnitCount
            case .stream(let stream): stream.count
            }
        }

        var isTunnel: Bool {
            if case .tunnel = self { true } else { false }
        }

        /// Content that is still to be made.
        var stream: ResponseStream? {
            if case .stream(let stream) = self { stream } else { nil }
        }

        /// Writes content that is there.
        func write(into output: inout [UInt8]) {
            switch self {
            case .none, .stream, .tunnel: break
            case .bytes(let bytes): output.append(bytes: bytes)
            case .buffer(let buffer):
                buffer.withUnsafeReadableBytes { output.append(contentsOf: $0) }
            case .text(let text): output.append(text)
            }
        }
    }

    package var status: HTTPStatus
    package var headers: HTTPHeaders
    package var body: Body
    /// The stable code of the problem that this answer tells, for logs and metrics.
    package var problemCode: String?
    /// False for an answer that must not be compressed though its route compresses: one that holds a secret beside
    /// text of the request (`CompressionMiddleware`).
    package var mayCompress = true

    package init(_ status: HTTPStatus, headers: HTTPHeaders = HTTPHeaders(), body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// A JSON document that a `JSONWriter` wrote.
    package static func json(_ document: consuming ByteBuffer) -> HTTPResponse {
        json(.ok, document)
    }

    package static func json(
        _ status: HTTPStatus, _ document: consuming ByteBuffer
    ) -> HTTPResponse {
        var response = HTTPResponse(status, body: .buffer(document))
        response.headers.append(.contentType, "application/json" as StaticString)
        return response
    }

    /// A JSON document that is in the program.
    package static func json(_ status: HTTPStatus = .ok, text: StaticString) -> HTTPResponse {
        var response = HTTPResponse(status, body: .text(text))
        response.headers.append(.contentType, "application/json" as StaticString)
        return response
    }
}

/// Content that is made while it is sent. `write` is called once, after the head is on its way; the content
/// ends when it returns. If it throws, the connection is cut so that the client sees that the end is missing.
package struct ResponseStream: Sendable {
    /// The exact number of bytes that will be written; nil if unknown (chunked over HTTP/1.1).
    package let count: Int?
    /// The names of fields that may follow the content (RFC 9110 6.6.2); others do not. Names that may not be there
    /// (`TrailerFields`) are not among them, whoever named them.
    package let trailers: [HTTPFieldName]
    /// Returns the fields that follow the content. They are a service to those who can read them: over HTTP/1.1 they
    /// are sent to a client that says `TE: trailers`, and to none over HTTP/1.0.
    package let write: @LoopActor (any ResponseWriter) async throws -> HTTPHeaders

    package init(
        count: Int? = nil, _ write: @escaping @LoopActor (any ResponseWriter) async throws -> Void
    ) {
        self.init(count: count, trailers: []) { writer in
            try await write(writer)
            return HTTPHeaders()
        }
    }

    /// - Parameter write: returns the trailers.
    package init(
        count: Int? = nil, trailers: [HTTPFieldName],
        _ write: @escaping @LoopActor (any ResponseWriter) async throws -> HTTPHeaders
    ) {
        self.count = count
        self.trailers = trailers.filter { !TrailerFields.isForbiddenInAnswer($0) }
        self.write = write
    }
}

/// Where a stream's content goes.
@LoopActor
package protocol ResponseWriter: AnyObject, Sendable {
    /// Sends a piece. Returns when the connection can take more: a client that reads slowly slows the writer.
    ///
    /// - Throws: `ResponseWriterError.disconnected` when nobody reads any more.
    func write(_ bytes: [UInt8]) async throws
}

package enum ResponseWriterError: Error {
    case disconnected
    /// The writer gave more or fewer bytes than `ResponseStream.count` promised.
    case wrongCount
}
