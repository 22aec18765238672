import HCCore
import HCIO

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

    /// RFC 9110 7.8, RFC 6455 4.2.1. A request with content is not upgraded: where that ends and the other
    /// protocol begins nobody should have to agree on.
    var upgrade: HTTPUpgrade? {
        guard headers.contains(.upgrade), version == .http11, method == .get, framing == .none,
            headers.hasToken(.connection, "upgrade"), headers.hasToken(.upgrade, "websocket")
        else { return nil }
        return .webSocket(.upgradeField)
    }
}

extension HTTPRequest {
    /// Takes the head apart: what it refers to is handed on and not counted anew.
    convenience init(
        _ head: consuming HTTP1Head, from origin: consuming RequestOrigin, id: RequestID,
        receivedAt: MonotonicTime, deadline: Deadline, body: RequestBody?
    ) {
        let upgrade = head.upgrade
        self.init(
            method: head.method, version: head.version, target: head.target,
            headers: head.headers, host: origin.host, id: id, remoteAddress: origin.address,
            isSecure: origin.isSecure, receivedAt: receivedAt, deadline: deadline, body: body,
            upgrade: upgrade)
    }
}
