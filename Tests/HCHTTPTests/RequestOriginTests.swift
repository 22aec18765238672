import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("whose request it is")
struct RequestOriginTests {
    private static let trusted: TrustedProxies = {
        let blocks = ["10.0.0.0/8", "2001:db8:ffff::/48"].compactMap { AddressBlock($0) }
        return TrustedProxies(blocks)
    }()

    private static func origin(
        _ fields: String, from peer: String = "10.0.0.1", isSecure: Bool = false
    ) throws -> RequestOrigin {
        var parser = HTTP1Parser(limits: HTTP1Limits())
        var consumed = 0
        let bytes = Array("GET / HTTP/1.1\r\nHost: front\r\n\(fields)\r\n".utf8)
        let event = try bytes.withUnsafeBytes { try parser.next($0, consumed: &consumed) }
        guard case .head(let head) = event else { throw HTTP1Error.incompleteContent }
        let address = try #require(SocketAddress(host: peer, port: 1234))
        return try RequestOrigin(
            head.headers, host: head.host,
            on: ConnectionOrigin(address, isSecure: isSecure, trusted: trusted), trusted: trusted)
    }

    struct Case: CustomTestStringConvertible {
        let fields: String
        let address: String
        var isSecure = false
        var host = "front"
        var testDescription: String { fields }
    }

    static let understood: [Case] = [
        Case(fields: "", address: "10.0.0.1:1234"),
        // X-Forwarded-For, from the right.
        Case(fields: "X-Forwarded-For: 192.0.2.7\r\n", address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: 192.0.2.7:4711\r\n", address: "192.0.2.7:4711"),
        Case(fields: "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n", address: "192.0.2.7:0"),
        Case(
            fields: "X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.3.3.3,10.2.2.2\r\n",
            address: "192.0.2.7:0"),
        Case(
            fields: "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7\r\n",
            address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n", address: "10.3.3.3:0"),
        Case(fields: "X-Forwarded-For: what '; drop, 192.0.2.7\r\n", address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: , 192.0.2.7 ,\r\n", address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: 2001:db8::7\r\n", address: "[2001:db8::7]:0"),
        Case(fields: "X-Forwarded-For: [2001:db8::7]:99\r\n", address: "[2001:db8::7]:99"),
        Case(fields: "X-Forwarded-For: ::ffff:192.0.2.7\r\n", address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: ::ffff:10.1.1.1\r\n", address: "10.1.1.1:0"),
        Case(fields: "X-Forwarded-For: 192.0.2.7, 2001:db8:ffff::1\r\n", address: "192.0.2.7:0"),
        Case(fields: "X-Forwarded-For: unknown, 10.2.2.2\r\n", address: "10.2.2.2:0"),
        Case(fields: "X-Forwarded-For:\r\n", address: "10.0.0.1:1234"),
        // Scheme and host: one for all, or one for each hop.
        Case(
            fields: "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: HTTPS\r\n",
            address: "192.0.2.7:0", isSecure: true),
        Case(
            fields:
                "X-Forwarded-For: 198.51.100.1, 192.0.2.7, 10.2.2.2\r\n"
                + "X-Forwarded-Proto: http, https, http\r\n"
                + "X-Forwarded-Host: a.example, Sunrise.example:443, b.example\r\n",
            address: "192.0.2.7:0", isSecure: true, host: "sunrise.example"),
        Case(
            fields: "X-Forwarded-Proto: https\r\nX-Forwarded-Host: sunrise.example\r\n",
            address: "10.0.0.1:1234", isSecure: true, host: "sunrise.example"),
        // Forwarded.
        Case(fields: "Forwarded: for=192.0.2.7\r\n", address: "192.0.2.7:0"),
        Case(
            fields: "Forwarded: For=\"[2001:db8:cafe::17]:4711\"\r\n",
            address: "[2001:db8:cafe::17]:4711"),
        Case(
            fields:
                "Forwarded: for=192.0.2.60;proto=https;by=203.0.113.43;host=\"a.example:8\"\r\n",
            address: "192.0.2.60:0", isSecure: true, host: "a.example"),
        Case(
            fields:
                "Forwarded: for=198.51.100.1;host=evil.example, for=192.0.2.7, for=10.2.2.2\r\n",
            address: "192.0.2.7:0"),
        Case(
            fields: "Forwarded: for=192.0.2.7;proto=https,for=10.2.2.2;proto=http\r\n",
            address: "192.0.2.7:0", isSecure: true),
        Case(
            fields: "Forwarded: for=198.51.100.1\r\nForwarded: for=192.0.2.7\r\n",
            address: "192.0.2.7:0"),
        Case(
            fields: "Forwarded: for=unknown;proto=https, for=10.2.2.2\r\n", address: "10.2.2.2:0",
            isSecure: true),
        Case(fields: "Forwarded: for=_hidden, for=\"_SEVKISEK:_b3\"\r\n", address: "10.0.0.1:1234"),
        Case(
            fields: "Forwarded: for=\"192.0.2.7:_b3\"; secret=\"a,b;c\\\"d\"\r\n",
            address: "192.0.2.7:0"),
        Case(fields: "Forwarded: , ,for=192.0.2.7;,\r\n", address: "192.0.2.7:0"),
    ]

    @Test("a trusted proxy tells whom it speaks for", arguments: understood)
    func isUnderstood(_ wanted: Case) throws {
        let found = try Self.origin(wanted.fields)
        #expect(found.address.description == wanted.address)
        #expect(found.isSecure == wanted.isSecure)
        #expect(found.host == wanted.host)
    }

    @Test("anybody else's fields mean nothing", arguments: understood)
    func ignored(_ fields: Case) throws {
        for isSecure in [true, false] {
            let found = try Self.origin(fields.fields, from: "192.0.2.99", isSecure: isSecure)
            #expect(found.address.description == "192.0.2.99:1234")
            #expect(found.isSecure == isSecure)
            #expect(found.host == "front")
        }
    }

    static let refused: [(String, ForwardedError)] = [
        ("Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.7\r\n", .conflict),
        ("Forwarded: for=192.0.2.7\r\nX-Forwarded-Proto: https\r\n", .conflict),
        ("Forwarded: for=192.0.2.7\r\nX-Forwarded-Host: a\r\n", .conflict),
        ("X-Forwarded-For: 192.0.2.7, nobody\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7, 192.0.2.07\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.256\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7:\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7:65536\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7:+80\r\n", .malformed),
        ("X-Forwarded-For: _" + String(repeating: "a", count: 64) + "\r\n", .malformed),
        (
            "Forwarded: "
                + (1...17).map { "name\($0)=1" }.joined(separator: ";") + "\r\n", .malformed
        ),
        ("X-Forwarded-For: 192.0.2.7 192.0.2.8\r\n", .malformed),
        ("X-Forwarded-For: [192.0.2.7]\r\n", .malformed),
        ("X-Forwarded-For: [2001:db8::7\r\n", .malformed),
        ("X-Forwarded-For: [2001:db8::7]99\r\n", .malformed),
        ("X-Forwarded-For: 2001:db8::7%eth0\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: ws\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: a/b\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: u@a\r\n", .malformed),
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http, https\r\n", .uneven),
        ("X-Forwarded-For: 1.1.1.1, 192.0.2.7, 2.2.2.2\r\nX-Forwarded-Host: a, b\r\n", .uneven),
        (
            "X-Forwarded-For: "
                + [String](repeating: "10.1.1.1", count: 33).joined(separator: ",") + "\r\n",
            .tooLong
        ),
        (
            "Forwarded: " + [String](repeating: "for=10.1.1.1", count: 33).joined(separator: ",")
                + "\r\n", .tooLong
        ),
        ("Forwarded: 192.0.2.7\r\n", .malformed),
        ("Forwarded: for\r\n", .malformed),
        ("Forwarded: for=\r\n", .malformed),
        ("Forwarded: for=\"192.0.2.7\r\n", .malformed),
        ("Forwarded: for=\"192.0.2.7\\\r\n", .malformed),
        ("Forwarded: for=2001:db8::7\r\n", .malformed),
        ("Forwarded: for=\"2001:db8::7\"\r\n", .malformed),
        ("Forwarded: for=192.0.2.7 for=192.0.2.8\r\n", .malformed),
        ("Forwarded: for=192.0.2.7;for=192.0.2.8\r\n", .malformed),
        ("Forwarded: for = 192.0.2.7\r\n", .malformed),
        ("Forwarded: for=192.0.2.7 proto=https\r\n", .malformed),
        ("Forwarded: for=\"192.0.2.7\"proto=https\r\n", .malformed),
        ("Forwarded: for=192.0.2.7;proto=gopher\r\n", .malformed),
        ("Forwarded: for=192.0.2.7;host=\"a b\"\r\n", .malformed),
        ("Forwarded: for=_\r\n", .malformed),
        // A quotation mark that a client opened does not swallow what the proxy wrote.
        ("Forwarded: for=\"198.51.100.1, for=192.0.2.7\r\n", .malformed),
        ("Forwarded: for=\"198.51.100.1, for=\"[2001:db8::7]:4\"\r\n", .malformed),
        ("Forwarded: for=\"198.51.100.1\\, for=\"192.0.2.7\";by=\"10.0.0.1\"\r\n", .malformed),
    ]

    @Test("what a trusted proxy says ambiguously is refused, never guessed", arguments: refused)
    func isRefused(_ fields: String, _ error: ForwardedError) throws {
        #expect(throws: error) { try Self.origin(fields) }
        #expect(try Self.origin(fields, from: "192.0.2.99").host == "front")
    }

    @Test("an address block is what it says, and nothing that is probably a mistake")
    func blocks() throws {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"), ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"), ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::/65", "2001:db8::1", "2001:db8:0:0:8000::"),
            ("::1", "::1", "::2"), ("::/0", "2001:db8::1", "1.1.1.1"),
        ] {
            let block = try #require(AddressBlock(text))
            let yes = try #require(SocketAddress(host: inside, port: 1))
            let no = try #require(SocketAddress(host: outside, port: 1))
            #expect(block.contains(yes), "\(text) \(inside)")
            #expect(!block.contains(no), "\(text) \(outside)")
            #expect(block.description == text)
        }
        for text in [
            "", "/8", "10.1.0.0/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8",
            "fd00::1/8",
            "::/129", "localhost", "10.0.0.0/8/8", "[::1]", "/run/proxy.sock", "10.0.0.0/0008",
        ] {
            #expect(AddressBlock(text) == nil, "\(text)")
        }
    }
}
