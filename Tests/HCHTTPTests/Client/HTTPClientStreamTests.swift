import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCHTTP

@Suite("The outbound client streams both ways", .onLoop)
@LoopActor
struct HTTPClientStreamTests {
    private var deadline: Deadline { .after(RawClient.patience, from: Loop.now) }

    @Test("an answer is read no faster than it is asked for, and whole")
    func backPressure() async throws {
        let size = 64 << 20
        let server = try FaultServer { connection, _ in
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\n\r\n")
            connection.send([UInt8](repeating: 0x62, count: size))
        }
        let configuration = HTTPClientConfiguration(.trusted)
        let client = HTTPClient.testing(configuration)
        let request = OutboundRequest.testing(.get, server.url("/"), responseBytesMax: size)
        let count = try await client.withResponse(to: request, deadline: deadline) { response in
            #expect(response.status == .ok)
            var count = try await response.nextChunk()?.count ?? 0
            // Nobody asks: what the kernel's buffers hold is all that the server gets rid of.
            try await Loop.shared.turnsUntilStill({ server.connections[0].sentCount })
            #expect(server.connections[0].sentCount < size / 2)
            var largest = 0
            while let chunk = try await response.nextChunk() {
                count += chunk.count
                largest = max(largest, chunk.count)
            }
            #expect(largest <= configuration.bufferBytesMax + 16 << 10)
            return count
        }
        #expect(count == size)
        #expect(client.transfersInFlight == 0)
        server.stop()
    }

    @Test("who leaves early takes the connection with him, and gets an error if he was cut off")
    func early() async throws {
        let server = try FaultServer { connection, index in
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n12345")
            if index == 1 { connection.closeWhenSent() }
        }
        let client = HTTPClient.testing()
        let request = OutboundRequest.testing(.get, server.url("/"))
        let status = try await client.withResponse(to: request, deadline: deadline) { $0.status }
        #expect(status == .ok)
        try await server.wait { $0.connections[0].hasEnded }
        #expect(client.connectionsOpen == 0 && client.transfersInFlight == 0)
        await #expect(throws: HTTPClientError.disconnected) {
            try await client.withResponse(to: request, deadline: self.deadline) { response in
                while try await response.nextChunk() != nil {}
            }
        }
        server.stop()
    }

    @Test("the deadline and the bound hold while content is read")
    func streamBounds() async throws {
        let server = try FaultServer { connection, index in
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
            if index == 1 { connection.send("5\r\n67890\r\n") }
        }
        let client = HTTPClient.testing()
        let read: @LoopActor (OutboundResponseStream) async throws -> Void = { response in
            while try await response.nextChunk() != nil {}
        }
        let soon = Deadline.after(.milliseconds(60), from: Loop.now)
        await #expect(throws: HTTPClientError.timeout(.content)) {
            try await client.withResponse(
                to: .testing(.get, server.url("/")), deadline: soon, read)
        }
        await #expect(throws: HTTPClientError.tooLarge(.content)) {
            try await client.withResponse(
                to: .testing(.get, server.url("/"), responseBytesMax: 9), deadline: self.deadline,
                read)
        }
        server.stop()
    }

    /// Counts what is uploaded, resting until it is told to read.
    private func counting() throws -> ServerFixture {
        try ServerFixture { request in
            var count = 0
            while let chunk = try await request.body.nextChunk() { count += chunk.count }
            let announced = request.body.announcedCount.map(String.init) ?? "none"
            return HTTPResponse(
                .ok, body: .bytes(Array("\(request.method.name) \(announced) \(count)".utf8)))
        }
    }

    @Test(
        "content is made while it is sent, with and without its length", arguments: [true, false])
    func upload(_ isKnown: Bool) async throws {
        let fixture = try counting()
        let client = HTTPClient.testing()
        let size = 20 << 20
        let piece = [UInt8](repeating: 0x63, count: 100 << 10)
        let stream = OutboundContentStream(count: isKnown ? size : nil) { writer in
            var left = size
            while left > 0 {
                try await writer.write(Array(piece.prefix(left)))
                left -= min(left, piece.count)
            }
        }
        let answer = try await client.send(
            .testing(
                .put, "http://a:\(fixture.address.port)/", content: .stream(stream)),
            deadline: deadline)
        #expect(answer.text == "PUT \(isKnown ? String(size) : "none") \(size)")
        await fixture.stop()
    }

    @Test("a server that does not read stops the writer")
    func uploadBackPressure() async throws {
        let server = try FaultServer { connection, _ in connection.setReading(false) }
        let client = HTTPClient.testing()
        let size = 256 << 20
        var written = 0
        let stream = OutboundContentStream(count: size) { writer in
            let piece = [UInt8](repeating: 0x63, count: 64 << 10)
            while written < size {
                try await writer.write(piece)
                written += piece.count
            }
        }
        let soon = Deadline.after(.milliseconds(300), from: Loop.now)
        await #expect(throws: HTTPClientError.timeout(.answer)) {
            try await client.send(
                .testing(.put, server.url("/"), content: .stream(stream)), deadline: soon)
        }
        #expect(written > 0 && written < size / 4)
        server.stop()
    }

    nonisolated static let wrong = [(10, 9), (10, 11), (10, 0), (0, 1)]

    @Test("content that is not as long as announced, or fails, fails the request", arguments: wrong)
    func wrongCount(_ announced: Int, _ actual: Int) async throws {
        let fixture = try counting()
        let client = HTTPClient.testing()
        let stream = OutboundContentStream(count: announced) { writer in
            try await writer.write([UInt8](repeating: 0x61, count: actual))
        }
        await #expect(throws: HTTPClientError.contentFailed) {
            try await client.send(
                .testing(
                    .put, "http://a:\(fixture.address.port)/", content: .stream(stream)),
                deadline: self.deadline)
        }
        struct Broken: Error {}
        let failing = OutboundContentStream { writer in
            try await writer.write([0x61])
            throw Broken()
        }
        await #expect(throws: HTTPClientError.contentFailed) {
            try await client.send(
                .testing(
                    .put, "http://a:\(fixture.address.port)/", content: .stream(failing)),
                deadline: self.deadline)
        }
        #expect(client.transfersInFlight == 0)
        await fixture.stop()
    }

    @Test("each attempt makes the content anew")
    func uploadAgain() async throws {
        let server = try FaultServer { connection, index in
            if index == 0 {
                connection.answer("503 Service Unavailable")
                connection.closeWhenSent()
            } else {
                connection.answer()
            }
        }
        var configuration = HTTPClientConfiguration(.trusted)
        configuration.retry.backoffInitial = .milliseconds(2)
        let client = HTTPClient.testing(configuration)
        var made = 0
        let stream = OutboundContentStream(count: 3) { writer in
            made += 1
            try await writer.write([1, 2, 3])
        }
        let answer = try await client.send(
            .testing(.put, server.url("/"), content: .stream(stream)), deadline: deadline)
        #expect(answer.status == .ok && made == 2)
        server.stop()
    }
}
