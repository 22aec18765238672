import HCCore
import HCHTTP

/// What must hold for any bytes whatsoever.
enum HTTP2FuzzHarness {
    private struct Outcome: Equatable {
        /// What was said of each stream, in words.
        var streams: [Int: [UInt8]] = [:]
        /// What was said of the connection.
        var connection: [UInt8] = []
        var content: [Int: [UInt8]] = [:]
        var hasFailed = false

        /// Of a stream or a connection that was broken off, how much of the last frame was given on is a matter of
        /// how the bytes came.
        static func == (left: Outcome, right: Outcome) -> Bool {
            guard left.streams == right.streams, left.connection == right.connection,
                left.hasFailed == right.hasFailed
            else { return false }
            return left.hasFailed
                || left.content.allSatisfy { slot, content in
                    let said = String(decoding: left.streams[slot, default: []], as: UTF8.self)
                    return said.contains("closed") || said.contains("too large")
                        || right.content[slot] == content
                }
        }
    }

    /// Small limits, so that a small input reaches them.
    private static let limits: HTTP2Limits = {
        var limits = HTTP2Limits()
        limits.concurrentStreamsMax = 64
        limits.headerListBytesMax = 1024
        limits.headerCountMax = 12
        limits.headerBombBytesMax = 8192
        limits.headerBlockBytesMax = 1024
        limits.continuationsMax = 4
        limits.streamWindowBytes = 512
        limits.resets = HTTP2Limits.Rate(burst: 6, perSecond: 1)
        limits.settings = HTTP2Limits.Rate(burst: 4, perSecond: 1)
        limits.pings = HTTP2Limits.Rate(burst: 6, perSecond: 1)
        limits.windowUpdates = HTTP2Limits.Rate(burst: 10, perSecond: 1)
        limits.priorities = HTTP2Limits.Rate(burst: 6, perSecond: 1)
        limits.emptyFrames = HTTP2Limits.Rate(burst: 4, perSecond: 1)
        limits.unknownFrames = HTTP2Limits.Rate(burst: 4, perSecond: 1)
        return limits
    }()

    private static let common: HTTP1Limits = {
        var limits = HTTP1Limits()
        limits.requestLineBytesMax = 128
        limits.pathSegmentBytesMax = 32
        limits.bodyBytesMax = 1024
        limits.trailerBytesMax = 128
        limits.trailerCountMax = 4
        return limits
    }()

    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    private static let emptySettings: [UInt8] = [0, 0, 0, 4, 0, 0, 0, 0, 0]

    /// - Precondition: what is said about the session is true; else the process ends here.
    static func check(_ bytes: [UInt8], seed: UInt64, withPreface: Bool) {
        var random = Cuts(state: seed)
        let input = withPreface ? preface + emptySettings + bytes : bytes
        let whole = run(input, pieces: { input.count })
        let bytewise = run(input, pieces: { 1 })
        let cut = run(
            input, pieces: { Int.random(in: 1...max(1, input.count / 3), using: &random) })
        precondition(whole == bytewise, "fed byte by byte, the result is another")
        precondition(whole == cut, "fed in pieces, the result is another")
    }

    private static func run(_ bytes: [UInt8], pieces: () -> Int) -> Outcome {
        let session = HTTP2Session(
            limits: limits, common: common, now: MonotonicTime(nanoseconds: 1_000_000_000))
        var outcome = Outcome()
        var open: Set<Int> = []
        var released: [Int] = []
        var unconsumed = 0
        var position = 0
        while position < bytes.count {
            let piece = Array(bytes[position..<min(bytes.count, position + pieces())])
            position += piece.count
            piece.withUnsafeBytes {
                session.receive($0, at: MonotonicTime(nanoseconds: 1_000_000_000))
            }
            for event in session.events {
                note(event, piece, &outcome, &open, &released, &unconsumed)
            }
            session.events = []
            precondition(unconsumed <= 65_535 + limits.connectionWindowBytes, "too much content")
            precondition(session.streamCount <= limits.concurrentStreamsMax, "too many streams")
            session.pull(upTo: 1 << 20)
            precondition(session.pendingCount < 1 << 17, "more output than a small input causes")
            session.sent(session.pendingCount)
        }
        outcome.hasFailed = session.hasFailed
        // Only now, so that what is said of a stream does not depend on when its answer came.
        for slot in released { session.release(slot) }
        precondition(session.streamCount >= open.count || session.hasFailed, "streams were lost")
        for slot in open { session.cancel(slot, .cancel) }
        session.pull(upTo: 1 << 20)
        for event in session.events {
            if case .closed(let slot, _) = event { session.release(slot) }
        }
        session.events = []
        precondition(session.hasFailed || session.streamCount <= 64, "slots do not come back")
        return outcome
    }

    private static func note(
        _ event: HTTP2Session.Event, _ piece: [UInt8], _ outcome: inout Outcome,
        _ open: inout Set<Int>, _ released: inout [Int], _ unconsumed: inout Int
    ) {
        func say(_ slot: Int, _ text: String) {
            outcome.streams[slot, default: []].append(contentsOf: text.utf8)
        }
        func say(_ text: String) { outcome.connection.append(contentsOf: text.utf8) }
        switch event {
        case .request(let slot, let head):
            open.insert(slot)
            say(slot, "\(head.method) \(head.host) ")
            for segment in head.target.segments {
                precondition(segment != "." && segment != "..", "a dot segment")
                precondition(!segment.utf8.contains(0), "a NUL in a path")
                say(slot, segment + "/")
            }
            for (name, value) in head.headers.pairs {
                precondition(HTTPFieldName(name) != nil, "a field without a proper name")
                precondition(name == name.lowercased(), "a name in upper case")
                say(slot, "\(name):\(value)\n")
            }
            precondition(head.headers.count(of: .cookie) <= 1, "two cookies")
            precondition(!head.headers.contains(.connection), "a field of HTTP/1")
        case .refused(let slot, let error, _):
            open.insert(slot)
            say(slot, "refused \(error.rawValue)")
        case .content(let slot, let range):
            precondition(range.upperBound <= piece.count, "content beyond the input")
            outcome.content[slot, default: []] += piece[range]
            unconsumed += range.count
            precondition(
                outcome.content[slot, default: []].count <= 65_535, "content above the window")
        case .contentEnd(let slot, _): say(slot, "end")
        case .contentTooLarge(let slot): say(slot, "too large")
        case .closed(let slot, let isReset):
            open.remove(slot)
            released.append(slot)
            say(slot, "closed \(isReset)")
        case .pingAcknowledged: say("ping")
        case .clientLeaves: say("leaves")
        case .fault(let fault): say(fault.rawValue)
        case .roomToWrite, .answeredEarly, .goawaySent: break
        }
    }
}

/// SplitMix64: the same cuts for the same input.
private struct Cuts: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
