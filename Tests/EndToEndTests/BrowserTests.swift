import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// A browser of today, headless, with the certificate that `up` made.
    @Suite struct BrowserTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared("conformance", ["HC_CONFORMANCE": "1"])
        }

        private func show(_ path: String) throws -> String {
            let profile = try Subprocess.run("/bin/mktemp", ["-d"]).split(separator: "\n")[0]
            defer { _ = try? Subprocess.run("/bin/rm", ["-rf", String(profile)]) }
            return try Subprocess.run(
                "/usr/bin/chromium-headless-shell",
                [
                    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--ignore-certificate-errors", "--user-data-dir=\(profile)",
                    "--virtual-time-budget=30000", "--dump-dom",
                    "https://sunrise.localhost:\(platform.tlsPort)\(path)",
                ])
        }

        @Test("a browser shows an answer")
        func answer() throws {
            #expect(try show("/health").contains(#"{"status":"ok"}"#))
        }

        @Test("a browser loads a page over HTTP/2; its script fetches and opens a WebSocket")
        func page() throws {
            let folder = try Subprocess.run("/bin/mktemp", ["-d"]).split(separator: "\n")[0]
            defer { _ = try? Subprocess.run("/bin/rm", ["-rf", String(folder)]) }
            // Workers may run as another user than this test.
            try Subprocess.run("/bin/chmod", ["755", String(folder)])
            for name in ["index.html", "app.js"] {
                let file = Repository.path("Tests/EndToEndTests/Clients/browser/\(name)")
                try Files.replace("\(folder)/\(name)", with: try Files.read(file), mode: 0o644)
            }
            try platform.configure("http", ["assets": .string(String(folder))])
            defer {
                do {
                    try platform.configure("http", [:])
                    try platform.reload()
                } catch {
                    Issue.record("the configuration is not as it was: \(error)")
                }
            }
            try platform.reload()

            let page = try show("/console/")
            let start = try #require(page.firstIndex(of: "{"), "\(page)")
            let end = try #require(page.lastIndex(of: "}"))
            let found = try JSONReader.parse(Array(page[start...end].utf8))
            #expect(found["protocol"]?.asString == "h2")
            #expect(found["health"]?.asString == "ok")
            #expect(found["echo"]?.asString == "grüße")
            #expect(found["extensions"]?.asString == "permessage-deflate")
        }
    }
}
