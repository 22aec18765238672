import HCCore
import HCIO
import HCTesting
import Testing

extension EndToEnd {
    /// What conformance clients talk to, with clients of somebody else's making.
    @Suite struct ConformanceTests {
        private let platform: RunningPlatform

        init() throws {
            platform = try RunningPlatform.shared("conformance", ["HC_CONFORMANCE": "1"])
        }

        @Test("python's websockets talks to us: compressed, fragmented, over TLS and over HTTP/2")
        func webSocket() throws {
            let script = Repository.path("Tests/EndToEndTests/Clients/websocket.py")
            let output = try Subprocess.run(
                "/usr/bin/python3", [script, String(platform.port), String(platform.tlsPort)])
            #expect(output == "done\n")
        }

        @Test("messages of every size and cut come back, by whatever agreement on compression")
        func webSocketSizes() throws {
            let script = Repository.path("Tests/EndToEndTests/Clients/websocket_sizes.py")
            let output = try Subprocess.run(
                "/usr/bin/python3", [script, String(platform.port)])
            #expect(output == "done\n")
        }

        @Test("the echo tells method, target, headers and content, for any host")
        func echo() throws {
            let url = "http://127.0.0.1:\(platform.port)/_conformance/echo?a=%20b"
            let output = try Subprocess.run(
                "/usr/bin/curl",
                [
                    "-sS", "-X", "PATCH", "-H", "Host: nobody.example", "-H", "X-One: 1", "-H",
                    "X-One: 2", "--data-binary", "Grüße \"quoted\"\n", url,
                ])
            let answer = try JSONReader.parse(Array(output.utf8))
            #expect(answer["method"]?.asString == "PATCH")
            #expect(answer["target"]?.asString == "/_conformance/echo?a=%20b")
            #expect(answer["host"]?.asString == "nobody.example")
            #expect(answer["bodyEncoding"]?.asString == "utf-8")
            #expect(answer["body"]?.asString == "Grüße \"quoted\"\n")
            let fields = (answer["headers"]?.asArray ?? []).compactMap(\.asArray)
            #expect(
                fields.filter { $0.first?.asString?.lowercased() == "x-one" }.map {
                    $0.last?.asString
                }
                    == ["1", "2"])
        }

        @Test(
            "what follows a request's content comes back behind the answer's, by HTTP/1.1 and HTTP/2"
        )
        func trailers() throws {
            let script = Repository.path("Tests/EndToEndTests/Clients/trailers.py")
            let output = try Subprocess.run(
                "/usr/bin/python3", [script, String(platform.port), String(platform.tlsPort)])
            #expect(output == "done\n")
        }

        @Test("nghttp, which can send trailers, is shown those it gets")
        func nghttpTrailers() throws {
            let output = try Subprocess.run(
                "/usr/bin/nghttp",
                [
                    "-nv", "--data=/etc/hostname", "--trailer=x-sum: 5d41402a",
                    "https://127.0.0.1:\(platform.tlsPort)/_conformance/echo",
                ])
            #expect(output.contains(":status: 200"))
            #expect(output.ranges(of: "x-sum: 5d41402a").count == 2, "\(output)")
        }

        @Test("a content of 50 MB comes back, one byte more is 413")
        func large() throws {
            let url = "http://127.0.0.1:\(platform.port)/_conformance/echo"
            func send(_ count: Int, _ accept: String) throws -> String {
                try Subprocess.run(
                    "/bin/sh",
                    [
                        "-c",
                        "head -c \(count) /dev/zero | tr '\\0' a | curl -sS -o - -w ' %{http_code}'"
                            + " -H 'Accept: \(accept)' -H 'Expect:' --data-binary @- \(url)"
                            + " | tail -c 40",
                    ])
            }
            #expect(try send(50 << 20, "application/json").hasSuffix("aaa\"} 200"))
            #expect(try send(50 << 20, "application/octet-stream").hasSuffix("aaaa 200"))
            #expect(try send(50 << 20 + 1, "application/json").hasSuffix(" 413"))
        }

        @Test("without the variable both are paths like any other that is not there")
        func absent() throws {
            let common = try RunningPlatform.shared()
            for path in ["/_conformance/echo", "/_conformance/ws", "/_conformance/nothing"] {
                #expect(try common.curl("GET", "sunrise", path).status == 404)
            }
        }

        @Test("production refuses to start with them, and config check says so")
        func production() throws {
            let (status, output) = try platform.admin(
                ["config", "check"], ["HC_CONFORMANCE": "1", "HC_CONFIG": try productionFile()])
            #expect(status == 3)
            #expect(output.contains("HC_CONFORMANCE"))
        }

        /// The platform's own configuration with the other profile.
        private func productionFile() throws -> String {
            let before = try Files.read(platform.state + "/hc.json")
            var object = try JSONReader.parse(before).asObject ?? JSONObject()
            object.set("production", for: "profile")
            let file = platform.state + "/production.json"
            try Files.replace(file, with: Array(JSONValue.object(object).text.utf8))
            return file
        }
    }
}
