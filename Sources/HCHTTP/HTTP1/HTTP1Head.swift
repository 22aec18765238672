/// A request's head, checked: nothing in it is ambiguous any more.
struct HTTP1Head: Sendable {
    enum Framing: Sendable, Equatable {
        case none
        /// Above 0.
        case length(Int)
        case chunked
    }

    let method: HTTPMethod
    let version: HTTPVersion
    let target: RequestTarget
    let headers: HTTPHeaders
    let host: String
    let framing: Framing
    /// Whether the client wants the connection to stay (RFC 9112 9.3).
    let keepAlive: Bool
    /// Whether it waits for 100 before it sends the content.
    let expectsContinue: Bool
}
