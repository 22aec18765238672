import CLinux
import HCCore
import HCIO
import HCTesting
import Testing

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
    @LoopActor static var soon: Deadline { .after(.seconds(20), from: Loop.shared.now) }
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

    @Test("the blocking pool works off the loop and answers on it")
    func blockingPool() async throws {
        let pool = BlockingPool()
        let wasOnLoop = try await pool.run(deadline: .soon) { Loop.shared.isOnThread }
        #expect(!wasOnLoop)
        #expect(Loop.shared.isOnThread)
    }
}
