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

    struct Slot {
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
    enum Ending: UInt8 {
        /// Both sides said all they had.
        case complete
        case resetByPeer
        /// The client may not know yet.
        case resetByUs
    }

    /// Where in the input we are.
    enum Scan {
        /// Bytes of the client's preface that are still to come (RFC 9113 3.4).
        case preface(Int)
        case head
        case payload(Int, isGiven: Bool)
    }

    struct FrameHead {
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

    enum Verdict {
        case give
        case skip
        case fail(HTTP2Fault)
    }

    enum FrameType {
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

    enum Flag {
        static let endStream: UInt8 = 1
        static let acknowledgement: UInt8 = 1
        static let endHeaders: UInt8 = 4
    }

    /// Streams that ended last and are remembered by how. Of older ones frames are dropped without a word, as
    /// RFC 9113 5.1 allows for all.
    private static let endedCountMax = 64
    /// Ranges of numbers that the client left out.
    static let gapCountMax = 16
    static let maxFrameBytes = 16_384
    private static let prefaceBytes = 24
    static let drainPing: [UInt8] = Array("hc-drain".utf8)

    let limits: HTTP2Limits
    let common: HTTP1Limits

    /// Nil only while it is being made.
    private var handle: Handle?
    var now: MonotonicTime

    /// What happened, in order. The owner goes through it and empties it.
    package var events: [Event] = []
    /// What is to be sent; the first `sentCount` bytes of it are.
    package internal(set) var output: [UInt8] = []
    package internal(set) var sentCount = 0
    var hasPatchedSettings = false
    /// From how many waiting bytes on nghttp2 is to stop: it would go on from one DATA frame to the next.
    var pullMax = 0

    var slots: [Slot] = []
    private var freeSlots: [Int] = []
    /// Slots in use: the streams that count against the limit.
    package internal(set) var streamCount = 0
    var block: HTTP2HeaderBlock
    var blockSlot: Int?

    // The input.
    var scan = Scan.preface(prefaceBytes)
    var held: [UInt8] = []
    var inputBase: UnsafeRawPointer?
    var hasSeenFrame = false
    var lastStreamID: Int32 = 0
    /// The stream whose field block is not complete.
    var openBlock: Int32?
    var blockBytes = 0
    var continuationCount = 0
    var gaps: [ClosedRange<Int32>] = []
    private var ended: [(streamID: Int32, how: Ending)] = []
    var queuedBeforeSettings = 0

    var resets = HTTP2Budget()
    var settings = HTTP2Budget()
    var pings = HTTP2Budget()
    var windowUpdates = HTTP2Budget()
    var priorities = HTTP2Budget()
    var emptyFrames = HTTP2Budget()
    var unknownFrames = HTTP2Budget()

    /// A rule was broken or a budget spent: nothing more is read, and the GOAWAY is the last thing sent.
    package internal(set) var hasFailed = false
    var hasSubmittedGoaway = false

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

    var session: OpaquePointer {
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

    func patchSettings() {
        hasPatchedSettings = true
        let place = FrameHead.bytes + 2
        let value = UInt32(limits.concurrentStreamsMax)
        for index in 0..<4 {
            output[place + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * (3 - index)))
        }
    }

    /// nghttp2 fails only without memory, or if it is called as it must not be.
    func check(_ result: Int32) {
        precondition(result == 0, "nghttp2: \(String(cString: nghttp2_strerror(result)))")
    }

    // MARK: Slots

    func slot(of streamID: Int32) -> Int? {
        guard let mark = nghttp2_session_get_stream_user_data(session, streamID) else { return nil }
        return Int(bitPattern: mark) - 1
    }

    func open(_ streamID: Int32) -> Int {
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

    func ending(of streamID: Int32) -> Ending? {
        ended.last { $0.streamID == streamID }?.how
    }

    func remember(_ streamID: Int32, _ how: Ending) {
        if ended.count == Self.endedCountMax { ended.removeFirst(Self.endedCountMax / 2) }
        ended.append((streamID, how))
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

    func resetStream(_ slot: Int, _ code: HTTP2ErrorCode) {
        slots[slot].isReset = true
        slots[slot].output = HTTP2Output()
        check(nghttp2_submit_rst_stream(session, 0, slots[slot].streamID, code.rawValue))
        consume(slot)
    }

    /// A client that makes us reset streams is no better than one that resets them itself (CVE-2025-8671).
    func spendReset() {
        if !resets.spend(limits.resets, at: now) { submitFailure(.resetFlood) }
    }

    /// Ends the connection from within a callback: what is queued is sent when nghttp2 has returned.
    func submitFailure(_ fault: HTTP2Fault) {
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
    func giveUp(_ fault: HTTP2Fault) {
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
    package internal(set) var isEstablished = false
}
