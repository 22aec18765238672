import CLinux
import Glibc
package import HCCore

/// A WebSocket (RFC 6455) by hand, over a plain connection to this machine. All calls block, at most `patience`.
///
/// It shares no code with the server: what the two agree on is the RFC.
package final class WebSocketClient {
    package enum Received: Equatable {
        case text(String)
        /// The server said good-bye.
        case close(code: Int, reason: String)
    }

    /// The server answered the handshake with something else than 101.
    package struct Refused: Error, CustomStringConvertible {
        package let status: Int
        package let body: String
        package var description: String { "refused with \(status): \(body)" }
    }

    private let descriptor: Int32
    private let patience: Int32
    private var input: [UInt8] = []
    package private(set) var subprotocol: String?

    /// - Parameters:
    ///   - fields: whole header lines.
    ///   - patience: for each wait.
    /// - Throws: `Refused`; `FixtureError` when the connection breaks or nothing comes.
    package init(
        port: Int, host: String, path: String, fields: [String] = [],
        patience milliseconds: Int32 = 30_000
    ) throws {
        patience = milliseconds
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw FixtureError("socket failed") }
        var storage = sockaddr_storage()
        storage.ss_family = sa_family_t(AF_INET)
        withUnsafeMutableBytes(of: &storage) {
            $0.storeBytes(of: UInt16(port).bigEndian, toByteOffset: 2, as: UInt16.self)
            $0.storeBytes(of: UInt32(0x7F00_0001).bigEndian, toByteOffset: 4, as: UInt32.self)
        }
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) }
        }
        guard status == 0 else { throw FixtureError("cannot connect to port \(port)") }
        try shakeHands("\(host):\(port)", path, fields)
    }

    deinit { close(descriptor) }

    private func shakeHands(_ host: String, _ path: String, _ fields: [String]) throws {
        let lines =
            [
                "GET \(path) HTTP/1.1", "Host: \(host)",
                "Upgrade: websocket", "Connection: Upgrade",
                "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==", "Sec-WebSocket-Version: 13",
            ] + fields
        try write(Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8))
        let mark = Array("\r\n\r\n".utf8)
        var end: Int?
        while end == nil {
            end = input.indices.first { input[$0...].starts(with: mark) }
            if end == nil, try !read() { throw FixtureError("the handshake was cut off") }
        }
        let head = String(decoding: input[..<(end ?? 0)], as: UTF8.self)
        input.removeFirst((end ?? 0) + 4)
        let answer = head.split(separator: "\r\n")
        let code = Int(answer[0].split(separator: " ")[1]) ?? 0
        guard code == 101 else {
            let length = answer.first { $0.lowercased().hasPrefix("content-length:") }
            let count = length.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
            while input.count < count, try read() {}
            throw Refused(status: code, body: String(decoding: input, as: UTF8.self))
        }
        // RFC 6455 1.3: of this key it can only be this.
        guard head.contains("Bz3qJYTGdOe8gUSpLosEdiLKDrk=") else {
            throw FixtureError("the handshake's answer is not of our key: \(head)")
        }
        subprotocol = answer.first { $0.lowercased().hasPrefix("sec-websocket-protocol:") }
            .map { String($0.split(separator: " ")[1]) }
    }

    // MARK: Messages

    package func send(_ text: String) throws { try send(opcode: 1, Array(text.utf8)) }

    package func send(_ json: JSONValue) throws { try send(json.text) }

    /// The next message or good-bye; nil when the connection ends without one. Pings are answered.
    package func receive() throws -> Received? {
        while true {
            guard let (opcode, content) = try frame() else { return nil }
            switch opcode {
            case 1: return .text(String(decoding: content, as: UTF8.self))
            case 8:
                try send(opcode: 8, Array(content.prefix(2)))
                let code = content.prefix(2).reduce(0) { $0 << 8 | Int($1) }
                return .close(
                    code: code, reason: String(decoding: content.dropFirst(2), as: UTF8.self))
            case 9: try send(opcode: 10, content)
            default: break
            }
        }
    }

    /// The next message as JSON.
    /// - Throws: `FixtureError` for anything else.
    package func json() throws -> JSONValue {
        let received = try receive()
        guard case .text(let text)? = received else {
            throw FixtureError("no message but \(String(describing: received))")
        }
        return try JSONReader.parse(Array(text.utf8))
    }

    private func frame() throws -> (opcode: UInt8, content: [UInt8])? {
        guard try need(2) else { return nil }
        let opcode = input[0] & 15
        var head = 2
        var count = Int(input[1] & 127)
        let extra = count == 126 ? 2 : count == 127 ? 8 : 0
        if extra > 0 {
            guard try need(2 + extra) else { return nil }
            count = input[2..<2 + extra].reduce(0) { $0 << 8 | Int($1) }
            head += extra
        }
        guard try need(head + count) else { return nil }
        let content = Array(input[head..<head + count])
        input.removeFirst(head + count)
        return (opcode, content)
    }

    private func send(opcode: UInt8, _ content: [UInt8]) throws {
        var frame: [UInt8] = [0x80 | opcode]
        if content.count < 126 {
            frame.append(0x80 | UInt8(content.count))
        } else {
            frame += [0x80 | 126, UInt8(content.count >> 8 & 255), UInt8(content.count & 255)]
        }
        var random = SystemRandomNumberGenerator()
        let mask = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
        frame += mask
        frame += content.enumerated().map { $1 ^ mask[$0 % 4] }
        try write(frame)
    }

    // MARK: Bytes

    private func need(_ count: Int) throws -> Bool {
        while input.count < count {
            guard try read() else { return false }
        }
        return true
    }

    /// - Returns: false at the end of the connection.
    private func read() throws -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, patience) == 1 else { throw FixtureError("nothing comes") }
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { return false }
        input += buffer[..<count]
        return true
    }

    private func write(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Array(rest).withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw FixtureError("the connection is broken") }
            rest = rest.dropFirst(count)
        }
    }
}
