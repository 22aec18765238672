/// Names one request in answers, logs and audit rows: the client's `X-Request-Id` if it is a short harmless
/// word, else a UUIDv7 of ours.
package struct RequestID: Sendable, Hashable, CustomStringConvertible {
    private enum Form: Hashable {
        case made(UUID)
        case received(String)
    }

    /// What a client may choose: at most this many letters, digits, "-", "_", "." or ":".
    package static let receivedBytesMax = 64

    private let form: Form

    package init(_ uuid: UUID) {
        form = .made(uuid)
    }

    /// Nil if `text` is not one that a client may choose.
    package init?(received text: String) {
        var copy = text
        guard copy.withUTF8({ RequestID.isAcceptable(UnsafeRawBufferPointer($0)) }) else {
            return nil
        }
        form = .received(text)
    }

    package init?(received bytes: UnsafeRawBufferPointer) {
        guard RequestID.isAcceptable(bytes) else { return nil }
        form = .received(String(decoding: bytes, as: UTF8.self))
    }

    package var description: String {
        switch form {
        case .made(let uuid): uuid.description
        case .received(let text): text
        }
    }

    /// Writes the text, at most `receivedBytesMax` bytes, to the beginning of `memory`.
    /// - Returns: how many bytes it has.
    package func write(to memory: UnsafeMutableRawBufferPointer) -> Int {
        switch form {
        case .made(let uuid):
            uuid.write(to: memory)
            return UUID.textCount
        case .received(let text):
            var count = 0
            for byte in text.utf8 {
                memory[count] = byte
                count += 1
            }
            return count
        }
    }

    private static func isAcceptable(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard !bytes.isEmpty, bytes.count <= receivedBytesMax else { return false }
        return bytes.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x3A, 0x5F: true
            default: false
            }
        }
    }
}

/// What no request has asked for has a name in the program.
extension RequestID: ExpressibleByStringLiteral {
    package init(stringLiteral name: String) {
        form = .received(name)
    }
}
