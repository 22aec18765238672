import HCCore
import HCIO

/// One HTTP/1 connection: feeds the machine, runs what it says, writes answers.
///
/// Between requests it holds no buffer and no task: input is read in the loop's memory, output is written from
/// the server's, and only what could not be used or sent at once stays here.
@LoopActor
final class HTTP1Connection: HTTPServerConnection, ByteStreamDelegate, RequestBodySource {
    private let server: HTTPServer
    private let stream: any ByteStream
    private let origin: ConnectionOrigin
    /// The place in the server's registry.
    let place: Int

    private let machine: HTTP1ConnectionMachine
    /// Input that was not consumed: part of a head, or requests that wait for their turn.
    private var kept: [UInt8] = []
    /// Output of this moment, and what the socket did not take.
    private var output: [UInt8] = []
    private var sentCount = 0
    /// The request that is parsed and not yet handed over, or is being answered.
    private var request: HTTPRequest?
    private var body: RequestBody?
    private var task: Task<Void, Never>?
    private var writer: HTTP1ResponseWriter?
    /// What has taken the connection over, or will when the head of its answer is sent.
    private var tunnel: HTTP1Tunnel?
    /// Counts requests, so that the answer of one that was given up is not taken for another's.
    private var exchange: UInt32 = 0
    private var pace = BodyPace()
    private var answerPace = AnswerPace()
    private var discardedCount = 0

    private var isProcessing = false
    private var isHandedOver = false
    /// Whether there is input behind the request that is being handed over.
    private var isFollowed = false
    private var isReading = true
    private var isHeadTimed = false
    private var isWriteShut = false
    private var hasReachedEnd = false
    private var closesWhenSent = false

    private var headSince = MonotonicTime.never
    /// When the wait for a head or for the next request began.
    private var waitingSince = MonotonicTime.never
    // When each wait ends; never while nobody waits.
    private var stateTimeout = MonotonicTime.never
    private var requestTimeout = MonotonicTime.never
    private var bodyTimeout = MonotonicTime.never
    private var writeTimeout = MonotonicTime.never
    private var answerTimeout = MonotonicTime.never
    /// When a client that has ended its side is asked whether it is still there.
    private var presenceTimeout = MonotonicTime.never

    init(
        _ stream: any ByteStream, from origin: ConnectionOrigin, place: Int, server: HTTPServer
    ) {
        self.stream = stream
        self.origin = origin
        self.place = place
        self.server = server
        machine = HTTP1ConnectionMachine(
            limits: server.configuration.http1,
            discardBytesMax: server.configuration.discardBytesMax)
    }

    func start() {
        waitingSince = server.now
        stateTimeout = server.now + server.configuration.headTimeout
        arm()
        if server.isDraining { machine.drain() }
        stream.start(delegate: self, reading: true)
    }

    // MARK: Input

    var idleness: ConnectionIdleness {
        guard machine.isWaiting, output.count == sentCount, !closesWhenSent else { return .busy }
        if exchange == 0 { return .fresh(since: waitingSince) }
        return machine.isIdle ? .idle(since: waitingSince) : .busy
    }

    /// Who goes on in our place, when a client without TLS turned out to speak HTTP/2.
    private var successor: HTTP2Connection?

    /// - Parameter input: begins with the first byte of the connection.
    private func continueAsHTTP2(_ input: UnsafeRawBufferPointer) {
        successor = server.continueAsHTTP2(self, stream, origin)
        stateTimeout = .never
        successor?.receive(input)
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        if let successor { return successor.stream(stream, didReceive: bytes) }
        server.readClock()
        server.metrics.receivedBytes.increment(by: bytes.count)
        if let tunnel, tunnel.hasBegun { return tunnel.receive(bytes) }
        if kept.isEmpty {
            let consumed = process(bytes)
            if consumed < bytes.count, !stream.isClosed {
                kept = Array(bytes[consumed...])
            }
        } else {
            // Outside of this object: see `takeOutput`.
            var more = kept
            kept = []
            more.append(contentsOf: bytes)
            kept = more
            processKept()
        }
        afterInput()
    }

    private func processKept() {
        let input = kept
        kept = []
        let consumed = input.withUnsafeBytes { process($0) }
        guard consumed < input.count, !stream.isClosed else { return }
        kept = consumed == 0 ? input : Array(input[consumed...])
    }

    /// Lets the machine go through `input` and does what it says.
    /// - Returns: how many bytes are used up.
    private func process(_ input: UnsafeRawBufferPointer) -> Int {
        guard !isProcessing else { preconditionFailure("input inside input") }
        isProcessing = true
        defer {
            isProcessing = false
            if !stream.isClosed { flush() }
        }
        var consumed = 0
        while !stream.isClosed {
            if output.count - sentCount > server.configuration.outputBytesMax {
                flush()
                if output.count > sentCount { return consumed }
            }
            let before = consumed
            let action = machine.next(input, consumed: &consumed)
            switch consume action {
            case .needMore, .pause:
                if !handOver(isFollowed: consumed < input.count) { return consumed }
            case .request(let head): receive(head)
            case .content(let range):
                var pace = pace
                pace.receive(range.count, at: server.now)
                self.pace = pace
                bodyTimeout = .never
                body?.receive(input.slice(range))
            case .contentEnd(let trailers):
                body?.finish(trailers)
                bodyTimeout = .never
                _ = handOver(isFollowed: consumed < input.count)
            case .refuse(.http2Preface) where before == 0 && exchange == 0 && speaksHTTP2:
                continueAsHTTP2(input)
                return input.count
            case .refuse(let error):
                server.metrics.refused(error)
                exchange &+= 1
                answer(error.problem.response(for: server.makeRequestID()), exchange)
            case .failContent(let error): failContent(error)
            case .discarded:
                waitingSince = server.now
                stateTimeout = server.now + server.configuration.keepAliveTimeout
            case .drop:
                discardedCount += consumed - before
                if discardedCount > server.configuration.lingerBytesMax { close() }
                if machine.isLingering { return consumed }
            case .close:
                closeWhenSent()
                return input.count
            }
        }
        return consumed
    }

    /// Over TLS the protocol was agreed on before the first byte.
    private var speaksHTTP2: Bool {
        server.configuration.http2CleartextIsEnabled && !origin.isSecure
    }

    private func receive(_ head: consuming HTTP1Head) {
        exchange &+= 1
        let now = server.now
        stateTimeout = .never
        isHeadTimed = false
        requestTimeout = now + server.configuration.requestTimeout
        pace = BodyPace()
        discardedCount = 0
        switch head.framing {
        case .none: body = nil
        case .length(let count): body = RequestBody(announcedCount: count, source: self)
        case .chunked: body = RequestBody(announcedCount: nil, source: self)
        }
        let id = server.requestID(of: head.headers)
        let origin: RequestOrigin
        do throws(ForwardedError) {
            origin = try RequestOrigin(
                head.headers, host: head.host, on: self.origin,
                trusted: server.configuration.trustedProxies)
        } catch {
            server.metrics.refused(error)
            machine.abandonInput()
            return answer(error.problem.response(for: id), exchange)
        }
        request = HTTPRequest(
            head, from: origin, id: id, receivedAt: now, deadline: Deadline(requestTimeout),
            body: body)
        isHandedOver = false
        server.metrics.requests.increment()
    }

    /// Starts the handler of the request that was just read.
    /// - Parameter isFollowed: whether there is input behind it.
    /// - Returns: whether there is reason to go on with the input: the answer is there already.
    private func handOver(isFollowed: Bool) -> Bool {
        guard let request, !isHandedOver else { return false }
        isHandedOver = true
        self.isFollowed = isFollowed
        let number = exchange
        let started: Task<Void, Never>
        switch server.answer(request) {
        case .ready(let response):
            guard case .stream = response.body else {
                answer(response, number)
                return !stream.isClosed
            }
            started = Loop.shared.spawn { await self.run(response, number) }
        case .pending(let work):
            started = Loop.shared.spawn {
                let response = await work()
                await self.run(response, number)
            }
        }
        guard machine.isAnswerPending, exchange == number else { return !stream.isClosed }
        task = started
        return false
    }

    private func failContent(_ error: HTTP1Error) {
        bodyTimeout = .never
        if error != .incompleteContent { server.metrics.refused(error) }
        guard isHandedOver else {
            body = nil
            answer(error.problem.response(for: request?.id), exchange)
            return
        }
        body?.fail(
            error == .incompleteContent ? RequestBodyError.disconnected : error.problem)
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        if let successor { return successor.streamDidReachEnd(stream) }
        server.readClock()
        hasReachedEnd = true
        isReading = false
        if let tunnel, tunnel.hasBegun { return tunnel.end() }
        if !kept.isEmpty, !machine.isInHead {
            machine.noteInputEnd()
            if machine.isReceivingContent { processKept() }
            return
        }
        switch machine.inputEnded() {
        case .close: closeWhenSent()
        case .failContent(let error):
            failContent(error)
            flush()
        default: break
        }
        if isHandlerOfSafeRequestRunning, request?.version == .http11 {
            presenceTimeout = server.now + server.configuration.presenceGrace
            arm()
        }
    }

    // MARK: A client that has gone

    /// Nothing is changed by such a request, so nobody misses its work when the client has gone.
    private var isHandlerOfSafeRequestRunning: Bool {
        machine.isAnswerPending && !isAnswering && task != nil && request?.method.isSafe == true
    }

    /// A client that closes its socket and one that only has nothing more to send look the same until something is
    /// sent to them: the first answers with a reset. An interim answer may be sent at any time (RFC 9110 15.2).
    private func askForPresence() {
        presenceTimeout = .never
        guard isHandlerOfSafeRequestRunning else { return }
        appendContinue()
        flush()
    }

    /// Somebody waits for content (called by `RequestBody`).
    func bodyIsWanted() {
        if machine.contentIsWanted() {
            appendContinue()
            if !isProcessing { flush() }
        }
        if hasReachedEnd, !isProcessing {
            if case .failContent(let error) = machine.inputEnded() { failContent(error) }
            return
        }
        var pace = pace
        bodyTimeout = pace.wait(
            at: server.now, grace: server.configuration.bodyGrace,
            bytesPerSecond: server.configuration.bodyBytesPerSecondMin)
        self.pace = pace
        setReading(true)
        arm()
    }

    /// Decides after each piece of input whether more is read, and when this connection is looked at next.
    private func afterInput() {
        guard !stream.isClosed, successor == nil else { return }
        beginTunnel()
        let configuration = server.configuration
        let isInHead = machine.isInHead
        if isInHead { paceHead() }
        if let body, body.isReceiving, !body.isWanted,
            body.bufferedCount >= configuration.bodyBufferBytesMax
        {
            setReading(false)
        } else if !isInHead, kept.count >= configuration.pipelineBytesMax {
            setReading(false)
        }
        arm()
    }

    /// A head has its time from the first byte on, and longer for each that comes, up to the time of any head.
    private func paceHead() {
        let configuration = server.configuration
        if !isHeadTimed {
            isHeadTimed = true
            if exchange > 0 { waitingSince = server.now }
            headSince = server.now
        }
        let earned = Duration.milliseconds(
            Int64(kept.count) * 1000 / Int64(configuration.headBytesPerSecondMin))
        stateTimeout = min(
            waitingSince + configuration.headTimeout,
            headSince + configuration.headGrace + earned)
    }

    private func setReading(_ isOn: Bool) {
        guard isReading != isOn, !hasReachedEnd else { return }
        isReading = isOn
        stream.setReading(isOn)
    }

    // MARK: Output

    private func run(_ response: HTTPResponse, _ number: UInt32) async {
        guard case .stream(let content) = response.body else { return answer(response, number) }
        guard let writer = begin(response, number) else {
            if isAnswering { finishAnswer() }
            return
        }
        do {
            let trailers = try await content.write(writer)
            try writer.finish(trailers)
            self.writer = nil
            if !stream.isClosed { finishAnswer() }
        } catch {
            // The head is on its way: only a cut connection tells the client that the end is missing.
            self.writer = nil
            guard !stream.isClosed else { return }
            stream.cut()
            ended()
        }
    }

    /// Writes an answer whose content is there.
    private func answer(_ response: HTTPResponse, _ number: UInt32) {
        guard begin(response, number) == nil, isAnswering else { return }
        if case .tunnel(let tunnel) = response.body {
            startTunnel(tunnel)
        } else {
            finishAnswer()
        }
    }

    private var isAnswering = false

    /// Writes the head, and the content unless it is a stream.
    /// - Returns: the writer of a stream whose content is to be sent.
    private func begin(_ response: HTTPResponse, _ number: UInt32) -> HTTP1ResponseWriter? {
        isAnswering = false
        guard number == exchange, machine.isAnswerPending, !stream.isClosed else {
            server.metrics.lateAnswers.increment()
            return nil
        }
        if !isProcessing { server.readClock() }
        isAnswering = true
        requestTimeout = .never
        let plan: HTTP1ConnectionMachine.AnswerPlan
        let trailers = trailers(of: response)
        if response.body.isTunnel {
            precondition(
                response.status == .switchingProtocols && request?.upgrade != nil,
                "a tunnel without an upgrade")
            plan = machine.switchProtocol()
        } else {
            precondition(response.status.code >= 200, "an interim status is no answer")
            // Only a chunked message has a place for trailers.
            plan = machine.answer(
                response.status, count: trailers.isEmpty ? response.body.count : nil,
                isFollowed: hasNextRequest)
        }
        var output = takeOutput()
        defer { self.output = output }
        server.writeHead(
            response, plan, trailers: plan.sendsContent ? trailers : [],
            id: request?.id ?? server.lastRequestID,
            isSecure: request?.isSecure ?? origin.isSecure, into: &output)
        server.metrics.responded(response.status)
        guard plan.sendsContent else { return nil }
        guard let content = response.body.stream else {
            response.body.write(into: &output)
            return nil
        }
        let writer = HTTP1ResponseWriter(
            self, isChunked: plan.framing == .chunked, remaining: content.count,
            trailers: trailers)
        self.writer = writer
        return writer
    }

    /// What is still to be sent, to be added to and put back.
    ///
    /// It is worked on outside of this object: while one of its properties is lent, each look at that asks the runtime
    /// whether it may.
    private func takeOutput() -> [UInt8] {
        guard !output.isEmpty else { return server.takeBuffer() }
        let taken = output
        output = []
        return taken
    }

    private func appendContinue() {
        var output = takeOutput()
        output.append(HTTP1Writer.continueHead)
        self.output = output
    }

    /// The names of the fields that follow the answer's content, if there may be any and the client wants them
    /// (RFC 9110 6.5.1, 10.1.4).
    private func trailers(of response: HTTPResponse) -> [HTTPFieldName] {
        guard let content = response.body.stream, !content.trailers.isEmpty,
            let request, request.version == .http11, request.headers.hasToken(.te, "trailers")
        else { return [] }
        return content.trailers
    }

    /// Whether the client has sent more than the request in progress: only a draining connection wants to know.
    private var hasNextRequest: Bool {
        guard machine.isDraining else { return false }
        return (isProcessing ? isFollowed : !kept.isEmpty) || stream.hasInput
    }

    private func finishAnswer() {
        isAnswering = false
        let now = server.now
        request = nil
        body = nil
        task = nil
        bodyTimeout = .never
        switch machine.answerEnded() {
        case .waiting:
            waitingSince = now
            stateTimeout = now + server.configuration.keepAliveTimeout
        case .discarding: stateTimeout = now + server.configuration.lingerTimeout
        case .linger: stateTimeout = now + server.configuration.lingerTimeout
        }
        guard !isProcessing else { return }
        flush()
        resumeInput()
    }

    /// The answer's head was the last of HTTP on this connection (RFC 9110 7.8).
    private func startTunnel(_ tunnel: HTTPTunnel) {
        isAnswering = false
        request = nil
        body = nil
        task = nil
        bodyTimeout = .never
        stateTimeout = .never
        self.tunnel = HTTP1Tunnel(tunnel, over: stream, carrier: self)
        guard !isProcessing else { return }
        flush()
        beginTunnel()
    }

    /// Gives the stream away as soon as the head is sent, with what came behind the request.
    private func beginTunnel() {
        guard let tunnel, !tunnel.hasBegun, !isProcessing, !isOutputWaiting, !stream.isClosed
        else { return }
        let received = kept
        kept = []
        tunnel.begin(
            received: received, hasReachedEnd: hasReachedEnd, isDraining: machine.isDraining)
    }

    func countSent(_ count: Int) { server.metrics.sentBytes.increment(by: count) }

    /// What had taken the connection over has closed its stream.
    func tunnelClosed() {
        guard !stream.isClosed else { return }
        stream.close()
        ended()
    }

    /// Goes on with requests that waited.
    private func resumeInput() {
        guard !stream.isClosed, output.count == sentCount, !machine.isAnswerPending else { return }
        if !kept.isEmpty || hasReachedEnd { processKept() }
        guard !stream.isClosed else { return }
        if kept.count < server.configuration.pipelineBytesMax || machine.isLingering {
            setReading(true)
        }
        afterInput()
    }

    /// Sends what there is. What the socket does not take stays.
    private func flush() {
        guard output.count > sentCount else {
            sent()
            return
        }
        let sentBefore = sentCount
        // As in `takeOutput`: not lent from here while the stream works on it.
        let pending = Swift.exchange(&output, with: [])
        let taken = pending.withBytes { bytes -> StreamWrite in
            stream.write(bytes.slice(sentBefore..<bytes.count))
        }
        output = consume pending
        switch taken {
        case .wrote(let count):
            sentCount += count
            server.metrics.sentBytes.increment(by: count)
            if writeTimeout != .never {
                writeTimeout = .never
                var answerPace = answerPace
                answerPace.take(
                    count, isAll: output.count == sentCount, at: server.now,
                    bytesPerSecond: server.configuration.answerBytesPerSecondMin)
                self.answerPace = answerPace
            }
        case .wouldBlock: break
        case .failed: return close()
        }
        if output.count > sentCount {
            if writeTimeout == .never {
                writeTimeout = server.now + server.configuration.writeStallTimeout
                var answerPace = answerPace
                answerTimeout = answerPace.wait(
                    at: server.now, grace: server.configuration.answerGrace)
                self.answerPace = answerPace
                stream.setWriteInterest(true)
                arm()
            }
            return
        }
        sent()
    }

    /// Everything is with the kernel.
    private func sent() {
        var buffer = output
        output = []
        if buffer.capacity > 0 { server.giveBack(&buffer) }
        sentCount = 0
        if writeTimeout != .never || answerTimeout != .never { restartState() }
        writeTimeout = .never
        answerTimeout = .never
        if closesWhenSent { return close() }
        guard machine.isLingering, !isWriteShut else { return }
        if hasReachedEnd { return close() }
        isWriteShut = true
        stream.shutdownWrite()
        setReading(true)
        arm()
    }

    /// The client took some time for an answer: what comes after an answer begins now.
    private func restartState() {
        guard stateTimeout != .never, !machine.isInHead else { return }
        let configuration = server.configuration
        waitingSince = server.now
        stateTimeout =
            server.now
            + (machine.isIdle ? configuration.keepAliveTimeout : configuration.lingerTimeout)
    }

    func streamIsWritable(_ stream: any ByteStream) {
        if let successor { return successor.streamIsWritable(stream) }
        if let tunnel, tunnel.hasBegun { return tunnel.becomeWritable() }
        server.readClock()
        flush()
        guard !stream.isClosed, output.count == sentCount else { return }
        stream.setWriteInterest(false)
        if let writer {
            writer.resume()
        } else if tunnel != nil {
            beginTunnel()
        } else {
            resumeInput()
        }
    }

    /// Adds to a stream's content.
    /// - Returns: whether the writer may go on at once.
    func write(_ append: (inout [UInt8]) -> Void) -> Bool {
        if !isProcessing { server.readClock() }
        var taken = takeOutput()
        append(&taken)
        output = consume taken
        if !isProcessing || output.count > server.configuration.outputBytesMax { flush() }
        return stream.isClosed || output.count - sentCount <= server.configuration.outputBytesMax
    }

    var isClosed: Bool { stream.isClosed }

    // MARK: Timeouts

    private func arm() {
        guard !stream.isClosed else { return }
        let next = min(
            min(isOutputWaiting ? .never : stateTimeout, requestTimeout),
            min(bodyTimeout, min(presenceTimeout, min(writeTimeout, answerTimeout))))
        if next != .never { server.arm(self, at: next) }
    }

    /// While output waits for the client, its pace is what counts.
    private var isOutputWaiting: Bool { output.count > sentCount }

    func checkTimeouts(_ now: MonotonicTime) {
        if now >= writeTimeout {
            server.metrics.timedOut(.write)
            return close()
        }
        if now >= answerTimeout {
            server.metrics.timedOut(.answer)
            return close()
        }
        if now >= presenceTimeout { askForPresence() }
        guard !stream.isClosed else { return }
        if now >= bodyTimeout {
            bodyTimeout = .never
            server.metrics.timedOut(.body)
            giveUp(.tooSlow)
        } else if now >= requestTimeout {
            server.metrics.timedOut(.request)
            let isClientsFault = body.map { $0.isReceiving && $0.isWanted } ?? false
            giveUp(isClientsFault ? .tooSlow : .handlerTooSlow)
        } else if now >= stateTimeout, !isOutputWaiting {
            stateTimedOut()
        }
        arm()
    }

    private func stateTimedOut() {
        stateTimeout = .never
        if machine.isIdle {
            server.metrics.timedOut(.keepAlive)
            close()
        } else if machine.isInHead, machine.beginRefusal(of: kept) {
            server.metrics.timedOut(.head)
            kept = []
            exchange &+= 1
            answer(Problem.tooSlow.response(for: server.makeRequestID()), exchange)
        } else {
            server.metrics.timedOut(.linger)
            close()
        }
    }

    /// Answers in place of the handler, whose own answer will be too late.
    private func giveUp(_ problem: Problem) {
        requestTimeout = .never
        guard machine.isAnswerPending else {
            // The answer has begun, and waits for content that does not come: its writer cuts the connection.
            body?.fail(problem)
            return
        }
        machine.abandonInput()
        kept = []
        body?.fail(problem)
        task?.cancel()
        answer(problem.response(for: request?.id), exchange)
    }

    // MARK: The end

    func drain() {
        machine.drain()
        tunnel?.drain()
    }

    func endIfIdle() {
        // A request that has arrived and is not read yet is no reason to be gone.
        guard !stream.hasInput, machine.lingerIfIdle() else { return }
        stateTimeout = server.now + server.configuration.lingerTimeout
        flush()
        arm()
    }

    private func closeWhenSent() {
        closesWhenSent = true
        if !isProcessing { flush() }
    }

    func close() {
        guard !stream.isClosed else { return }
        tunnel?.closeFarEnd()
        tunnelClosed()
    }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        if let successor { return successor.stream(stream, didFail: error) }
        tunnel?.fail(error)
        ended()
    }

    private func ended() {
        // What else was asked for is finished: its outcome counts, whoever hears of it.
        let abandoned = request?.method.isSafe == true ? task : nil
        machine.closed()
        kept = []
        output = []
        sentCount = 0
        stateTimeout = .never
        requestTimeout = .never
        bodyTimeout = .never
        writeTimeout = .never
        answerTimeout = .never
        body?.fail(RequestBodyError.disconnected)
        body = nil
        request = nil
        task = nil
        writer?.resume()
        writer = nil
        tunnel?.detach()
        tunnel = nil
        presenceTimeout = .never
        server.connectionEnded(self)
        abandoned?.cancel()
    }
}

extension MonotonicTime {
    /// Later than any time.
    static var never: MonotonicTime { MonotonicTime(nanoseconds: .max) }
}

extension Problem {
    static let tooSlow = Problem(
        .requestTimeout, code: "request-timeout", title: "Request Timeout")

    static let handlerTooSlow = Problem(
        .serviceUnavailable, code: "deadline-exceeded", title: "Service Unavailable",
        detail: "The answer took too long. Try again.",
        headers: HTTPHeaders([(.retryAfter, "1")]))
}
