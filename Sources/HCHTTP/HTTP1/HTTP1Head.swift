/// A request's head, checked: nothing in it is ambiguous any more.
package struct HTTP1Head: Sendable {
    package enum Framing: Sendable, Equatable {
        case none
        /// Above 0.
        case length(Int)
        case chunked
    }

    package let method: HTTPMethod
    package let version: HTTPVersion
    package let target: RequestTarget
    package let headers: HTTPHeaders
    package let host: String
    package let framing: Framing
    /// Whether the client wants the connection to stay (RFC 9112 9.3).
    package let keepAlive: Bool
    /// Whether it waits for 100 before it sends the content.
    package let expectsContinue: Bool
}
