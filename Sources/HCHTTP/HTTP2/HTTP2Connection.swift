import HCCore
import HCIO

/// One HTTP/2 connection: feeds the session, gives its requests to the same handlers as HTTP/1, writes what comes.
///
/// What one read brings is gone through whole, and what it causes is written once; answers that come later are
/// written together at the end of the loop's tick.
@LoopActor
final class HTTP2Connection: HTTPServerConnection, ByteStreamDelegate {
    private enum State {
        /// Can transition to: announcing, ending, lingering, closed.
        case open
        /// The client was told that the end is near, and may not know it yet: its requests are still taken.
        /// Can transition to: ending, lingering, closed.
        case announcing
        /// No further request is taken; those in progress are answered.
        /// Can transition to: lingering, closed.
        case ending
        /// All is sent and our side is shut; input is thrown away so that the answers are not lost to a reset.
        /// Can transition to: closed.
        case lingering
        case closed
    }

    let server: HTTPServer
    let stream: any ByteStream
    let origin: ConnectionOrigin
    /// The place in the server's registry.
    let place: Int

    let session: HTTP2Session
    /// By slot of the session.
    private var streams: [HTTP2Stream?] = []
    private var state = State.open
    private var requestCount = 0
    private var lingeredCount = 0
    private var answerPace = AnswerPace()
    /// Bytes that the client took.
    private(set) var sentCount = 0

    private var isStreamStarted: Bool
    private var isReceiving = false
    private var isSettling = false
    private var isFlushPlanned = false
    private var isFlushing = false
    private var isReading = true
    private var isWaitingToWrite = false
    private var hasReachedEnd = false
    private var isClientLeaving = false

    /// When the wait for the preface or for a request began.
    private var waitingSince: MonotonicTime
    // When each wait ends; never while nobody waits.
    private var stateTimeout = MonotonicTime.never
    private var blockTimeout = MonotonicTime.never
    private var writeTimeout = MonotonicTime.never
    private var answerTimeout = MonotonicTime.never
    /// No timeout of any stream comes before this.
    private var streamTimeout = MonotonicTime.never

    /// - Parameter isStarted: another connection has started the stream and hands on what comes of it.
    init(
        _ stream: any ByteStream, from origin: ConnectionOrigin, place: Int, server: HTTPServer,
        isStarted: Bool = false
    ) {
        self.stream = stream
        self.origin = origin
        self.place = place
        self.server = server
        isStreamStarted = isStarted
        waitingSince = server.now
        session = HTTP2Session(
            limits: server.configuration.http2, common: server.configuration.http1, now: server.now)
    }

    func start() {
        stateTimeout = server.now + server.configuration.http2.prefaceTimeout
        if server.isDraining { drain() }
        if !isStreamStarted {
            isStreamStarted = true
            stream.start(delegate: self, reading: true)
        }
        // The server's preface does not wait for the client's (RFC 9113 3.4).
        settle()
        flush()
        arm()
    }

    var idleness: ConnectionIdleness {
        guard session.streamCount == 0, session.pendingCount == 0, isServing else { return .busy }
        return requestCount == 0 ? .fresh(since: waitingSince) : .idle(since: waitingSince)
    }

    private var isServing: Bool {
        switch state {
        case .open, .announcing: true
        case .ending, .lingering, .closed: false
        }
    }

    /// Whether our side is shut.
    private var isOver: Bool {
        switch state {
        case .open, .announcing, .ending: false
        case .lingering, .closed: true
        }
    }

    var isDraining: Bool {
        if case .open = state { false } else { true }
    }

    // MARK: Input

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        server.readClock()
        server.metrics.receivedBytes.increment(by: bytes.count)
        receive(bytes)
    }

    func receive(_ bytes: UnsafeRawBufferPointer) {
        if case .lingering = state { return discard(bytes.count) }
        isReceiving = true
        session.receive(bytes, at: server.now)
        settle(bytes)
        isReceiving = false
        guard !stream.isClosed else { return }
        flush()
        afterInput()
    }

    private func discard(_ count: Int) {
        lingeredCount += count
        if lingeredCount > server.configuration.lingerBytesMax { close() }
    }

    private func afterInput() {
        guard !stream.isClosed else { return }
        if session.isInBlock {
            if blockTimeout == .never {
                blockTimeout = server.now + server.configuration.headGrace
            }
        } else {
            blockTimeout = .never
        }
        arm()
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        server.readClock()
        hasReachedEnd = true
        isReading = false
        if case .lingering = state { return close() }
        // What was asked is still answered; what was being sent to us will not be complete.
        isClientLeaving = true
        for stream in streams { stream?.inputIsCut() }
        flush()
    }

    /// Goes through what the session tells. What that causes is told too, in the same go.
    private func settle(
        _ input: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
    ) {
        guard !isSettling else { return }
        isSettling = true
        defer { isSettling = false }
        var index = 0
        while index < session.events.count, !stream.isClosed {
            let event = session.events[index]
            index += 1
            switch event {
            case .request(let slot, let head): receive(head, slot)
            case .refused(let slot, let error, let isHead):
                server.metrics.refused(error)
                guard session.isOpen(slot) else { continue }
                open(slot, isHead: isHead).refuse(error.problem, id: server.makeRequestID())
            case .content(let slot, let range): at(slot)?.receive(input.slice(range))
            case .contentEnd(let slot, let trailers): at(slot)?.inputEnded(trailers)
            case .contentTooLarge(let slot):
                server.metrics.refused(.contentTooLarge)
                at(slot)?.failInput(HTTP1Error.contentTooLarge.problem)
            case .roomToWrite(let slot): at(slot)?.roomToWrite()
            case .answeredEarly(let slot): at(slot)?.answeredEarly()
            case .closed(let slot, let isResetByClient):
                if isResetByClient { server.metrics.http2.peerResets.increment() }
                closed(slot)
            case .pingAcknowledged: if case .announcing = state { beginEnd() }
            case .clientLeaves: isClientLeaving = true
            case .fault(let fault): server.metrics.http2.found(fault)
            case .goawaySent: server.metrics.http2.goaways.increment()
            }
        }
        session.events.removeAll(keepingCapacity: true)
    }

    /// Nil for what never became a request, or was withdrawn before it was looked at.
    private func at(_ slot: Int) -> HTTP2Stream? {
        slot < streams.count ? streams[slot] : nil
    }

    private func open(_ slot: Int, isHead: Bool) -> HTTP2Stream {
        let stream = HTTP2Stream(self, slot: slot, isHead: isHead)
        while streams.count <= slot { streams.append(nil) }
        streams[slot] = stream
        requestCount += 1
        if case .open = state { stateTimeout = .never }
        server.metrics.http2.streams.increment()
        server.metrics.http2.openStreams.add(1)
        return stream
    }

    private func receive(_ head: HTTP2Head, _ slot: Int) {
        // Withdrawn in the same breath.
        guard session.isOpen(slot) else { return }
        let stream = open(slot, isHead: head.method == .head)
        let id = server.requestID(of: head.headers)
        let origin: RequestOrigin
        do throws(ForwardedError) {
            origin = try RequestOrigin(
                head.headers, host: head.host, on: self.origin,
                trusted: server.configuration.trustedProxies)
        } catch {
            server.metrics.refused(error)
            return stream.refuse(error.problem, id: id)
        }
        let deadline = server.now + server.configuration.requestTimeout
        let body = stream.makeBody(head)
        let request = HTTPRequest(
            method: head.method, version: .http2, target: head.target, headers: head.headers,
            host: origin.host, id: id, remoteAddress: origin.address,
            isSecure: origin.isSecure, receivedAt: server.now, deadline: Deadline(deadline),
            body: body, upgrade: head.upgrade)
        server.metrics.requests.increment()
        stream.handOver(request, until: deadline)
    }

    private func closed(_ slot: Int) {
        if let stream = at(slot) {
            stream.closed()
        } else {
            session.release(slot)
        }
    }

    /// Nothing uses the stream any more: its handler is through and the client knows its end.
    func release(_ slot: Int) {
        guard at(slot) != nil else { return }
        streams[slot] = nil
        server.metrics.http2.openStreams.add(-1)
        guard !stream.isClosed else { return }
        session.release(slot)
        guard session.streamCount == 0 else { return }
        streams = []
        streamTimeout = .never
        waitingSince = server.now
        if case .open = state {
            stateTimeout = server.now + server.configuration.keepAliveTimeout
        }
        planFlush()
        arm()
    }

    // MARK: Output

    /// Something is to be sent: now, if input is being gone through, else at the end of the tick.
    func planFlush() {
        guard !isReceiving, !isFlushing, !isFlushPlanned, !stream.isClosed else { return }
        isFlushPlanned = true
        Loop.shared.atEndOfTick {
            self.isFlushPlanned = false
            guard !self.stream.isClosed else { return }
            self.server.readClock()
            self.flush()
        }
    }

    /// How much is written before others have their turn.
    private static let roundsMax = 8

    /// Sends what there is. What the socket does not take stays, and content waits where it is.
    private func flush() {
        guard !isFlushing, !isOver else { return }
        isFlushing = true
        defer { isFlushing = false }
        let bytesMax = server.configuration.outputBytesMax
        for _ in 0..<Self.roundsMax {
            if session.output.isEmpty, session.output.capacity == 0 {
                var buffer = server.takeBuffer()
                session.exchangeOutput(&buffer)
            }
            session.pull(upTo: bytesMax)
            settle()
            guard !stream.isClosed else { return }
            guard session.pendingCount > 0 else {
                if sent() { continue }
                return
            }
            let start = session.sentCount
            let taken = session.output.withUnsafeBytes { bytes -> StreamWrite in
                stream.write(bytes.slice(start..<bytes.count))
            }
            switch taken {
            case .wrote(let count):
                session.sent(count)
                sentCount += count
                server.metrics.sentBytes.increment(by: count)
                if writeTimeout != .never {
                    writeTimeout = .never
                    answerPace.take(
                        count, isAll: session.pendingCount == 0, at: server.now,
                        bytesPerSecond: server.configuration.answerBytesPerSecondMin)
                }
            case .wouldBlock: break
            case .failed: return close()
            }
            guard session.pendingCount == 0 else { return waitToWrite() }
        }
        // The rest after the others, if the client has room for more.
        waitToWrite()
    }

    private func waitToWrite() {
        setWriteInterest(true)
        if writeTimeout == .never {
            writeTimeout = server.now + server.configuration.writeStallTimeout
            answerTimeout = answerPace.wait(
                at: server.now, grace: server.configuration.answerGrace)
            arm()
        }
        // A client that does not read and makes us answer is not read either.
        if session.pendingCount > 2 * server.configuration.outputBytesMax { setReading(false) }
    }

    /// Everything is with the kernel.
    /// - Returns: whether that was reason to say something more.
    private func sent() -> Bool {
        setWriteInterest(false)
        writeTimeout = .never
        answerTimeout = .never
        setReading(true)
        if session.streamCount == 0, session.output.capacity > 0 {
            var buffer: [UInt8] = []
            session.exchangeOutput(&buffer)
            server.giveBack(&buffer)
        }
        return endIfDone()
    }

    func streamIsWritable(_ stream: any ByteStream) {
        server.readClock()
        flush()
    }

    private func setWriteInterest(_ isOn: Bool) {
        guard isWaitingToWrite != isOn, !stream.isClosed else { return }
        isWaitingToWrite = isOn
        stream.setWriteInterest(isOn)
    }

    private func setReading(_ isOn: Bool) {
        guard isReading != isOn, !hasReachedEnd, !stream.isClosed else { return }
        isReading = isOn
        stream.setReading(isOn)
    }

    // MARK: Timeouts

    /// A stream waits until `time`.
    func arm(stream time: MonotonicTime) {
        guard time < streamTimeout else { return }
        streamTimeout = time
        if !isReceiving { arm() }
    }

    private func arm() {
        guard !stream.isClosed else { return }
        let next = min(
            min(stateTimeout, blockTimeout), min(min(writeTimeout, answerTimeout), streamTimeout))
        if next != .never { server.arm(self, at: next) }
    }

    func checkTimeouts(_ now: MonotonicTime) {
        if now >= writeTimeout {
            server.metrics.timedOut(.write)
            return close()
        }
        if now >= answerTimeout {
            server.metrics.timedOut(.answer)
            return close()
        }
        if now >= blockTimeout {
            blockTimeout = .never
            server.metrics.timedOut(.head)
            session.fail(.slowHead)
        }
        if now >= streamTimeout {
            streamTimeout = .never
            for stream in streams {
                guard let stream else { continue }
                streamTimeout = min(streamTimeout, stream.checkTimeouts(now))
            }
        }
        if now >= stateTimeout { stateTimedOut() }
        guard !stream.isClosed else { return }
        settle()
        flush()
        arm()
    }

    private func stateTimedOut() {
        stateTimeout = .never
        switch state {
        case .open where !session.isEstablished:
            server.metrics.timedOut(.head)
            session.fail(.badPreface)
        case .open:
            server.metrics.timedOut(.keepAlive)
            beginEnd()
        case .announcing: beginEnd()
        case .ending, .lingering:
            server.metrics.timedOut(.linger)
            close()
        case .closed: break
        }
    }

    // MARK: The end

    func drain() {
        guard case .open = state else { return }
        state = .announcing
        session.announceEnd()
        stateTimeout = server.now + server.configuration.http2.drainRoundTripMax
        for stream in streams { stream?.drain() }
        planFlush()
        arm()
    }

    func endIfIdle() {
        // What has arrived is still taken: the client's answer to the PING comes behind it.
        guard session.streamCount == 0, isServing, !stream.hasInput else { return }
        beginEnd()
        planFlush()
        arm()
    }

    /// The second GOAWAY names the last request that is served (RFC 9113 6.8).
    private func beginEnd() {
        guard isServing else { return }
        state = .ending
        stateTimeout = .never
        session.beginEnd()
    }

    /// Shuts our side first when there is nothing left to do.
    /// - Returns: whether a GOAWAY is to be sent before.
    private func endIfDone() -> Bool {
        if session.hasFailed {
            linger()
            return false
        }
        guard session.streamCount == 0 else { return false }
        if case .ending = state {
            linger()
            return false
        }
        guard hasReachedEnd || isClientLeaving else { return false }
        beginEnd()
        return true
    }

    private func linger() {
        switch state {
        case .lingering, .closed: return
        case .open, .announcing, .ending: state = .lingering
        }
        if hasReachedEnd { return close() }
        cutStreams()
        stateTimeout = server.now + server.configuration.lingerTimeout
        streamTimeout = .never
        blockTimeout = .never
        stream.shutdownWrite()
        setReading(true)
        arm()
    }

    func close() {
        guard !stream.isClosed else { return }
        stream.close()
        ended()
    }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        ended()
    }

    private func ended() {
        state = .closed
        stateTimeout = .never
        blockTimeout = .never
        writeTimeout = .never
        answerTimeout = .never
        streamTimeout = .never
        cutStreams()
        server.connectionEnded(self)
    }

    private func cutStreams() {
        for stream in streams { stream?.closed() }
    }
}
