import HCCore
import HCIO

@testable import HCHTTP

/// A server that answers with exactly the bytes it is told to, or with silence, or not at all.
@LoopActor
final class FaultServer {
    /// Called once for each request whose head has come, with the number of requests before it.
    typealias Script = @LoopActor (FaultConnection, Int) -> Void

    private let listener: Listener
    private let script: Script
    private(set) var connections: [FaultConnection] = []
    private(set) var requestCount = 0
    private var waiter: (isMet: (FaultServer) -> Bool, waiter: Waiter<Void>)?
    let port: UInt16

    init(_ script: @escaping Script) throws {
        self.script = script
        listener = try Listener(try Listener.bind(.loopback(port: 0)))
        port = listener.localAddress?.port ?? 0
        try listener.start { stream, _ in
            let connection = FaultConnection(stream, self)
            self.connections.append(connection)
            stream.start(delegate: connection, reading: true)
        }
    }

    func url(_ path: String, host: String = "127.0.0.1") -> String {
        "http://\(host):\(port)\(path)"
    }

    func stop() {
        listener.close()
        for connection in connections { connection.close() }
        connections = []
    }

    /// Waits until something holds; it is looked at whenever bytes or ends come.
    func wait(until isMet: @escaping (FaultServer) -> Bool) async throws {
        guard !isMet(self) else { return }
        let waiter = Waiter<Void>()
        self.waiter = (isMet, waiter)
        try await waiter.wait(until: .after(RawClient.patience, from: Loop.now))
    }

    fileprivate func begin(_ connection: FaultConnection) {
        requestCount += 1
        script(connection, requestCount - 1)
    }

    fileprivate func check() {
        guard let (isMet, waiter) = waiter, isMet(self) else { return }
        self.waiter = nil
        waiter.succeed(())
    }
}

extension Loop {
    /// Lets the loop go round until something holds.
    @LoopActor func turns(until isMet: () -> Bool) async throws {
        let end = Deadline.after(RawClient.patience, from: Loop.now)
        while !isMet() {
            guard !end.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            let turn = Waiter<Void>()
            atEndOfTick { turn.succeed(()) }
            try await turn.wait(until: .never)
        }
    }

    /// Lets the loop go round until a number has stayed what it is for many turns.
    @LoopActor func turnsUntilStill(_ number: () -> Int) async throws {
        var last = number()
        var still = 0
        try await turns {
            let next = number()
            still = next == last ? still + 1 : 0
            last = next
            return still == 200
        }
    }
}

@LoopActor
final class FaultConnection: ByteStreamDelegate {
    private let stream: PlainStream
    private unowned let server: FaultServer
    private(set) var received: [UInt8] = []
    private(set) var hasEnded = false
    /// The head of the last request.
    private(set) var head = ""
    /// Of the request's content, which is thrown away.
    private var contentLeft = 0
    private var unsent: [UInt8] = []
    private var writtenCount = 0
    private var closesWhenSent = false

    fileprivate init(_ stream: PlainStream, _ server: FaultServer) {
        self.stream = stream
        self.server = server
    }

    /// Bytes that the client's side of the connection has taken.
    var sentCount: Int { writtenCount }
    var unsentCount: Int { unsent.count }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        unsent.append(contentsOf: bytes)
        flush()
    }

    /// An answer with its length.
    func answer(_ status: String = "200 OK", fields: String = "", _ content: String = "") {
        send(
            "HTTP/1.1 \(status)\r\n\(fields)Content-Length: \(content.utf8.count)\r\n\r\n\(content)"
        )
    }

    func setReading(_ isOn: Bool) { stream.setReading(isOn) }

    func close() { stream.close() }

    func closeWhenSent() {
        closesWhenSent = true
        if unsent.isEmpty { close() }
    }

    private func flush() {
        while !unsent.isEmpty, !stream.isClosed {
            guard case .wrote(let count) = unsent.withUnsafeBytes({ stream.write($0) }) else {
                break
            }
            writtenCount += count
            unsent.removeFirst(count)
        }
        if stream.isClosed { return }
        stream.setWriteInterest(!unsent.isEmpty)
        if unsent.isEmpty, closesWhenSent { close() }
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        received.append(contentsOf: bytes)
        while true {
            let content = min(contentLeft, received.count)
            contentLeft -= content
            received.removeFirst(content)
            guard contentLeft == 0, let end = endOfHead() else { break }
            head = String(decoding: received[..<end], as: UTF8.self)
            received.removeFirst(end)
            let lines = head.lowercased().split(separator: "\r\n")
            contentLeft =
                lines.compactMap { line in
                    line.hasPrefix("content-length: ") ? Int(line.dropFirst(16)) : nil
                }.first ?? 0
            server.begin(self)
        }
        server.check()
    }

    private func endOfHead() -> Int? {
        guard received.count >= 4 else { return nil }
        return (0...received.count - 4).first {
            received[$0] == 13 && received[$0 + 1] == 10 && received[$0 + 2] == 13
                && received[$0 + 3] == 10
        }.map { $0 + 4 }
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        hasEnded = true
        server.check()
    }

    func streamIsWritable(_ stream: any ByteStream) { flush() }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        hasEnded = true
        server.check()
    }
}
