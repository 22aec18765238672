import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@LoopActor
final class TestContext {
    let match: RouteMatch
    var notes: [String] = []

    init(_ match: RouteMatch) {
        self.match = match
    }
}

/// Writes down when it was passed, both ways; waits on its way in and out if it is told to.
struct Noting: Middleware {
    let name: String
    var waits = false

    func enter(_ request: HTTPRequest, _ context: TestContext) throws -> StageEntry {
        context.notes.append(name)
        if request.headers.contains("Refuse-At"), request.headers["Refuse-At"] == name {
            throw Problem(.forbidden, code: "refused", title: "Forbidden")
        }
        if request.headers["Answer-At"] == name { return .answer(HTTPResponse(.accepted)) }
        guard waits else { return .next }
        let later = request.headers["Answer-Later-At"] == name
        let refuses = request.headers["Refuse-Later-At"] == name
        return .pending {
            await Task.yield()
            if refuses { throw Problem(.forbidden, code: "refused", title: "Forbidden") }
            return later ? HTTPResponse(.accepted) : nil
        }
    }

    func leave(
        _ request: HTTPRequest, _ context: TestContext, _ response: inout HTTPResponse
    ) -> StageExit {
        response.headers.append("Passed", name)
        guard waits else { return .done }
        return .pending { answer in
            await Task.yield()
            var response = answer
            response.headers.append("Waited", name)
            return response
        }
    }
}

@Suite("Routes, middleware and problems", .onLoop)
@LoopActor
struct RouterTests {
    private struct Unmapped: Error {}

    private func application(waiting: Set<String> = []) -> Application<TestContext> {
        var router = Router<TestContext>()
        func add(_ method: HTTPMethod, _ pattern: String, _ name: String) {
            router.add(RouteDescription(method, pattern, name: name, access: .open)) { _, context in
                let values = context.match.parameters
                let text = zip(values.names, values.values).map { "\($0)=\($1)" }
                let line = ([name] + text + context.notes).joined(separator: " ")
                return HTTPResponse(.ok, body: .bytes(Array(line.utf8)))
            }
        }
        add(.get, "/", "root")
        add(.get, "/v1/patients", "list")
        add(.post, "/v1/patients", "create")
        add(.get, "/v1/patients/{id}", "read")
        add(.patch, "/v1/patients/{id}", "change")
        add(.get, "/v1/patients/search", "search")
        add(.get, "/v1/patients/{id}/notes/{note}", "note")
        add(.get, "/v1/patients/search/recent", "recent")
        add(.get, "/v1/{kind}/count", "count")
        router.addImmediate(RouteDescription(.get, "/now", name: "now", access: .open)) {
            _, context in
            .ready(
                HTTPResponse(
                    .ok, body: .bytes(Array("now \(context.notes.joined(separator: " "))".utf8))))
        }
        router.addImmediate(RouteDescription(.get, "/now/later", name: "nowLater", access: .open)) {
            request, _ in
            .pending {
                await Task.yield()
                if request.headers.contains("Fail") { throw Unmapped() }
                return HTTPResponse(.accepted)
            }
        }
        router.addImmediate(RouteDescription(.get, "/now/fails", name: "nowFails", access: .open)) {
            _, _ in throw Unmapped()
        }
        router.add(RouteDescription(.get, "/fails", name: "fails", access: .open)) { _, _ in
            throw Unmapped()
        }
        return Application(
            router,
            middleware: ["outer", "inner"].map { Noting(name: $0, waits: waiting.contains($0)) },
            makeContext: { _, match in TestContext(match) },
            problem: { _, _, _ in .internalError })
    }

    private func request(
        _ method: HTTPMethod, _ path: String, headers: String = ""
    ) throws -> HTTPRequest {
        var parser = HTTP1Parser(limits: HTTP1Limits())
        var consumed = 0
        let bytes = Array("\(method.name) \(path) HTTP/1.1\r\nHost: a\r\n\(headers)\r\n".utf8)
        let event = try bytes.withUnsafeBytes { try parser.next($0, consumed: &consumed) }
        guard case .head(let head) = event else { throw Unmapped() }
        return HTTPRequest(
            method: head.method, version: head.version, target: head.target, headers: head.headers,
            host: head.host, id: RequestID(.zero), remoteAddress: .loopback(port: 1),
            isSecure: false, receivedAt: .zero, deadline: .never, body: .empty)
    }

    private func send(
        _ method: HTTPMethod, _ path: String, headers: String = "", waiting: Set<String> = []
    ) async throws -> (status: Int, text: String, headers: HTTPHeaders) {
        let response = await application(waiting: waiting).respond(
            to: try request(method, path, headers: headers))
        let text: String
        switch response.body {
        case .bytes(let bytes): text = String(decoding: bytes, as: UTF8.self)
        case .buffer(let buffer): text = buffer.string
        default: text = ""
        }
        return (response.status.code, text, response.headers)
    }

    nonisolated static let found: [(HTTPMethod, String, String)] = [
        (.get, "/", "root"),
        (.get, "/v1/patients", "list"),
        (.post, "/v1/patients", "create"),
        (.get, "/v1/patients/17", "read id=17"),
        (.head, "/v1/patients/17", "read id=17"),
        (.patch, "/v1/patients/17", "change id=17"),
        (.get, "/v1/patients/search", "search"),
        (.get, "/v1/patients/search/recent", "recent"),
        (.get, "/v1/patients/search/notes/2", "note id=search note=2"),
        (.get, "/v1/patients/a%2Fb", "read id=a/b"),
        (.get, "/v1/patients/%C3%A4", "read id=\u{E4}"),
        (.get, "/v1/p%61tients", "list"),
        (.get, "/v1/rooms/count", "count kind=rooms"),
        (.get, "/v1/patients?x=/v1", "list"),
    ]

    @Test("a path finds its route, a literal before a parameter", arguments: found)
    func finds(_ method: HTTPMethod, _ path: String, _ text: String) async throws {
        let answer = try await send(method, path)
        #expect(answer.status == 200)
        #expect(answer.text == text + " outer inner")
        #expect(answer.headers.values("Passed") == ["inner", "outer"])
    }

    @Test(
        "an unknown path is 404",
        arguments: [
            "/v1", "/v1/", "/v2/patients", "/v1/patients/", "/v1/patients//notes/1", "//",
            "/v1/patients/1/x",
        ])
    func notFound(_ path: String) async throws {
        let answer = try await send(.get, path)
        #expect(answer.status == 404)
        #expect(
            answer.text == """
                {"type":"urn:hc:problem:not-found","title":"Not Found","status":404,\
                "code":"not-found","requestId":"00000000-0000-0000-0000-000000000000"}
                """)
        #expect(answer.headers.values("Passed") == ["inner", "outer"])
    }

    @Test("a known path with another method is 405 and says which it has; OPTIONS says it with 204")
    func allow() async throws {
        let refused = try await send(.delete, "/v1/patients/1")
        #expect(refused.status == 405)
        #expect(refused.headers[.allow] == "GET, HEAD, PATCH, OPTIONS")
        let asked = try await send(.options, "/v1/patients")
        #expect(asked.status == 204)
        #expect(asked.headers[.allow] == "GET, HEAD, POST, OPTIONS")
        #expect(try await send(.options, "*").status == 204)
    }

    @Test("a stage that refuses ends the way in; the stages outside it still see the answer")
    func refusal() async throws {
        let answer = try await send(.get, "/", headers: "Refuse-At: inner\r\n")
        #expect(answer.status == 403)
        #expect(answer.headers.values("Passed") == ["outer"])
    }

    @Test("a stage that answers itself ends the way in as well, now or later")
    func answeringStage() async throws {
        let now = try await send(.get, "/", headers: "Answer-At: inner\r\n")
        #expect(now.status == 202)
        #expect(now.headers.values("Passed") == ["outer"])
        for (field, status) in [("Answer-Later-At", 202), ("Refuse-Later-At", 403)] {
            let later = try await send(
                .get, "/", headers: "\(field): inner\r\n", waiting: ["inner"])
            #expect(later.status == status)
            #expect(later.headers.values("Passed") == ["outer"])
        }
    }

    @Test(
        "stages that wait are passed in the same order",
        arguments: [["outer"], ["inner"], ["outer", "inner"]], ["/", "/now"])
    func waitingStages(_ waiting: [String], _ path: String) async throws {
        let answer = try await send(.get, path, waiting: Set(waiting))
        #expect(answer.text.hasSuffix(" outer inner"))
        #expect(answer.headers.values("Passed") == ["inner", "outer"])
        #expect(answer.headers.values("Waited") == waiting.reversed())
    }

    @Test("code that waits for nothing is answered where it is asked; what waits is not")
    func immediate() async throws {
        guard case .ready(let response) = application().answer(try request(.get, "/now")) else {
            Issue.record("nothing was to be waited for")
            return
        }
        #expect(response.headers.values("Passed") == ["inner", "outer"])
        guard case .ready(let failure) = application().answer(try request(.get, "/now/fails"))
        else {
            Issue.record("nothing was to be waited for")
            return
        }
        #expect(failure.status.code == 500)
        #expect(failure.headers.values("Passed") == ["inner", "outer"])
        let later = try await send(.get, "/now/later")
        #expect(later.status == 202)
        #expect(later.headers.values("Passed") == ["inner", "outer"])
        #expect(try await send(.get, "/now/later", headers: "Fail: 1\r\n").status == 500)
        guard case .pending = application().answer(try request(.get, "/")) else {
            Issue.record("a handler that may wait is not run here")
            return
        }
    }

    @Test("an error that is no problem is 500 and says nothing about itself")
    func unmapped() async throws {
        let answer = try await send(.get, "/fails")
        #expect(answer.status == 500)
        #expect(!answer.text.contains("Unmapped"))
    }

    @Test("a problem names its fields and ends with the request id")
    func problem() {
        let problem = Problem.invalid(
            [FieldProblem("birthDate", code: "format", "Use YYYY-MM-DD.")],
            status: .unprocessableContent)
        guard case .buffer(let document) = problem.response(for: RequestID(received: "r1")).body
        else {
            Issue.record("a problem has a document")
            return
        }
        #expect(
            document.string == """
                {"type":"urn:hc:problem:invalid-request","title":"Invalid Request","status":422,\
                "detail":"Some fields are missing or not as they must be.",\
                "code":"invalid-request","errors":[{"field":"birthDate","code":"format",\
                "message":"Use YYYY-MM-DD."}],"requestId":"r1"}
                """)
    }

    @Test("the table lists its routes in order")
    func table() {
        #expect(
            application().routes.map(\.name) == [
                "root", "list", "create", "read", "change", "search", "note", "recent", "count",
                "now", "nowLater", "nowFails", "fails",
            ])
    }
}

@Suite("HTTP values")
struct HTTPValueTests {
    @Test("headers keep order and repetition and ignore the case of names")
    func headers() throws {
        var headers = HTTPHeaders([("X-One", "1"), (.contentType, "a"), ("x-one", "2")])
        #expect(headers["X-ONE"] == "1")
        #expect(headers.values("x-One") == ["1", "2"])
        #expect(headers.count(of: .contentType) == 1)
        #expect(throws: Problem.self) { try headers.single("X-One") }
        #expect(try headers.single(.contentType) == "a")
        #expect(headers["content-type"] == "a")
        headers.set("X-One", "3")
        #expect(headers.pairs.map(\.value) == ["a", "3"])
        headers.remove(.contentType)
        #expect(!headers.contains(.contentType))
    }

    @Test("a value cannot end its line")
    func splitting() {
        var headers = HTTPHeaders()
        headers.append(.location, "/a\r\nSet-Cookie: x=1\u{0}")
        var output: [UInt8] = []
        headers.write(into: &output)
        #expect(String(decoding: output, as: UTF8.self) == "Location: /a  Set-Cookie: x=1 \r\n")
    }

    @Test("every known field is known by its name in any case")
    func knownFields() {
        for field in KnownField.allCases where field != .other {
            for text in [field.text.description, field.text.description.uppercased()] {
                #expect(HTTPFieldName(text)?.known == field)
            }
        }
        #expect(KnownField.allCases.count <= 64)
    }

    @Test("query parameters are decoded, and doubles and strangers are refused by name")
    func query() throws {
        let query = Array("a=1&b=%C3%A4+x&a=2&c&=e&d=%26%3D".utf8)
            .withUnsafeBytes { QueryParameters(parsing: $0) }
        #expect(query.values("a") == ["1", "2"])
        #expect(try query.single("b") == "\u{E4} x")
        #expect(try query.single("c")?.isEmpty == true)
        #expect(try query.single("d") == "&=")
        #expect(try query.single("nothing") == nil)
        #expect(throws: Problem.self) { try query.single("a") }
        #expect(throws: Problem.self) { try query.allow(["a", "b", "c", ""]) }
    }

    @Test(
        "a trace is taken only if it is one",
        arguments: [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("", false),
        ])
    func trace(_ text: String, _ isValid: Bool) {
        #expect((TraceContext(traceparent: text) != nil) == isValid)
    }

    @Test("a request id of a client is short and harmless")
    func requestID() {
        #expect(RequestID(received: "a-b_c.1:2") != nil)
        #expect(RequestID(received: "") == nil)
        #expect(RequestID(received: "a b") == nil)
        #expect(RequestID(received: "a\"b") == nil)
        #expect(RequestID(received: String(repeating: "a", count: 65)) == nil)
        let uuid = UUID(high: 0x0123_4567_89AB_7DEF, low: 0x8123_4567_89AB_CDEF)
        let written = [UInt8](capacity: RequestID.receivedBytesMax) { text in
            text.append(upTo: RequestID.receivedBytesMax) { RequestID(uuid).write(to: $0) }
        }
        #expect(String(decoding: written, as: UTF8.self) == uuid.description)
    }

    @Test("the Date field is RFC 9110's")
    func date() {
        #expect(
            DateLine.text(Timestamp(seconds: 784_111_777)) == "Sun, 06 Nov 1994 08:49:37 GMT")
        #expect(
            DateLine.text(Timestamp(seconds: 1_709_164_800)) == "Thu, 29 Feb 2024 00:00:00 GMT")
    }

    @Test(
        "numbers of heads and chunks",
        arguments: [
            (0, "0", "0"), (9, "9", "9"), (10, "10", "a"), (255, "255", "ff"),
            (4096, "4096", "1000"),
            (52_428_800, "52428800", "3200000"),
        ])
    func numbers(_ value: Int, _ decimal: String, _ hex: String) {
        var output = [UInt8](capacity: 32) { text in
            text.append(decimal: value)
            text.append(0x20)
        }
        output.append(hex: value)
        #expect(String(decoding: output, as: UTF8.self) == "\(decimal) \(hex)")
    }
}
