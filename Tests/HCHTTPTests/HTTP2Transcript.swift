import HCCore

@testable import HCHTTP

/// What a session makes of bytes, without sockets.
struct HTTP2Transcript: CustomStringConvertible {
    private(set) var events: [String] = []
    private(set) var faults: [HTTP2Fault] = []
    private(set) var frames: [Frame] = []
    private(set) var heads: [HTTP2Head] = []
    private(set) var refusals: [HTTP1Error] = []
    private(set) var hasFailed = false
    private(set) var contents: [Int: [UInt8]] = [:]

    var description: String { "\(events) \(faults) \(frames)" }

    /// Of the GOAWAY that ended the connection; nil if none did.
    var goaway: HTTP2ErrorCode? {
        frames.last { $0.type == 7 && $0.goawayCode != 0 }
            .flatMap { HTTP2ErrorCode(rawValue: $0.goawayCode) }
    }

    func reset(_ stream: UInt32) -> HTTP2ErrorCode? {
        frames.first { $0.type == 3 && $0.stream == stream }
            .flatMap { HTTP2ErrorCode(rawValue: $0.resetCode) }
    }

    /// - Parameters:
    ///   - answers: whether each request is answered 200 without content when it is complete.
    ///   - cuts: where the bytes are cut.
    init(
        _ builder: FrameBuilder, limits: HTTP2Limits = HTTP2Limits(),
        common: HTTP1Limits = HTTP1Limits(), answers: Bool = false, cuts: [Int] = [],
        consumes: Bool = true
    ) {
        let driver = HTTP2Driver(limits: limits, common: common)
        driver.answers = answers
        driver.consumes = consumes
        var start = 0
        for cut in cuts.sorted() + [builder.bytes.count] where cut > start {
            driver.send(Array(builder.bytes[start..<cut]))
            start = cut
        }
        self = driver.transcript
    }

    init() {}

    fileprivate mutating func note(_ event: HTTP2Session.Event, _ input: [UInt8]) {
        switch event {
        case .request(_, let head):
            heads.append(head)
            events.append("\(head.method.name) \(head.host) \(head.target.path)")
        case .refused(_, let error, _):
            refusals.append(error)
            events.append("refused \(error.rawValue)")
        case .content(let slot, let range): contents[slot, default: []] += input[range]
        case .contentEnd: events.append("end")
        case .contentTooLarge: events.append("too large")
        case .closed(_, let byClient): events.append(byClient ? "reset by client" : "closed")
        case .pingAcknowledged: events.append("ping acknowledged")
        case .clientLeaves: events.append("client leaves")
        case .fault(let fault): faults.append(fault)
        case .answeredEarly: events.append("answered early")
        case .roomToWrite, .goawaySent: break
        }
    }

    fileprivate mutating func note(_ session: HTTP2Session, _ output: [UInt8]) {
        hasFailed = session.hasFailed
        frames = Frame.parse(output)
    }
}

/// Drives a session as a connection does, one piece of input after the other.
final class HTTP2Driver {
    let session: HTTP2Session
    private(set) var transcript = HTTP2Transcript()
    private(set) var output: [UInt8] = []
    var answers = false
    var consumes = true
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    private let fields = HTTP2FieldList()
    private var isSettling = false
    private(set) var openSlots: Set<Int> = []

    init(limits: HTTP2Limits = HTTP2Limits(), common: HTTP1Limits = HTTP1Limits()) {
        session = HTTP2Session(limits: limits, common: common, now: now)
        settle([])
    }

    func send(_ builder: FrameBuilder) { send(builder.bytes) }

    func send(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { session.receive($0, at: now) }
        settle(bytes)
    }

    func answer(_ slot: Int, _ response: HTTPResponse = HTTPResponse(.ok)) {
        var content = HTTP2Session.Content.whole(response.body)
        if response.body.count == 0 { content = .none }
        if case .stream = response.body { content = .open }
        session.answer(
            slot, response, status: response.status.code, content: content,
            length: response.body.count, id: nil, date: DateLine(.epoch), common: HTTPHeaders(),
            fields)
        settle([])
    }

    func settle(_ input: [UInt8], upTo bytesMax: Int = .max) {
        guard !isSettling else { return }
        isSettling = true
        defer { isSettling = false }
        repeat {
            goThrough(input, bytesMax)
            session.pull(upTo: bytesMax)
            output += session.output[session.sentCount...]
            session.sent(session.pendingCount)
        } while !session.events.isEmpty
        transcript.note(session, output)
    }

    private func goThrough(_ input: [UInt8], _ bytesMax: Int) {
        var index = 0
        while index < session.events.count {
            let event = session.events[index]
            index += 1
            transcript.note(event, input)
            switch event {
            case .request(let slot, let head):
                openSlots.insert(slot)
                if answers, head.isComplete, session.isOpen(slot) { answer(slot) }
            case .refused(let slot, _, _):
                openSlots.insert(slot)
                if answers, session.isOpen(slot) { answer(slot, HTTPResponse(.badRequest)) }
            case .content(let slot, _): if consumes { session.consume(slot) }
            case .contentEnd(let slot, _): if answers, session.isOpen(slot) { answer(slot) }
            case .closed(let slot, _):
                openSlots.remove(slot)
                session.release(slot)
            default: break
            }
        }
        session.events = []
    }
}
