import HCCore
import HCIO

/// One request of an HTTP/2 connection and its answer.
@LoopActor
final class HTTP2Stream: RequestBodySource {
    let connection: HTTP2Connection
    let slot: Int
    private let isHead: Bool

    private var request: HTTPRequest?
    private var body: RequestBody?
    private var task: Task<Void, Never>?
    private var writer: HTTP2ResponseWriter?
    private var tunnel: HTTP2TunnelStream?
    private var tunnelConnection: (any HTTPTunnelConnection)?
    private var pace = BodyPace()
    private var expectsContinue = false
    private var isAnswered = false
    private var isHandlerRunning = false
    private(set) var isClosed = false

    // When each wait ends; never while nobody waits.
    private var requestTimeout = MonotonicTime.never
    private var bodyTimeout = MonotonicTime.never
    private var stallTimeout = MonotonicTime.never
    private var lingerTimeout = MonotonicTime.never
    /// What waited to be sent when the wait for the client's window began.
    private var stalledCount = 0
    /// What the connection had sent then, and how often in a row that had become too little more.
    private var connectionCount = 0
    private var slowCount = 0

    private var server: HTTPServer { connection.server }
    private var session: HTTP2Session { connection.session }

    init(_ connection: HTTP2Connection, slot: Int, isHead: Bool) {
        self.connection = connection
        self.slot = slot
        self.isHead = isHead
    }

    // MARK: The request

    /// - Returns: nil if no content comes. What comes on a tunnel is none.
    func makeBody(_ head: HTTP2Head) -> RequestBody? {
        guard !head.isComplete, head.upgrade == nil else { return nil }
        let made = RequestBody(announcedCount: head.announcedCount, source: self)
        body = made
        expectsContinue = head.expectsContinue
        return made
    }

    func handOver(_ request: HTTPRequest, until deadline: MonotonicTime) {
        self.request = request
        requestTimeout = deadline
        isHandlerRunning = true
        let started: Task<Void, Never>
        switch server.answer(request) {
        case .ready(let response):
            guard case .stream = response.body else {
                answer(response, id: request.id)
                return handlerEnded()
            }
            started = Loop.shared.spawn {
                await self.run(response)
                self.handlerEnded()
            }
        case .pending(let work):
            started = Loop.shared.spawn {
                let response = await work()
                await self.run(response)
                self.handlerEnded()
            }
        }
        guard isHandlerRunning else { return }
        task = started
        connection.arm(stream: deadline)
    }

    /// Answers in place of a handler.
    func refuse(_ problem: Problem, id: RequestID) {
        answer(problem.response(for: id), id: id)
        releaseIfDone()
    }

    func receive(_ bytes: UnsafeRawBufferPointer) {
        if let tunnel { return tunnel.receive(bytes) }
        guard let body, body.isReceiving else { return session.consume(slot) }
        pace.receive(bytes.count, at: server.now)
        bodyTimeout = .never
        expectsContinue = false
        body.receive(bytes)
    }

    func inputEnded(_ trailers: HTTPHeaders) {
        bodyTimeout = .never
        body?.finish(trailers)
        tunnel?.inputEnded()
    }

    func failInput(_ error: any Error) {
        bodyTimeout = .never
        body?.fail(error)
    }

    /// The client has closed its side of the connection.
    func inputIsCut() {
        failInput(RequestBodyError.disconnected)
        tunnel?.inputEnded()
    }

    /// Somebody waits for content (called by `RequestBody`).
    func bodyIsWanted() {
        guard !isClosed else { return }
        if expectsContinue, !isAnswered {
            expectsContinue = false
            session.answerContinue(slot, server.http2Fields)
        }
        session.consume(slot)
        bodyTimeout = pace.wait(
            at: server.now, grace: server.configuration.bodyGrace,
            bytesPerSecond: server.configuration.bodyBytesPerSecondMin)
        connection.arm(stream: bodyTimeout)
        connection.planFlush()
    }

    /// Somebody has taken content: the client may send as much again.
    func bodyWasTaken() {
        guard !isClosed else { return }
        session.consume(slot)
        connection.planFlush()
    }

    // MARK: The answer

    private func run(_ response: HTTPResponse) async {
        guard case .stream(let content) = response.body else {
            return answer(response, id: request?.id)
        }
        guard let writer = begin(response, id: request?.id) else { return }
        do {
            let trailers = try await content.write(writer)
            try writer.finish()
            self.writer = nil
            guard !isClosed else { return }
            session.finish(slot, trailers: trailers.trailers(content.trailers))
            watchOutput()
            connection.planFlush()
        } catch {
            // The head is on its way: only a reset tells the client that the end is missing.
            self.writer = nil
            guard !isClosed else { return }
            session.reset(slot, .writerFailed)
            connection.planFlush()
        }
    }

    private func answer(_ response: HTTPResponse, id: RequestID?) {
        _ = begin(response, id: id)
    }

    /// Sends the head, and the content unless it is a stream.
    /// - Returns: the writer of a stream whose content is to be sent.
    private func begin(_ response: HTTPResponse, id: RequestID?) -> HTTP2ResponseWriter? {
        guard !isAnswered, !isClosed else {
            server.metrics.lateAnswers.increment()
            return nil
        }
        precondition(
            response.status.code >= 200 || response.isTunnel, "an interim status is no answer")
        isAnswered = true
        requestTimeout = .never
        let status = response.isTunnel ? HTTPStatus.ok : response.status
        let allowsContent = status.allowsContent && !response.isTunnel
        let count = allowsContent ? response.body.count : nil
        var content = HTTP2Session.Content.none
        var made: HTTP2ResponseWriter?
        switch response.body {
        case .none: break
        case .bytes, .buffer, .text:
            if allowsContent, !isHead, count != 0 { content = .whole(response.body) }
        case .stream(let stream):
            if allowsContent, !isHead {
                content = .open
                made = HTTP2ResponseWriter(self, remaining: stream.count)
            }
        case .tunnel: content = .open
        }
        server.metrics.responded(status)
        session.answer(
            slot, response, status: status.code, content: content, length: count, id: id,
            date: server.date,
            common: server.commonHeaders(
                isSecure: request?.isSecure ?? connection.origin.isSecure), server.http2Fields)
        writer = made
        if case .tunnel(let tunnel) = response.body { begin(tunnel) }
        watchOutput()
        connection.planFlush()
        return made
    }

    private func handlerEnded() {
        isHandlerRunning = false
        task = nil
        request = nil
        releaseIfDone()
    }

    private func releaseIfDone() {
        guard isClosed, !isHandlerRunning else { return }
        body = nil
        connection.release(slot)
    }

    /// The client is told to stop sending only if it does not do so by itself.
    func answeredEarly() {
        lingerTimeout = server.now + server.configuration.lingerTimeout
        connection.arm(stream: lingerTimeout)
    }

    // MARK: Streams of content

    /// Adds to a stream's content.
    /// - Returns: whether the writer may go on at once.
    func write(_ bytes: [UInt8]) -> Bool {
        session.write(slot, bytes)
        connection.planFlush()
        watchOutput()
        return isClosed
            || session.waitingCount(slot) <= session.limits.streamOutputBytesMax
    }

    func roomToWrite() {
        writer?.resume()
        tunnel?.roomToWrite()
    }

    /// Content that waits and does not become less is waited for only so long.
    private func watchOutput() {
        guard !isClosed, stallTimeout == .never, session.waitingCount(slot) > 0 else { return }
        stalledCount = session.sentContentCount(slot)
        connectionCount = connection.sentCount
        stallTimeout = server.now + server.configuration.writeStallTimeout
        connection.arm(stream: stallTimeout)
    }

    /// What the slowest client that is served takes in the time of a standstill.
    private var leastCount: Int {
        let configuration = server.configuration
        return configuration.answerBytesPerSecondMin
            * Int(configuration.writeStallTimeout.inSecondsRoundedUp)
    }

    // MARK: Tunnels

    private func begin(_ tunnel: HTTPTunnel) {
        guard request?.upgrade == .webSocket(.extendedConnect) else {
            // A route that answers so to what asked for no tunnel is broken.
            session.reset(slot, .writerFailed)
            return
        }
        let stream = HTTP2TunnelStream(self)
        self.tunnel = stream
        let made = tunnel.begin(stream, [])
        guard !isClosed else { return }
        tunnelConnection = made
        if connection.isDraining { made.drain() }
    }

    func writeToTunnel(_ bytes: UnsafeRawBufferPointer) {
        session.write(slot, bytes)
        connection.planFlush()
        watchOutput()
    }

    func finishTunnel() {
        session.finish(slot)
        connection.planFlush()
    }

    func closeTunnel(isComplete: Bool) {
        guard !isClosed else { return }
        if isComplete {
            session.abandonInput(slot)
        } else {
            session.cancel(slot, .cancel)
        }
        connection.planFlush()
    }

    /// Content of the tunnel was used.
    func consume(_ count: Int) {
        guard !isClosed else { return }
        session.consume(slot, count)
        connection.planFlush()
    }

    func drain() {
        tunnelConnection?.drain()
    }

    // MARK: Timeouts

    /// - Returns: when to look again.
    func checkTimeouts(_ now: MonotonicTime) -> MonotonicTime {
        guard !isClosed else { return .never }
        if now >= bodyTimeout {
            bodyTimeout = .never
            server.metrics.timedOut(.body)
            giveUp(.tooSlow)
        } else if now >= requestTimeout {
            server.metrics.timedOut(.request)
            let isClientsFault = body.map { $0.isReceiving && $0.isWanted } ?? false
            giveUp(isClientsFault ? .tooSlow : .handlerTooSlow)
        }
        if now >= stallTimeout {
            stallTimeout = .never
            if session.waitingCount(slot) == 0 {
                slowCount = 0
            } else if session.sentContentCount(slot) == stalledCount {
                server.metrics.timedOut(.write)
                session.cancel(slot, .cancel)
            } else {
                // A window that opens by a byte now and then does not hold a stream for ever. What counts is what
                // the connection takes, for its streams share it; twice, for at one look it may just be full.
                slowCount = connection.sentCount - connectionCount < leastCount ? slowCount + 1 : 0
                if slowCount == 2 {
                    server.metrics.timedOut(.answer)
                    session.cancel(slot, .cancel)
                } else {
                    watchOutput()
                }
            }
        }
        if now >= lingerTimeout {
            lingerTimeout = .never
            session.cancel(slot, .noError)
        }
        return min(min(requestTimeout, bodyTimeout), min(stallTimeout, lingerTimeout))
    }

    /// Answers in place of the handler, whose own answer will be too late.
    private func giveUp(_ problem: Problem) {
        requestTimeout = .never
        guard !isAnswered else {
            // The answer has begun, and waits for content that does not come.
            body?.fail(problem)
            return
        }
        body?.fail(problem)
        task?.cancel()
        answer(problem.response(for: request?.id), id: request?.id)
    }

    // MARK: The end

    /// The session's stream is over, or the connection.
    func closed() {
        guard !isClosed else { return }
        isClosed = true
        requestTimeout = .never
        bodyTimeout = .never
        stallTimeout = .never
        lingerTimeout = .never
        body?.fail(RequestBodyError.disconnected)
        writer?.resume()
        writer = nil
        let tunnel = tunnel
        self.tunnel = nil
        tunnel?.broke()
        tunnelConnection = nil
        // Nobody misses the work of a request that asks for no change. What else was asked for is finished: its outcome
        // counts, whoever hears of it.
        if request?.method.isSafe == true { task?.cancel() }
        releaseIfDone()
    }
}

/// Writes a stream's content to its HTTP/2 stream.
@LoopActor
final class HTTP2ResponseWriter: ResponseWriter {
    private let stream: HTTP2Stream
    private var remaining: Int?
    private var waiter: CheckedContinuation<Void, Never>?

    init(_ stream: HTTP2Stream, remaining: Int?) {
        self.stream = stream
        self.remaining = remaining
    }

    func write(_ bytes: [UInt8]) async throws {
        guard !stream.isClosed else { throw ResponseWriterError.disconnected }
        guard !bytes.isEmpty else { return }
        if let left = remaining {
            guard bytes.count <= left else { throw ResponseWriterError.wrongCount }
            remaining = left - bytes.count
        }
        if !stream.write(bytes) {
            precondition(waiter == nil, "a stream has one writer at a time")
            await withCheckedContinuation { waiter = $0 }
        }
        guard !stream.isClosed else { throw ResponseWriterError.disconnected }
    }

    func finish() throws {
        if let remaining, remaining > 0 { throw ResponseWriterError.wrongCount }
    }

    func resume() {
        guard let waiter else { return }
        self.waiter = nil
        waiter.resume()
    }
}

extension HTTPResponse {
    var isTunnel: Bool {
        if case .tunnel = body { true } else { false }
    }
}
