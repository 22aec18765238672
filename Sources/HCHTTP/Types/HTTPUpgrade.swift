/// What a client wants to speak on its connection, or on its HTTP/2 stream, in the place of HTTP.
///
/// A wish and no more: a route that knows nothing of it answers as to any other GET (RFC 9110 7.8). Only what we
/// can speak is noted; the protocol's own handshake fields are checked by whoever accepts.
package enum HTTPUpgrade: Sendable, Hashable {
    package enum Form: Sendable, Hashable {
        /// `Connection: Upgrade` and `Upgrade: …` of an HTTP/1.1 GET without content: accepted with 101.
        case upgradeField
        /// `:method: CONNECT` with `:protocol` (RFC 8441): given to routes as GET, accepted with 200.
        case extendedConnect
    }

    case webSocket(Form)
}
