import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCRedis

@Suite("the client on a stream of the test's own", .onLoop)
@LoopActor struct RedisClientTests {
    private func makeClient(
        _ change: (inout RedisConfiguration) -> Void = { _ in }
    ) async throws -> (RedisClient, ScriptedStream) {
        var configuration = RedisConfiguration()
        change(&configuration)
        let stream = ScriptedStream()
        let client = RedisClient(configuration: configuration) { _ in stream }
        client.start()
        await stream.receive("+OK\r\n")
        try await client.waitUntilReady(deadline: .soon)
        stream.written = []
        stream.writes = 0
        return (client, stream)
    }

    @Test("commands of one tick leave in one write")
    func batching() async throws {
        let (client, stream) = try await makeClient()
        let pending = (0..<10).map { Pending(client, ["GET", .integer($0)]) }
        await stream.wait { stream.writes > 0 }
        #expect(stream.writes == 1)
        #expect(stream.written.count == 10 * 20)
        await stream.receive((0..<10).map { ":\($0)\r\n" }.joined())
        for (number, pending) in pending.enumerated() {
            #expect(try await pending.value() == .integer(Int64(number)))
        }
        client.close()
    }

    @Test("what the stream does not take is kept and written when there is room")
    func partialWrites() async throws {
        let (client, stream) = try await makeClient()
        stream.room = 5
        let pending = Pending(client, ["SET", "key", "value"])
        await stream.wait { stream.writes > 0 }
        #expect(stream.written.count == 5)
        #expect(stream.wantsToWrite)
        stream.room = 7
        stream.delegate?.streamIsWritable(stream)
        #expect(stream.written.count == 12)
        #expect(stream.wantsToWrite)
        stream.room = .max
        stream.delegate?.streamIsWritable(stream)
        #expect(!stream.wantsToWrite)
        #expect(
            String(decoding: stream.written, as: UTF8.self)
                == "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n")
        await stream.receive("+OK\r\n")
        #expect(try await pending.value().isOK)
        client.close()
    }

    @Test("a command whose deadline passed gets no reply, and the next one gets its own")
    func lateReply() async throws {
        let (client, stream) = try await makeClient()
        let late = Pending(
            client, ["GET", "a"], deadline: .after(.milliseconds(5), from: Loop.now))
        await #expect(throws: RedisError.deadlineExceeded(sent: true)) { try await late.value() }
        let next = Pending(client, ["GET", "b"])
        await stream.receive("$1\r\na\r\n$1\r\nb\r\n")
        #expect(try await next.value() == .bytes([UInt8(ascii: "b")]))
        await #expect(throws: RedisError.deadlineExceeded(sent: false)) {
            try await client.send(["GET", "c"], deadline: Deadline(Loop.now))
        }
        client.close()
    }

    @Test("a cancelled wait ends at once and disturbs nobody")
    func cancellation() async throws {
        let (client, stream) = try await makeClient()
        let cancelled = Pending(client, ["GET", "a"])
        let other = Pending(client, ["GET", "b"])
        cancelled.task?.cancel()
        await #expect(throws: RedisError.self) { try await cancelled.value() }
        await stream.receive(":1\r\n:2\r\n")
        #expect(try await other.value() == .integer(2))
        client.close()
    }

    @Test("a lost connection fails what was sent as unknown, and the rest as never sent")
    func connectionLost() async throws {
        let (client, stream) = try await makeClient { $0.backoffInitial = .seconds(1) }
        let sent = Pending(client, ["INCR", "a"])
        await stream.wait { stream.writes > 0 }
        stream.room = 0
        let unsent = Pending(client, ["INCR", "b"])
        await stream.wait { stream.wantsToWrite }
        stream.delegate?.streamDidReachEnd(stream)
        #expect(client.state == .waiting)
        #expect(client.connectedSince == nil)
        #expect(stream.isClosed)
        await #expect(throws: RedisError.connectionLost) { try await sent.value() }
        await #expect(throws: RedisError.unavailable) { try await unsent.value() }
        await #expect(throws: RedisError.unavailable) {
            try await client.send(["PING"], deadline: .soon)
        }
        client.close()
    }

    @Test("an error reply is thrown for a command and is a value in a pipeline")
    func errorReplies() async throws {
        let (client, stream) = try await makeClient()
        let single = Pending(client, ["LPUSH", "a", "b"])
        await stream.wait { stream.writes == 1 }
        await stream.receive("-WRONGTYPE no\r\n")
        await #expect(throws: RedisError.server(RedisServerError(line: "WRONGTYPE no"))) {
            try await single.value()
        }
        async let replies = client.pipeline(
            [["INCR", "a"], ["LPUSH", "a", "b"]], deadline: .soon)
        await stream.wait { stream.writes == 2 }
        await stream.receive(":1\r\n-WRONGTYPE no\r\n")
        let values = try await replies
        #expect(values[0] == .integer(1))
        #expect(values[1].asError?.code == "WRONGTYPE")
        #expect(try await client.pipeline([], deadline: .soon).isEmpty)
        client.close()
    }

    @Test("shutting down waits for the replies that are under way, and takes nothing new")
    func shutDown() async throws {
        let (client, stream) = try await makeClient()
        let pending = Pending(client, ["GET", "a"])
        async let end: Void = client.shutDown(deadline: .soon)
        await stream.wait { stream.writes > 0 }
        await #expect(throws: RedisError.unavailable) {
            try await client.send(["GET", "b"], deadline: .soon)
        }
        #expect(client.state == .ready)
        await stream.receive(":1\r\n")
        #expect(try await pending.value() == .integer(1))
        await end
        #expect(client.state == .closed)
        #expect(stream.isClosed)
        await #expect(throws: RedisError.unavailable) {
            try await client.waitUntilReady(deadline: .soon)
        }
    }

    @Test("as a service it runs until it is shut down, after the replies under way")
    func service() async throws {
        let stream = ScriptedStream()
        let client = RedisClient(configuration: RedisConfiguration()) { _ in stream }
        let group = ServiceGroup([client])
        async let life: Void = group.run()
        await stream.receive("+OK\r\n")
        try await client.waitUntilReady(deadline: .soon)
        let pending = Pending(client, ["GET", "a"])
        await stream.wait { stream.writes == 2 }
        group.shutDown()
        await stream.receive(":1\r\n")
        #expect(try await pending.value() == .integer(1))
        try await life
        #expect(client.state == .closed)
    }

    @Test("a service that is cancelled closes its connection")
    func cancelledService() async throws {
        let stream = ScriptedStream()
        let client = RedisClient(configuration: RedisConfiguration()) { _ in stream }
        let ended = Waiter<Bool>()
        let task = Loop.shared.spawn {
            do {
                try await client.run()
                ended.succeed(false)
            } catch {
                ended.succeed(error is CancellationError)
            }
        }
        await stream.receive("+OK\r\n")
        try await client.waitUntilReady(deadline: .soon)
        task.cancel()
        #expect(try await ended.wait(until: .soon))
        #expect(client.state == .closed)
        #expect(stream.isClosed)
    }

    @Test("a server that takes the connection and says nothing is given up")
    func silentServer() async throws {
        var configuration = RedisConfiguration()
        configuration.connectTimeout = .milliseconds(20)
        configuration.backoffInitial = .milliseconds(1)
        configuration.backoffMax = .milliseconds(2)
        var streams: [ScriptedStream] = []
        let client = RedisClient(configuration: configuration) { _ in
            let stream = ScriptedStream()
            streams.append(stream)
            return stream
        }
        client.start()
        try await client.wait(for: .waiting, deadline: .soon)
        #expect(client.lastFailure == "unresponsive")
        #expect(streams[0].isClosed)
        try await client.wait(for: .connecting, deadline: .soon)
        await streams[streams.count - 1].receive("+OK\r\n")
        try await client.waitUntilReady(deadline: .soon)
        client.close()
    }

    @Test("a stream that fails to connect is tried again with growing pauses")
    func failedConnects() async throws {
        var configuration = RedisConfiguration()
        configuration.backoffInitial = .milliseconds(1)
        configuration.backoffMax = .milliseconds(4)
        var attempts = 0
        let stream = ScriptedStream()
        let client = RedisClient(configuration: configuration) { _ in
            attempts += 1
            guard attempts > 3 else { throw SystemError(errno: 111, call: "connect") }
            return stream
        }
        client.start()
        await stream.receive("+OK\r\n")
        try await client.waitUntilReady(deadline: .soon)
        #expect(attempts == 4)
        #expect(client.lastFailure == nil)
        client.close()
    }

    @Test(
        "what greets well and then talks nonsense is tried ever more rarely, a good connection anew"
    )
    func nonsenseAfterGreeting() async throws {
        for (steadyAfter, failures) in [(Duration.seconds(3600), 3), (.zero, 1)] {
            var configuration = RedisConfiguration()
            configuration.backoffInitial = .milliseconds(1)
            configuration.steadyAfter = steadyAfter
            let streams = (0..<4).map { _ in ScriptedStream() }
            var taken = 0
            let client = RedisClient(configuration: configuration) { _ in
                defer { taken += 1 }
                return streams[taken]
            }
            client.start()
            for stream in streams.prefix(3) {
                await stream.receive("+OK\r\n")
                try await client.waitUntilReady(deadline: .soon)
                await stream.receive("+nobody asked\r\n")
                #expect(client.state == .waiting)
            }
            #expect(client.lastFailure == "unsolicited reply")
            #expect(client.backoff.failures == failures)
            client.close()
        }
    }
}

/// A command under way. It is submitted before `init` returns.
@LoopActor private final class Pending {
    private let outcome = Waiter<Result<RESPValue, RedisError>>()
    private(set) var task: Task<Void, Never>?

    init(_ client: RedisClient, _ command: [RedisArgument], deadline: Deadline = .soon) {
        let outcome = outcome
        task = Loop.shared.spawn {
            do throws(RedisError) {
                outcome.succeed(.success(try await client.send(command, deadline: deadline)))
            } catch {
                outcome.succeed(.failure(error))
            }
        }
    }

    func value() async throws -> RESPValue { try await outcome.wait(until: .soon).get() }
}

extension Deadline {
    /// Far enough that only a test that hangs meets it.
    @LoopActor fileprivate static var soon: Deadline { .after(.seconds(20), from: Loop.now) }
}

/// A stream whose other end is the test.
@LoopActor private final class ScriptedStream: ByteStream {
    private(set) var delegate: (any ByteStreamDelegate)?
    var written: [UInt8] = []
    var writes = 0
    /// Bytes that are taken before it would block.
    var room = Int.max
    private(set) var wantsToWrite = false
    private(set) var isClosed = false
    private var conditions: [(isMet: () -> Bool, waiter: Waiter<Void>)] = []

    var remoteAddress: SocketAddress? { nil }
    var localAddress: SocketAddress? { nil }

    func start(delegate: any ByteStreamDelegate, reading: Bool) {
        self.delegate = delegate
        check()
    }

    func setReading(_ isOn: Bool) {}
    func setWriteInterest(_ isOn: Bool) {
        wantsToWrite = isOn
        check()
    }

    func write(_ bytes: UnsafeRawBufferPointer) -> StreamWrite {
        writes += 1
        defer { check() }
        let count = min(room, bytes.count)
        guard count > 0 else { return .wouldBlock }
        written += bytes[..<count]
        if room != .max { room -= count }
        return .wrote(count)
    }

    func shutdownWrite() {}

    func close() {
        isClosed = true
        delegate = nil
    }

    /// Waits until the client has done what the test waits for.
    func wait(until isMet: @escaping () -> Bool) async {
        guard !isMet() else { return }
        let waiter = Waiter<Void>()
        conditions.append((isMet, waiter))
        do { try await waiter.wait(until: .soon) } catch { Issue.record("\(error)") }
    }

    private func check() {
        conditions.removeAll { isMet, waiter in
            guard isMet() else { return false }
            waiter.succeed(())
            return true
        }
    }

    /// Redis says this, once the client listens.
    func receive(_ text: String) async {
        await wait { self.delegate != nil }
        Array(text.utf8).withUnsafeBytes { delegate?.stream(self, didReceive: $0) }
    }
}
