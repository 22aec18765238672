import Testing

@testable import HCHTTP

@Suite("HTTP/1 connection machine")
struct HTTP1ConnectionMachineTests {
    /// Runs the machine on text and notes what it says.
    private struct Run: ~Copyable {
        var machine: HTTP1ConnectionMachine
        var rest: [UInt8] = []

        init(discard: Int = 100) {
            machine = HTTP1ConnectionMachine(limits: HTTP1Limits(), discardBytesMax: discard)
        }

        mutating func feed(_ text: String) -> [String] {
            rest.append(contentsOf: text.utf8)
            var said: [String] = []
            var consumed = 0
            let input = rest
            input.withUnsafeBytes { bytes in
                while true {
                    let action = machine.next(bytes, consumed: &consumed)
                    switch action {
                    case .needMore: said.append("more")
                    case .pause: said.append("pause")
                    case .request(let head): said.append("request \(head.target.path)")
                    case .content(let range): said.append("content \(range.count)")
                    case .contentEnd: said.append("end")
                    case .refuse(let error): said.append("refuse \(error.rawValue)")
                    case .failContent(let error): said.append("fail \(error.rawValue)")
                    case .discarded: said.append("discarded")
                    case .drop: said.append("drop")
                    case .close: said.append("close")
                    }
                    switch action {
                    case .request, .content, .contentEnd, .discarded: continue
                    case .drop where consumed < bytes.count: continue
                    case .drop where !machine.isLingering: continue
                    default: return
                    }
                }
            }
            rest.removeFirst(consumed)
            return said
        }

        mutating func answer(_ status: HTTPStatus = .ok, count: Int? = 1)
            -> HTTP1ConnectionMachine.AnswerPlan
        {
            machine.answer(status, count: count)
        }
    }

    private static func get(_ path: String, _ fields: String = "") -> String {
        "GET \(path) HTTP/1.1\r\nHost: a\r\n\(fields)\r\n"
    }

    private static func post(_ count: Int, _ fields: String = "") -> String {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(count)\r\n\(fields)\r\n"
    }

    @Test("the next request is not looked at before the answer has ended")
    func order() {
        var run = Run()
        #expect(run.feed(Self.get("/1") + Self.get("/2")) == ["request /1", "end", "pause"])
        #expect(run.answer().connectionField == .none)
        #expect(run.feed("") == ["pause"])
        #expect(run.machine.answerEnded() == .waiting)
        #expect(run.feed("") == ["request /2", "end", "pause"])
    }

    @Test("close is heard as one of several tokens in any case, and ends the connection")
    func close() {
        for fields in ["Connection: close\r\n", "Connection: TE, Close\r\n"] {
            var run = Run()
            _ = run.feed(Self.get("/", fields))
            #expect(run.answer().connectionField == .close)
            #expect(run.machine.answerEnded() == .linger)
            #expect(run.feed(Self.get("/2")) == ["drop"])
        }
    }

    @Test("content that nobody read is discarded if it is small, and ends the connection if not")
    func unread() {
        var small = Run()
        #expect(small.feed(Self.post(50)) == ["request /", "more"])
        #expect(small.answer().connectionField == .none)
        #expect(small.machine.answerEnded() == .discarding)
        let rest = String(repeating: "x", count: 50)
        #expect(
            small.feed(rest + Self.get("/2")) == [
                "drop", "discarded", "request /2", "end", "pause",
            ])

        var large = Run()
        #expect(large.feed(Self.post(500)) == ["request /", "more"])
        #expect(large.answer().connectionField == .close)
        #expect(large.machine.answerEnded() == .linger)

        var chunked = Run()
        _ = chunked.feed("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        #expect(chunked.answer().connectionField == .close)
    }

    @Test("100 is due once, and an answer without it ends the connection")
    func expectation() {
        var run = Run()
        _ = run.feed(Self.post(3, "Expect: 100-continue\r\n"))
        let first = run.machine.contentIsWanted()
        let second = run.machine.contentIsWanted()
        #expect(first && !second)
        #expect(run.feed("abc") == ["content 3", "end", "pause"])
        #expect(run.answer().connectionField == .none)

        var refused = Run()
        _ = refused.feed(Self.post(3, "Expect: 100-continue\r\n"))
        #expect(refused.answer(.forbidden).connectionField == .close)

        var eager = Run()
        _ = eager.feed(Self.post(3, "Expect: 100-continue\r\n") + "ab")
        let isDue = eager.machine.contentIsWanted()
        #expect(!isDue)
    }

    @Test("answers are framed by status, method, version and what is known of the length")
    func framing() {
        func plan(_ request: String, _ status: HTTPStatus, _ count: Int?)
            -> HTTP1ConnectionMachine.AnswerPlan
        {
            var run = Run()
            _ = run.feed(request)
            return run.answer(status, count: count)
        }
        let get = Self.get("/")
        let head = get.replacing("GET", with: "HEAD")
        let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        #expect(plan(get, .ok, 5).framing == .length(5))
        #expect(plan(get, .ok, nil).framing == .chunked)
        #expect(plan(get, .noContent, 5).framing == .none)
        #expect(plan(get, .notModified, 5).framing == .none)
        #expect(plan(head, .ok, 5).framing == .length(5))
        #expect(!plan(head, .ok, 5).sendsContent)
        #expect(plan(old, .ok, 5).connectionField == .keepAlive)
        #expect(plan(old, .ok, nil).framing == .untilClose)
        #expect(plan(old, .ok, nil).connectionField == .close)
    }

    @Test("a broken content is told to the handler while it runs, and nothing after it is read")
    func brokenContent() {
        var run = Run()
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        #expect(
            run.feed(head + "1\r\na\r\nzz\r\n") == ["request /", "content 1", "fail invalid-chunk"])
        #expect(run.answer(.badRequest).connectionField == .close)
        #expect(run.machine.answerEnded() == .linger)
    }

    @Test("a violation is refused and ends the connection")
    func refusal() {
        var run = Run()
        #expect(run.feed("GET / HTTP/1.1\r\n\r\n") == ["refuse missing-host"])
        #expect(run.answer(.badRequest).connectionField == .close)
        #expect(run.machine.answerEnded() == .linger)
        #expect(run.feed(Self.get("/")) == ["drop"])
    }

    @Test("the end of input: idle closes, a request in progress is still answered")
    func endOfInput() {
        let idle = Run()
        guard case .close = idle.machine.inputEnded() else {
            Issue.record("an idle connection closes")
            return
        }
        var busy = Run()
        _ = busy.feed(Self.get("/"))
        guard case .pause = busy.machine.inputEnded() else {
            Issue.record("a request that is complete goes on")
            return
        }
        _ = busy.answer()
        #expect(busy.machine.answerEnded() == .waiting)
        #expect(busy.feed("") == ["close"])

        var short = Run()
        _ = short.feed(Self.post(3) + "a")
        guard case .failContent(.incompleteContent) = short.machine.inputEnded() else {
            Issue.record("a content that ends early is broken")
            return
        }
    }

    @Test("a draining connection answers once more and says so")
    func drain() {
        var run = Run()
        run.machine.drain()
        _ = run.feed(Self.get("/"))
        #expect(run.answer().connectionField == .close)
        #expect(run.machine.answerEnded() == .linger)
        let idle = Run()
        let ended = idle.machine.lingerIfIdle()
        #expect(ended && idle.machine.isLingering)
        var partial = Run()
        _ = partial.feed("GET / HT")
        let endedPartial = partial.machine.lingerIfIdle()
        #expect(!endedPartial && partial.machine.isInHead)
    }
}
