internal import CNGHTTP2
package import HCCore

/// The server's side of one HTTP/2 connection (RFC 9113) as a machine around libnghttp2: bytes in, events and
/// bytes out; no I/O, time comes in as `now`.
///
/// nghttp2 does framing, HPACK, flow control and the states of streams. Done here: what it leaves to others (the
/// rules of requests, whose reading it is told to leave alone), what it forgives (frames on streams that are
/// over), and the budgets. For that each frame's head is looked at before nghttp2 sees it.
///
/// A stream has a slot from its HEADERS until `release`: its owner says when nothing of it is used any more.
package final class HTTP2Session {
    package enum Event: Sendable {
        /// A request; `content` and `contentEnd` follow unless it is complete.
        case request(slot: Int, HTTP2Head)
        /// What came is no acceptable request: answer with this error.
        case refused(slot: Int, HTTP1Error, isHead: Bool)
        /// Content, by its place in the input that is being received; never empty. It counts against the
        /// client's window until `consume`.
        case content(slot: Int, Range<Int>)
        case contentEnd(slot: Int, trailers: HTTPHeaders)
        /// The content is larger than is accepted; the rest of it is dropped.
        case contentTooLarge(slot: Int)
        /// So little waits to be sent that the writer may go on.
        case roomToWrite(slot: Int)
        /// The answer is sent and the request is not complete: what comes of it is dropped, and the client's window
        /// stays as it is. `cancel` tells a client that does not stop by itself.
        case answeredEarly(slot: Int)
        /// The stream is over.
        case closed(slot: Int, isResetByClient: Bool)
        case pingAcknowledged
        /// The client will open no further streams.
        case clientLeaves
        case fault(HTTP2Fault)
        case goawaySent
    }

    /// What an answer's content is.
    enum Content {
        case none
        case whole(HTTPResponse.Body)
        /// Comes by `write`, until `finish`.
        case open
    }

    private struct Slot {
        var streamID: Int32 = 0
        /// Whether nghttp2 still has the stream.
        var isOpen = false
        var isInputComplete = false
        /// We have reset it, or are about to.
        var isReset = false
        var isResetByPeer = false
        var isContentDropped = false
        /// END_STREAM of ours is sent.
        var isOutputSent = false
        var isTunnel = false
        var announcedCount: Int?
        var receivedCount = 0
        /// Received and not given back to the client's window.
        var unconsumedCount = 0
        var sentCount = 0
        var output = HTTP2Output()
    }

    /// How a stream ended, for frames that come after.
    private enum Ending: UInt8 {
        /// Both sides said all they had.
        case complete
        case resetByPeer
        /// The client may not know yet.
        case resetByUs
    }

    /// Where in the input we are.
    private enum Scan {
        /// Bytes of the client's preface that are still to come (RFC 9113 3.4).
        case preface(Int)
        case head
        case payload(Int, isGiven: Bool)
    }

    private struct FrameHead {
        let length: Int
        let type: UInt8
        let flags: UInt8
        let streamID: Int32

        static let bytes = 9

        init(_ bytes: UnsafeRawBufferPointer) {
            length = Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2])
            type = bytes[3]
            flags = bytes[4]
            streamID = FrameHead.number(bytes, 5)
        }

        static func number(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int32 {
            Int32(bytes[start] & 0x7F) << 24 | Int32(bytes[start + 1]) << 16
                | Int32(bytes[start + 2]) << 8 | Int32(bytes[start + 3])
        }
    }

    private enum Verdict {
        case give
        case skip
        case fail(HTTP2Fault)
    }

    private enum FrameType {
        static let data: UInt8 = 0
        static let headers: UInt8 = 1
        static let priority: UInt8 = 2
        static let resetStream: UInt8 = 3
        static let settings: UInt8 = 4
        static let pushPromise: UInt8 = 5
        static let ping: UInt8 = 6
        static let goaway: UInt8 = 7
        static let windowUpdate: UInt8 = 8
        static let continuation: UInt8 = 9
        /// RFC 9218 7.1.
        static let priorityUpdate: UInt8 = 16
    }

    private enum Flag {
        static let endStream: UInt8 = 1
        static let acknowledgement: UInt8 = 1
        static let endHeaders: UInt8 = 4
    }

    /// Streams that ended last and are remembered by how. Of older ones frames are dropped without a word, as
    /// RFC 9113 5.1 allows for all.
    private static let endedCountMax = 64
    /// Ranges of numbers that the client left out.
    private static let gapCountMax = 16
    private static let maxFrameBytes = 16_384
    private static let prefaceBytes = 24
    private static let drainPing: [UInt8] = Array("hc-drain".utf8)

    let limits: HTTP2Limits
    private let common: HTTP1Limits

    /// Nil only while it is being made.
    private var handle: Handle?
    private var now: MonotonicTime

    /// What happened, in order. The owner goes through it and empties it.
    package var events: [Event] = []
    /// What is to be sent; the first `sentCount` bytes of it are.
    package private(set) var output: [UInt8] = []
    package private(set) var sentCount = 0
    private var hasPatchedSettings = false
    /// From how many waiting bytes on nghttp2 is to stop: it would go on from one DATA frame to the next.
    private var pullMax = 0

    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    /// Slots in use: the streams that count against the limit.
    package private(set) var streamCount = 0
    private var block: HTTP2HeaderBlock
    private var blockSlot: Int?

    // The input.
    private var scan = Scan.preface(prefaceBytes)
    private var held: [UInt8] = []
    private var inputBase: UnsafeRawPointer?
    private var hasSeenFrame = false
    private var lastStreamID: Int32 = 0
    /// The stream whose field block is not complete.
    private var openBlock: Int32?
    private var blockBytes = 0
    private var continuationCount = 0
    private var gaps: [ClosedRange<Int32>] = []
    private var ended: [(streamID: Int32, how: Ending)] = []
    private var queuedBeforeSettings = 0

    private var resets = HTTP2Budget()
    private var settings = HTTP2Budget()
    private var pings = HTTP2Budget()
    private var windowUpdates = HTTP2Budget()
    private var priorities = HTTP2Budget()
    private var emptyFrames = HTTP2Budget()
    private var unknownFrames = HTTP2Budget()

    /// A rule was broken or a budget spent: nothing more is read, and the GOAWAY is the last thing sent.
    package private(set) var hasFailed = false
    private var hasSubmittedGoaway = false

    package init(limits: HTTP2Limits, common: HTTP1Limits, now: MonotonicTime) {
        self.limits = limits
        self.common = common
        self.now = now
        block = HTTP2HeaderBlock(limits: limits, common: common)
        var session: OpaquePointer?
        let made = nghttp2_session_server_new2(
            &session, HTTP2Library.shared.callbacks, Unmanaged.passUnretained(self).toOpaque(),
            HTTP2Library.shared.options)
        guard made == 0, let session else { preconditionFailure("no memory for a session") }
        handle = Handle(session)
        submitSettings()
    }

    /// The session of nghttp2, freed with its owner (nghttp2_session_del). It keeps a pointer to the owner for
    /// its callbacks, which come only from within calls that the owner makes.
    private struct Handle: ~Copyable {
        let pointer: OpaquePointer

        init(_ pointer: OpaquePointer) {
            self.pointer = pointer
        }

        deinit {
            nghttp2_session_del(pointer)
        }
    }

    private var session: OpaquePointer {
        guard let pointer = handle?.pointer else { preconditionFailure("used before it was made") }
        return pointer
    }

    private func submitSettings() {
        // The number of streams comes first: `patchSettings` knows its place. nghttp2 is told a number that is
        // never reached, for it would end the connection over a stream too many, where RFC 9113 5.1.2 asks to
        // refuse that stream.
        let entries = [
            (NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue, UInt32(Int32.max)),
            (NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue, UInt32(limits.streamWindowBytes)),
            (
                NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue,
                UInt32(limits.headerListBytesMax)
            ),
            (NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL.rawValue, 1),
            (NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES.rawValue, 1),
        ].map { nghttp2_settings_entry(settings_id: Int32($0.0), value: $0.1) }
        check(nghttp2_submit_settings(session, 0, entries, entries.count))
        check(
            nghttp2_session_set_local_window_size(
                session, 0, 0, Int32(limits.connectionWindowBytes)))
        pullControl()
    }

    private func patchSettings() {
        hasPatchedSettings = true
        let place = FrameHead.bytes + 2
        let value = UInt32(limits.concurrentStreamsMax)
        for index in 0..<4 {
            output[place + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * (3 - index)))
        }
    }

    /// nghttp2 fails only without memory, or if it is called as it must not be.
    private func check(_ result: Int32) {
        precondition(result == 0, "nghttp2: \(String(cString: nghttp2_strerror(result)))")
    }

    // MARK: Input

    /// Reads what the client sent. `content` events speak of places in `input`.
    package func receive(_ input: UnsafeRawBufferPointer, at now: MonotonicTime) {
        guard !hasFailed, let base = input.baseAddress else { return }
        self.now = now
        inputBase = base
        defer { inputBase = nil }
        // What comes before `given` is nghttp2's; what comes before `index` was looked at.
        var given = 0
        var index = 0
        while index < input.count, !hasFailed {
            switch scan {
            case .preface(let left):
                let count = min(left, input.count - index)
                index += count
                scan = left == count ? .head : .preface(left - count)
            case .payload(let left, let isGiven):
                let count = min(left, input.count - index)
                index += count
                scan = left == count ? .head : .payload(left - count, isGiven: isGiven)
                // One frame at a time: what is said of the next may depend on it.
                if isGiven, left == count { give(input, given, index) }
                if !isGiven || left == count { given = index }
            case .head: scanHead(input, &index, &given)
            }
        }
        give(input, given, index)
    }

    private func scanHead(
        _ input: UnsafeRawBufferPointer, _ index: inout Int, _ given: inout Int
    ) {
        let rest = input.slice(index..<input.count)
        if held.isEmpty, rest.count >= FrameHead.bytes {
            let wanted = headBytes(rest)
            if rest.count >= wanted {
                let head = FrameHead(rest)
                let verdict = judge(head, rest)
                if case .give = verdict {
                    index += FrameHead.bytes
                    scan = next(head.length, isGiven: true)
                    guard head.length == 0 else { return }
                    give(input, given, index)
                    given = index
                    return
                }
                index += wanted
                given = index
                apply(verdict, head, wanted)
                return
            }
        }
        // A head that is cut: it is kept until it is whole, and nghttp2 has to wait for it too. But for the end of
        // the preface nothing is left to give.
        give(input, given, index)
        while index < input.count, held.count < FrameHead.bytes || held.count < heldWanted {
            held.append(input[index])
            index += 1
        }
        given = index
        guard !hasFailed, held.count >= FrameHead.bytes, held.count >= heldWanted else { return }
        let bytes = held
        held.removeAll(keepingCapacity: true)
        bytes.withUnsafeBytes { bytes in
            let head = FrameHead(bytes)
            let verdict = judge(head, bytes)
            if case .give = verdict {
                give(bytes, 0, bytes.count)
                scan = next(head.length, isGiven: true)
            } else {
                apply(verdict, head, bytes.count)
            }
        }
    }

    private var heldWanted: Int {
        held.count < FrameHead.bytes ? FrameHead.bytes : held.withUnsafeBytes { headBytes($0) }
    }

    /// How many bytes must be there to judge a frame: PRIORITY is judged by its payload, which nghttp2 does not
    /// get to see.
    private func headBytes(_ bytes: UnsafeRawBufferPointer) -> Int {
        let isWholePriority =
            bytes[3] == FrameType.priority && bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 5
            && openBlock == nil && hasSeenFrame
        return isWholePriority ? FrameHead.bytes + 5 : FrameHead.bytes
    }

    private func next(_ length: Int, isGiven: Bool) -> Scan {
        length == 0 ? .head : .payload(length, isGiven: isGiven)
    }

    private func apply(_ verdict: Verdict, _ head: FrameHead, _ seen: Int) {
        switch verdict {
        case .give: break
        case .skip: scan = next(head.length - (seen - FrameHead.bytes), isGiven: false)
        case .fail(let fault): fail(fault)
        }
    }

    private func give(_ input: UnsafeRawBufferPointer, _ start: Int, _ end: Int) {
        guard start < end, !hasFailed, let base = input.baseAddress else { return }
        let bytes = (base + start).assumingMemoryBound(to: UInt8.self)
        let taken = nghttp2_session_mem_recv(session, bytes, end - start)
        if taken < 0 {
            giveUp(
                taken == Int(NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue) ? .badPreface : .internalError)
        } else {
            pullControl()
        }
    }

    // MARK: Judging frames

    private func judge(_ head: FrameHead, _ bytes: UnsafeRawBufferPointer) -> Verdict {
        // The first frame is SETTINGS, and nghttp2 sees to it; so with a frame that is too long.
        guard hasSeenFrame else {
            hasSeenFrame = true
            return .give
        }
        guard head.length <= Self.maxFrameBytes else { return .give }
        if let openBlock { return judgeInsideBlock(head, openBlock) }
        switch head.type {
        case FrameType.headers: return judgeHeaders(head)
        case FrameType.data: return judgeData(head)
        case FrameType.priority: return judgePriority(head, bytes)
        case FrameType.resetStream:
            return resets.spend(limits.resets, at: now) ? .give : .fail(.resetFlood)
        case FrameType.settings:
            if head.flags & Flag.acknowledgement != 0 { return .give }
            return settings.spend(limits.settings, at: now) ? .give : .fail(.settingsFlood)
        case FrameType.ping: return pings.spend(limits.pings, at: now) ? .give : .fail(.pingFlood)
        case FrameType.windowUpdate:
            return windowUpdates.spend(limits.windowUpdates, at: now)
                ? .give : .fail(.windowUpdateFlood)
        case FrameType.goaway:
            return unknownFrames.spend(limits.unknownFrames, at: now)
                ? .give : .fail(.unknownFrameFlood)
        case FrameType.pushPromise, FrameType.continuation: return .give
        case FrameType.priorityUpdate:
            // RFC 9218 2.1: who does not use the signals of priority ignores them.
            return priorities.spend(limits.priorities, at: now) ? .skip : .fail(.priorityFlood)
        default:
            // RFC 9113 5.5: unknown types are ignored.
            return unknownFrames.spend(limits.unknownFrames, at: now)
                ? .skip : .fail(.unknownFrameFlood)
        }
    }

    /// Only CONTINUATION of the same stream may come here; of others nghttp2 says what they are.
    private func judgeInsideBlock(_ head: FrameHead, _ streamID: Int32) -> Verdict {
        guard head.type == FrameType.continuation, head.streamID == streamID else { return .give }
        continuationCount += 1
        blockBytes += head.length
        guard continuationCount <= limits.continuationsMax else { return .fail(.continuationFlood) }
        guard blockBytes <= limits.headerBlockBytesMax else { return .fail(.headerBlockTooLarge) }
        if head.flags & Flag.endHeaders != 0 {
            openBlock = nil
        } else if head.length == 0, !emptyFrames.spend(limits.emptyFrames, at: now) {
            return .fail(.emptyFrameFlood)
        }
        return .give
    }

    private func judgeHeaders(_ head: FrameHead) -> Verdict {
        blockBytes = head.length
        continuationCount = 0
        guard blockBytes <= limits.headerBlockBytesMax else { return .fail(.headerBlockTooLarge) }
        if head.flags & Flag.endHeaders == 0 {
            openBlock = head.streamID
            if head.length == 0, !emptyFrames.spend(limits.emptyFrames, at: now) {
                return .fail(.emptyFrameFlood)
            }
        }
        // A number of the server's own is nghttp2's affair.
        guard head.streamID & 1 == 1 else { return .give }
        if head.streamID > lastStreamID {
            if head.streamID > lastStreamID + 2, gaps.count < Self.gapCountMax {
                gaps.append(lastStreamID + 1...head.streamID - 1)
            }
            lastStreamID = head.streamID
            return .give
        }
        guard slot(of: head.streamID) == nil else { return .give }
        // RFC 9113 5.1.1: numbers that were left out cannot be used any more.
        if gaps.contains(where: { $0.contains(head.streamID) }) { return .fail(.streamNumber) }
        switch ending(of: head.streamID) {
        case .complete: return .fail(.streamClosed)
        case .resetByPeer: return resetClosed(head.streamID)
        case .resetByUs, nil: return .give
        }
    }

    private func judgeData(_ head: FrameHead) -> Verdict {
        if head.length == 0, head.flags & Flag.endStream == 0,
            !emptyFrames.spend(limits.emptyFrames, at: now)
        {
            return .fail(.emptyFrameFlood)
        }
        guard head.streamID & 1 == 1, head.streamID <= lastStreamID,
            slot(of: head.streamID) == nil
        else { return .give }
        // RFC 9113 6.1. nghttp2 counts the bytes against the connection's window and drops them.
        let isUnused = gaps.contains { $0.contains(head.streamID) }
        switch ending(of: head.streamID) {
        case .complete, .resetByPeer: return resetClosed(head.streamID)
        case .resetByUs: return .give
        case nil: return isUnused ? resetClosed(head.streamID) : .give
        }
    }

    private func resetClosed(_ streamID: Int32) -> Verdict {
        guard resets.spend(limits.resets, at: now) else { return .fail(.resetFlood) }
        events.append(.fault(.closedStream))
        check(
            nghttp2_submit_rst_stream(
                session, 0, streamID, HTTP2ErrorCode.streamClosed.rawValue))
        remember(streamID, .resetByUs)
        return .give
    }

    /// PRIORITY has no effect here (RFC 9113 5.3.2), but has a form (6.3). A stream that depends on itself was an
    /// error while dependencies meant something (RFC 7540 5.3.1), and nobody may send it: still one.
    private func judgePriority(_ head: FrameHead, _ bytes: UnsafeRawBufferPointer) -> Verdict {
        guard priorities.spend(limits.priorities, at: now) else { return .fail(.priorityFlood) }
        guard head.length == 5 else { return .fail(.frameSize) }
        guard head.streamID != 0 else { return .fail(.protocolError) }
        let dependency = FrameHead.number(bytes, FrameHead.bytes)
        return dependency == head.streamID ? .fail(.protocolError) : .skip
    }

    // MARK: Slots

    private func slot(of streamID: Int32) -> Int? {
        guard let mark = nghttp2_session_get_stream_user_data(session, streamID) else { return nil }
        return Int(bitPattern: mark) - 1
    }

    private func open(_ streamID: Int32) -> Int {
        let slot = freeSlots.popLast() ?? slots.count
        if slot == slots.count { slots.append(Slot()) }
        slots[slot] = Slot()
        slots[slot].streamID = streamID
        slots[slot].isOpen = true
        streamCount += 1
        check(
            nghttp2_session_set_stream_user_data(
                session, streamID, UnsafeMutableRawPointer(bitPattern: slot + 1)))
        return slot
    }

    /// The owner is through with a stream that is closed. Its place in the count and in the windows is free.
    package func release(_ slot: Int) {
        precondition(slots[slot].streamID != 0, "released twice")
        precondition(hasFailed || !slots[slot].isOpen, "released too early")
        consume(slot)
        slots[slot] = Slot()
        freeSlots.append(slot)
        streamCount -= 1
        if streamCount == 0 {
            block.clear()
            slots = []
            freeSlots = []
        }
        pullControl()
    }

    package func isOpen(_ slot: Int) -> Bool { slots[slot].isOpen }

    /// Numbers of streams that are over, and ranges that were left out.
    var rememberedCount: Int { ended.count + gaps.count }

    private func ending(of streamID: Int32) -> Ending? {
        ended.last { $0.streamID == streamID }?.how
    }

    private func remember(_ streamID: Int32, _ how: Ending) {
        if ended.count == Self.endedCountMax { ended.removeFirst(Self.endedCountMax / 2) }
        ended.append((streamID, how))
    }

    // MARK: What nghttp2 tells

    func beganFrame(_ type: UInt8) {
        if type == FrameType.settings {
            queuedBeforeSettings = nghttp2_session_get_outbound_queue_size(session)
        }
    }

    func beganBlock(_ streamID: Int32, isRequest: Bool) {
        guard isRequest else {
            blockSlot = slot(of: streamID)
            block.begin(trailers: true)
            return
        }
        guard streamCount < limits.concurrentStreamsMax else {
            blockSlot = nil
            events.append(.fault(.tooManyStreams))
            check(
                nghttp2_submit_rst_stream(
                    session, 0, streamID, HTTP2ErrorCode.refusedStream.rawValue))
            spendReset()
            return
        }
        blockSlot = open(streamID)
        block.begin(trailers: false)
    }

    func received(
        name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) {
        guard blockSlot != nil, !hasSubmittedGoaway else { return }
        block.add(name: name, value: value)
        if block.isBomb { submitFailure(.headerBomb) }
    }

    func completedBlock(_ streamID: Int32, endsStream: Bool) {
        guard let slot = blockSlot else { return }
        blockSlot = nil
        guard !hasSubmittedGoaway else { return }
        if block.isTrailers { return completedTrailers(slot, endsStream) }
        slots[slot].isInputComplete = endsStream
        switch block.finish(isComplete: endsStream) {
        case .request(let head):
            slots[slot].announcedCount = head.announcedCount
            slots[slot].isTunnel = head.upgrade != nil
            events.append(.request(slot: slot, head))
        case .refused(let error):
            slots[slot].isContentDropped = true
            events.append(.refused(slot: slot, error, isHead: block.isHead))
        case .malformed: reset(slot, .malformedRequest)
        }
    }

    private func completedTrailers(_ slot: Int, _ endsStream: Bool) {
        // RFC 9113 8.1: trailers end the request, and have no pseudo-header fields.
        guard endsStream, !block.isMalformed, !slots[slot].isTunnel else {
            return reset(slot, .malformedRequest)
        }
        guard !block.areTrailersTooLarge else { return reset(slot, .trailersTooLarge) }
        completedInput(slot, trailers: block.trailers)
    }

    func received(_ streamID: Int32, _ data: UnsafeRawBufferPointer) {
        guard let slot = slot(of: streamID) else {
            check(nghttp2_session_consume_connection(session, data.count))
            return
        }
        slots[slot].unconsumedCount += data.count
        guard !slots[slot].isReset, !slots[slot].isContentDropped, let inputBase,
            let start = data.baseAddress
        else { return consume(slot) }
        if !slots[slot].isTunnel {
            slots[slot].receivedCount += data.count
            let count = slots[slot].receivedCount
            if let announced = slots[slot].announcedCount, count > announced {
                return reset(slot, .contentLengthMismatch)
            }
            guard count <= common.bodyBytesMax else {
                slots[slot].isContentDropped = true
                events.append(.contentTooLarge(slot: slot))
                return consume(slot)
            }
        }
        let place = start - inputBase
        events.append(.content(slot: slot, place..<place + data.count))
    }

    func endedData(_ streamID: Int32) {
        guard let slot = slot(of: streamID) else { return }
        completedInput(slot)
    }

    private func completedInput(_ slot: Int, trailers: HTTPHeaders = HTTPHeaders()) {
        slots[slot].isInputComplete = true
        guard !slots[slot].isReset, !slots[slot].isContentDropped else { return }
        if let announced = slots[slot].announcedCount, slots[slot].receivedCount != announced {
            return reset(slot, .contentLengthMismatch)
        }
        events.append(.contentEnd(slot: slot, trailers: trailers))
    }

    func receivedReset(_ streamID: Int32) {
        if let slot = slot(of: streamID) { slots[slot].isResetByPeer = true }
    }

    func receivedSettings(isAcknowledgement: Bool) {
        isEstablished = true
        guard !isAcknowledgement else { return }
        // The acknowledgement is one. More than that are streams that nghttp2 resets because the new window
        // is too large for them: an error of the connection (RFC 9113 6.9.2).
        if nghttp2_session_get_outbound_queue_size(session) > queuedBeforeSettings + 1 {
            submitFailure(.flowControl)
        }
    }

    func receivedPing(isAcknowledgement: Bool, _ opaque: UInt64) {
        let mine = Self.drainPing.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        if isAcknowledgement, opaque == mine { events.append(.pingAcknowledged) }
    }

    func receivedGoaway() {
        events.append(.clientLeaves)
    }

    func closed(_ streamID: Int32) {
        guard let slot = slot(of: streamID) else { return remember(streamID, .resetByUs) }
        slots[slot].isOpen = false
        slots[slot].output = HTTP2Output()
        remember(
            streamID,
            slots[slot].isResetByPeer
                ? .resetByPeer : slots[slot].isReset ? .resetByUs : .complete)
        events.append(.closed(slot: slot, isResetByClient: slots[slot].isResetByPeer))
    }

    func sent(type: UInt8, streamID: Int32, flags: UInt8, code: UInt32) {
        switch type {
        case FrameType.data, FrameType.headers:
            guard flags & Flag.endStream != 0, let slot = slot(of: streamID) else { return }
            slots[slot].isOutputSent = true
            refuseRest(slot)
        case FrameType.resetStream:
            guard let slot = slot(of: streamID), !slots[slot].isReset else { return }
            // nghttp2's own: a window of this stream overflowed.
            slots[slot].isReset = true
            events.append(.fault(.streamFlowControl))
            spendReset()
        case FrameType.goaway:
            events.append(.goawaySent)
            guard code != HTTP2ErrorCode.noError.rawValue, !hasFailed else { return }
            hasFailed = true
            if !hasSubmittedGoaway {
                events.append(.fault(HTTP2Fault(connectionError: code)))
            }
        default: break
        }
    }

    /// The answer is complete and the request is not: its rest is not wanted (RFC 9113 8.1). A tunnel goes on in
    /// the other direction.
    ///
    /// The stream is not reset at once: clients that are still sending have been seen to take that for a failure
    /// and to throw the answer away.
    private func refuseRest(_ slot: Int) {
        guard slots[slot].isOutputSent, !slots[slot].isInputComplete, !slots[slot].isTunnel,
            !slots[slot].isReset
        else { return }
        slots[slot].isContentDropped = true
        consume(slot)
        events.append(.answeredEarly(slot: slot))
    }

    /// Nobody reads what comes on a tunnel any more: it ends when what we have to say is sent.
    func abandonInput(_ slot: Int) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        slots[slot].isContentDropped = true
        slots[slot].isTunnel = false
        consume(slot)
        refuseRest(slot)
        pullControl()
    }

    func notSent(type: UInt8, streamID: Int32) {
        guard type == FrameType.headers, let slot = slot(of: streamID), !slots[slot].isReset else {
            return
        }
        reset(slot, .answerTooLarge)
    }

    // MARK: Faults

    /// Ends a stream that broke a rule, or whose answer cannot be finished. `closed` follows.
    package func reset(_ slot: Int, _ fault: HTTP2Fault) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        events.append(.fault(fault))
        resetStream(slot, fault.code)
        if fault != .writerFailed && fault != .answerTooLarge { spendReset() }
    }

    /// Ends a stream without blaming anybody. `closed` follows.
    package func cancel(_ slot: Int, _ code: HTTP2ErrorCode) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        resetStream(slot, code)
        pullControl()
    }

    private func resetStream(_ slot: Int, _ code: HTTP2ErrorCode) {
        slots[slot].isReset = true
        slots[slot].output = HTTP2Output()
        check(nghttp2_submit_rst_stream(session, 0, slots[slot].streamID, code.rawValue))
        consume(slot)
    }

    /// A client that makes us reset streams is no better than one that resets them itself (CVE-2025-8671).
    private func spendReset() {
        if !resets.spend(limits.resets, at: now) { submitFailure(.resetFlood) }
    }

    /// Ends the connection from within a callback: what is queued is sent when nghttp2 has returned.
    private func submitFailure(_ fault: HTTP2Fault) {
        guard !hasSubmittedGoaway else { return }
        hasSubmittedGoaway = true
        events.append(.fault(fault))
        check(nghttp2_session_terminate_session(session, fault.code.rawValue))
    }

    package func fail(_ fault: HTTP2Fault) {
        guard !hasFailed else { return }
        submitFailure(fault)
        pullControl()
        hasFailed = true
    }

    /// nghttp2 has given up and may not be asked for anything: the GOAWAY is written by hand.
    private func giveUp(_ fault: HTTP2Fault) {
        hasFailed = true
        events.append(.fault(fault))
        events.append(.goawaySent)
        let numbers = [UInt32(bitPattern: lastStreamID), fault.code.rawValue]
        output.append(contentsOf: [0, 0, 8, FrameType.goaway, 0, 0, 0, 0, 0])
        for number in numbers {
            for shift in [24, 16, 8, 0] {
                output.append(UInt8(truncatingIfNeeded: number >> UInt32(shift)))
            }
        }
    }

    // MARK: Flow control

    /// The content that was received so far has been taken: the client may send as much again.
    package func consume(_ slot: Int) {
        let count = slots[slot].unconsumedCount
        guard count > 0, !hasFailed else { return }
        slots[slot].unconsumedCount = 0
        if slots[slot].isOpen, !slots[slot].isReset, !slots[slot].isContentDropped {
            check(nghttp2_session_consume(session, slots[slot].streamID, count))
        } else {
            check(nghttp2_session_consume_connection(session, count))
        }
    }

    package func consume(_ slot: Int, _ count: Int) {
        let count = min(count, slots[slot].unconsumedCount)
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset, !hasFailed else {
            return consume(slot)
        }
        guard count > 0 else { return }
        slots[slot].unconsumedCount -= count
        check(nghttp2_session_consume(session, slots[slot].streamID, count))
    }

    // MARK: Answers

    /// Sends 100 (Continue).
    func answerContinue(_ slot: Int, _ list: HTTP2FieldList) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        list.withInterim(100) { fields, count in
            let result = nghttp2_submit_headers(
                session, 0, slots[slot].streamID, nil, fields, count, nil)
            precondition(result >= 0, "nghttp2_submit_headers: \(result)")
            pullControl()
        }
    }

    /// Sends the head of an answer, and its content unless that is `open`.
    ///
    /// - Precondition: the stream is open and was not answered.
    func answer(
        _ slot: Int, _ response: HTTPResponse, status: Int, content: Content, length: Int?,
        id: RequestID?, date: [UInt8], common: HTTPHeaders, _ list: HTTP2FieldList
    ) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        var hasContent = true
        var trailers: [HTTPFieldName] = []
        switch content {
        case .none: hasContent = false
        case .whole(let body): slots[slot].output.set(body)
        case .open:
            slots[slot].output.isComplete = false
            if case .stream(let stream) = response.body { trailers = stream.trailers }
        }
        list.withFields(
            of: response, status: status, length: length, id: id, date: date, common: common,
            trailers: trailers
        ) { fields, count in
            // nghttp2 keeps a pointer to the fields until they are encoded: `pullControl` sees to that before
            // they go away.
            if hasContent {
                var provider = nghttp2_data_provider(
                    source: nghttp2_data_source(fd: Int32(slot)), read_callback: readHTTP2Content)
                check(
                    nghttp2_submit_response(
                        session, slots[slot].streamID, fields, count, &provider))
            } else {
                check(nghttp2_submit_response(session, slots[slot].streamID, fields, count, nil))
            }
            pullControl()
        }
    }

    /// Adds to the content of an open answer.
    package func write(_ slot: Int, _ bytes: [UInt8]) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset, !bytes.isEmpty else { return }
        slots[slot].output.append(bytes)
        resume(slot)
    }

    package func write(_ slot: Int, _ bytes: UnsafeRawBufferPointer) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset, !bytes.isEmpty else { return }
        slots[slot].output.append(bytes)
        resume(slot)
    }

    /// Ends the content of an open answer. With trailers, they are what ends the stream (RFC 9113 8.1).
    package func finish(_ slot: Int, trailers: HTTPHeaders = HTTPHeaders()) {
        guard !hasFailed, slots[slot].isOpen, !slots[slot].isReset else { return }
        slots[slot].output.isComplete = true
        slots[slot].output.trailers = trailers
        resume(slot)
    }

    /// Bytes of an answer that wait to be sent.
    package func waitingCount(_ slot: Int) -> Int { slots[slot].output.count }

    /// Bytes of an answer that went into frames.
    package func sentContentCount(_ slot: Int) -> Int { slots[slot].sentCount }

    private func resume(_ slot: Int) {
        guard slots[slot].output.isDeferred, !hasFailed else { return }
        slots[slot].output.isDeferred = false
        check(nghttp2_session_resume_data(session, slots[slot].streamID))
    }

    /// nghttp2 asks how much of a content goes into the next DATA frame.
    func plan(_ slot: Int, upTo max: Int) -> (count: Int, isLast: Bool, isFollowed: Bool)? {
        let count = min(max, slots[slot].output.count)
        if count == 0, !slots[slot].output.isComplete {
            slots[slot].output.isDeferred = true
            return nil
        }
        let isLast = slots[slot].output.isComplete && count == slots[slot].output.count
        return (count, isLast, isLast && submitTrailers(slot))
    }

    /// To be called while nghttp2 asks for the last content, as it wants it (nghttp2_submit_trailer). It copies the
    /// fields.
    /// - Returns: whether there are any.
    private func submitTrailers(_ slot: Int) -> Bool {
        let trailers = slots[slot].output.trailers
        guard !trailers.isEmpty else { return false }
        slots[slot].output.trailers = HTTPHeaders()
        HTTP2FieldList().withTrailers(trailers) { fields, count in
            check(nghttp2_submit_trailer(session, slots[slot].streamID, fields, count))
        }
        return true
    }

    /// nghttp2 has made the head of a DATA frame.
    /// - Returns: whether nghttp2 may go on with further frames.
    func writeFrame(_ slot: Int, _ head: UnsafeRawBufferPointer, _ count: Int) -> Bool {
        output.append(contentsOf: head)
        let before = slots[slot].output.count
        slots[slot].output.move(count, to: &output)
        slots[slot].sentCount += count
        windowUpdates.earn(limits.windowUpdatesPerDataFrame, limits.windowUpdates)
        let mark = limits.streamOutputBytesMax / 2
        if !slots[slot].output.isComplete, before > mark, before - count <= mark {
            events.append(.roomToWrite(slot: slot))
        }
        return pendingCount < pullMax
    }

    // MARK: Output

    /// Bytes that are to be sent.
    package var pendingCount: Int { output.count - sentCount }

    /// Whether something is to be sent that is not in `output` yet.
    private var hasControlFrames: Bool { nghttp2_session_get_outbound_queue_size(session) > 0 }

    /// Takes over all frames but DATA: nghttp2 gives them first, so it never keeps any, and what waits is seen
    /// in `pendingCount`.
    private func pullControl() {
        guard !hasFailed else { return }
        pullMax = 0
        while hasControlFrames, !hasFailed, pullFrame() {}
    }

    /// Takes over frames while fewer than `bytesMax` bytes wait.
    package func pull(upTo bytesMax: Int) {
        guard !hasFailed else { return }
        pullControl()
        pullMax = bytesMax
        while pendingCount < bytesMax, !hasFailed, pullFrame() {}
    }

    /// - Returns: false if there is none for now.
    private func pullFrame() -> Bool {
        let before = output.count
        var bytes: UnsafePointer<UInt8>?
        let count = nghttp2_session_mem_send(session, &bytes)
        precondition(count >= 0, "nghttp2_session_mem_send: \(count)")
        guard count > 0, let bytes else { return output.count > before }
        output.append(contentsOf: UnsafeBufferPointer(start: bytes, count: count))
        if !hasPatchedSettings { patchSettings() }
        return true
    }

    /// So many bytes of `output` are sent.
    package func sent(_ count: Int) {
        sentCount += count
        if sentCount == output.count {
            output.removeAll(keepingCapacity: true)
            sentCount = 0
        }
    }

    /// Takes a buffer to write into, or gives it back: then all memory that only requests need is let go of.
    func exchangeOutput(_ buffer: inout [UInt8]) {
        precondition(output.isEmpty, "output that would be lost")
        swap(&output, &buffer)
        if streamCount == 0, events.isEmpty { events = [] }
    }

    // MARK: The end

    /// Announces that the connection will end (RFC 9113 6.8): streams are still accepted. A PING follows, whose
    /// answer tells that the client knows.
    package func announceEnd() {
        guard !hasFailed else { return }
        check(nghttp2_submit_shutdown_notice(session))
        // nghttp2 would send the PING first.
        pullControl()
        check(nghttp2_submit_ping(session, 0, Self.drainPing))
        pullControl()
    }

    /// Accepts no further streams. Those in progress are finished.
    package func beginEnd() {
        guard !hasFailed else { return }
        let last = nghttp2_session_get_last_proc_stream_id(session)
        check(nghttp2_submit_goaway(session, 0, last, 0, nil, 0))
        pullControl()
    }

    /// Whether a field block has begun and is not complete.
    package var isInBlock: Bool { openBlock != nil }

    /// Whether the connection preface is complete (RFC 9113 3.4).
    package private(set) var isEstablished = false
}
