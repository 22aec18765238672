import HCCore
package import HCIO

/// One WebSocket: messages in and out of a connection that somebody else has upgraded.
///
/// It has one receiver at a time and any number of senders. An idle one holds no buffer.
@LoopActor
package final class WebSocket: HTTPTunnelConnection, ByteStreamDelegate {
    /// What was agreed on in the handshake.
    package let subprotocol: String?
    private let endpoint: WebSocketEndpoint
    private let stream: any ByteStream
    /// The place in the endpoint's registry.
    let place: Int

    private var machine = WebSocketStateMachine()
    private var decoder: WebSocketDecoder
    private var encoder: WebSocketEncoder
    private var task: Task<Void, Never>?

    /// Input that was not consumed: part of a frame's head, or frames that wait for the handler.
    private var kept: [UInt8] = []
    private var inbox: [WebSocketMessage] = []
    private var inboxHead = 0
    private var inboxBytes = 0
    private var receiver: CheckedContinuation<Void, Never>?

    private var queue = WebSocketSendQueue()
    private var senders: [CheckedContinuation<Void, Never>] = []

    private var isReading = true
    private var hasReachedEnd = false
    private var isFlushScheduled = false
    private var isWriteShut = false

    // When each wait ends; never while nobody waits.
    private var pingDue: MonotonicTime
    private var pongDue = MonotonicTime.never
    private var closeDue = MonotonicTime.never
    private var stallDue = MonotonicTime.never

    init(
        _ stream: any ByteStream, endpoint: WebSocketEndpoint, place: Int,
        deflate: WebSocketDeflateAgreement?, subprotocol: String?
    ) {
        self.stream = stream
        self.endpoint = endpoint
        self.place = place
        self.subprotocol = subprotocol
        decoder = WebSocketDecoder(
            from: .client, limits: endpoint.configuration.limits, deflate: deflate,
            pool: endpoint.pool)
        encoder = WebSocketEncoder(deflate: deflate, pool: endpoint.pool)
        pingDue = endpoint.now + endpoint.configuration.pingInterval
    }

    func start(
        _ received: [UInt8], _ serve: @escaping @LoopActor (WebSocket) async throws -> Void
    ) {
        arm()
        stream.start(delegate: self, reading: true)
        if !received.isEmpty { received.withUnsafeBytes { take($0) } }
        let task = Loop.shared.spawn {
            do {
                try await serve(self)
                self.handlerEnded(nil)
            } catch {
                self.handlerEnded(error)
            }
        }
        if !machine.isClosed { self.task = task }
    }

    private func handlerEnded(_ error: (any Error)?) {
        task = nil
        if let error, !(error is WebSocketEnding), !(error is CancellationError) {
            endpoint.failed(error)
        }
        if error == nil || !machine.isOpen {
            end(WebSocketEnding(.handler, .normal))
        } else {
            end(WebSocketEnding(.failed, .internalError))
        }
    }

    // MARK: What a handler uses

    /// Whether messages go both ways.
    package var isOpen: Bool { machine.isOpen }
    /// How it ended or is ending; nil while it is open.
    package var ending: WebSocketEnding? { machine.ending }
    /// What waits for the peer, in frames and in bytes.
    package var queuedCount: Int { queue.count }
    package var queuedBytes: Int { queue.byteCount }

    /// The next message, nil when the socket was closed properly, by whichever side.
    ///
    /// - Throws: a `WebSocketEnding` when it ended otherwise: the connection was lost, the peer fell silent or
    ///   broke the protocol; `CancellationError` if the task was cancelled.
    package func receive() async throws -> WebSocketMessage? {
        precondition(receiver == nil, "a socket has one receiver at a time")
        while true {
            if let message = takeMessage() { return message }
            if let ending = machine.ending {
                if machine.isLeaving { say(machine.handlerIsThrough()) }
                guard ending.isClean else { throw ending }
                return nil
            }
            try Task.checkCancellation()
            await withTaskCancellationHandler {
                await withCheckedContinuation { receiver = $0 }
            } onCancel: {
                Loop.shared.runOrPost { self.wakeReceiver() }
            }
        }
    }

    /// Sends a message; waits while the queue is full, so that a peer that reads slowly slows the sender.
    ///
    /// - Throws: the `WebSocketEnding` of a socket that nothing can be sent to any more; `CancellationError`.
    package func send(_ message: WebSocketMessage) async throws {
        while true {
            if !machine.maySend, let ending = machine.ending { throw ending }
            if trySend(message) { return }
            try Task.checkCancellation()
            await withTaskCancellationHandler {
                await withCheckedContinuation { senders.append($0) }
            } onCancel: {
                Loop.shared.runOrPost { self.wakeSenders() }
            }
        }
    }

    /// Sends a message if the queue has room for it; never waits.
    ///
    /// - Returns: false if it has not, or the socket's end has been said.
    package func trySend(_ message: WebSocketMessage) -> Bool {
        guard machine.maySend, queue.hasRoom(for: message.count, endpoint.configuration) else {
            return false
        }
        queue.append(encoder.message(message))
        endpoint.metrics.messagesSent.increment()
        flushSoon()
        return true
    }

    /// Sends a message of a feed, whose reader has to keep up with it: if the queue has no room, what waits in it is
    /// dropped and the socket is closed with 1013 and a retry hint.
    ///
    /// - Returns: false if the message was not taken.
    @discardableResult
    package func push(_ message: WebSocketMessage) -> Bool {
        guard !trySend(message) else { return true }
        if machine.isOpen {
            queue.dropWaiting()
            end(WebSocketEnding(.slow, .tryAgainLater), reason: endpoint.retryHint())
        }
        return false
    }

    /// Says good-bye after what is queued. Nothing can be sent any more, and what the peer still sends is dropped.
    ///
    /// - Parameter reason: for whoever reads the other side's log; at most 123 bytes are sent.
    package func close(_ code: WebSocketCloseCode, reason: String = "") {
        end(WebSocketEnding(.handler, code), reason: reason)
    }

    // MARK: Input

    package func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        endpoint.readClock()
        pingDue = endpoint.now + endpoint.configuration.pingInterval
        pongDue = .never
        take(bytes)
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        endpoint.metrics.bytesReceived.increment(by: bytes.count)
        guard machine.isListening else { return }
        if kept.isEmpty {
            let consumed = process(bytes)
            if consumed < bytes.count { kept = Array(bytes[consumed...]) }
        } else {
            kept.append(contentsOf: bytes)
            processKept()
        }
        afterInput()
    }

    private func processKept() {
        let input = kept
        kept = []
        let consumed = input.withUnsafeBytes { process($0) }
        guard consumed < input.count else { return }
        kept = consumed == 0 ? input : Array(input[consumed...])
    }

    /// Whether frames have to wait: for the handler, or for a peer that asks for pongs and does not take them.
    private var isHeldUp: Bool {
        guard machine.isOpen else { return false }
        let configuration = endpoint.configuration
        return inbox.count - inboxHead >= configuration.inboxMessagesMax
            || inboxBytes >= configuration.inboxBytesMax
            || queue.urgentCount >= configuration.pongsMax
    }

    /// - Returns: how many bytes are used up; all of them when nothing more is listened to.
    private func process(_ input: UnsafeRawBufferPointer) -> Int {
        var consumed = 0
        while machine.isListening, !isHeldUp {
            do throws(WebSocketError) {
                switch try decoder.next(input, consumed: &consumed) {
                case .needMore: return consumed
                case .message(let message): receive(message)
                case .ping(let content):
                    if machine.isOpen {
                        queue.appendUrgent(WebSocketEncoder.frame(.pong, content))
                        flushSoon()
                    }
                case .pong: break
                case .close(let code, let reason):
                    machine.peerClosed(code, reason: reason)
                    peerIsThrough()
                }
            } catch {
                endpoint.metrics.violated(error)
                machine.violated(error)
                peerIsThrough()
            }
        }
        return machine.isListening ? consumed : input.count
    }

    private func receive(_ message: WebSocketMessage) {
        endpoint.metrics.messagesReceived.increment()
        guard machine.isOpen else { return }
        inbox.append(message)
        inboxBytes += message.count
        wakeReceiver()
    }

    private func takeMessage() -> WebSocketMessage? {
        guard inboxHead < inbox.count else { return nil }
        let message = inbox[inboxHead]
        inboxHead += 1
        inboxBytes -= message.count
        if inboxHead == inbox.count {
            inbox.removeAll(keepingCapacity: inbox.capacity <= 4)
            inboxHead = 0
        }
        if !isReading || !kept.isEmpty { resumeInput() }
        return message
    }

    /// Goes on with frames that waited.
    private func resumeInput() {
        guard machine.isListening, !isHeldUp else { return }
        if !kept.isEmpty { processKept() }
        afterInput()
    }

    private func afterInput() {
        guard !machine.isClosed else { return }
        let wantsInput = !machine.isListening || !isHeldUp
        if isReading != wantsInput, !hasReachedEnd {
            isReading = wantsInput
            stream.setReading(wantsInput)
            if wantsInput { pingDue = endpoint.now + endpoint.configuration.pingInterval }
        }
        if hasReachedEnd, machine.isListening, wantsInput { close(.lost) }
        arm()
    }

    package func streamDidReachEnd(_ stream: any ByteStream) {
        endpoint.readClock()
        hasReachedEnd = true
        if machine.isLingering {
            if isWriteShut { close(.lost) }
            return
        }
        // What waits for the handler came before the end; a peer that has said good-bye still gets ours.
        guard kept.isEmpty || !isHeldUp else { return }
        if machine.isListening { close(.lost) }
    }

    /// The peer has nothing more to say that we understand.
    private func peerIsThrough() {
        closeDue = endpoint.now + endpoint.configuration.closeTimeout
        if machine.isLeaving {
            // A handler that waits for a message has dealt with all that came before.
            if receiver != nil, inboxHead == inbox.count {
                say(machine.handlerIsThrough())
            }
            wakeReceiver()
            wakeSenders()
        } else {
            flushSoon()
        }
    }

    private func wakeReceiver() {
        guard let receiver else { return }
        self.receiver = nil
        receiver.resume()
    }

    // MARK: Output

    private func wakeSenders() {
        guard !senders.isEmpty else { return }
        let waiting = senders
        senders = []
        for sender in waiting { sender.resume() }
    }

    /// What is sent in one tick goes out in one write.
    private func flushSoon() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        Loop.shared.atEndOfTick {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    private static let writeBytesMax = 64 << 10

    private func flush() {
        guard !machine.isClosed else { return }
        while !queue.isEmpty {
            let outcome = queue.withNext(
                gathering: &endpoint.scratch, upTo: WebSocket.writeBytesMax
            ) { stream.write($0) }
            switch outcome {
            case .wrote(let count):
                endpoint.metrics.bytesSent.increment(by: count)
                queue.advance(count)
                stallDue = .never
            case .wouldBlock: return waitForRoom()
            case .failed: return close(.lost)
            }
        }
        sent()
    }

    private func waitForRoom() {
        if stallDue == .never {
            endpoint.readClock()
            stallDue = endpoint.now + endpoint.configuration.writeStallTimeout
            stream.setWriteInterest(true)
            isWaitingForRoom = true
            arm()
        }
        afterOutput()
    }

    private var isWaitingForRoom = false

    /// Everything is with the stream.
    private func sent() {
        if isWaitingForRoom {
            isWaitingForRoom = false
            stream.setWriteInterest(false)
        }
        stallDue = .never
        if machine.isLingering, !isWriteShut {
            if hasReachedEnd { return close(.lost) }
            isWriteShut = true
            stream.shutdownWrite()
            return
        }
        afterOutput()
    }

    private func afterOutput() {
        if !senders.isEmpty, queue.hasRoom(for: 0, endpoint.configuration) { wakeSenders() }
        resumeInput()
    }

    package func streamIsWritable(_ stream: any ByteStream) {
        endpoint.readClock()
        flush()
    }

    // MARK: Timeouts

    private func arm() {
        guard !machine.isClosed else { return }
        let next = min(min(pingDue, pongDue), min(closeDue, stallDue))
        if next != .never { endpoint.arm(self, at: next) }
    }

    func checkTimeouts(_ now: MonotonicTime) {
        if now >= stallDue { return close(.stalled) }
        if now >= closeDue {
            closeDue = .never
            guard machine.isLeaving else { return close(.unanswered) }
            // The handler has had its time with what came before.
            say(machine.handlerIsThrough())
        }
        if now >= pongDue {
            // Only for whoever listens to it after all.
            queue.dropWaiting()
            queue.append(
                WebSocketEncoder.close(.internalError, reason: "no answer to a ping"))
            flush()
            return close(.silent)
        }
        if now >= pingDue { ping(now) }
        arm()
    }

    private func ping(_ now: MonotonicTime) {
        let configuration = endpoint.configuration
        pingDue = now + configuration.pingInterval
        // A peer that is not read cannot be heard.
        guard machine.isOpen, isReading else { return }
        if pongDue == .never { pongDue = now + configuration.pongTimeout }
        endpoint.metrics.pings.increment()
        queue.appendUrgent(WebSocketEncoder.frame(.ping, []))
        flushSoon()
    }

    // MARK: The end

    /// Says good-bye, if nobody has.
    private func end(_ ending: WebSocketEnding, reason: String = "") {
        guard !machine.isClosed else { return }
        endpoint.readClock()
        say(machine.close(ending), reason: reason)
    }

    private func say(_ reply: WebSocketStateMachine.Reply, reason: String = "") {
        guard case .close(let code) = reply else { return }
        queue.append(WebSocketEncoder.close(code, reason: reason))
        pongDue = .never
        pingDue = .never
        closeDue = endpoint.now + endpoint.configuration.closeTimeout
        flushSoon()
        wakeReceiver()
        wakeSenders()
        // Messages do not hold up input any more: what waited is looked through for the peer's Close frame.
        if !kept.isEmpty, machine.isListening { processKept() }
        afterInput()
    }

    /// The server goes away; other servers of the same name do not (1012).
    package func drain() {
        guard machine.isOpen else { return }
        end(WebSocketEnding(.drained, .serviceRestart), reason: endpoint.retryHint())
    }

    /// The time for good-byes is over.
    package func close() { close(.cut) }

    package func stream(_ stream: any ByteStream, didFail error: SystemError) { close(.lost) }

    private func close(_ kind: WebSocketEnding.Kind) {
        guard let ending = machine.closed(kind) else { return }
        kept = []
        queue = WebSocketSendQueue()
        pingDue = .never
        pongDue = .never
        closeDue = .never
        stallDue = .never
        stream.close()
        wakeReceiver()
        wakeSenders()
        let task = self.task
        self.task = nil
        task?.cancel()
        endpoint.ended(self, ending)
    }
}
