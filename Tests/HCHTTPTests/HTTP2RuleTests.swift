import HCCore
import Testing

@testable import HCHTTP

/// What each rule of RFC 9113 and RFC 7541 that a client can break gets, driven frame by frame into a session.
@Suite("HTTP/2 rules")
struct HTTP2RuleTests {
    /// Of the connection: GOAWAY with this code, and nothing is read after it.
    struct ConnectionCase: CustomTestStringConvertible, Sendable {
        let name: String
        let code: HTTP2ErrorCode
        let bytes: [UInt8]
        var testDescription: String { name }

        init(
            _ name: String, _ code: HTTP2ErrorCode, from start: FrameBuilder = .opening,
            _ write: (inout FrameBuilder) -> Void
        ) {
            self.name = name
            self.code = code
            var builder = start
            write(&builder)
            bytes = builder.bytes
        }
    }

    /// Of one stream: RST_STREAM with this code, and the connection goes on.
    struct StreamCase: CustomTestStringConvertible, Sendable {
        let name: String
        let code: HTTP2ErrorCode
        let bytes: [UInt8]
        let stream: UInt32
        var testDescription: String { name }

        init(
            _ name: String, _ code: HTTP2ErrorCode, stream: UInt32 = 1,
            _ write: (inout FrameBuilder) -> Void
        ) {
            self.name = name
            self.code = code
            self.stream = stream
            var builder = FrameBuilder.opening
            write(&builder)
            bytes = builder.bytes
        }
    }

    static let connectionCases: [ConnectionCase] = [
        // 3.4
        ConnectionCase("3.4 the preface is another", .protocolError, from: FrameBuilder()) {
            $0.bytes = Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        },
        ConnectionCase(
            "3.4 no SETTINGS after the preface", .protocolError,
            from: FrameBuilder(bytes: FrameBuilder.preface)
        ) { $0.ping() },
        ConnectionCase(
            "3.4 an acknowledgement is no SETTINGS", .protocolError,
            from: FrameBuilder(bytes: FrameBuilder.preface)
        ) { $0.settingsAcknowledged() },
        // 4.2
        ConnectionCase("4.2 DATA larger than SETTINGS_MAX_FRAME_SIZE", .frameSizeError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.frame(0, stream: 1, [UInt8](repeating: 0, count: 16_385))
        },
        ConnectionCase("4.2 HEADERS larger than SETTINGS_MAX_FRAME_SIZE", .frameSizeError) {
            $0.frame(1, flags: 5, stream: 1, [UInt8](repeating: 0, count: 16_385))
        },
        ConnectionCase("4.2 CONTINUATION larger than SETTINGS_MAX_FRAME_SIZE", .frameSizeError) {
            // A field of 16,384 bytes, never indexed (RFC 7541 6.2.3): right but for its length.
            $0.headers(1, ends: true, isOpen: true)
            $0.continuation(
                1,
                [0x10, 1, 0x78, 0x7F, 0x81, 0x7F] + [UInt8](repeating: 0x61, count: 16_384),
                isLast: true)
        },
        ConnectionCase("4.2 an unknown frame larger than that", .frameSizeError) {
            $0.frame(200, [UInt8](repeating: 0, count: 16_385))
        },
        // 4.3
        ConnectionCase("4.3 a field block with an index that is nothing", .compressionError) {
            $0.frame(1, flags: 5, stream: 1, [0xBF])
        },
        ConnectionCase("4.3 another frame inside a field block", .protocolError) {
            $0.headers(1, ends: true, isOpen: true)
            $0.ping()
        },
        ConnectionCase("4.3 an unknown frame inside a field block", .protocolError) {
            $0.headers(1, ends: true, isOpen: true)
            $0.frame(200, [1])
        },
        ConnectionCase("4.3 PRIORITY inside a field block", .protocolError) {
            $0.headers(1, ends: true, isOpen: true)
            $0.priority(1, on: 0)
        },
        // 5.1
        ConnectionCase("5.1 DATA on an idle stream", .protocolError) { $0.data(1, "x") },
        ConnectionCase("5.1 RST_STREAM on an idle stream", .protocolError) { $0.reset(1) },
        ConnectionCase("5.1 WINDOW_UPDATE on an idle stream", .protocolError) {
            $0.windowUpdate(1, 1)
        },
        ConnectionCase("5.1 CONTINUATION on an idle stream", .protocolError) {
            $0.continuation(1, [], isLast: true)
        },
        ConnectionCase("5.1 DATA after END_STREAM", .streamClosed) {
            $0.headers(1)
            $0.data(1, "x")
        },
        ConnectionCase("5.1 HEADERS after END_STREAM", .streamClosed) {
            $0.headers(1)
            $0.headers(1)
        },
        ConnectionCase("5.1 CONTINUATION after END_HEADERS", .protocolError) {
            $0.headers(1)
            $0.continuation(1, [], isLast: true)
        },
        // 5.1.1
        ConnectionCase("5.1.1 a number of the server's", .protocolError) { $0.headers(2) },
        ConnectionCase("5.1.1 a number that was left out", .protocolError) {
            $0.headers(5)
            $0.headers(3)
        },
        // 6.1, 6.2
        ConnectionCase("6.1 DATA on stream 0", .protocolError) { $0.data(0, "x") },
        ConnectionCase("6.1 more padding than payload in DATA", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.frame(0, flags: 8, stream: 1, [9, 0x61])
        },
        ConnectionCase("6.2 HEADERS on stream 0", .protocolError) { $0.headers(0) },
        ConnectionCase("6.2 more padding than payload in HEADERS", .protocolError) {
            $0.frame(1, flags: 13, stream: 1, [200] + FrameBuilder.block(FrameBuilder.get))
        },
        ConnectionCase("6.2 HEADERS too short for its priority", .frameSizeError) {
            $0.frame(1, flags: 0x25, stream: 1, [0, 0])
        },
        // 6.3
        ConnectionCase("6.3 PRIORITY on stream 0", .protocolError) { $0.priority(0, on: 3) },
        ConnectionCase("6.3 PRIORITY of another size", .frameSizeError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.frame(2, stream: 1, [0, 0, 0, 0])
        },
        ConnectionCase("7540 5.3.1 PRIORITY on itself", .protocolError) { $0.priority(3, on: 3) },
        ConnectionCase("7540 5.3.1 HEADERS on itself", .protocolError) {
            $0.frame(
                1, flags: 0x25, stream: 1,
                [0, 0, 0, 1, 15] + FrameBuilder.block(FrameBuilder.get))
        },
        // 6.4
        ConnectionCase("6.4 RST_STREAM on stream 0", .protocolError) { $0.reset(0) },
        ConnectionCase("6.4 RST_STREAM of another size", .frameSizeError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.frame(3, stream: 1, [0, 0, 0])
        },
        // 6.5
        ConnectionCase("6.5 SETTINGS on a stream", .protocolError) { $0.settings(stream: 1) },
        ConnectionCase("6.5 SETTINGS of another size", .frameSizeError) { $0.frame(4, [0, 3, 0]) },
        ConnectionCase("6.5 an acknowledgement with a payload", .frameSizeError) {
            $0.frame(4, flags: 1, [0, 3, 0, 0, 0, 1])
        },
        ConnectionCase("6.5 an acknowledgement too many", .protocolError) {
            $0.settingsAcknowledged()
            $0.settingsAcknowledged()
        },
        ConnectionCase("6.5.2 ENABLE_PUSH is 2", .protocolError) { $0.settings([(2, 2)]) },
        ConnectionCase("6.5.2 INITIAL_WINDOW_SIZE above 2^31-1", .flowControlError) {
            $0.settings([(4, 1 << 31)])
        },
        ConnectionCase("6.5.2 MAX_FRAME_SIZE too small", .protocolError) {
            $0.settings([(5, 16_383)])
        },
        ConnectionCase("6.5.2 MAX_FRAME_SIZE too large", .protocolError) {
            $0.settings([(5, 1 << 24)])
        },
        ConnectionCase("8441 3 ENABLE_CONNECT_PROTOCOL is 2", .protocolError) {
            $0.settings([(8, 2)])
        },
        // 6.6
        ConnectionCase("6.6 PUSH_PROMISE of a client", .protocolError) {
            $0.frame(5, flags: 4, stream: 1, [0, 0, 0, 2] + FrameBuilder.block(FrameBuilder.get))
        },
        // 6.7
        ConnectionCase("6.7 PING on a stream", .protocolError) {
            $0.frame(6, stream: 1, Array("pingping".utf8))
        },
        ConnectionCase("6.7 PING of another size", .frameSizeError) { $0.ping("pingpin") },
        // 6.8
        ConnectionCase("6.8 GOAWAY on a stream", .protocolError) {
            $0.frame(7, stream: 1, [UInt8](repeating: 0, count: 8))
        },
        ConnectionCase("6.8 GOAWAY too short", .frameSizeError) {
            $0.frame(7, [UInt8](repeating: 0, count: 7))
        },
        // 6.9
        ConnectionCase("6.9 WINDOW_UPDATE of nothing", .protocolError) { $0.windowUpdate(0, 0) },
        ConnectionCase("6.9 WINDOW_UPDATE of nothing on a stream", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.windowUpdate(1, 0)
        },
        ConnectionCase("6.9 WINDOW_UPDATE of another size", .frameSizeError) {
            $0.frame(8, [0, 0, 1])
        },
        ConnectionCase("6.9.1 the connection's window above 2^31-1", .flowControlError) {
            $0.windowUpdate(0, (1 << 31) - 1)
        },
        ConnectionCase(
            "6.9.2 INITIAL_WINDOW_SIZE makes a stream's window too large", .flowControlError
        ) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.windowUpdate(1, 1 << 30)
            $0.settings([(4, (1 << 31) - 1)])
        },
        // 6.10
        ConnectionCase("6.10 CONTINUATION on stream 0", .protocolError) {
            $0.continuation(0, [], isLast: true)
        },
        ConnectionCase("6.10 CONTINUATION of another stream", .protocolError) {
            $0.headers(1, ends: true, isOpen: true)
            $0.continuation(3, [], isLast: true)
        },
        ConnectionCase("6.10 CONTINUATION after DATA", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.data(1, "x")
            $0.continuation(1, [], isLast: true)
        },
        // RFC 7541
        ConnectionCase("7541 2.3.3 index 0", .compressionError) {
            $0.frame(1, flags: 5, stream: 1, [0x80])
        },
        ConnectionCase("7541 4.2 a table larger than allowed", .compressionError) {
            $0.frame(
                1, flags: 5, stream: 1, [0x3F, 0xE2, 0x1F] + FrameBuilder.block(FrameBuilder.get))
        },
        ConnectionCase("7541 4.2 the table's size after a field", .compressionError) {
            $0.frame(1, flags: 5, stream: 1, FrameBuilder.block(FrameBuilder.get) + [0x20])
        },
        ConnectionCase("7541 5.1 a number that does not end", .compressionError) {
            $0.frame(
                1, flags: 5, stream: 1,
                [0x3F] + [UInt8](repeating: 0xFF, count: 16))
        },
        ConnectionCase("7541 5.2 a string longer than its block", .compressionError) {
            $0.frame(1, flags: 5, stream: 1, [0x00, 0x05, 0x61])
        },
        ConnectionCase("7541 5.2 Huffman padding longer than 7 bits", .compressionError) {
            $0.frame(
                1, flags: 5, stream: 1,
                FrameBuilder.block(FrameBuilder.get) + [0x00, 0x01, 0x78, 0x82, 0x1F, 0xFF])
        },
        ConnectionCase("7541 5.2 Huffman padding of zeros", .compressionError) {
            $0.frame(
                1, flags: 5, stream: 1,
                FrameBuilder.block(FrameBuilder.get) + [0x00, 0x01, 0x78, 0x81, 0x18])
        },
        ConnectionCase("7541 5.2 the Huffman code of EOS", .compressionError) {
            $0.frame(
                1, flags: 5, stream: 1,
                FrameBuilder.block(FrameBuilder.get)
                    + [0x00, 0x01, 0x78, 0x84, 0xFF, 0xFF, 0xFF, 0xFF])
        },
    ]

    @Test("ends the connection with the error that the RFC names", arguments: connectionCases)
    func connection(_ rule: ConnectionCase) {
        for answers in [false, true] where !answers || !rule.name.contains("after END_STREAM") {
            let transcript = HTTP2Transcript(FrameBuilder(bytes: rule.bytes), answers: answers)
            #expect(transcript.goaway == rule.code, "\(transcript)")
            #expect(transcript.hasFailed)
            #expect(transcript.faults.last?.code == rule.code)
            #expect(transcript.frames.last?.type == 7, "the GOAWAY comes last")
        }
    }

    @Test("it is the same error however the bytes are cut", arguments: connectionCases)
    func connectionInPieces(_ rule: ConnectionCase) {
        let builder = FrameBuilder(bytes: rule.bytes)
        let pieces = HTTP2Transcript(builder, cuts: Array(1..<rule.bytes.count))
        #expect(pieces.goaway == rule.code, "\(pieces)")
    }

    private static func with(_ fields: (String, String)...) -> [(String, String)] {
        FrameBuilder.get + fields
    }

    private static func without(_ name: String) -> [(String, String)] {
        FrameBuilder.get.filter { $0.0 != name }
    }

    private static func replacing(_ name: String, _ value: String) -> [(String, String)] {
        FrameBuilder.get.map { $0.0 == name ? (name, value) : $0 }
    }

    /// RFC 8441 5.1.
    private static func webSocket(
        scheme: String = "https", path: String = "/", _ more: (String, String)...
    ) -> [(String, String)] {
        [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", scheme),
            (":path", path), (":authority", "a.example"),
        ] + more
    }

    private static func malformed(_ name: String, _ fields: [(String, String)]) -> StreamCase {
        StreamCase(name, .protocolError) { $0.headers(1, fields) }
    }

    static let streamCases: [StreamCase] = [
        malformed("8.2 a name in upper case", with(("X-A", "1"))),
        malformed("8.2.1 a name with a blank", with(("x a", "1"))),
        malformed("8.2.1 a name with a colon inside", with(("x:a", "1"))),
        malformed("8.2.1 an empty name", with(("", "1"))),
        malformed("8.2.1 a value with CR LF", with(("x-a", "1\r\nb: c"))),
        malformed("8.2.1 a value with NUL", with(("x-a", "1\0"))),
        malformed("8.2.1 a value that begins with a blank", with(("x-a", " 1"))),
        malformed("8.2.1 a value that ends with a tab", with(("x-a", "1\t"))),
        malformed("8.2.2 connection", with(("connection", "keep-alive"))),
        malformed("8.2.2 keep-alive", with(("keep-alive", "5"))),
        malformed("8.2.2 proxy-connection", with(("proxy-connection", "close"))),
        malformed("8.2.2 transfer-encoding", with(("transfer-encoding", "chunked"))),
        malformed("8.2.2 upgrade", with(("upgrade", "websocket"))),
        malformed("8.2.2 te with more than trailers", with(("te", "trailers, gzip"))),
        malformed("8.3 a pseudo-field after another field", with(("x-a", "1"), (":path", "/"))),
        malformed(
            "8.3 a pseudo-field that comes late", without(":path") + [("x-a", "1"), (":path", "/")]),
        malformed("8.3 an unknown pseudo-field", with((":test", "1"))),
        malformed("8.3 a pseudo-field of answers", with((":status", "200"))),
        malformed("8.3.1 no method", without(":method")),
        malformed("8.3.1 no scheme", without(":scheme")),
        malformed("8.3.1 no path", without(":path")),
        malformed("8.3.1 an empty path", replacing(":path", "")),
        malformed("8.3.1 a path that does not begin with a slash", replacing(":path", "a")),
        malformed("8.3.1 an asterisk for GET", replacing(":path", "*")),
        malformed("8.3.1 a method twice", [(":method", "GET")] + FrameBuilder.get),
        malformed("8.3.1 a scheme twice", [(":scheme", "http")] + FrameBuilder.get),
        malformed("8.3.1 a path twice", [(":path", "/")] + FrameBuilder.get),
        malformed("8.3.1 an authority twice", [(":authority", "a.example")] + FrameBuilder.get),
        malformed("8.3.1 another host than the authority", with(("host", "b.example"))),
        malformed("8.3.1 a method that is no token", replacing(":method", "G T")),
        malformed("8.3.1 a scheme that is none of ours", replacing(":scheme", "ftp")),
        malformed("8.5 CONNECT with a path", replacing(":method", "CONNECT")),
        malformed("8.3.1 an empty method", replacing(":method", "")),
        malformed("8.5 CONNECT without an authority", [(":method", "CONNECT")]),
        malformed(
            "8.5 CONNECT with an empty authority", [(":method", "CONNECT"), (":authority", "")]),
        malformed(
            "8.5 CONNECT with a scheme alone",
            [(":method", "CONNECT"), (":authority", "a.example"), (":scheme", "https")]),
        malformed(
            "8.5 CONNECT with a path alone",
            [(":method", "CONNECT"), (":authority", "a.example"), (":path", "/")]),
        malformed(
            "8441 4 a protocol twice", [(":protocol", "websocket")] + webSocket()),
        malformed("8441 4 a scheme that is none of ours", webSocket(scheme: "ftp")),
        malformed("8441 4 a path that does not begin with a slash", webSocket(path: "a")),
        malformed("8441 4 an asterisk", webSocket(path: "*")),
        malformed("8441 4 another host than the authority", webSocket(("host", "b.example"))),
        malformed("8441 5 a length of what is no content", webSocket(("content-length", "5"))),
        StreamCase("8441 5 trailers on a tunnel", .protocolError) {
            $0.headers(1, webSocket(), ends: false)
            $0.headers(1, [("x-a", "1")])
        },
        malformed(
            "8441 4 a protocol without CONNECT", [(":protocol", "websocket")] + FrameBuilder.get),
        malformed(
            "8441 4 a protocol without a path",
            [
                (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                (":authority", "a.example"),
            ]),
        malformed("8.1.1 a length that is no number", with(("content-length", "1x"))),
        malformed("8.1.1 a length twice", with(("content-length", "0"), ("content-length", "0"))),
        malformed("8.1.1 a length and no content", with(("content-length", "1"))),
        StreamCase("8.1.1 less content than its length", .protocolError) {
            $0.headers(1, FrameBuilder.post + [("content-length", "4")], ends: false)
            $0.data(1, "abc", ends: true)
        },
        StreamCase("8.1.1 more content than its length", .protocolError) {
            $0.headers(1, FrameBuilder.post + [("content-length", "2")], ends: false)
            $0.data(1, "abc")
        },
        StreamCase("8.1.1 content in pieces that is more than its length", .protocolError) {
            $0.headers(1, FrameBuilder.post + [("content-length", "2")], ends: false)
            $0.data(1, "ab")
            $0.data(1, "c", ends: true)
        },
        StreamCase("8.1.1 less content than its length, and trailers", .protocolError) {
            $0.headers(1, FrameBuilder.post + [("content-length", "4")], ends: false)
            $0.data(1, "abc")
            $0.headers(1, [("x-a", "1")])
        },
        StreamCase("8.1 trailers that do not end the stream", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.headers(1, [("x-a", "1")], ends: false)
        },
        StreamCase("8.1 trailers with a pseudo-field", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.headers(1, [(":method", "GET")])
        },
        StreamCase("RFC 9110 6.5.1 a length behind the content", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.headers(1, [("content-length", "0")])
        },
        StreamCase("RFC 9110 6.5.1 credentials behind the content", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.headers(1, [("authorization", "Bearer x")])
        },
        StreamCase("8.2 trailers in upper case", .protocolError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.headers(1, [("X-A", "1")])
        },
        StreamCase("5.1.2 a stream too many", .refusedStream, stream: 201) {
            for number in 0...100 {
                $0.headers(UInt32(2 * number + 1), FrameBuilder.post, ends: false)
            }
        },
        StreamCase("6.9.1 a stream's window above 2^31-1", .flowControlError) {
            $0.headers(1, FrameBuilder.post, ends: false)
            $0.windowUpdate(1, (1 << 31) - 1)
        },
    ]

    @Test("resets the stream with the error that the RFC names", arguments: streamCases)
    func stream(_ rule: StreamCase) {
        for cuts in [[], Array(1..<rule.bytes.count)] {
            var builder = FrameBuilder(bytes: rule.bytes)
            builder.headers(999)
            let transcript = HTTP2Transcript(builder, cuts: cuts)
            #expect(transcript.reset(rule.stream) == rule.code, "\(transcript)")
            #expect(transcript.goaway == nil)
            #expect(transcript.heads.last?.host == "a.example", "the connection goes on")
            if rule.code == .protocolError {
                #expect(!transcript.events.contains("end"), "\(transcript)")
            }
        }
    }

    @Test("DATA and HEADERS on a stream that the client has reset are errors of that stream")
    func closedByReset() {
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post, ends: false)
        builder.reset(1)
        builder.data(1, "late")
        builder.headers(3)
        var transcript = HTTP2Transcript(builder)
        #expect(transcript.reset(1) == .streamClosed)
        #expect(transcript.heads.count == 2)
        builder = .opening
        builder.headers(1, FrameBuilder.post, ends: false)
        builder.reset(1)
        builder.headers(1, [("x-a", "1")])
        builder.headers(3)
        transcript = HTTP2Transcript(builder)
        #expect(transcript.reset(1) == .streamClosed)
        #expect(transcript.heads.count == 2)
    }

    @Test("DATA on a stream that is complete is an error of that stream, HEADERS of the connection")
    func closedByEnd() {
        let driver = HTTP2Driver()
        driver.answers = true
        var builder = FrameBuilder.opening
        builder.headers(1)
        driver.send(builder)
        builder = FrameBuilder()
        builder.data(1, "late")
        driver.send(builder)
        #expect(driver.transcript.reset(1) == .streamClosed)
        builder = FrameBuilder()
        builder.headers(3)
        driver.send(builder)
        #expect(driver.transcript.heads.count == 2)
        builder = FrameBuilder()
        builder.headers(3)
        driver.send(builder)
        #expect(driver.transcript.goaway == .streamClosed)
    }

    @Test("frames on a stream that we have reset are dropped: the client may not know yet")
    func closedByUs() {
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post + [("X", "1")], ends: false)
        builder.data(1, "crossing")
        builder.headers(1, [("x-a", "1")])
        builder.reset(1)
        builder.windowUpdate(1, 1)
        builder.headers(3)
        let transcript = HTTP2Transcript(builder, cuts: Array(1..<builder.bytes.count))
        #expect(transcript.frames.filter { $0.type == 3 }.count == 1)
        #expect(transcript.goaway == nil)
        #expect(transcript.heads.count == 1)
    }

    @Test("what has no meaning here is ignored: unknown frames, flags and settings, priorities")
    func ignored() {
        var builder = FrameBuilder.opening
        builder.frame(200, flags: 255, stream: 77, Array("whatever".utf8))
        builder.frame(16, FrameBuilder.number(1) + Array("u=1".utf8))
        builder.settings([(0xFA, 7)])
        builder.priority(1, on: 0)
        builder.priority(77, on: 1)
        builder.frame(6, flags: 0x16, Array("pingping".utf8))
        builder.frame(
            1, flags: 0x25, stream: 1, [0, 0, 0, 0, 15] + FrameBuilder.block(FrameBuilder.get))
        builder.priority(1, on: 77)
        builder.headers(3, FrameBuilder.get + [("priority", "u=0, i")])
        let transcript = HTTP2Transcript(builder, answers: true)
        #expect(transcript.heads.count == 2)
        #expect(transcript.faults.isEmpty)
        #expect(
            transcript.frames.contains {
                $0.type == 6 && $0.isAcknowledgement && $0.text == "pingping"
            })
        #expect(transcript.frames.filter { $0.type == 4 && $0.isAcknowledgement }.count == 2)
    }

    @Test("padding is taken out, and its bytes are given back to the windows")
    func padding() {
        let driver = HTTP2Driver()
        var builder = FrameBuilder.opening
        builder.frame(
            1, flags: 12, stream: 1, [3] + FrameBuilder.block(FrameBuilder.post) + [0, 0, 0])
        for _ in 0..<40 {
            builder.frame(
                0, flags: 8, stream: 1, [255] + Array("ab".utf8) + [UInt8](repeating: 0, count: 255)
            )
        }
        builder.frame(0, flags: 9, stream: 1, [1, 0x63, 0])
        driver.send(builder)
        #expect(driver.transcript.heads.count == 1)
        #expect(driver.transcript.contents[0]?.count == 81)
        #expect(driver.transcript.events.last == "end")
    }

    @Test("our SETTINGS say what we mean")
    func settings() throws {
        let transcript = HTTP2Transcript(FrameBuilder())
        let frame = try #require(transcript.frames.first)
        #expect(frame.type == 4)
        var values: [Int: UInt32] = [:]
        for start in stride(from: 0, to: frame.payload.count, by: 6) {
            let id = Int(frame.payload[start]) << 8 | Int(frame.payload[start + 1])
            values[id] = Frame.number(frame.payload[(start + 2)...])
        }
        #expect(values == [3: 100, 4: 262_144, 6: 32_768, 8: 1, 9: 1])
        #expect(transcript.frames.last?.type == 8)
    }

    @Test("what comes after the answer is dropped")
    func answeredEarly() {
        let driver = HTTP2Driver()
        var builder = FrameBuilder.opening
        builder.headers(1, FrameBuilder.post, ends: false)
        driver.send(builder)
        driver.answer(0)
        builder = FrameBuilder()
        builder.data(1, "late")
        driver.send(builder)
        #expect(driver.transcript.events.last == "answered early")
        #expect(driver.transcript.contents[0] == nil)
        #expect(!driver.session.hasFailed)
    }

    @Test("only the answer to the PING behind the first GOAWAY tells that the client knows it")
    func drainPing() {
        let driver = HTTP2Driver()
        driver.send(FrameBuilder.opening)
        driver.session.announceEnd()
        var builder = FrameBuilder()
        builder.ping(flags: 1)
        driver.send(builder)
        #expect(!driver.transcript.events.contains("ping acknowledged"))
        builder = FrameBuilder()
        builder.frame(6, flags: 1, HTTP2Session.drainPing)
        driver.send(builder)
        #expect(driver.transcript.events.last == "ping acknowledged")
    }
}
