import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("HTTP clients: ours on libcurl, and curl itself", .onLoop)
@LoopActor
struct HTTPClientTests {
    /// Answers with what was asked.
    private func echo() throws -> ServerFixture {
        try ServerFixture { request in
            let content = try await request.body.collect(max: 32 << 20)
            switch request.path {
            case "/large":
                return HTTPResponse(.ok, body: .bytes([UInt8](repeating: 0x61, count: 100_000)))
            case "/moved":
                return HTTPResponse(.init(302), headers: HTTPHeaders([(.location, "/other")]))
            case "/count": return HTTPResponse(.ok, body: .bytes(Array("\(content.count)".utf8)))
            default: break
            }
            let text = "\(request.method.name) \(request.host) \(request.path) "
            var response = HTTPResponse(.ok, body: .bytes(Array(text.utf8) + content))
            response.headers.append("Asked-Type", request.headers[.contentType] ?? "none")
            return response
        }
    }

    private var deadline: Deadline { .after(RawClient.patience, from: Loop.shared.now) }

    private func client(_ fixture: ServerFixture) -> HTTPClient {
        HTTPClient(pool: BlockingPool(), connectTo: "127.0.0.1:\(fixture.address.port)")
    }

    @Test("a request reaches the server under any host name; the answer is complete")
    func request() async throws {
        let fixture = try echo()
        let client = client(fixture)
        let got = try await client.send(
            .init(.get, "http://hillview.localhost:8080/v1/x?a=b"), deadline: deadline)
        #expect(got.status == .ok)
        #expect(got.text == "GET hillview.localhost /v1/x ")
        let posted = try await client.send(
            .init(
                .post, "http://a.example/p",
                headers: HTTPHeaders([(.contentType, "application/json")]),
                body: Array("{}".utf8)), deadline: deadline)
        #expect(posted.text == "POST a.example /p {}")
        #expect(posted.headers["asked-type"] == "application/json")
        for method in [HTTPMethod.put, .patch, .delete, .options] {
            let answer = try await client.send(
                .init(method, "http://a/", body: method == .delete ? nil : [0x21]),
                deadline: deadline)
            #expect(answer.text == "\(method.name) a / \(method == .delete ? "" : "!")")
        }
        let head = try await client.send(.init(.head, "http://a/"), deadline: deadline)
        #expect(head.body.isEmpty && head.headers[.contentLength] == "9")
        let empty = try await client.send(.init(.post, "http://a/"), deadline: deadline)
        #expect(empty.text == "POST a / ")
        await fixture.stop()
    }

    @Test("redirects are answers; too much content, other schemes and closed ports are errors")
    func bounds() async throws {
        let fixture = try echo()
        let client = client(fixture)
        let moved = try await client.send(.init(.get, "http://a/moved"), deadline: deadline)
        #expect(moved.status.code == 302)
        await #expect(throws: HTTPClientError.responseTooLarge) {
            try await client.send(
                .init(.get, "http://a/large", responseBytesMax: 99_999), deadline: self.deadline)
        }
        await #expect(throws: HTTPClientError.invalidURL) {
            try await client.send(.init(.get, "file:///etc/hostname"), deadline: self.deadline)
        }
        await fixture.stop()
        await #expect(throws: HTTPClientError.connectFailed) {
            try await client.send(.init(.get, "http://a/"), deadline: self.deadline)
        }
    }

    @Test("a deadline ends a request that is not answered")
    func timeout() async throws {
        let gate = Gate()
        let fixture = try ServerFixture { _ in
            try await gate.pass()
            return HTTPResponse(.ok)
        }
        let client = client(fixture)
        let soon = Deadline.after(.milliseconds(100), from: Loop.shared.now)
        await #expect(throws: (any Error).self) {
            try await client.send(.init(.get, "http://a/"), deadline: soon)
        }
        gate.open()
        await fixture.stop()
    }

    nonisolated static let commands: [([String], String)] = [
        (["/a"], "GET curl.example /a "),
        (["-X", "PUT", "-d", "x=y", "/p"], "PUT curl.example /p x=y"),
        (
            ["-H", "Transfer-Encoding: chunked", "-d", "chunky", "/p"],
            "POST curl.example /p chunky"
        ),
        (["-H", "Expect: 100-continue", "-d", "waited", "/p"], "POST curl.example /p waited"),
        (["--http1.0", "/old"], "GET curl.example /old "),
        (["-o", "-", "/a", "--next", "-s", "/b"], "GET curl.example /a GET curl.example /b "),
        (["--data-binary", "@/proc/self/exe", "/count"], ""),
    ]

    @Test("curl understands and is understood", arguments: commands)
    func curl(_ arguments: [String], _ expected: String) async throws {
        let fixture = try echo()
        let port = fixture.address.port
        let urls = arguments.map { $0.hasPrefix("/") ? "http://curl.example:\(port)\($0)" : $0 }
        let common = ["-sS", "--max-time", "20", "--noproxy", "*"]
        let target = ["--connect-to", "::127.0.0.1:\(port)"]
        let pool = BlockingPool()
        let output = try await pool.run(deadline: deadline) {
            // Each part of --next has options of its own.
            var line = common + target
            for argument in urls {
                line.append(argument)
                if argument == "--next" { line += target }
            }
            return try Subprocess.run("/usr/bin/curl", line)
        }
        if expected.isEmpty {
            #expect((Int(output) ?? 0) > 100_000)
        } else {
            #expect(output == expected)
        }
        await fixture.stop()
    }
}
