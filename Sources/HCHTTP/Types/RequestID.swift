package import HCCore

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

    init?(received bytes: UnsafeRawBufferPointer) {
        guard RequestID.isAcceptable(bytes) else { return nil }
        form = .received(String(decoding: bytes, as: UTF8.self))
    }

    package var description: String {
        switch form {
        case .made(let uuid): uuid.description
        case .received(let text): text
        }
    }

    /// As it stands in a line of the log: what was made here costs no string.
    package var logValue: LogValue {
        switch form {
        case .made(let uuid): .uuid(uuid)
        case .received(let text): .string(text)
        }
    }

    /// Writes the text, at most `receivedBytesMax` bytes, to the beginning of `memory`.
    /// - Returns: how many bytes it has.
    func write(to memory: UnsafeMutableRawBufferPointer) -> Int {
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

/// Makes request ids. Their random part only keeps them apart: it comes from a small generator that is seeded
/// once, not from the kernel for each request, and an id is never a secret.
struct RequestIDGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    /// SplitMix64.
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    mutating func make(at time: Timestamp) -> RequestID {
        RequestID(UUID.v7(at: time, using: &self))
    }
}

/// A trace that the request belongs to (W3C Trace Context, level 1, `traceparent` version 00 or later).
package struct TraceContext: Sendable, Hashable {
    /// 32 lower case hex digits, not all zero.
    package let traceID: String
    /// 16 lower case hex digits, not all zero: the caller's span.
    package let parentID: String
    package let isSampled: Bool

    package init?(traceparent text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].utf8.count == 2, TraceContext.isHex(parts[0]),
            parts[0] != "ff",
            parts[0] != "00" || parts.count == 4,
            parts[1].utf8.count == 32, TraceContext.isHex(parts[1]),
            parts[1].contains(where: { $0 != "0" }),
            parts[2].utf8.count == 16, TraceContext.isHex(parts[2]),
            parts[2].contains(where: { $0 != "0" }),
            parts[3].utf8.count == 2, TraceContext.isHex(parts[3]),
            let flags = UInt8(parts[3], radix: 16)
        else { return nil }
        traceID = String(parts[1])
        parentID = String(parts[2])
        isSampled = flags & 1 == 1
    }

    private static func isHex(_ text: Substring) -> Bool {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }
}
