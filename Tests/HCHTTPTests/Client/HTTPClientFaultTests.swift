import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("The outbound client, when servers and callers go wrong", .onLoop)
@LoopActor
struct HTTPClientFaultTests {
    private var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }
    private func soon(_ milliseconds: Int = 60) -> Deadline {
        .after(.milliseconds(milliseconds), from: Loop.now)
    }

    private func configuration(attempts: Int = 1) -> HTTPClientConfiguration {
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry.attemptsMax = attempts
        configuration.retry.backoffInitial = .milliseconds(2)
        configuration.retry.backoffMax = .milliseconds(4)
        return configuration
    }

    private func failure(
        of request: OutboundRequest, _ client: HTTPClient, _ deadline: Deadline
    ) async -> HTTPClientError? {
        do throws(HTTPClientError) {
            _ = try await client.send(request, deadline: deadline)
            return nil
        } catch {
            return error
        }
    }

    // MARK: Servers

    struct Fault: Sendable, CustomTestStringConvertible {
        var testDescription: String
        /// What is sent to a request; then the connection is closed.
        var answer: String
        var error: HTTPClientError?
    }

    nonisolated static let faults = [
        Fault(testDescription: "nothing at all", answer: "", error: .disconnected),
        Fault(
            testDescription: "half a head", answer: "HTTP/1.1 200 OK\r\nA: b\r\n",
            error: .disconnected),
        Fault(
            testDescription: "half the content",
            answer: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", error: .disconnected),
        Fault(
            testDescription: "chunks without an end",
            answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
            error: .disconnected),
        Fault(
            testDescription: "chunks that are none",
            answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            error: .disconnected),
        Fault(
            testDescription: "content until the end of the connection",
            answer: "HTTP/1.1 200 OK\r\n\r\n12345", error: nil),
        Fault(
            testDescription: "an interim answer first",
            answer: "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
                + "Content-Length: 2\r\n\r\nok", error: nil),
        Fault(
            testDescription: "trailers",
            answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                + "2\r\nok\r\n0\r\nContent-Length: 99\r\n\r\n", error: nil),
    ]

    @Test("an answer is whole or an error", arguments: faults)
    func answers(_ fault: Fault) async throws {
        let server = try FaultServer { connection, _ in
            connection.send(fault.answer)
            connection.closeWhenSent()
        }
        let client = HTTPClient.testing(configuration())
        #expect(await failure(of: .testing(.get, server.url("/")), client, deadline) == fault.error)
        #expect(client.transfersInFlight == 0)
        server.stop()
    }

    nonisolated static let nonsense = [
        "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 999 No\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "<html>hello</html>\r\n\r\n", "HTTP/3.7 200 OK\r\n\r\n",
    ]

    @Test("what is no HTTP is a protocol error", arguments: nonsense)
    func malformed(_ answer: String) async throws {
        let server = try FaultServer { connection, _ in
            connection.send(answer)
            connection.closeWhenSent()
        }
        let client = HTTPClient.testing(configuration())
        let error = await failure(of: .testing(.get, server.url("/")), client, deadline)
        #expect(error?.code == "protocol", "\(String(describing: error))")
        server.stop()
    }

    @Test("heads and contents above their bounds are refused before they are taken")
    func tooLarge() async throws {
        let server = try FaultServer { connection, index in
            switch index {
            case 0:
                let line = "X: " + String(repeating: "a", count: 1000) + "\r\n"
                connection.send("HTTP/1.1 200 OK\r\n" + String(repeating: line, count: 80))
            case 1:
                connection.send("HTTP/1.1 200 OK\r\nX: " + String(repeating: "a", count: 200_000))
            case 2: connection.send("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n")
            case 3:
                let chunk = "32\r\n" + String(repeating: "a", count: 50) + "\r\n"
                connection.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\(chunk)\(chunk)\(chunk)")
            default:
                connection.send("HTTP/1.1 200 OK\r\n\r\n" + String(repeating: "a", count: 101))
            }
        }
        let client = HTTPClient.testing(configuration())
        let request = OutboundRequest.testing(.get, server.url("/"), responseBytesMax: 100)
        for part in [HTTPClientError.Part.head, .head, .content, .content, .content] {
            #expect(await failure(of: request, client, deadline) == .tooLarge(part))
        }
        #expect(client.connectionsOpen == 0)
        server.stop()
    }

    // MARK: Repetition

    @Test("503 with Retry-After is asked again in time, and given as it is when that is too late")
    func retries() async throws {
        let server = try FaultServer { connection, index in
            switch index {
            case 0: connection.answer("503 Service Unavailable", fields: "Retry-After: 0\r\n")
            case 1: connection.answer("200 OK", "done")
            default: connection.answer("503 Service Unavailable", fields: "Retry-After: 60\r\n")
            }
        }
        let client = HTTPClient.testing(configuration(attempts: 3))
        let first = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        #expect(first.text == "done" && server.requestCount == 2)
        let second = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        #expect(second.status == .serviceUnavailable && server.requestCount == 3)
        let post = try await client.send(.testing(.post, server.url("/")), deadline: deadline)
        #expect(post.status == .serviceUnavailable && server.requestCount == 4)
        #expect(server.connections.count == 1)
        server.stop()
    }

    @Test("a broken answer is asked for again only if that is safe")
    func broken() async throws {
        let server = try FaultServer { connection, index in
            if index.isMultiple(of: 2) { connection.close() } else { connection.answer() }
        }
        let client = HTTPClient.testing(configuration(attempts: 2))
        let got = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        #expect(got.status == .ok && server.requestCount == 2)
        let keyed = try await client.send(
            .testing(
                .post, server.url("/"), headers: HTTPHeaders([(.idempotencyKey, "k")]),
                content: .bytes([1])), deadline: deadline)
        #expect(keyed.status == .ok && server.requestCount == 4)
        let plain = OutboundRequest.testing(.post, server.url("/"), content: .bytes([1]))
        #expect(await failure(of: plain, client, deadline) == .disconnected)
        #expect(server.requestCount == 5)
        server.stop()
    }

    @Test(
        "a kept connection that ends without an answer does not send a POST twice",
        arguments: [0, 9])
    func noSecondPost(_ count: Int) async throws {
        // The first request of each connection is answered, the second ends it: a worker that died at work.
        let server = try FaultServer { connection, index in
            if index == 0 || index == 3 { connection.answer() } else { connection.close() }
        }
        let client = HTTPClient.testing(configuration())
        _ = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        let content = OutboundRequest.Content.bytes([UInt8](repeating: 0x61, count: count))
        let post = OutboundRequest.testing(.post, server.url("/"), content: content)
        #expect(await failure(of: post, client, deadline) == .disconnected)
        // curl made a new connection, and was told not to use it.
        #expect(server.requestCount == 2)
        server.stop()
    }

    @Test("a kept connection that ends without an answer is made up for where that is safe")
    func secondGet() async throws {
        let server = try FaultServer { connection, index in
            if index == 1 { connection.close() } else { connection.answer() }
        }
        let client = HTTPClient.testing(configuration())
        _ = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        let again = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        #expect(again.status == .ok && server.requestCount == 3 && server.connections.count == 2)
        server.stop()
    }

    @Test("an answer before the end of the content does not leave half a request on a connection")
    func earlyAnswer() async throws {
        let server = try FaultServer { connection, index in
            if index == 0 { connection.setReading(false) }
            connection.answer(index == 0 ? "413 Content Too Large" : "200 OK")
        }
        let client = HTTPClient.testing(configuration())
        let large = OutboundRequest.Content.bytes([UInt8](repeating: 0x61, count: 16 << 20))
        let refused = try await client.send(
            .testing(.post, server.url("/"), content: large), deadline: deadline)
        #expect(refused.status == .contentTooLarge)
        let next = try await client.send(.testing(.get, server.url("/")), deadline: deadline)
        #expect(next.status == .ok && server.connections.count == 2)
        server.stop()
    }

    @Test("an origin that fails is left alone, and no retry goes there")
    func breaker() async throws {
        let server = try FaultServer { connection, _ in connection.close() }
        var configuration = configuration()
        configuration.breaker = .init(
            failuresMax: 3, restInitial: .seconds(60), restMax: .seconds(60))
        let client = HTTPClient.testing(configuration)
        let request = OutboundRequest.testing(.get, server.url("/"))
        for _ in 0..<3 { #expect(await failure(of: request, client, deadline) == .disconnected) }
        #expect(await failure(of: request, client, deadline)?.code == "circuit-open")
        #expect(server.requestCount == 3)
        // Another origin is another matter.
        let other = OutboundRequest.testing(.get, server.url("/", host: "other"))
        #expect(await failure(of: other, client, deadline) == .disconnected)
        server.stop()
    }

    // MARK: Deadlines and cancellation

    @Test("a deadline is kept in every stage, and says in which")
    func deadlines() async throws {
        let server = try FaultServer { connection, index in
            if index == 1 { connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234") }
        }
        let client = HTTPClient.testing(configuration())
        let request = OutboundRequest.testing(.get, server.url("/"))
        #expect(await failure(of: request, client, soon()) == .timeout(.answer))
        #expect(await failure(of: request, client, soon()) == .timeout(.content))
        #expect(await failure(of: request, client, soon(-1)) == .timeout(.connecting))
        let gate = Gate()
        let silent = HTTPClient(
            configuration(),
            lookup: NameLookup { _, _ in
                try await gate.pass()
                return []
            })
        let named = OutboundRequest.testing(.get, server.url("/", host: "slow.example"))
        #expect(await failure(of: named, silent, soon()) == .timeout(.resolving))
        gate.open()
        server.stop()
    }

    @Test("a server that does not accept: the deadline, or the connect timeout")
    func connecting() async throws {
        // The queue of this socket holds one connection, and nobody takes it.
        let socket = try Listener.bind(.loopback(port: 0), backlog: 0)
        let listener = try Listener(socket)
        let address = try #require(listener.localAddress)
        var held: [PlainStream] = []
        for _ in 0..<8 {
            do {
                held.append(try await PlainStream.connect(to: address, deadline: soon(50)))
            } catch {
                break
            }
        }
        var configuration = configuration()
        let request = OutboundRequest.testing(.get, "http://127.0.0.1:\(address.port)/")
        let client = HTTPClient.testing(configuration)
        #expect(await failure(of: request, client, soon()) == .timeout(.connecting))
        configuration.connectTimeout = .milliseconds(50)
        let hasty = HTTPClient.testing(configuration)
        #expect(await failure(of: request, hasty, deadline) == .connect)
        #expect(client.connectionsOpen == 0 && hasty.connectionsOpen == 0)
        for stream in held { stream.close() }
        listener.close()
    }

    @Test("cancelling the task ends the transfer, whatever it waits for")
    func cancellation() async throws {
        let server = try FaultServer { connection, index in
            if index == 1 { connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234") }
            if index == 2 {
                connection.answer("503 Service Unavailable", fields: "Retry-After: 9\r\n")
            }
        }
        let client = HTTPClient.testing(configuration(attempts: 2))
        let request = OutboundRequest.testing(.get, server.url("/"))
        for count in 1...3 {
            var error: HTTPClientError?
            let over = Waiter<Void>()
            let task = Loop.shared.spawn {
                error = await self.failure(of: request, client, self.deadline)
                over.succeed(())
            }
            try await server.wait { $0.requestCount == count }
            // The first waits for an answer, the second for its content, the third for its next attempt.
            switch count {
            case 2: try await Loop.shared.turnsUntilStill({ server.connections[1].sentCount })
            case 3: try await Loop.shared.turns(until: { client.transfersInFlight == 0 })
            default: break
            }
            task.cancel()
            try await over.wait(until: deadline)
            #expect(error == .cancelled)
            #expect(client.transfersInFlight == 0)
        }
        try await server.wait { $0.connections.prefix(2).allSatisfy(\.hasEnded) }
        server.stop()
    }

    @Test("turns are waited for within bounds; who leaves the queue is not missed")
    func overload() async throws {
        let server = try FaultServer { _, _ in }
        var configuration = configuration()
        configuration.transfers = .init(
            transfersMax: 1, transfersPerOriginMax: 1, queuedMax: 2, queuedPerOriginMax: 2)
        let client = HTTPClient.testing(configuration)
        let request = OutboundRequest.testing(.get, server.url("/"))
        var errors: [HTTPClientError?] = []
        func start(_ deadline: Deadline) -> Task<Void, Never> {
            Loop.shared.spawn {
                errors.append(await self.failure(of: request, client, deadline))
            }
        }
        let first = start(deadline)
        _ = start(soon())
        let third = start(deadline)
        #expect(await failure(of: request, client, deadline) == .overloaded)
        try await server.wait { $0.requestCount == 1 }
        try await Loop.shared.turns(until: { !errors.isEmpty })
        #expect(errors == [.timeout(.queue)])
        first.cancel()
        try await server.wait { $0.requestCount == 2 }
        third.cancel()
        try await Loop.shared.turns(until: { errors.count == 3 })
        #expect(errors == [.timeout(.queue), .cancelled, .cancelled])
        #expect(client.transfersInFlight == 0)
        server.stop()
    }
}
