import HCCore
import HCIO

@testable import HCHTTP

/// A client that sends exactly the bytes it is told to, over a real socket on the test's loop.
@LoopActor
final class RawClient: ByteStreamDelegate {
    private let stream: PlainStream
    private(set) var received: [UInt8] = []
    private(set) var hasReachedEnd = false
    private(set) var failure: SystemError?
    private var unsent: [UInt8] = []
    private var waiter: (isMet: (RawClient) -> Bool, waiter: Waiter<Void>)?

    /// How long a test waits for what must come: only a failing test waits that long.
    static let patience: Duration = .seconds(20)

    private init(_ stream: PlainStream) {
        self.stream = stream
    }

    static func connect(_ address: SocketAddress, reading: Bool = true) async throws -> RawClient {
        let stream = try await PlainStream.connect(to: address, deadline: deadline)
        let client = RawClient(stream)
        stream.start(delegate: client, reading: reading)
        return client
    }

    private static var deadline: Deadline { .after(patience, from: Loop.now) }

    var text: String { String(decoding: received, as: UTF8.self) }
    var isClosed: Bool { hasReachedEnd || failure != nil }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        unsent.append(contentsOf: bytes)
        flush()
    }

    private func flush() {
        while !unsent.isEmpty {
            guard case .wrote(let count) = unsent.withUnsafeBytes({ stream.write($0) }) else {
                break
            }
            unsent.removeFirst(count)
        }
        if !stream.isClosed { stream.setWriteInterest(!unsent.isEmpty) }
    }

    /// Drops what was received last, if it is this.
    func forget(_ last: [UInt8]) {
        if received.suffix(last.count).elementsEqual(last) { received.removeLast(last.count) }
    }

    var unsentCount: Int { unsent.count }
    func setReading(_ isOn: Bool) { stream.setReading(isOn) }
    func shutdownWrite() { stream.shutdownWrite() }
    func close() { stream.close() }

    /// Waits until what was received fulfils `isMet`, or the connection has ended.
    func wait(until isMet: @escaping (RawClient) -> Bool) async throws {
        guard !isMet(self), !isClosed else { return }
        let waiter = Waiter<Void>()
        self.waiter = (isMet, waiter)
        try await waiter.wait(until: RawClient.deadline)
    }

    /// Waits for so many complete answers, as told by their heads, and returns all that was received.
    func answers(_ count: Int) async throws -> [RawAnswer] {
        try await wait { RawAnswer.parse($0.received).count >= count }
        return RawAnswer.parse(received)
    }

    func answer() async throws -> RawAnswer? { try await answers(1).first }

    /// Lets what was sent arrive: connections are looked at in turn, and a probe that came after it has ended.
    func pause() async throws {
        guard let address = stream.remoteAddress else { return }
        for _ in 0..<3 {
            do {
                let probe = try await RawClient.connect(address)
                probe.send("PROBE / HTTP/1.1\r\n\r\n")
                try await probe.end()
                probe.close()
            } catch is SystemError {
                // Refused, and so seen.
            }
        }
    }

    func end() async throws {
        try await wait { $0.isClosed }
    }

    private func check() {
        guard let (isMet, waiter) = waiter, isMet(self) || isClosed else { return }
        self.waiter = nil
        waiter.succeed(())
    }

    func stream(_ stream: any ByteStream, didReceive bytes: UnsafeRawBufferPointer) {
        received.append(contentsOf: bytes)
        check()
    }

    func streamDidReachEnd(_ stream: any ByteStream) {
        hasReachedEnd = true
        check()
    }

    func streamIsWritable(_ stream: any ByteStream) { flush() }

    func stream(_ stream: any ByteStream, didFail error: SystemError) {
        failure = error
        check()
    }
}

/// An answer as a client reads it; the parsing is a test's own, so that it does not share the server's mistakes.
struct RawAnswer {
    let status: Int
    let fields: [(String, String)]
    let content: String
    /// What followed the last chunk.
    var trailers: [(String, String)] = []

    func values(_ name: String) -> [String] {
        fields.filter { $0.0.lowercased() == name.lowercased() }.map(\.1)
    }

    func value(_ name: String) -> String? { values(name).first }

    /// Every complete answer in `bytes`; `heads` tells which of them answer HEAD.
    static func parse(_ bytes: [UInt8], heads: Set<Int> = []) -> [RawAnswer] {
        var rest = bytes[...]
        var found: [RawAnswer] = []
        while let end = index(of: [13, 10, 13, 10], in: rest) {
            let lines = String(decoding: rest[..<end], as: UTF8.self)
                .split(separator: "\r\n", omittingEmptySubsequences: false)
            let status = Int(lines[0].split(separator: " ")[1]) ?? 0
            let fields = lines.dropFirst().map(field)
            rest = rest[(end + 4)...]
            var answer = RawAnswer(status: status, fields: fields, content: "")
            let isHead = heads.contains(found.count)
            if !isHead, let length = answer.value("Content-Length").flatMap(Int.init) {
                guard rest.count >= length else { return found }
                let content = String(decoding: rest.prefix(length), as: UTF8.self)
                answer = RawAnswer(status: status, fields: fields, content: content)
                rest = rest.dropFirst(length)
            } else if !isHead, answer.value("Transfer-Encoding") == "chunked" {
                var content: [UInt8] = []
                while true {
                    guard let line = index(of: [13, 10], in: rest),
                        let size = Int(String(decoding: rest[..<line], as: UTF8.self), radix: 16),
                        rest.endIndex - line >= size + 4
                    else { return found }
                    if size == 0 {
                        rest = rest[(line + 2)...]
                        break
                    }
                    content.append(contentsOf: rest[(line + 2)..<(line + 2 + size)])
                    rest = rest[(line + 4 + size)...]
                }
                var trailers: [(String, String)] = []
                while true {
                    guard let line = index(of: [13, 10], in: rest) else { return found }
                    let text = String(decoding: rest[..<line], as: UTF8.self)
                    rest = rest[(line + 2)...]
                    if text.isEmpty { break }
                    trailers.append(field(Substring(text)))
                }
                let text = String(decoding: content, as: UTF8.self)
                answer = RawAnswer(
                    status: status, fields: fields, content: text, trailers: trailers)
            }
            found.append(answer)
        }
        return found
    }

    private static func field(_ line: Substring) -> (String, String) {
        let colon = line.firstIndex(of: ":") ?? line.endIndex
        return (String(line[..<colon]), String(line[colon...].dropFirst(2)))
    }

    private static func index(of pattern: [UInt8], in bytes: ArraySlice<UInt8>) -> Int? {
        guard bytes.count >= pattern.count else { return nil }
        return (bytes.startIndex...bytes.endIndex - pattern.count).first { start in
            bytes[start] == pattern[0]
                && bytes[start..<start + pattern.count].elementsEqual(pattern)
        }
    }
}
