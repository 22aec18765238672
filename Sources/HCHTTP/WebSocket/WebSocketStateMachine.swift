/// The life of one WebSocket (RFC 6455 7): who has said good-bye, what is still to be said, when it is over. No I/O;
/// time is the shell's affair.
struct WebSocketStateMachine: ~Copyable {
    private enum State {
        /// Messages go both ways.
        /// Can transition to: leaving, closing, closed.
        case open
        /// The peer has said good-bye, or broken the protocol. What it sent before is still the handler's, and so is
        /// the answer; then we say it too. What comes behind is thrown away.
        /// Can transition to: lingering, closed.
        case leaving(WebSocketEnding)
        /// We have said good-bye; the peer's is awaited, messages that come before it are thrown away.
        /// Can transition to: lingering, closed.
        case closing(WebSocketEnding)
        /// Nothing is left to say. Our side is shut when all is sent; input is thrown away until the peer shuts its
        /// own, so that what we said is not lost to a reset.
        /// Can transition to: closed.
        case lingering(WebSocketEnding)
        case closed(WebSocketEnding)
    }

    enum Reply: Equatable {
        case none
        /// Send a Close frame with this code, or an empty one; nothing is sent after it.
        case close(WebSocketCloseCode?)
    }

    private var state = State.open

    var isOpen: Bool {
        if case .open = state { true } else { false }
    }

    /// Whether messages may be sent: we have not said good-bye. What came before the peer's may still be answered
    /// (RFC 6455 5.5.1).
    var maySend: Bool {
        switch state {
        case .open, .leaving: true
        case .closing, .lingering, .closed: false
        }
    }

    /// Whether frames of the peer still mean something.
    var isListening: Bool {
        switch state {
        case .open, .closing: true
        case .leaving, .lingering, .closed: false
        }
    }

    var isLeaving: Bool {
        if case .leaving = state { true } else { false }
    }

    var isLingering: Bool {
        if case .lingering = state { true } else { false }
    }

    var isClosed: Bool {
        if case .closed = state { true } else { false }
    }

    /// How it ends; nil while it is open.
    var ending: WebSocketEnding? {
        switch state {
        case .open: nil
        case .leaving(let ending), .closing(let ending), .lingering(let ending),
            .closed(let ending):
            ending
        }
    }

    /// The peer's Close frame.
    mutating func peerClosed(_ code: WebSocketCloseCode?, reason: String) {
        switch state {
        case .open: state = .leaving(WebSocketEnding(.peer, code, reason: reason))
        case .closing(let ending): state = .lingering(ending)
        case .leaving, .lingering, .closed: break
        }
    }

    /// The peer broke the protocol: nothing that comes from it is understood any more.
    mutating func violated(_ error: WebSocketError) {
        switch state {
        case .open: state = .leaving(WebSocketEnding(.violation, error.closeCode))
        case .closing(let ending): state = .lingering(ending)
        case .leaving, .lingering, .closed: break
        }
    }

    /// The handler has taken all that came before the end, or has had its time.
    mutating func handlerIsThrough() -> Reply {
        guard case .leaving(let ending) = state else { return .none }
        state = .lingering(ending)
        // A peer's own code goes back to it (RFC 6455 5.5.1); an empty Close gets an empty one.
        return .close(ending.code)
    }

    /// We say good-bye.
    mutating func close(_ ending: WebSocketEnding) -> Reply {
        switch state {
        case .open:
            state = .closing(ending)
            return .close(ending.code)
        case .leaving: return handlerIsThrough()
        case .closing, .lingering, .closed: return .none
        }
    }

    /// The connection is over.
    /// - Parameter kind: why, if nothing was said before.
    /// - Returns: how it ended; nil if it had ended already.
    mutating func closed(_ kind: WebSocketEnding.Kind) -> WebSocketEnding? {
        let ending: WebSocketEnding
        switch state {
        case .closed: return nil
        case .open: ending = WebSocketEnding(kind)
        case .closing(let said):
            ending = kind == .unanswered ? WebSocketEnding(.unanswered, said.code) : said
        case .leaving(let said), .lingering(let said): ending = said
        }
        state = .closed(ending)
        return ending
    }
}
