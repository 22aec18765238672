import HCCore
import HCIO

/// The host that a request is for (RFC 9112 3.2).
enum HTTP1Host {
    /// The longest name that DNS has, with a bracketed address inside it.
    static let bytesMax = 255

    /// - Parameters:
    ///   - target: the authority of an absolute-form target, which then decides; the Host field must be there and valid
    ///     all the same.
    ///   - known: what the last request of the connection was for: most connections ask one host only.
    static func validate(
        _ head: UnsafeRawBufferPointer, fields: [HTTPHeaders.Field], target: Range<Int>?,
        version: HTTPVersion, known: String = ""
    ) throws(HTTP1Error) -> String {
        var host: Range<Int>?
        for field in fields where field.known == .host {
            guard host == nil else { throw .repeatedHost }
            host = field.value
        }
        guard host != nil || version == .http10 else { throw .missingHost }
        var name = ""
        if let host { name = try parse(head.slice(host), known: known) }
        if let target { name = try parse(head.slice(target)) }
        return name
    }

    /// "name", "name:port", "192.0.2.1", "[2001:db8::1]:port": without the port, lower case, without the
    /// trailing dot. A user, a percent or an empty name is refused.
    ///
    /// - Parameter known: what an earlier call has returned, or an empty text.
    static func parse(
        _ text: UnsafeRawBufferPointer, known: String = ""
    ) throws(HTTP1Error) -> String {
        // What was valid is so again, and has nothing that would have to be taken away.
        if !text.isEmpty, known.withBytes({ text.isEqual(to: UnsafeRawBufferPointer($0)) }) {
            return known
        }
        var end = 0
        if text.first == 0x5B {
            end = 1
            while end < text.count && text[end] != 0x5D {
                let byte = text[end]
                guard ByteClass.hexValue(byte) != nil || byte == 0x3A || byte == 0x2E else {
                    throw .invalidHost
                }
                end += 1
            }
            guard end < text.count, end <= bytesMax,
                case .ipv6? = SocketAddress(
                    host: String(decoding: text.slice(1..<end), as: UTF8.self), port: 0)
            else { throw .invalidHost }
            end += 1
        } else {
            while end < text.count && text[end] != 0x3A {
                switch ByteClass.lower(text[end]) {
                case 0x61...0x7A, 0x30...0x39, 0x2D, 0x2E, 0x5F: end += 1
                default: throw .invalidHost
                }
            }
        }
        guard end > 0, end <= bytesMax else { throw .invalidHost }
        if end < text.count {
            guard text[end] == 0x3A, text.count - end <= 6 else { throw .invalidHost }
            var port = 0
            for index in end + 1..<text.count {
                guard ByteClass.isDigit(text[index]) else { throw .invalidHost }
                port = port * 10 + Int(text[index] - 0x30)
            }
            guard port <= 65_535 else { throw .invalidHost }
        }
        if text[end - 1] == 0x2E { end -= 1 }
        guard end > 0, text[0] != 0x2E, text[end - 1] != 0x2E else { throw .invalidHost }
        return String(unsafeUninitializedCapacity: end) { space in
            for index in 0..<end { space[index] = ByteClass.lower(text[index]) }
            return end
        }
    }
}
