/// How a WebSocket came to its end.
package struct WebSocketEnding: Error, Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable {
        /// The peer said good-bye first.
        case peer
        /// We did: the handler returned or closed.
        case handler
        /// The handler threw.
        case failed
        /// The server goes away (1012).
        case drained
        /// The peer did not take what the handler had for it (1013).
        case slow
        /// The peer broke the protocol.
        case violation
        /// Nothing came from the peer, not even an answer to a ping.
        case silent
        /// The peer took nothing for too long.
        case stalled
        /// The peer did not answer our Close frame.
        case unanswered
        /// The connection ended without a word.
        case lost
        /// The server closed it without one: the time for good-byes was over.
        case cut
    }

    package let kind: Kind
    /// The code that was sent or received first; nil if there was none.
    package let code: WebSocketCloseCode?
    /// The peer's, when it said good-bye. Its text: not for logs.
    package let reason: String

    init(_ kind: Kind, _ code: WebSocketCloseCode? = nil, reason: String = "") {
        self.kind = kind
        self.code = code
        self.reason = reason
    }

    /// Whether both sides knew that it ends.
    var isClean: Bool {
        switch kind {
        case .peer, .handler, .failed, .drained, .slow, .unanswered: true
        case .violation, .silent, .stalled, .lost, .cut: false
        }
    }
}
