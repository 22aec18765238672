import HCCore
import Testing

@testable import HCHTTP

/// What becomes of a request's fields: the same as over HTTP/1.1, and the same refusals.
@Suite("HTTP/2 requests")
struct HTTP2RequestTests {
    private func transcript(_ fields: [(String, String)], ends: Bool = true) -> HTTP2Transcript {
        var builder = FrameBuilder.opening
        builder.headers(1, fields, ends: ends)
        return HTTP2Transcript(builder)
    }

    private func fields(
        _ method: String = "GET", _ path: String = "/", authority: String? = "a.example",
        scheme: String = "https", _ more: [(String, String)] = []
    ) -> [(String, String)] {
        [(":method", method), (":scheme", scheme), (":path", path)]
            + (authority.map { [(":authority", $0)] } ?? []) + more
    }

    @Test("a request is what its fields say")
    func request() throws {
        let head = try #require(
            transcript(
                fields(
                    "POST", "/v1/patients/a%20b?familyName=M%C3%BCller&limit=5",
                    authority: "Sunrise.Example:8443",
                    [
                        ("accept", "application/json"), ("x-one", "1"), ("x-two", ""),
                        ("content-length", "7"), ("te", "trailers"),
                    ]), ends: false
            ).heads.first)
        #expect(head.method == .post)
        #expect(head.host == "sunrise.example")
        #expect(head.target.segments == ["v1", "patients", "a b"])
        #expect(head.target.query.values("familyName") == ["Müller"])
        #expect(head.headers[.accept] == "application/json")
        #expect(head.headers["X-One"] == "1")
        #expect(head.headers["x-two"] == "")
        #expect(head.announcedCount == 7)
        #expect(!head.isComplete && !head.expectsContinue && head.upgrade == nil)
    }

    @Test("a Host field beside the authority says the same, once")
    func authorityAndHost() {
        // Shorter than a default port.
        let same = transcript(fields("GET", "/", authority: "a", [("host", "A")]))
        #expect(same.heads.first?.host == "a")
        let ports = transcript(
            fields("GET", "/", authority: "a.example:443", [("host", "a.example")]))
        #expect(ports.heads.first?.host == "a.example")
        let twice = transcript(
            fields("GET", "/", [("host", "a.example"), ("host", "a.example")]))
        #expect(twice.heads.isEmpty && twice.refusals == [.repeatedHost])
    }

    @Test("cookies that were cut apart are one field again")
    func cookies() throws {
        let head = try #require(
            transcript(
                fields([
                    ("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2; c=3"), ("cookie", "d=4"),
                ])
            ).heads.first)
        #expect(head.headers.values(.cookie) == ["a=1; b=2; c=3; d=4"])
        #expect(head.headers.pairs.map(\.name) == ["cookie", "accept"])
        let single = try #require(transcript(fields([("cookie", "a=1")])).heads.first)
        #expect(single.headers.values(.cookie) == ["a=1"])
    }

    private func fields(_ more: [(String, String)]) -> [(String, String)] {
        fields("GET", "/", more)
    }

    @Test(
        "what HTTP/1.1 refuses is refused with the same error",
        arguments: [
            ("GET", "/a/../b", "a.example", HTTP1Error.dotSegment),
            ("GET", "/%2e%2E", "a.example", .dotSegment),
            ("GET", "/a b", "a.example", .invalidTarget),
            ("GET", "/#a", "a.example", .invalidTarget),
            ("GET", "/%zz", "a.example", .invalidPercentCoding),
            ("GET", "/%00", "a.example", .invalidPercentCoding),
            ("GET", "/?a=%ff", "a.example", .invalidPercentCoding),
            ("GET", "/" + String(repeating: "a", count: 501), "a.example", .pathSegmentTooLong),
            ("GET", "/?" + String(repeating: "a", count: 8192), "a.example", .requestLineTooLong),
            ("GET", "/", "user@a.example", .invalidHost),
            ("GET", "/", "a b", .invalidHost),
            ("GET", "/", "", .invalidHost),
            ("GET", "/", "a.example:99999", .invalidHost),
            ("TRACE", "/", "a.example", .unknownMethod),
            ("BREW", "/", "a.example", .unknownMethod),
        ])
    func refused(_ method: String, _ path: String, _ authority: String, _ error: HTTP1Error) {
        let transcript = transcript(fields(method, path, authority: authority))
        #expect(transcript.refusals == [error], "\(transcript)")
        #expect(transcript.goaway == nil && transcript.reset(1) == nil)
    }

    @Test("a request without any host, with two, or with another expectation")
    func moreRefusals() {
        #expect(transcript(fields(authority: nil)).refusals == [.missingHost])
        #expect(
            transcript(fields(authority: nil, [("host", "a"), ("host", "a")])).refusals
                == [.repeatedHost])
        #expect(
            transcript(fields([("expect", "tea")])).refusals == [.unknownExpectation])
        #expect(
            transcript(fields("POST", [("content-length", "999999999999")]), ends: false).refusals
                == [.contentTooLarge])
    }

    private func fields(_ method: String, _ more: [(String, String)]) -> [(String, String)] {
        fields(method, "/", more)
    }

    @Test("the host comes from the authority, else from the Host field; both may say the same")
    func hosts() {
        #expect(
            transcript(fields(authority: nil, [("host", "B.example:80")])).heads.first?.host
                == "b.example")
        #expect(
            transcript(fields(authority: "a.example:443", [("host", "A.example")])).heads.count == 1
        )
        #expect(
            transcript(fields(authority: "a.example:80", scheme: "http", [("host", "a.example")]))
                .heads.count == 1)
        #expect(
            transcript(fields(authority: "a.example:444", [("host", "a.example")])).reset(1)
                == .protocolError)
    }

    @Test("OPTIONS may ask for everything")
    func asterisk() {
        #expect(transcript(fields("OPTIONS", "*")).heads.first?.target.isAsterisk == true)
    }

    @Test("plain CONNECT is refused, an extended one for WebSocket is a GET")
    func connect() throws {
        let plain = transcript([(":method", "CONNECT"), (":authority", "a.example:443")])
        #expect(plain.refusals == [.unknownMethod])
        let extended = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
            (":path", "/v1/events/ws"), (":authority", "a.example"),
            ("sec-websocket-version", "13"),
        ]
        let head = try #require(transcript(extended, ends: false).heads.first)
        #expect(head.method == .get)
        #expect(head.upgrade == .webSocket(.extendedConnect))
        #expect(head.target.path == "/v1/events/ws")
        let other = extended.map { $0.0 == ":protocol" ? ($0.0, "connect-udp") : $0 }
        #expect(transcript(other, ends: false).refusals == [.unknownMethod])
    }

    @Test("content, trailers and the end come in order, however they are cut")
    func content() {
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post + [("content-length", "6")], ends: false)
        builder.data(1, "abc")
        builder.headers(3)
        builder.data(1, "def")
        builder.headers(1, [("x-checksum", "1"), ("x-more", "7")])
        let whole = HTTP2Transcript(builder)
        #expect(whole.contents[0] == Array("abcdef".utf8))
        #expect(whole.events.last == "end")
        for size in [1, 2, 7, 9, 10] {
            let cuts = Array(stride(from: size, to: builder.bytes.count, by: size))
            let pieces = HTTP2Transcript(builder, cuts: cuts)
            #expect(pieces.contents[0] == whole.contents[0])
            #expect(pieces.events == whole.events)
        }
    }

    @Test("trailers above their limits reset the stream")
    func largeTrailers() {
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post, ends: false)
        builder.headers(1, (0..<33).map { ("x-\($0)", "1") })
        let transcript = HTTP2Transcript(builder)
        #expect(transcript.reset(1) == .enhanceYourCalm)
        #expect(transcript.faults == [.trailersTooLarge])
    }

    @Test("content without a length that is larger than is accepted")
    func largeContent() {
        var common = HTTP1Limits()
        common.bodyBytesMax = 10
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post, ends: false)
        builder.data(1, "12345678")
        builder.data(1, "12345678")
        builder.data(1, "12345678", ends: true)
        let transcript = HTTP2Transcript(builder, common: common)
        #expect(transcript.events.filter { $0 == "too large" }.count == 1)
        #expect(transcript.contents[0]?.count == 8)
    }

    @Test("the client's announcement that it leaves is heard")
    func clientLeaves() {
        var builder = FrameBuilder.opening
        builder.goaway()
        #expect(HTTP2Transcript(builder).events == ["client leaves"])
    }

    @Test("GOAWAY comes twice: the second says what is served")
    func twoGoaways() {
        let driver = HTTP2Driver()
        driver.answers = true
        var builder = FrameBuilder.opening
        builder.headers(1)
        driver.send(builder)
        driver.session.announceEnd()
        driver.settle([])
        let notice = driver.transcript.frames.last { $0.type == 7 }
        #expect(notice?.goawayLast == UInt32(Int32.max))
        #expect(notice?.goawayCode == 0)
        #expect(driver.transcript.frames.last?.text == "hc-drain")
        builder = FrameBuilder()
        builder.headers(3)
        builder.frame(6, flags: 1, Array("hc-drain".utf8))
        driver.send(builder)
        #expect(driver.transcript.events.contains("ping acknowledged"))
        #expect(driver.transcript.heads.count == 2)
        driver.session.beginEnd()
        driver.settle([])
        #expect(driver.transcript.frames.last?.goawayLast == 3)
        builder = FrameBuilder()
        builder.headers(5)
        driver.send(builder)
        #expect(driver.transcript.heads.count == 2)
    }
}
