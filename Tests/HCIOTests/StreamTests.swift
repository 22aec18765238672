import CLinux
import HCCore
import HCTesting
import Testing

@testable import HCIO

/// Records what a stream tells, and lets a test wait for it.
@LoopActor final class Recorder: ByteStreamDelegate {
    private(set) var received: [UInt8] = []
    private(set) var hasEnded = false
    private(set) var failure: SystemError?
    private(set) var writableCount = 0
    var onEvent: () -> Void = {}
    private var condition: (() -> Bool)?
    private var waiter: Waiter<Void>?

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        received.append(contentsOf: bytes)
        changed()
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        hasEnded = true
        changed()
    }

    func streamIsWritable(_ stream: any ByteStream) {
        writableCount += 1
        changed()
    }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        failure = error
        changed()
    }

    /// Waits until something that was told makes `condition` true.
    func wait(for condition: @escaping @LoopActor (Recorder) -> Bool) async throws {
        if condition(self) { return }
        let waiter = Waiter<Void>()
        self.waiter = waiter
        self.condition = { condition(self) }
        try await waiter.wait(until: .soon)
    }

    private func changed() {
        onEvent()
        guard let condition, condition() else { return }
        self.condition = nil
        waiter?.succeed(())
    }
}

extension Deadline {
    /// Far longer than any test takes: a test that waits for it has failed.
    @LoopActor static var soon: Deadline { .after(.seconds(20), from: Loop.now) }
}

extension ByteStream {
    func write(_ text: String) -> StreamWrite {
        var text = text
        return text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }
}

@Suite(.onLoop) @LoopActor struct StreamTests {
    @Test("bytes, a half-close and an answer pass between a client and a listener")
    func conversation() async throws {
        let listener = try Listener(Listener.bind(.loopback(port: 0)))
        let address = try #require(listener.localAddress)
        let accepted = Waiter<PlainStream>()
        let server = Recorder()
        try listener.start { stream, peer in
            #expect(peer.host == "127.0.0.1")
            stream.start(delegate: server, reading: true)
            accepted.succeed(stream)
        }
        let client = try await PlainStream.connect(to: address, deadline: .soon)
        let heard = Recorder()
        client.start(delegate: heard, reading: true)
        #expect(client.write("hello") == .wrote(5))
        client.shutdownWrite()
        let stream = try await accepted.wait(until: .soon)
        try await server.wait { $0.hasEnded }
        #expect(server.received == Array("hello".utf8))
        #expect(stream.write("good bye") == .wrote(8))
        stream.close()
        try await heard.wait { $0.hasEnded }
        #expect(heard.received == Array("good bye".utf8))
        client.close()
        listener.close()
        #expect(client.isClosed && stream.isClosed)
    }

    @Test("what the socket does not take stays with the caller, who is told when there is room")
    func backPressure() async throws {
        let (sender, receiver) = try connectedStreams()
        let room = Recorder()
        let heard = Recorder()
        sender.start(delegate: room, reading: true)
        receiver.start(delegate: heard, reading: false)
        let megabytes = [UInt8](repeating: 7, count: 4 << 20)
        var sent = 0
        func send() -> StreamWrite {
            megabytes.withUnsafeBytes {
                sender.write(UnsafeRawBufferPointer(rebasing: $0[sent...]))
            }
        }
        var result = send()
        while case .wrote(let count) = result, count > 0 {
            sent += count
            result = send()
        }
        #expect(result == .wouldBlock)
        #expect(sent < megabytes.count)
        // Nobody reads: neither is there room nor does anything arrive.
        sender.setWriteInterest(true)
        try await Loop.shared.lookAround()
        #expect(room.writableCount == 0 && heard.received.isEmpty)
        // The other side reads: room is told, and everything passes in order.
        room.onEvent = {
            while sent < megabytes.count, case .wrote(let count) = send() { sent += count }
            if sent == megabytes.count {
                sender.setWriteInterest(false)
                sender.shutdownWrite()
            }
        }
        receiver.setReading(true)
        try await heard.wait { $0.hasEnded }
        #expect(heard.received == megabytes)
        #expect(room.writableCount > 0)
        sender.close()
        receiver.close()
    }

    @Test("reading can be stopped and taken up again without losing anything")
    func pausedReading() async throws {
        let (one, other) = try connectedStreams()
        let heard = Recorder()
        other.start(delegate: heard, reading: true)
        #expect(one.write("a") == .wrote(1))
        try await heard.wait { $0.received.count == 1 }
        other.setReading(false)
        #expect(one.write("b") == .wrote(1))
        one.close()
        try await Loop.shared.lookAround()
        #expect(heard.received == Array("a".utf8))
        #expect(!heard.hasEnded && heard.failure == nil && !other.isClosed)
        other.setReading(true)
        try await heard.wait { $0.hasEnded }
        #expect(heard.received == Array("ab".utf8))
        other.close()
    }

    @Test("a connection that nobody reads does not keep the loop awake when its peer goes")
    func hangupIsToldOnce() async throws {
        let (one, other) = try connectedStreams()
        other.start(delegate: Recorder(), reading: false)
        one.close()
        try await Loop.shared.lookAround()
        try await Loop.shared.wait { other.isMuted }
        #expect(!other.isClosed)
        // Whoever wants to know hears of it.
        other.setReading(true)
        #expect(!other.isMuted)
        other.close()
    }

    @Test("a reset is told as ECONNRESET, and the stream is closed by then")
    func reset() async throws {
        let (client, server) = try await connectedSockets()
        let heard = Recorder()
        server.start(delegate: heard, reading: true)
        try client.abort()
        try await heard.wait { $0.failure != nil }
        #expect(heard.failure?.errno == ECONNRESET)
        #expect(server.isClosed)
        #expect(server.remoteAddress == nil)
    }

    @Test("a reset is told to a stream that is not reading, too")
    func resetWhilePaused() async throws {
        let (client, server) = try await connectedSockets()
        let heard = Recorder()
        server.start(delegate: heard, reading: false)
        try client.abort()
        try await heard.wait { $0.failure != nil }
        #expect(heard.failure?.errno == ECONNRESET)
    }

    @Test("writing to a peer that has gone is an error and not a signal")
    func brokenPipe() async throws {
        let (one, other) = try connectedStreams()
        other.close()
        guard case .failed(let error) = one.write("x") else {
            Issue.record("the write was taken")
            return
        }
        #expect(error.errno == EPIPE)
        one.close()
        #expect(one.write("x") == .failed(SystemError(errno: EPIPE, call: "send")))
    }

    @Test("a stream may be closed from within its callback, and is not told anything more")
    func closeInCallback() async throws {
        let (one, other) = try connectedStreams()
        let heard = Recorder()
        heard.onEvent = { other.close() }
        other.start(delegate: heard, reading: true)
        #expect(one.write("x") == .wrote(1))
        one.shutdownWrite()
        try await heard.wait { !$0.received.isEmpty }
        try await Loop.shared.lookAround()
        #expect(other.isClosed && !heard.hasEnded && heard.failure == nil)
        one.close()
    }

    @Test("delegate and stream keep each other until the stream is closed")
    func lifetime() async throws {
        weak var delegate: Recorder?
        weak var stream: PlainStream?
        let peer: PlainStream
        do {
            let (one, other) = try connectedStreams()
            let heard = Recorder()
            other.start(delegate: heard, reading: true)
            delegate = heard
            stream = other
            peer = one
        }
        #expect(delegate != nil && stream != nil)
        stream?.close()
        stream?.close()
        #expect(delegate == nil && stream == nil)
        // A stream that was never started closes its socket when it is dropped.
        let heard = Recorder()
        peer.start(delegate: heard, reading: true)
        try await heard.wait { $0.hasEnded }
        peer.close()
    }

    @Test("an idle stream is small: the object and its place on the loop, no buffer")
    func memory() throws {
        let (one, other) = try connectedStreams()
        let bytes = malloc_usable_size(Unmanaged.passUnretained(one).toOpaque())
        #expect(bytes <= 120)
        one.close()
        other.close()
    }
}

@Suite(.onLoop) @LoopActor struct ListenerTests {
    @Test("a paused listener leaves connections in the queue, and takes them when it resumes")
    func pause() async throws {
        let listener = try Listener(Listener.bind(.loopback(port: 0)))
        let address = try #require(listener.localAddress)
        let accepted = Waiter<Void>()
        try listener.start { stream, _ in
            stream.close()
            accepted.succeed(())
        }
        listener.pause()
        let client = try await PlainStream.connect(to: address, deadline: .soon)
        try await Loop.shared.lookAround()
        #expect(listener.acceptedCount == 0)
        listener.resume()
        try await accepted.wait(until: .soon)
        #expect(listener.acceptedCount == 1)
        client.close()
        listener.close()
        listener.close()
    }

    @Test("when descriptors run out accepting rests, and the connection is taken later")
    func exhaustion() async throws {
        let attempts = Counter()
        let listener = try Listener(
            Listener.bind(.loopback(port: 0)), options: SocketOptions()
        ) { fd, storage throws(SystemError) in
            attempts.increment()
            if attempts.value == 1 { throw SystemError(errno: EMFILE, call: "accept4") }
            let answer = hc_accept4(
                fd, &storage, Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue))
            return answer < 0 ? nil : answer
        }
        let address = try #require(listener.localAddress)
        let accepted = Waiter<Void>()
        listener.pause()
        try listener.start { stream, _ in
            stream.close()
            accepted.succeed(())
        }
        let client = try await PlainStream.connect(to: address, deadline: .soon)
        listener.resume()
        listener.handle(.readable)
        #expect(listener.exhaustedCount == 1)
        #expect(listener.acceptedCount == 0)
        try await accepted.wait(until: .soon)
        #expect(listener.acceptedCount == 1)
        client.close()
        listener.close()
    }

    @Test("a port in use and a path in use are EADDRINUSE; with a shared port two may listen")
    func inUse() throws {
        let first = try Listener.bind(.loopback(port: 0), sharesPort: true)
        let address = try #require(try SocketAddress.local(of: first.rawValue))
        let second = try Listener.bind(address, sharesPort: true)
        #expect(second.rawValue != first.rawValue)
        #expect(throws: SystemError(errno: EADDRINUSE, call: "bind")) {
            _ = try Listener.bind(address).take()
        }
    }

    @Test("Unix sockets listen and connect; a path that is not there is ENOENT")
    func unixSocket() async throws {
        let path = "/tmp/hcio-\(getpid()).sock"
        unlink(path)
        let address = try #require(SocketAddress(path))
        await #expect(throws: SystemError(errno: ENOENT, call: "connect")) {
            _ = try await PlainStream.connect(to: address, deadline: .soon)
        }
        let listener = try Listener(Listener.bind(address))
        defer { unlink(path) }
        let accepted = Waiter<PlainStream>()
        try listener.start { stream, _ in accepted.succeed(stream) }
        let client = try await PlainStream.connect(to: address, deadline: .soon)
        #expect(client.remoteAddress == .unix(path: path))
        try await accepted.wait(until: .soon).close()
        client.close()
        listener.close()
    }

    @Test("an inherited socket accepts: what a worker gets from its supervisor")
    func inherited() async throws {
        let inherited = try Listener.bind(.loopback(port: 0))
        let copy = try inherited.duplicate()
        let listener = try Listener(copy)
        let accepted = Waiter<PlainStream>()
        try listener.start { stream, _ in accepted.succeed(stream) }
        let address = try #require(listener.localAddress)
        let client = try await PlainStream.connect(to: address, deadline: .soon)
        let stream = try await accepted.wait(until: .soon)
        // Options of the listening socket are those of the accepted ones.
        #expect(option(stream, Int32(IPPROTO_TCP), TCP_NODELAY) == 1)
        #expect(option(stream, SOL_SOCKET, SO_KEEPALIVE) == 1)
        #expect(option(stream, Int32(IPPROTO_TCP), TCP_KEEPIDLE) == 10)
        listener.close()
        // The socket lives on with the other descriptor: a connection is still queued.
        let next = try await PlainStream.connect(to: address, deadline: .soon)
        for stream in [client, stream, next] { stream.close() }
    }

    @Test("a socket that is about to end lets nobody in, and keeps who was let in before")
    func stopQueueing() async throws {
        let inherited = try Listener.bind(.loopback(port: 0))
        let listener = try Listener(inherited.duplicate())
        let address = try #require(listener.localAddress)
        let queued = try await PlainStream.connect(to: address, deadline: .soon)
        // By the supervisor, for the worker's descriptor too.
        try Listener.stopQueueing(inherited.rawValue)
        await #expect(throws: DeadlineExceeded.self) {
            let late = try await PlainStream.connect(
                to: address, deadline: .after(.milliseconds(100), from: Loop.now))
            late.close()
        }
        let accepted = Waiter<PlainStream>()
        try listener.start { stream, _ in accepted.succeed(stream) }
        let stream = try await accepted.wait(until: .soon)
        #expect(stream.remoteAddress == queued.localAddress)
        #expect(queued.write("hello") == .wrote(5))
        let heard = Recorder()
        stream.start(delegate: heard, reading: true)
        try await heard.wait { $0.received.count == 5 }
        #expect(listener.acceptedCount == 1)
        for stream in [queued, stream] { stream.close() }
        listener.close()
    }

    private func option(_ stream: PlainStream, _ level: Int32, _ name: Int32) -> Int32? {
        guard let fd = stream.descriptorNumber else { return nil }
        var value: Int32 = 0
        var length = socklen_t(4)
        return getsockopt(fd, level, name, &value, &length) == 0 ? value : nil
    }
}

@Suite(.onLoop) @LoopActor struct ConnectTests {
    @Test("a refused connection is ECONNREFUSED")
    func refused() async throws {
        let socket = try Listener.bind(.loopback(port: 0))
        let listener = try Listener(socket)
        let address = try #require(listener.localAddress)
        listener.close()
        await #expect(throws: SystemError(errno: ECONNREFUSED, call: "connect")) {
            _ = try await PlainStream.connect(to: address, deadline: .soon)
        }
    }

    @Test("a peer that does not answer costs no more than the deadline")
    func deadline() async throws {
        let path = "/tmp/hcio-full-\(getpid()).sock"
        unlink(path)
        let address = try #require(SocketAddress(path))
        let socket = try Listener.bind(address, backlog: 1)
        defer { unlink(path) }
        // The queue of one that never accepts is full after a few.
        var clients: [PlainStream] = []
        await #expect(throws: DeadlineExceeded()) {
            for _ in 0..<16 {
                clients.append(
                    try await PlainStream.connect(
                        to: address, deadline: .after(.milliseconds(20), from: Loop.now)))
            }
        }
        #expect(!clients.isEmpty && clients.count < 16)
        for client in clients { client.close() }
        #expect(socket.rawValue >= 0)
    }

    @Test("a deadline gone by is told before anything is watched")
    func expiredBefore() async throws {
        let socket = try Listener.bind(.loopback(port: 0))
        let address = try #require(try SocketAddress.local(of: socket.rawValue))
        await #expect(throws: DeadlineExceeded()) {
            _ = try await PlainStream.connect(to: address, deadline: Deadline(.zero))
        }
    }

    @Test("a name is resolved in the blocking pool and connected to")
    func names() async throws {
        let pool = BlockingPool()
        let socket = try Listener.bind(.loopback(port: 0))
        let port = try #require(try SocketAddress.local(of: socket.rawValue)).port
        let client = try await PlainStream.connect(
            host: "localhost", port: port, deadline: .soon, resolver: pool)
        #expect(client.remoteAddress?.port == port)
        client.close()
        let numeric = try await SocketAddress.resolve(
            host: "::1", port: 80, deadline: .soon, on: pool)
        #expect(numeric == [.ipv6(high: 0, low: 1, scope: 0, port: 80)])
        await #expect(throws: NameResolutionError.self) {
            _ = try await SocketAddress.resolve(
                host: "a..b", port: 80, deadline: .soon, on: pool)
        }
    }
}

/// Two streams connected with each other, not started.
@LoopActor func connectedStreams() throws -> (PlainStream, PlainStream) {
    let (first, second) = try OwnedDescriptor.socketPair().releaseBoth()
    return (PlainStream(OwnedDescriptor(first)), PlainStream(OwnedDescriptor(second)))
}

/// A client and a server connected by TCP, not started.
@LoopActor func connectedSockets() async throws -> (PlainStream, PlainStream) {
    let listener = try Listener(Listener.bind(.loopback(port: 0)))
    let address = try #require(listener.localAddress)
    let accepted = Waiter<PlainStream>()
    try listener.start { stream, _ in accepted.succeed(stream) }
    let client = try await PlainStream.connect(to: address, deadline: .soon)
    let server = try await accepted.wait(until: .soon)
    listener.close()
    return (client, server)
}

struct SocketAddressTests {
    @Test(
        "an address is written as it is read",
        arguments: [
            "0.0.0.0", "255.255.255.255", "127.0.0.1", "10.0.100.9", "1.20.100.200", "192.168.10.1",
            "::1", "2001:db8::1",
        ])
    func hostText(_ host: String) throws {
        let address = try #require(SocketAddress(host: host, port: 80))
        #expect(address.host == host)
    }

    @Test(
        "addresses are parsed and printed",
        arguments: [
            ("127.0.0.1:8080", SocketAddress.ipv4(address: 0x7f00_0001, port: 8080)),
            ("0.0.0.0:0", .ipv4(address: 0, port: 0)),
            ("255.1.2.3:65535", .ipv4(address: 0xff01_0203, port: 65535)),
            ("[::1]:443", .ipv6(high: 0, low: 1, scope: 0, port: 443)),
            (
                "[2001:db8::ff]:1",
                .ipv6(high: 0x2001_0db8_0000_0000, low: 0xff, scope: 0, port: 1)
            ),
            ("/run/hc/redis.sock", .unix(path: "/run/hc/redis.sock")),
            ("unix:redis.sock", .unix(path: "redis.sock")),
        ])
    func roundTrip(text: String, address: SocketAddress) {
        #expect(SocketAddress(text) == address)
        #expect(address.description == text)
    }

    @Test(
        "what is no address is refused",
        arguments: [
            "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:+1", "127.0.0.1:-1",
            "127.0.0.1: 80", "::1:80", "[::1]", "[::1", "[127.0.0.1]:80", "localhost:80", "1.2.3:4",
            "256.0.0.1:80", "unix:", "[::g]:1", "127.0.0.1:８０",
            "/" + String(repeating: "x", count: 107),
        ])
    func refused(text: String) {
        #expect(SocketAddress(text) == nil)
    }

    @Test("an IPv4 client of an IPv6 socket is an IPv4 client")
    func unmapped() {
        let mapped = SocketAddress.ipv6(high: 0, low: 0xffff_7f00_0001, scope: 0, port: 9)
        #expect(mapped.unmapped == .ipv4(address: 0x7f00_0001, port: 9))
        let plain = SocketAddress.ipv6(high: 0, low: 1, scope: 0, port: 9)
        #expect(plain.unmapped == plain)
        #expect(plain.host == "::1")
    }
}
