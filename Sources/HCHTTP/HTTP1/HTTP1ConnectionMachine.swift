/// One HTTP/1 connection as a machine: which bytes are a request, when the next one may begin, how an answer is
/// framed, when the connection ends. No I/O; time is the shell's affair.
///
/// Requests are answered strictly in order: while one is being answered the bytes behind it are not looked at.
///
/// A class, for it is asked a dozen times for each request: of a struct in its connection, which is lent for each event,
/// the runtime would be asked each time whether it may be looked at now.
package final class HTTP1ConnectionMachine {
    private enum State {
        /// Between messages, or in the middle of a head.
        /// Can transition to: exchange, closed.
        case waiting
        /// One request and its answer.
        /// Can transition to: waiting, lingering, switched, closed.
        case exchange(Exchange)
        /// The last answer is sent and our side is shut; input is thrown away so that the answer is not lost to a
        /// reset (RFC 9112 9.6).
        /// Can transition to: closed.
        case lingering
        /// The connection speaks another protocol: none of its bytes are ours any more.
        /// Can transition to: closed.
        case switched
        case closed
    }

    private struct Exchange {
        enum Input {
            case receiving
            case complete
            /// Ended early, or its bytes have no meaning any more.
            case broken
        }

        enum Output {
            case pending
            case started
            case complete
        }

        var input: Input
        var output = Output.pending
        var keepAlive: Bool
        let isHead: Bool
        let version: HTTPVersion
        /// What is still to come of a content of announced length; nil for a chunked one.
        var remaining: Int?
        /// Whether the client waits for 100 (Continue).
        var expectsContinue: Bool
    }

    package enum Action {
        /// All that was given is used or kept by the caller: give more when there is more.
        case needMore
        /// The bytes that are left wait until the answer is sent.
        case pause
        /// A head; `content` and `contentEnd` of this request follow.
        case request(HTTP1Head)
        case content(Range<Int>)
        case contentEnd(trailers: HTTPHeaders)
        /// No request came of it: answer with this error; the connection ends with that answer.
        case refuse(HTTP1Error)
        /// The content of the request in progress is broken: tell whoever reads it.
        case failContent(HTTP1Error)
        /// The content that nobody wanted is through: the connection waits again.
        case discarded
        /// Nothing more is wanted: drop all input.
        case drop
        case close
    }

    /// How an answer is to be written.
    package struct AnswerPlan: Equatable {
        package enum Framing: Equatable {
            /// No content and no field about it: 1xx, 204, 304.
            case none
            case length(Int)
            case chunked
            /// Ended by the end of the connection: a stream to an HTTP/1.0 client.
            case untilClose
        }

        package enum ConnectionField: Equatable {
            case none
            case close
            case keepAlive
            /// With the field that says what comes now.
            case upgrade
        }

        package let framing: Framing
        /// False for HEAD: the fields are sent, the content is not.
        package let sendsContent: Bool
        package let connectionField: ConnectionField
    }

    package enum Ended: Equatable {
        /// The next request may be read.
        case waiting
        /// Rest of the content is read and thrown away first.
        case discarding
        /// Shut our side, read what comes and throw it away, then close.
        case linger
    }

    /// Content that an answer left unread is read and thrown away up to this, to keep the connection.
    let discardBytesMax: Int
    private var parser: HTTP1Parser
    private var state = State.waiting
    private var isInputClosed = false
    private(set) var isDraining = false

    package init(limits: HTTP1Limits, discardBytesMax: Int) {
        parser = HTTP1Parser(limits: limits)
        self.discardBytesMax = discardBytesMax
    }

    /// Between requests, with nothing of the next one seen.
    var isIdle: Bool {
        if case .waiting = state { parser.isBetweenMessages } else { false }
    }

    /// Whether no request is in progress, though part of a head may be here.
    var isWaiting: Bool {
        if case .waiting = state { true } else { false }
    }

    /// Whether a head has begun and is not complete.
    var isInHead: Bool {
        if case .waiting = state { parser.isInHead } else { false }
    }

    var isLingering: Bool {
        if case .lingering = state { true } else { false }
    }

    /// Whether content of the request in progress is still to come.
    var isReceivingContent: Bool {
        if case .exchange(let exchange) = state { exchange.input == .receiving } else { false }
    }

    /// Whether a request waits for the beginning of its answer.
    var isAnswerPending: Bool {
        if case .exchange(let exchange) = state { exchange.output == .pending } else { false }
    }

    // MARK: Input

    package func next(_ input: UnsafeRawBufferPointer, consumed: inout Int) -> Action {
        switch state {
        case .closed: return .close
        case .switched: return .pause
        case .lingering:
            consumed = input.count
            return isInputClosed ? close() : .drop
        case .waiting: return nextHead(input, &consumed)
        case .exchange(let exchange):
            guard exchange.input == .receiving else { return .pause }
            return nextContent(exchange, input, &consumed)
        }
    }

    private func nextHead(_ input: UnsafeRawBufferPointer, _ consumed: inout Int) -> Action {
        do throws(HTTP1Error) {
            guard case .head(let head) = try parser.next(input, consumed: &consumed) else {
                return isInputClosed ? close() : .needMore
            }
            var remaining: Int?
            if case .length(let count) = head.framing { remaining = count }
            state = .exchange(
                Exchange(
                    input: .receiving, keepAlive: head.keepAlive, isHead: head.method == .head,
                    version: head.version, remaining: remaining,
                    expectsContinue: head.expectsContinue))
            return .request(head)
        } catch {
            refuse(input.slice(consumed..<input.count))
            consumed = input.count
            return .refuse(error)
        }
    }

    private func nextContent(
        _ current: Exchange, _ input: UnsafeRawBufferPointer, _ consumed: inout Int
    ) -> Action {
        var exchange = current
        let isWanted = exchange.output != .complete
        do throws(HTTP1Error) {
            switch try parser.next(input, consumed: &consumed) {
            case .needMore:
                guard isInputClosed else { return .needMore }
                return inputEnded()
            case .head: preconditionFailure("a head inside a message")
            case .content(let range):
                exchange.expectsContinue = false
                exchange.remaining = exchange.remaining.map { $0 - range.count }
                state = .exchange(exchange)
                return isWanted ? .content(range) : .drop
            case .end(let trailers):
                exchange.input = .complete
                guard isWanted else {
                    state = .waiting
                    return .discarded
                }
                state = .exchange(exchange)
                return .contentEnd(trailers: trailers)
            }
        } catch {
            consumed = input.count
            exchange.input = .broken
            exchange.keepAlive = false
            guard isWanted else { return close() }
            state = .exchange(exchange)
            return .failContent(error)
        }
    }

    /// The client will send nothing more. What it sent before is still answered.
    func inputEnded() -> Action {
        isInputClosed = true
        switch state {
        case .closed, .lingering, .waiting: return close()
        case .switched: return .pause
        case .exchange(var exchange):
            guard exchange.input == .receiving else { return .pause }
            guard exchange.output != .complete else { return close() }
            exchange.input = .broken
            exchange.keepAlive = false
            state = .exchange(exchange)
            return .failContent(.incompleteContent)
        }
    }

    /// Notes the end of input while bytes that came before it are still to be looked at.
    func noteInputEnd() {
        isInputClosed = true
    }

    /// Somebody waits for content. True once for a client that waits for 100 (Continue).
    func contentIsWanted() -> Bool {
        guard case .exchange(var exchange) = state, exchange.expectsContinue,
            exchange.output == .pending, exchange.input == .receiving
        else { return false }
        exchange.expectsContinue = false
        state = .exchange(exchange)
        return true
    }

    // MARK: Output

    /// The answer to the request in progress begins.
    ///
    /// - Parameters:
    ///   - count: bytes of content, nil for a stream whose length nobody knows.
    ///   - isFollowed: whether further requests have arrived: a client that was not told before is owed their
    ///     answers, so a draining connection does not end with this one.
    /// - Precondition: an answer is pending.
    package func answer(
        _ status: HTTPStatus, count: Int?, isFollowed: Bool = false
    ) -> AnswerPlan {
        guard case .exchange(var exchange) = state, exchange.output == .pending else {
            preconditionFailure("an answer without a request")
        }
        if exchange.input == .receiving {
            // A client that waits for 100 may send the content or not: only a new connection is unambiguous.
            let isSmall = exchange.remaining.map { $0 <= discardBytesMax } ?? false
            if !isSmall || exchange.expectsContinue { exchange.keepAlive = false }
        }
        if isDraining && !isFollowed { exchange.keepAlive = false }
        let framing: AnswerPlan.Framing
        if !status.allowsContent {
            framing = .none
        } else if let count {
            framing = .length(count)
        } else if exchange.version == .http11 {
            framing = .chunked
        } else {
            framing = .untilClose
            exchange.keepAlive = exchange.keepAlive && exchange.isHead
        }
        exchange.output = .started
        state = .exchange(exchange)
        let field: AnswerPlan.ConnectionField =
            exchange.keepAlive ? (exchange.version == .http10 ? .keepAlive : .none) : .close
        return AnswerPlan(
            framing: framing, sendsContent: framing != .none && !exchange.isHead,
            connectionField: field)
    }

    /// The last byte of the answer is on its way.
    package func answerEnded() -> Ended {
        guard case .exchange(var exchange) = state, exchange.output == .started else {
            preconditionFailure("the end of an answer that did not begin")
        }
        guard exchange.keepAlive else {
            state = .lingering
            return .linger
        }
        if exchange.input == .complete {
            state = .waiting
            return .waiting
        }
        exchange.output = .complete
        state = .exchange(exchange)
        return .discarding
    }

    /// The answer to the request in progress is the head of another protocol's beginning.
    ///
    /// - Precondition: an answer is pending, and the request has been read to its end.
    func switchProtocol() -> AnswerPlan {
        guard case .exchange(let exchange) = state, exchange.output == .pending,
            exchange.input == .complete
        else { preconditionFailure("a protocol is switched between two messages") }
        state = .switched
        return AnswerPlan(framing: .none, sendsContent: false, connectionField: .upgrade)
    }

    // MARK: The end

    /// From now on the answer to the last request that has arrived ends the connection.
    func drain() {
        isDraining = true
    }

    /// Whether a connection that waits without a byte received may be shut on our side first.
    func lingerIfIdle() -> Bool {
        guard isIdle else { return false }
        state = .lingering
        return true
    }

    /// A timeout struck before a head was complete: answer it as a refusal.
    ///
    /// - Parameter begun: what there is of the head.
    /// - Returns: false if a request is in progress or the connection is ending.
    func beginRefusal(of begun: [UInt8]) -> Bool {
        guard case .waiting = state else { return false }
        begun.withUnsafeBytes { refuse($0) }
        return true
    }

    /// The next answer is the last. It has no content if as much can be told of the request as that it is a HEAD
    /// (RFC 9110 9.3.2).
    private func refuse(_ head: UnsafeRawBufferPointer) {
        let isHead = head.count >= 5 && head.slice(0..<5).isEqual(to: "HEAD ")
        state = .exchange(
            Exchange(
                input: .broken, keepAlive: false, isHead: isHead, version: .http11,
                remaining: nil, expectsContinue: false))
    }

    /// Nothing more of the request in progress will be read: its answer ends the connection.
    func abandonInput() {
        guard case .exchange(var exchange) = state else { return }
        exchange.keepAlive = false
        if exchange.input == .receiving { exchange.input = .broken }
        state = .exchange(exchange)
    }

    func closed() {
        state = .closed
    }

    private func close() -> Action {
        state = .closed
        return .close
    }
}
