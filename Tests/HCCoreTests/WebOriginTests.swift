import HCTesting
import Testing

@testable import HCCore

@Suite("Web origins")
struct WebOriginTests {
    @Test(
        "what a person writes becomes the one form",
        arguments: [
            ("https://portal.example", "https://portal.example"),
            ("HTTPS://Portal.Example", "https://portal.example"),
            ("https://portal.example:443", "https://portal.example"),
            ("http://localhost:80", "http://localhost"),
            ("https://portal.example:8443", "https://portal.example:8443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
            ("http://[::1]:5173", "http://[::1]:5173"), ("http://[::1]", "http://[::1]"),
            ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
            ("https://a", "https://a"), ("https://10.0.0.1", "https://10.0.0.1"),
        ])
    func written(text: String, form: String) throws {
        let origin = try WebOrigin(written: text)
        #expect(origin.text == form)
        #expect(WebOrigin(field: form) == origin)
        #expect(WebOrigin(field: text)?.text == (text == form ? form : nil))
    }

    @Test(
        "what is no origin is refused with its reason",
        arguments: [
            ("null", .null), ("NULL", .null), ("*", .wildcard), ("https://*.example", .wildcard),
            ("", .scheme), ("portal.example", .scheme), ("ftp://a", .scheme), ("https:/a", .scheme),
            ("//a", .scheme), (" https://a", .scheme), ("chrome-extension://abc", .scheme),
            ("https://a/", .path), ("https://a/b", .path), ("https://a?b", .path),
            ("https://a#b", .path), ("https://a\\b", .path), ("https://u@a", .userInformation),
            ("https://u:p@a:443", .userInformation), ("https://", .host), ("https://:443", .host),
            ("https://a..b", .host), ("https://a.", .host), ("https://.a", .host),
            ("https://-a", .host), ("https://a-", .host), ("https://a_b", .host),
            ("https://a b", .host), ("https://münchen.example", .host), ("https://a%20b", .host),
            ("https://a,https://b", .path), ("https://a https://b", .path),
            ("https://1.2.3", .host), ("https://1.2.3.256", .host), ("https://01.2.3.4", .host),
            ("https://a.0x7f", .host), ("https://2130706433", .host), ("https://1.2.3.4.5", .host),
            ("https://[::2]", .host), ("https://[::1", .host), ("https://[::1]x", .port),
            ("https://a:", .port), ("https://a:0", .port), ("https://a:65536", .port),
            ("https://a:080", .port), ("https://a:8 0", .port), ("https://a:80:80", .port),
            ("https://a:-1", .port), ("https://a:٣", .port), ("https://a\u{0}", .host),
        ] as [(String, WebOrigin.Problem)])
    func refused(text: String, problem: WebOrigin.Problem) {
        #expect(throws: problem) { try WebOrigin(written: text) }
        #expect(WebOrigin(field: text) == nil)
    }

    @Test("labels and hosts have their lengths")
    func lengths() {
        let label = String(repeating: "a", count: 63)
        #expect(WebOrigin(field: "https://\(label)") != nil)
        #expect(WebOrigin(field: "https://\(label)a") == nil)
        let host = [label, label, label, String(repeating: "a", count: 61)].joined(separator: ".")
        #expect(WebOrigin(field: "https://\(host):65535") != nil)
        #expect(WebOrigin(field: "https://\(host)a") == nil)
    }

    @Test("this machine is told from others")
    func loopback() throws {
        for text in [
            "http://localhost", "http://app.localhost:1", "http://127.1.2.3", "http://[::1]:2",
        ] {
            #expect(try WebOrigin(written: text).isLoopback, "\(text)")
        }
        for text in ["https://notlocalhost", "https://128.0.0.1", "https://localhost.example"] {
            #expect(try !WebOrigin(written: text).isLoopback, "\(text)")
        }
        #expect(try WebOrigin(written: "https://localhost").isSecure)
        #expect(try !WebOrigin(written: "http://localhost").isSecure)
    }
}
