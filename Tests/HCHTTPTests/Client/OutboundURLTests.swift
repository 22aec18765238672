import HCIO
import Testing

@testable import HCHTTP

@Suite("URLs of outbound requests can be read in one way only")
struct OutboundURLTests {
    static let accepted: [(String, String)] = [
        ("http://a", "http://a/"),
        ("HTTPS://A.Example:443/X", "https://a.example/X"),
        ("http://a.example:80/?", "http://a.example/?"),
        ("http://a.example:8080?x=1", "http://a.example:8080/?x=1"),
        ("https://xn--bcher-kva.example/%C3%BC", "https://xn--bcher-kva.example/%C3%BC"),
        ("https://minio_1:9000/b/k", "https://minio_1:9000/b/k"),
        ("http://192.0.2.1/", "http://192.0.2.1/"),
        ("http://0.0.0.0/", "http://0.0.0.0/"),
        ("http://255.255.255.255:65535/", "http://255.255.255.255:65535/"),
        ("http://[2001:DB8::1]:8443/", "http://[2001:db8::1]:8443/"),
        ("http://[::ffff:10.0.0.1]/", "http://[::ffff:10.0.0.1]/"),
        ("http://a/b/../c?d=/?", "http://a/b/../c?d=/?"),
        ("http://1.2.3.4.example/", "http://1.2.3.4.example/"),
        ("http://0x7f.example/", "http://0x7f.example/"),
        ("http://3com.com/", "http://3com.com/"),
        ("http://a/b;c@d:e", "http://a/b;c@d:e"),
    ]

    @Test("what is plain is accepted, in one spelling", arguments: accepted)
    func accepts(_ text: String, _ canonical: String) throws {
        let url = try OutboundURL(text)
        #expect(url.text == canonical)
        #expect(try OutboundURL(url.text) == url)
    }

    static let refused: [(String, OutboundURL.Refusal)] = [
        ("", .notAbsolute), ("a", .notAbsolute), ("/x", .notAbsolute), ("//a/", .notAbsolute),
        ("://a", .notAbsolute), ("http:/a", .notAbsolute), ("http:a", .notAbsolute),
        ("http:\\\\a\\", .notAbsolute), (" http://a/", .scheme), ("http ://a/", .scheme),
        ("ftp://a/", .scheme), ("file:///etc/passwd", .scheme), ("gopher://a/", .scheme),
        ("javascript:alert(1)", .scheme), ("htt\u{70}s\u{0}://a/", .scheme),
        ("http://user@a/", .userInfo), ("http://user:pass@a/", .userInfo),
        ("http://@a/", .userInfo),
        ("http://a@b@c/", .userInfo), ("http://a:80@b/", .userInfo),
        ("http:///x", .host), ("http://", .host), ("http://:80/", .host), ("http://./", .host),
        ("http://a./", .host), ("http://a..b/", .host), ("http://.a/", .host),
        ("http://127.0.0.1./", .host), ("http://-a/", .host), ("http://a-/", .host),
        ("http://a b/", .host), ("http://a\\b/", .host), ("http://a%2eb/", .host),
        ("http://%31%32%37.0.0.1/", .host), ("http://bücher.example/", .host),
        ("http://ⓔxample.com/", .host), ("http://１２７.0.0.1/", .host), ("http://a\u{0}b/", .host),
        ("http://a\tb/", .host), ("http://a\r\nHost/", .host), ("http://a!/", .host),
        ("http://[::1/", .host), ("http://" + String(repeating: "a", count: 64) + "/", .host),
        ("http://" + String(repeating: "abc.", count: 63) + "de/", .host),
        // Everything that a lenient reader takes for an address.
        ("http://127.1/", .oddAddress), ("http://127.0.1/", .oddAddress),
        ("http://2130706433/", .oddAddress), ("http://0x7f000001/", .oddAddress),
        ("http://0x7f.0.0.1/", .oddAddress), ("http://0177.0.0.1/", .oddAddress),
        ("http://017700000001/", .oddAddress), ("http://127.0.0.01/", .oddAddress),
        ("http://127.0.0.0x1/", .oddAddress), ("http://0/", .oddAddress),
        ("http://00.0.0.0/", .oddAddress), ("http://256.0.0.1/", .oddAddress),
        ("http://1.2.3.4.5/", .oddAddress), ("http://1.2.3.999/", .oddAddress),
        ("http://a.1/", .oddAddress), ("http://a.0x/", .oddAddress),
        ("http://a.0X1F/", .oddAddress),
        ("http://4294967296/", .oddAddress), ("http://999999999999999999999/", .oddAddress),
        ("http://[]/", .oddAddress), ("http://[::1%25eth0]/", .oddAddress),
        ("http://[fe80::1%eth0]/", .oddAddress), ("http://[127.0.0.1]/", .oddAddress),
        ("http://[::1\u{0}]/", .oddAddress),
        ("http://[::ffff:127.1]/", .oddAddress), ("http://[1:2:3]/", .oddAddress),
        ("http://[v1.x]/", .oddAddress), ("http://[::1 ]/", .oddAddress),
        ("http://a:/", .port), ("http://a:0/", .port), ("http://a:080/", .port),
        ("http://a:65536/", .port), ("http://a:100000/", .port), ("http://a:8o/", .port),
        ("http://a:-1/", .port), ("http://a:+80/", .port), ("http://a: 80/", .port),
        ("http://[::1]x/", .port), ("http://[::1]80/", .port), ("http://a:80:80/", .port),
        ("http://a/ b", .path), ("http://a/\\b", .path), ("http://a/%", .path),
        ("http://a/%4", .path), ("http://a/%zz", .path), ("http://a/ü", .path),
        ("http://a/\u{7f}", .path), ("http://a/\r\nX: y", .path), ("http://a/<", .path),
        ("http://a/?a b", .query), ("http://a/?%", .query), ("http://a/?\n", .query),
        ("http://a/#", .fragment), ("http://a#b", .fragment), ("http://a/?b#c", .fragment),
        ("http://a/#@b", .fragment), ("http://a?@b/#", .fragment),
        ("http://a/" + String(repeating: "b", count: 8192), .tooLong),
    ]

    @Test("whatever else there is is refused, and it is said why", arguments: refused)
    func refuses(_ text: String, _ reason: OutboundURL.Refusal) {
        #expect(throws: reason) { try OutboundURL(text) }
    }

    @Test("parts are what they are")
    func parts() throws {
        let url = try OutboundURL("https://b.example:8443/x/y?q=1")
        #expect(url.scheme == .https && url.port == 8443)
        #expect(url.host == .name("b.example"))
        #expect(url.path == "/x/y" && url.query == "q=1" && url.target == "/x/y?q=1")
        #expect(url.origin == "https://b.example:8443" && url.authority == "b.example:8443")
        let address = try OutboundURL("http://192.0.2.7:81/")
        #expect(address.host == .address(.ipv4(address: 0xC000_0207, port: 81)))
        #expect(try OutboundURL("http://[::1]/").authority == "[::1]")
    }

    static let references: [(String, String)] = [
        ("https://c.example/z", "https://c.example/z"), ("//c.example/z", "https://c.example/z"),
        ("/z", "https://b.example:8443/z"), ("z", "https://b.example:8443/x/z"),
        ("?r=2", "https://b.example:8443/x/y?r=2"), ("", "https://b.example:8443/x/y"),
        ("/z#part", "https://b.example:8443/z"), ("z/a:b", "https://b.example:8443/x/z/a:b"),
        ("#top", "https://b.example:8443/x/y"), ("HTTP://c/", "http://c/"),
        ("../z", "https://b.example:8443/x/../z"),
    ]

    @Test("a location is read against the URL that was asked", arguments: references)
    func resolves(_ location: String, _ expected: String) throws {
        let url = try OutboundURL("https://b.example:8443/x/y?q=1")
        #expect(try url.resolving(location: location).text == expected)
    }

    @Test(
        "a location that is no plain URL is refused",
        arguments: ["javascript:x", "//", "///c", "http:c", "/ü", "//user@c/", "//127.1/", "\\\\c"])
    func refusesLocation(_ location: String) throws {
        let url = try OutboundURL("https://b.example/x/y")
        #expect(throws: OutboundURL.Refusal.self) { try url.resolving(location: location) }
    }
}
