package import HCCore
package import HCIO

/// One request, whatever protocol brought it. Made once, never changed: what middleware finds out about it goes
/// into the application's own context.
package final class HTTPRequest: Sendable {
    package let method: HTTPMethod
    package let version: HTTPVersion
    package let target: RequestTarget
    package let headers: HTTPHeaders
    /// From the target or the Host field: valid, lower case, without port and trailing dot. Empty only for an
    /// HTTP/1.0 request that has none.
    package let host: String
    package let id: RequestID
    package let remoteAddress: SocketAddress
    /// Whether it came through TLS.
    package let isSecure: Bool
    package let receivedAt: MonotonicTime
    /// When the server stops waiting for the answer: every wait made for this request takes it.
    package let deadline: Deadline
    private let content: RequestBody?
    /// What the client would rather speak than HTTP; nil for nearly every request.
    package let upgrade: HTTPUpgrade?

    package init(
        method: HTTPMethod, version: HTTPVersion, target: RequestTarget, headers: HTTPHeaders,
        host: String, id: RequestID, remoteAddress: SocketAddress, isSecure: Bool,
        receivedAt: MonotonicTime, deadline: Deadline, body: RequestBody?,
        upgrade: HTTPUpgrade? = nil
    ) {
        self.method = method
        self.version = version
        self.target = target
        self.headers = headers
        self.host = host
        self.id = id
        self.remoteAddress = remoteAddress
        self.isSecure = isSecure
        self.receivedAt = receivedAt
        self.deadline = deadline
        content = body
        self.upgrade = upgrade
    }

    /// Empty if none was announced.
    @LoopActor package var body: RequestBody { content ?? .empty }

    package var path: String { target.path }

    /// The decoded query; made anew on each call.
    package var query: QueryParameters { target.query }

    /// The caller's trace, if it sent a valid `traceparent`.
    package var traceContext: TraceContext? {
        guard headers.count(of: .traceparent) == 1 else { return nil }
        return headers[.traceparent].flatMap { TraceContext(traceparent: $0) }
    }
}
