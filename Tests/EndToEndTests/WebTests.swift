import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// What browsers and frugal clients need, with curl as one of them.
    @Suite struct WebTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared()
        }

        @Test("a list is the same document in every coding")
        func codings() throws {
            let token = try platform.login("sunrise")
            let path = "/v1/patients?limit=50"
            let plain = try platform.curl("GET", "sunrise", path, token: token)
            #expect(plain.header("Content-Encoding") == nil)
            #expect(plain.body.utf8.count > 1024)
            #expect(plain.header("Vary")?.contains("Accept-Encoding") == true)
            let overHTTP2 = try platform.curl(
                "GET", "sunrise", path, token: token, headers: ["Accept-Encoding: br"],
                options: ["--compressed", "--http2-prior-knowledge"])
            #expect(overHTTP2.header("content-encoding") == "br")
            #expect(overHTTP2.body == plain.body)
            for (accept, coding) in [
                ("gzip", "gzip"), ("br", "br"), ("deflate", "deflate"), ("gzip, deflate, br", "br"),
                ("gzip;q=1, br;q=0.5", "gzip"), ("identity", nil), ("zstd", nil),
            ] {
                let answer = try platform.curl(
                    "GET", "sunrise", path, token: token, headers: ["Accept-Encoding: \(accept)"],
                    options: ["--compressed"])
                #expect(answer.status == 200)
                #expect(answer.header("Content-Encoding") == coding, "\(accept)")
                #expect(answer.body == plain.body, "\(accept)")
                let length = Int(answer.header("Content-Length") ?? "") ?? .max
                #expect(coding == nil || length < plain.body.utf8.count / 2)
            }
        }

        @Test("a change may be asked for with the tag of a compressed answer")
        func tags() throws {
            let token = try platform.login("sunrise")
            let patient = """
                {"givenName":"Tag","familyName":"Compressed","birthDate":"1980-02-29","sex":"female"}
                """
            let made = try platform.curl(
                "POST", "sunrise", "/v1/patients", token: token, json: patient)
            let path = try #require(made.header("Location"))
            // Small content is compressed only for who takes nothing else.
            let read = try platform.curl(
                "GET", "sunrise", path, token: token,
                headers: ["Accept-Encoding: gzip, identity;q=0"], options: ["--compressed"])
            let tag = try #require(read.header("ETag"))
            #expect(tag.hasSuffix("-gzip\""))
            #expect(made.header("ETag").map { EntityTagText.gzip($0) } == tag)
            func patch(_ tag: String) throws -> CurlAnswer {
                try platform.curl(
                    "PATCH", "sunrise", path, token: token, json: #"{"givenName":"Tagged"}"#,
                    headers: ["If-Match: \(tag)"])
            }
            let changed = try patch(tag)
            #expect(changed.status == 200, "\(changed.body)")
            #expect(try patch(tag).status == 412, "it has seen another version")
            #expect(try patch("W/" + (changed.header("ETag") ?? "")).status == 412)
            #expect(try patch(changed.header("ETag") ?? "").status == 200)
        }

        private enum EntityTagText {
            static func gzip(_ tag: String) -> String { tag.dropLast() + "-gzip\"" }
        }

        @Test("answers with tokens are never compressed, whatever is asked for")
        func secrets() throws {
            let (email, password) = try platform.credentials(of: "sunrise")
            let answer = try platform.curl(
                "POST", "sunrise", "/v1/auth/login",
                json: #"{"email":"\#(email)","password":"\#(password)"}"#,
                headers: ["Accept-Encoding: br, gzip, identity;q=0"])
            #expect(answer.status == 200)
            #expect(answer.header("Content-Encoding") == nil)
            #expect(try answer.json["accessToken"]?.asString != nil)
        }

        @Test("content in gzip is a request like any other, also for who repeats it")
        func gzipRequests() throws {
            let token = try platform.login("sunrise")
            let patient = """
                {"givenName":"Zip","familyName":"Gzipped","birthDate":"1980-02-29","sex":"other"}
                """
            let folder = try Subprocess.run("/bin/mktemp", ["-d"]).split(separator: "\n")[0]
            defer { Self.remove(String(folder)) }
            let file = "\(folder)/patient.json"
            try Files.replace(file, with: Array(patient.utf8))
            try Subprocess.run("/bin/gzip", ["-k", file])
            func post(_ file: String, _ coding: String?, key: String) throws -> CurlAnswer {
                var headers = ["Content-Type: application/json", "Idempotency-Key: \(key)"]
                if let coding { headers.append("Content-Encoding: \(coding)") }
                return try platform.curl(
                    "POST", "sunrise", "/v1/patients", token: token, headers: headers,
                    options: ["--data-binary", "@\(file)"])
            }
            let made = try post(file + ".gz", "gzip", key: "gzip-1")
            #expect(made.status == 201, "\(made.body)")
            // The key stands for the document, however it is sent.
            let replayed = try post(file, nil, key: "gzip-1")
            #expect(replayed.status == 201)
            #expect(replayed.header("Idempotency-Replayed") == "true")
            #expect(replayed.body == made.body)
            let unknown = try post(file, "br", key: "gzip-2")
            #expect(unknown.status == 415)
            #expect(unknown.header("Accept-Encoding") == "gzip")
            let broken = try post(file, "gzip", key: "gzip-3")
            #expect(broken.status == 400)
            #expect(try broken.json["code"]?.asString == "malformed-content-coding")
            let bomb = "\(folder)/bomb"
            try Files.replace(bomb, with: [UInt8](repeating: 0x20, count: 8 << 20))
            try Subprocess.run("/bin/gzip", ["-9", bomb])
            let refused = try post(bomb + ".gz", "gzip", key: "gzip-4")
            #expect(refused.status == 413)
        }

        private static func remove(_ folder: String) {
            do {
                try Subprocess.run("/bin/rm", ["-r", folder])
            } catch {
                Issue.record("\(folder) is left behind: \(error)")
            }
        }

        @Test("a clinic lets pages of named origins in, and servers follow the list")
        func origins() throws {
            let portal = "https://portal.example"
            func cors(_ words: [String]) throws -> (status: Int32, json: JSONValue) {
                let (status, output) = try platform.admin(
                    ["tenant", "cors", "lakeside"] + words + ["--json"])
                return (status, try JSONReader.parse(Array(output.utf8)))
            }
            func answered(_ origin: String) throws -> CurlAnswer {
                try platform.curl("GET", "lakeside", "/v1/clinic", headers: ["Origin: \(origin)"])
            }
            func preflight(_ slug: String, _ origin: String) throws -> CurlAnswer {
                try platform.curl(
                    "OPTIONS", slug, "/v1/patients",
                    headers: ["Origin: \(origin)", "Access-Control-Request-Method: POST"])
            }
            // Every worker follows by itself: so many answers in a row are of all of them.
            func follow(_ isWanted: (CurlAnswer) -> Bool) throws {
                var inRow = 0
                for _ in 0..<2000 where inRow < 12 {
                    inRow = isWanted(try answered(portal)) ? inRow + 1 : 0
                }
                #expect(inRow == 12)
            }

            let planned = try cors(["--allow", portal, "--dry-run"])
            #expect(planned.status == 0)
            #expect(planned.json["applied"] == .bool(false))
            #expect(try answered(portal).header("Access-Control-Allow-Origin") == nil)

            let allowed = try cors(["--allow", portal, "--allow", "HTTP://Localhost:3000"])
            #expect(allowed.json["origins"] == ["http://localhost:3000", .string(portal)])
            try follow { $0.header("Access-Control-Allow-Origin") == portal }
            // The refusal for want of a token can be read by the page as well.
            let refusal = try answered(portal)
            #expect(refusal.status == 401)
            #expect(refusal.header("Vary") == "Origin")
            #expect(refusal.header("Access-Control-Allow-Credentials") == nil)
            let answer = try preflight("lakeside", portal)
            #expect(answer.status == 204)
            #expect(answer.header("Access-Control-Allow-Methods") == "GET, HEAD, POST, OPTIONS")
            for (slug, origin) in [
                ("lakeside", "https://other.example"), ("lakeside", "null"), ("sunrise", portal),
                ("nowhere", portal),
            ] {
                let refused = try preflight(slug, origin)
                #expect(refused.status == 403)
                #expect(refused.header("Access-Control-Allow-Origin") == nil)
            }
            let shown = try platform.admin(["tenant", "show", "lakeside", "--json"])
            #expect(
                try JSONReader.parse(Array(shown.output.utf8))["origins"]
                    == ["http://localhost:3000", .string(portal)])
            #expect(try platform.admin(["tenant", "cors", "lakeside", "--allow", "*"]).status == 2)
            #expect(try platform.admin(["tenant", "cors", "nowhere"]).status == 4)

            _ = try cors(["--remove", "\(portal),http://localhost:3000"])
            try follow { $0.header("Access-Control-Allow-Origin") == nil }
            #expect(try cors([]).json["origins"] == [])
        }

        @Test("static files are served where a directory is named, and only then")
        func assets() throws {
            #expect(try platform.curl("GET", "sunrise", "/console/").status == 404)
            let folder = try Subprocess.run("/bin/mktemp", ["-d"]).split(separator: "\n")[0]
            defer { Self.remove(String(folder)) }
            // Workers may run as another user than this test.
            try Subprocess.run("/bin/chmod", ["755", String(folder)])
            try Files.replace(
                "\(folder)/index.html", with: Array("<script src=\"app.js\"></script>".utf8),
                mode: 0o644)
            let script = String(repeating: "console.log('alike');\n", count: 200)
            try Files.replace("\(folder)/app.js", with: Array(script.utf8), mode: 0o644)

            let file = platform.state + "/hc.json"
            let before = try Files.read(file)
            let configuration = try JSONReader.parse(before).asObject
            var changed = try #require(configuration)
            var http = changed["http"]?.asObject ?? JSONObject()
            http.set(.string(String(folder)), for: "assets")
            changed.set(.object(http), for: "http")
            try Files.replace(file, with: Array(JSONValue.object(changed).text.utf8))
            try platform.reload()
            defer {
                do {
                    try Files.replace(file, with: before)
                    try platform.reload()
                } catch {
                    Issue.record("the configuration is not as it was: \(error)")
                }
            }

            let index = try platform.curl("GET", "sunrise", "/console/")
            #expect(index.status == 200)
            #expect(index.header("Cache-Control") == "no-cache")
            #expect(index.header("Content-Security-Policy")?.contains("script-src 'self'") == true)
            let name = try #require(index.body.split(separator: "\"").dropFirst().first)
            #expect(name.hasPrefix("/console/app."))
            let answer = try platform.curl(
                "GET", "sunrise", String(name), options: ["--compressed"])
            #expect(answer.status == 200)
            #expect(answer.header("Content-Encoding") == "br")
            #expect(answer.header("Cache-Control") == "public, max-age=31536000, immutable")
            #expect(answer.body == script)
            #expect(try platform.curl("GET", "sunrise", "/console/app.js").status == 404)
            #expect(try platform.curl("GET", "sunrise", "/console").status == 308)
        }
    }
}
