import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP/1 parser")
struct HTTP1ParserTests {
    struct Refusal: Sendable, CustomTestStringConvertible {
        let bytes: String
        let error: HTTP1Error
        let status: Int
        let why: String

        init(_ bytes: String, _ error: HTTP1Error, _ status: Int, _ why: String) {
            self.bytes = bytes
            self.error = error
            self.status = status
            self.why = why
        }

        var testDescription: String { why }
    }

    private static func get(_ fields: String, line: String = "GET / HTTP/1.1") -> String {
        "\(line)\r\n\(fields)\r\n"
    }

    private static func post(_ fields: String, _ content: String = "") -> String {
        "POST / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\(content)"
    }

    private static func line(_ line: String) -> String { get("Host: a\r\n", line: line) }

    static let requestLines: [Refusal] = [
        Refusal(line("GET /"), .malformedRequestLine, 400, "HTTP/0.9"),
        Refusal(line("GET  / HTTP/1.1"), .invalidTarget, 400, "two spaces before the target"),
        Refusal(line("GET /  HTTP/1.1"), .invalidTarget, 400, "two spaces after the target"),
        Refusal(line("GET / HTTP/1.1 "), .malformedRequestLine, 400, "space after the version"),
        Refusal(line("GET\t/\tHTTP/1.1"), .malformedRequestLine, 400, "tabs for spaces"),
        Refusal(line(" GET / HTTP/1.1"), .malformedRequestLine, 400, "space in front"),
        Refusal(line("GET / http/1.1"), .malformedRequestLine, 400, "version in lower case"),
        Refusal(line("GET / HTTP/1.10"), .malformedRequestLine, 400, "two digits of minor version"),
        Refusal(line("GET / HTTP/11"), .malformedRequestLine, 400, "version without a dot"),
        Refusal(line("GET / HTTP/2.0"), .unsupportedVersion, 505, "HTTP/2.0 in text"),
        Refusal(line("GET / HTTP/0.9"), .unsupportedVersion, 505, "HTTP/0.9 in text"),
        Refusal(line("GET / HTTP/3.1"), .unsupportedVersion, 505, "HTTP/3.1"),
        Refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .http2Preface, 505, "preface of HTTP/2"),
        Refusal(line("get / HTTP/1.1"), .unknownMethod, 501, "method in lower case"),
        Refusal(line("BREW / HTTP/1.1"), .unknownMethod, 501, "unknown method"),
        Refusal(line("TRACE / HTTP/1.1"), .unknownMethod, 501, "TRACE"),
        Refusal(line("CONNECT a:80 HTTP/1.1"), .unknownMethod, 501, "CONNECT"),
        Refusal(
            line(String(repeating: "M", count: 300) + " / HTTP/1.1"), .unknownMethod, 501,
            "method too long"),
        Refusal(
            line(String(repeating: "M", count: 8193) + " / HTTP/1.1"), .unknownMethod, 501,
            "method longer than a line"),
        Refusal(line("G(T / HTTP/1.1"), .malformedRequestLine, 400, "method that is no token"),
        Refusal("\u{16}\u{3}\u{1}", .malformedRequestLine, 400, "a TLS hello"),
        Refusal(line("GET a/b HTTP/1.1"), .invalidTarget, 400, "path without a slash"),
        Refusal(line("GET a:80 HTTP/1.1"), .invalidTarget, 400, "authority-form"),
        Refusal(line("GET * HTTP/1.1"), .invalidTarget, 400, "asterisk for GET"),
        Refusal(line("OPTIONS ** HTTP/1.1"), .invalidTarget, 400, "two asterisks"),
        Refusal(line("GET /#top HTTP/1.1"), .invalidTarget, 400, "fragment"),
        Refusal(line("GET /?a#b HTTP/1.1"), .invalidTarget, 400, "fragment after a query"),
        Refusal(line("GET ftp://a/ HTTP/1.1"), .invalidTarget, 400, "another scheme"),
        Refusal(line("GET http:///x HTTP/1.1"), .invalidHost, 400, "absolute-form without a host"),
        Refusal(line("GET http://u@a/ HTTP/1.1"), .invalidHost, 400, "user in the authority"),
        Refusal(line("GET /a\\b HTTP/1.1"), .invalidTarget, 400, "backslash"),
        Refusal(line("GET /<a> HTTP/1.1"), .invalidTarget, 400, "angle brackets"),
        Refusal(line("GET /\u{E4} HTTP/1.1"), .invalidTarget, 400, "raw UTF-8"),
        Refusal(line("GET /\u{0} HTTP/1.1"), .invalidTarget, 400, "NUL in the target"),
        Refusal(line("GET /% HTTP/1.1"), .invalidPercentCoding, 400, "percent alone"),
        Refusal(line("GET /%4 HTTP/1.1"), .invalidPercentCoding, 400, "percent and one digit"),
        Refusal(line("GET /%zz HTTP/1.1"), .invalidPercentCoding, 400, "percent and no hex"),
        Refusal(line("GET /%00 HTTP/1.1"), .invalidPercentCoding, 400, "encoded NUL"),
        Refusal(line("GET /%0a HTTP/1.1"), .invalidPercentCoding, 400, "encoded line feed"),
        Refusal(line("GET /%7f HTTP/1.1"), .invalidPercentCoding, 400, "encoded DEL"),
        Refusal(line("GET / HTTP/1x1"), .malformedRequestLine, 400, "a letter for the dot"),
        Refusal(line("GET / HTTP/x.1"), .malformedRequestLine, 400, "a letter for the version"),
        Refusal(line("GET / HTTP/1.x"), .malformedRequestLine, 400, "a letter for the minor one"),
        Refusal("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", .invalidLineEnd, 400, "CR in front"),
        Refusal(line("GET http:// HTTP/1.1"), .invalidTarget, 400, "http and nothing"),
        Refusal(line("GET https:// HTTP/1.1"), .invalidTarget, 400, "https and nothing"),
        Refusal(line("GET http://a#b HTTP/1.1"), .invalidTarget, 400, "fragment after a host"),
        Refusal(line("GET http://a?b#c HTTP/1.1"), .invalidTarget, 400, "fragment and no path"),
        Refusal(line("GET /%ff HTTP/1.1"), .invalidPercentCoding, 400, "no UTF-8 in the path"),
        Refusal(line("GET /%c0%af HTTP/1.1"), .invalidPercentCoding, 400, "overlong slash"),
        Refusal(line("GET /?a=%f HTTP/1.1"), .invalidPercentCoding, 400, "bad percent in query"),
        Refusal(line("GET /?a=%00 HTTP/1.1"), .invalidPercentCoding, 400, "NUL in the query"),
        Refusal(line("GET /?a=%ff HTTP/1.1"), .invalidPercentCoding, 400, "no UTF-8 in the query"),
        Refusal(line("GET /a/../b HTTP/1.1"), .dotSegment, 400, "dot dot"),
        Refusal(line("GET /a/. HTTP/1.1"), .dotSegment, 400, "dot at the end"),
        Refusal(line("GET /%2e%2E/b HTTP/1.1"), .dotSegment, 400, "encoded dot dot"),
        Refusal(line("GET /.%2e HTTP/1.1"), .dotSegment, 400, "half encoded dot dot"),
        Refusal(
            line("GET /\(String(repeating: "a", count: 501)) HTTP/1.1"), .pathSegmentTooLong, 414,
            "segment of 501 bytes"),
        Refusal(
            line("GET /?\(String(repeating: "a", count: 8192)) HTTP/1.1"), .requestLineTooLong,
            414, "request line above 8 KiB"),
        Refusal("\r\n\r\n\r\n" + line("GET / HTTP/1.1"), .malformedRequestLine, 400, "empty lines"),
        Refusal("GET / HTTP/1.1\nHost: a\n\n", .invalidLineEnd, 400, "bare LF"),
        Refusal("GET / HTTP/1.1\rHost: a\r\n\r\n", .malformedRequestLine, 400, "bare CR"),
    ]

    static let fields: [Refusal] = [
        Refusal(get("Host: a\r\nA : b\r\n"), .invalidFieldName, 400, "space before the colon"),
        Refusal(get("Host: a\r\nA\t: b\r\n"), .invalidFieldName, 400, "tab before the colon"),
        Refusal(get("Host: a\r\n: b\r\n"), .invalidFieldName, 400, "no name"),
        Refusal(get("Host: a\r\nA\r\n"), .invalidFieldName, 400, "no colon"),
        Refusal(get("Host: a\r\nA(b): c\r\n"), .invalidFieldName, 400, "name that is no token"),
        Refusal(get("Host: a\r\n\u{E4}: c\r\n"), .invalidFieldName, 400, "name beyond ASCII"),
        Refusal(get("Host: a\r\nA: b\r\n c\r\n"), .lineFolding, 400, "obs-fold by a space"),
        Refusal(get("Host: a\r\nA: b\r\n\tc\r\n"), .lineFolding, 400, "obs-fold by a tab"),
        Refusal(get(" Host: a\r\n"), .lineFolding, 400, "blank before the first field"),
        Refusal(get("Host: a\r\nA: b\u{0}c\r\n"), .invalidFieldValue, 400, "NUL in a value"),
        Refusal(get("Host: a\r\nA: b\u{7F}\r\n"), .invalidFieldValue, 400, "DEL in a value"),
        Refusal(get("Host: a\r\nA: b\u{1}\r\n"), .invalidFieldValue, 400, "control in a value"),
        Refusal(get("Host: a\r\nA: b\rc\r\n"), .invalidFieldValue, 400, "bare CR in a value"),
        Refusal(get("Host: a\nA: b\r\n"), .invalidLineEnd, 400, "bare LF after a field"),
        Refusal(get("Host: a\r\n\n"), .invalidLineEnd, 400, "bare LF for the empty line"),
        Refusal(get(""), .missingHost, 400, "no Host"),
        Refusal(get("Host: a\r\nHost: a\r\n"), .repeatedHost, 400, "Host twice"),
        Refusal(get("Host:\r\n"), .invalidHost, 400, "empty Host"),
        Refusal(get("Host: a b\r\n"), .invalidHost, 400, "space in Host"),
        Refusal(get("Host: a,b\r\n"), .invalidHost, 400, "list in Host"),
        Refusal(get("Host: a/b\r\n"), .invalidHost, 400, "slash in Host"),
        Refusal(get("Host: u@a\r\n"), .invalidHost, 400, "user in Host"),
        Refusal(get("Host: a:b\r\n"), .invalidHost, 400, "port that is no number"),
        Refusal(get("Host: a:99999\r\n"), .invalidHost, 400, "port above 65535"),
        Refusal(get("Host: a:80:80\r\n"), .invalidHost, 400, "two ports"),
        Refusal(get("Host: :80\r\n"), .invalidHost, 400, "port alone"),
        Refusal(get("Host: a:000080\r\n"), .invalidHost, 400, "port of six digits"),
        Refusal(get("Host: [::1\r\n"), .invalidHost, 400, "open bracket"),
        Refusal(get("Host: []\r\n"), .invalidHost, 400, "nothing in brackets"),
        Refusal(get("Host: [::g]\r\n"), .invalidHost, 400, "no address in brackets"),
        Refusal(get("Host: [::1]a\r\n"), .invalidHost, 400, "a letter after the bracket"),
        Refusal(get("Host: [::::]\r\n"), .invalidHost, 400, "too many colons in brackets"),
        Refusal(get("Host: [1:2:3:4:5:6:7:8:9]\r\n"), .invalidHost, 400, "nine groups"),
        Refusal(get("Host: [12345::]\r\n"), .invalidHost, 400, "a group of five digits"),
        Refusal(get("Host: [192.0.2.1]\r\n"), .invalidHost, 400, "IPv4 in brackets"),
        Refusal(get("Host: .a\r\n"), .invalidHost, 400, "dot in front"),
        Refusal(get("Host: .\r\n"), .invalidHost, 400, "dot alone"),
        Refusal(get("Host: a..\r\n"), .invalidHost, 400, "two dots at the end"),
        Refusal(
            get("Host: \(String(repeating: "a", count: 256))\r\n"), .invalidHost, 400,
            "Host of 256 bytes"),
        Refusal(
            get("Host: a\r\nA: \(String(repeating: "b", count: 33_000))\r\n"), .headersTooLarge,
            431, "headers above 32 KiB"),
        Refusal(
            get("Host: a\r\n" + String(repeating: "A: b\r\n", count: 100)), .tooManyHeaders, 431,
            "101 fields"),
        Refusal(
            get("Host: a\r\n\(String(repeating: "$", count: 257)): b\r\n"), .headersTooLarge, 431,
            "name of 257 bytes, found by the fuzzer"),
        Refusal(post("Expect: 200-ok\r\n"), .unknownExpectation, 417, "unknown expectation"),
        Refusal(
            post("Expect: 100-continue, x\r\n"), .unknownExpectation, 417, "two expectations"),
    ]

    static let framing: [Refusal] = [
        Refusal(
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            .lengthWithTransferCoding, 400, "length and coding"),
        Refusal(
            post("Content-Length: 3\r\nContent-Length: 4\r\n"), .repeatedContentLength, 400,
            "two lengths that differ"),
        Refusal(
            post("Content-Length: 3\r\nContent-Length: 3\r\n"), .repeatedContentLength, 400,
            "the same length twice"),
        Refusal(post("Content-Length: 3, 3\r\n"), .invalidContentLength, 400, "list of lengths"),
        Refusal(post("Content-Length: +3\r\n"), .invalidContentLength, 400, "plus sign"),
        Refusal(post("Content-Length: -3\r\n"), .invalidContentLength, 400, "minus sign"),
        Refusal(post("Content-Length: 0x3\r\n"), .invalidContentLength, 400, "hex length"),
        Refusal(post("Content-Length: 3 3\r\n"), .invalidContentLength, 400, "blank in a length"),
        Refusal(post("Content-Length:\r\n"), .invalidContentLength, 400, "empty length"),
        Refusal(
            post("Content-Length: 99999999999999999999\r\n"), .invalidContentLength, 400,
            "length beyond 64 bits"),
        Refusal(
            post("Content-Length: 52428801\r\n"), .contentTooLarge, 413, "one byte above 50 MiB"),
        Refusal(
            post("Transfer-Encoding: gzip\r\n"), .invalidTransferCoding, 400, "gzip coding"),
        Refusal(
            post("Transfer-Encoding: gzip, chunked\r\n"), .unknownTransferCoding, 501,
            "gzip before chunked"),
        Refusal(
            post("Transfer-Encoding: identity\r\n"), .invalidTransferCoding, 400, "identity"),
        Refusal(
            post("Transfer-Encoding: xchunked\r\n"), .invalidTransferCoding, 400, "xchunked"),
        Refusal(
            post("Transfer-Encoding: chunked, gzip\r\n"), .invalidTransferCoding, 400,
            "chunked is not last"),
        Refusal(
            post("Transfer-Encoding: chunked, chunked\r\n"), .invalidTransferCoding, 400,
            "chunked twice"),
        Refusal(
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            .invalidTransferCoding, 400, "chunked in two fields"),
        Refusal(
            post("Transfer-Encoding: chunked;a=b\r\n"), .invalidTransferCoding, 400,
            "chunked with a parameter"),
        Refusal(post("Transfer-Encoding:\r\n"), .invalidTransferCoding, 400, "empty coding"),
        Refusal(post("Transfer-Encoding: ,chunked\r\n"), .invalidTransferCoding, 400, "empty item"),
        Refusal(
            post("Transfer-Encoding: \"chunked\"\r\n"), .invalidTransferCoding, 400, "quoted"),
        Refusal(
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            .invalidTransferCoding, 400, "coding from HTTP/1.0"),
    ]

    private static func chunked(_ content: String) -> String {
        post("Transfer-Encoding: chunked\r\n", content)
    }

    static let chunks: [Refusal] = [
        Refusal(chunked("x\r\n"), .invalidChunk, 400, "size that is no number"),
        Refusal(chunked("\r\n"), .invalidChunk, 400, "no size"),
        Refusal(chunked("-1\r\n"), .invalidChunk, 400, "negative size"),
        Refusal(chunked("0x1\r\na\r\n"), .invalidChunk, 400, "0x in front"),
        Refusal(chunked(" 1\r\na\r\n"), .invalidChunk, 400, "blank before the size"),
        Refusal(chunked("1 \r\na\r\n"), .invalidChunk, 400, "blank after the size"),
        Refusal(chunked("1_0\r\n"), .invalidChunk, 400, "underscore in the size"),
        Refusal(
            chunked("1\(String(repeating: "0", count: 16))\r\n"), .invalidChunk, 400,
            "size beyond 64 bits"),
        Refusal(chunked("ffffffff\r\n"), .contentTooLarge, 413, "one huge chunk"),
        Refusal(chunked("1\na\r\n"), .invalidLineEnd, 400, "bare LF after the size"),
        Refusal(chunked("1\r\nab\r\n"), .invalidChunk, 400, "more than the size"),
        Refusal(chunked("1\r\na\n"), .invalidChunk, 400, "bare LF after the content"),
        Refusal(chunked("1\r\na\rx"), .invalidChunk, 400, "CR without LF after the content"),
        Refusal(chunked("1;a=\u{1}\r\n"), .invalidChunk, 400, "control in an extension"),
        Refusal(chunked("1;\r\na\r\n"), .invalidChunk, 400, "extension without a name"),
        Refusal(chunked("1;;a\r\na\r\n"), .invalidChunk, 400, "nothing between two extensions"),
        Refusal(chunked("1;=b\r\na\r\n"), .invalidChunk, 400, "value without a name"),
        Refusal(chunked("1;a=\r\na\r\n"), .invalidChunk, 400, "equals sign without a value"),
        Refusal(chunked("1;a b\r\na\r\n"), .invalidChunk, 400, "two names"),
        Refusal(chunked("1;a \r\na\r\n"), .invalidChunk, 400, "blank after the extension"),
        Refusal(chunked("1 ;a=(b)\r\na\r\n"), .invalidChunk, 400, "value that is no token"),
        Refusal(chunked("1;a=\"b\r\na\r\n"), .invalidChunk, 400, "open quote"),
        Refusal(chunked("1;a=\"b\\\"\r\na\r\n"), .invalidChunk, 400, "quote that is quoted"),
        Refusal(chunked("1;a=\"b\\\r\na\r\n"), .invalidChunk, 400, "backslash at the end"),
        Refusal(chunked("1;a=\"b\"c\r\na\r\n"), .invalidChunk, 400, "text behind the quote"),
        Refusal(chunked("1;a=\"\u{1}\"\r\na\r\n"), .invalidChunk, 400, "control in quotes"),
        Refusal(
            chunked("1;\(String(repeating: "a", count: 1100))\r\n"), .invalidChunk, 400,
            "extension above its limit"),
        Refusal(
            chunked(
                String(repeating: "1;\(String(repeating: "a", count: 500))\r\na\r\n", count: 50)),
            .chunkOverhead, 400, "tiny chunks with long extensions"),
        Refusal(chunked("0\r\nA : b\r\n\r\n"), .invalidFieldName, 400, "bad trailer"),
        Refusal(chunked("0\r\nHost: b\r\n\r\n"), .invalidTrailer, 400, "Host in a trailer"),
        Refusal(
            chunked("0\r\nContent-Length: 1\r\n\r\n"), .invalidTrailer, 400, "length in a trailer"),
        Refusal(
            chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), .invalidTrailer, 400,
            "coding in a trailer"),
        Refusal(
            chunked("0\r\n" + String(repeating: "A: b\r\n", count: 33) + "\r\n"),
            .trailersTooLarge, 431, "too many trailers"),
        Refusal(
            chunked("0\r\nA: \(String(repeating: "b", count: 9000))\r\n\r\n"), .trailersTooLarge,
            431, "trailers above 8 KiB"),
    ]

    @Test("each request is for the host that it names, whatever the last one was for")
    func hosts() {
        let named = [
            ("sunrise.example", "sunrise.example"), ("sunrise.example", "sunrise.example"),
            ("Sunrise.Example:8080", "sunrise.example"), ("sunrise.example.", "sunrise.example"),
            ("sunrise.exampl", "sunrise.exampl"), ("sunrise.examplf", "sunrise.examplf"),
            ("sunrise.example", "sunrise.example"), ("lakeside.example", "lakeside.example"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"), ("[2001:db8::1]", "[2001:db8::1]"),
        ]
        let text = named.map { "GET / HTTP/1.1\r\nHost: \($0.0)\r\n\r\n" }.joined()
        let heads = ParserTranscript(text).events.filter { $0.hasPrefix("GET") }
        #expect(heads.map { $0.split(separator: " ")[1] } == named.map { Substring($0.1) })
        for wrong in ["", ".", "sunrise.example..", "sunrise.example:", "sunrise.example:x"] {
            let after = ParserTranscript(text + "GET / HTTP/1.1\r\nHost: \(wrong)\r\n\r\n")
            let alone = ParserTranscript("GET / HTTP/1.1\r\nHost: \(wrong)\r\n\r\n")
            #expect(after.error == alone.error, "\(wrong)")
        }
        // The first request of a connection has no host before it.
        #expect(ParserTranscript("GET / HTTP/1.1\r\nHost:\r\n\r\n").error == .invalidHost)
    }

    @Test("a violation gets its status", arguments: requestLines + fields + framing + chunks)
    func refusal(_ refusal: Refusal) {
        let transcript = ParserTranscript(refusal.bytes)
        #expect(transcript.error == refusal.error)
        #expect(refusal.error.status.code == refusal.status)
    }

    static let accepted: [(String, [String])] = [
        (
            "GET / HTTP/1.1\r\nHost: Sunrise.Localhost:8080\r\n\r\n",
            ["GET sunrise.localhost / HTTP/1.1 Host=Sunrise.Localhost:8080", "end "]
        ),
        (
            "GET /a%2Fb/%C3%A4?q=%20+x HTTP/1.1\r\nHost:\ta.b. \t\r\n\r\n",
            ["GET a.b /a%2Fb/%C3%A4?q=%20+x HTTP/1.1 Host=a.b.", "end "]
        ),
        (
            "GET http://x.y:80/p HTTP/1.1\r\nHost: other\r\n\r\n",
            ["GET x.y /p HTTP/1.1 Host=other", "end "]
        ),
        ("GET http://x.y HTTP/1.1\r\nHost: x.y\r\n\r\n", ["GET x.y / HTTP/1.1 Host=x.y", "end "]),
        (
            "GET HTTPS://x.y?q=1 HTTP/1.1\r\nHost: x.y\r\n\r\n",
            ["GET x.y /?q=1 HTTP/1.1 Host=x.y", "end "]
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            ["GET a / HTTP/1.0 Host=a|Expect=200-ok close", "end "]
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ["OPTIONS a * HTTP/1.1 Host=a", "end "]),
        (
            "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n",
            ["GET [2001:db8::1] / HTTP/1.1 Host=[2001:DB8::1]:80", "end "]
        ),
        ("GET / HTTP/1.0\r\n\r\n", ["GET  / HTTP/1.0  close", "end "]),
        (
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
            ["GET  / HTTP/1.0 Connection=Keep-Alive", "end "]
        ),
        ("GET / HTTP/1.7\r\nHost: a\r\n\r\n", ["GET a / HTTP/1.1 Host=a", "end "]),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n",
            ["GET a / HTTP/1.1 Host=a|Connection=x, CLOSE close", "end "]
        ),
        (
            "\r\nGET / HTTP/1.1\r\nHost: a\r\nEmpty:\r\nX: \u{E4}\r\n\r\n",
            ["GET a / HTTP/1.1 Host=a|Empty=|X=\u{E4}", "end "]
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\n\r\n",
            [
                "POST a / HTTP/1.1 Host=a|Content-Length=003", "content abc", "end ",
                "GET b / HTTP/1.1 Host=b", "end ",
            ]
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            ["POST a / HTTP/1.1 Host=a|Content-Length=0|Expect=100-continue", "end "]
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\nx",
            [
                "POST a / HTTP/1.1 Host=a|Content-Length=1|Expect=100-Continue expects",
                "content x", "end ",
            ]
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
                + "3\r\nabc\r\n00A;x=\"y \\\";\" ; z\t= 1\r\n0123456789\r\n1 ;z\r\n!\r\n0;x=\"\"\r\nDigest: q\r\n\r\n",
            [
                "POST a / HTTP/1.1 Host=a|Transfer-Encoding=Chunked", "content abc0123456789!",
                "end Digest=q",
            ]
        ),
    ]

    @Test("what is right is understood, however it is cut", arguments: accepted)
    func understood(_ bytes: String, _ events: [String]) {
        let whole = ParserTranscript(bytes)
        #expect(whole.error == nil)
        #expect(whole.events == events)
        for cut in 1..<bytes.utf8.count {
            #expect(ParserTranscript(bytes, cuts: [cut]) == whole, "cut at \(cut)")
        }
        #expect(ParserTranscript(bytes, cuts: Array(1..<bytes.utf8.count)) == whole)
    }

    @Test(
        "a violation is the same, however it is cut",
        arguments: (requestLines + fields + framing + chunks).filter { $0.bytes.utf8.count < 700 })
    func cutRefusal(_ refusal: Refusal) {
        let whole = ParserTranscript(refusal.bytes)
        for cut in 1..<refusal.bytes.utf8.count {
            #expect(ParserTranscript(refusal.bytes, cuts: [cut]) == whole, "cut at \(cut)")
        }
        #expect(
            ParserTranscript(refusal.bytes, cuts: Array(1..<refusal.bytes.utf8.count)) == whole)
    }

    @Test("a limit holds exactly: the last byte that fits, and one more")
    func exactLimits() {
        func request(segment: Int) -> String {
            Self.line("GET /\(String(repeating: "a", count: segment)) HTTP/1.1")
        }
        #expect(ParserTranscript(request(segment: 500)).error == nil)
        #expect(ParserTranscript(request(segment: 501)).error == .pathSegmentTooLong)
        let encoded = String(repeating: "%41", count: 500)
        #expect(ParserTranscript(Self.line("GET /\(encoded) HTTP/1.1")).error == nil)

        // "GET /?" and " HTTP/1.1" and CRLF are 17 bytes.
        let query = String(repeating: "q", count: 8192 - 17)
        #expect(ParserTranscript(Self.line("GET /?\(query) HTTP/1.1")).error == nil)
        #expect(
            ParserTranscript(Self.line("GET /?\(query)q HTTP/1.1")).error == .requestLineTooLong)

        // "Host: a" and "A: " with their CRLF and the empty line are 16 bytes.
        let value = String(repeating: "v", count: 32_768 - 16)
        #expect(ParserTranscript(Self.get("Host: a\r\nA: \(value)\r\n")).error == nil)
        #expect(
            ParserTranscript(Self.get("Host: a\r\nA: \(value)v\r\n")).error == .headersTooLarge)

        let many = String(repeating: "A: b\r\n", count: 99)
        #expect(ParserTranscript(Self.get("Host: a\r\n" + many)).error == nil)
        #expect(ParserTranscript(Self.get("Host: a\r\nA: b\r\n" + many)).error == .tooManyHeaders)
        #expect(ParserTranscript(Self.post("Content-Length: 52428800\r\n")).error == nil)
    }

    @Test("of a field's value each byte counts, wherever it stands")
    func fieldValues() {
        for count in 0..<40 {
            for place in 0..<count {
                for byte in UInt8.min ... .max {
                    for other in [UInt8(ascii: "a"), 0x09, 0x80, 0xFF] {
                        var bytes = [UInt8](repeating: other, count: count)
                        bytes[place] = byte
                        let isRight = bytes.withUnsafeBytes { $0.isFieldValue() }
                        if isRight != ByteClass.isFieldValue(byte) {
                            Issue.record("\(byte) at \(place) of \(count) beside \(other)")
                        }
                    }
                }
            }
        }
    }

    @Test("no more is kept of an endless head than its limits")
    func endlessHead() {
        let limits = HTTP1Limits()
        let endlessLine = "GET /" + String(repeating: "a/", count: 30_000)
        let byLine = ParserTranscript(
            endlessLine, cuts: Array(stride(from: 1, to: 60_000, by: 997)))
        #expect(byLine.error == .requestLineTooLong)
        let endlessField = "GET / HTTP/1.1\r\nA: " + String(repeating: "a", count: 60_000)
        let byField = ParserTranscript(
            endlessField, cuts: Array(stride(from: 1, to: 60_000, by: 997)))
        #expect(byField.error == .headersTooLarge)
        #expect(max(byLine.keptBytesMax, byField.keptBytesMax) <= limits.pendingBytesMax)
    }

    @Test("every refusal has a client or server status and a label of its own")
    func labels() {
        let labels = HTTP1Error.allCases.map(\.rawValue)
        #expect(Set(labels).count == labels.count)
        for error in HTTP1Error.allCases { #expect((400...599).contains(error.status.code)) }
    }
}

@Suite("HTTP/1 fuzzer's corpus")
struct HTTP1CorpusTests {
    nonisolated static let names = [
        "absolute", "asterisk", "bare-lf", "both", "chunked", "codings", "dots", "fold", "get",
        "http10", "ipv6", "length", "overhead", "pipelined", "preface",
    ]

    @Test("each input of the corpus means the same at every cut", arguments: names)
    func cuts(_ name: String) throws {
        let text = try Repository.contents(
            of: Repository.path("Tests/Fuzz/HTTP1/corpus/\(name)"))
        // The first two bytes are the fuzzer's own.
        let bytes = Array(text.utf8.dropFirst(2))
        let whole = ParserTranscript(bytes)
        #expect(!whole.events.isEmpty || whole.error != nil)
        for cut in 1..<bytes.count { #expect(ParserTranscript(bytes, cuts: [cut]) == whole) }
    }
}
