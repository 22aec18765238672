import HCCore

/// One word of a command. Any bytes are fine: words are sent with their lengths.
package enum RedisArgument: Sendable, Equatable, ExpressibleByStringLiteral,
    ExpressibleByIntegerLiteral
{
    /// A constant, such as the name of a command.
    case name(StaticString)
    case text(String)
    case bytes([UInt8])
    case integer(Int64)

    package init(stringLiteral value: StaticString) { self = .name(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }

    package static func integer(_ value: Int) -> RedisArgument { .integer(Int64(value)) }

    package static func == (left: RedisArgument, right: RedisArgument) -> Bool {
        left.encoded == right.encoded
    }

    private var encoded: [UInt8] {
        var buffer = ByteBuffer()
        buffer.append(self)
        return buffer.bytes
    }
}

extension RedisArgument: CustomStringConvertible, CustomReflectable {
    package var description: String {
        if case .name(let name) = self { name.description } else { "***" }
    }

    package var customMirror: Mirror { Mirror(self, children: []) }
}

extension ByteBuffer {
    /// Writes a word as a bulk string (RESP2).
    mutating func append(_ argument: RedisArgument) {
        switch argument {
        case .name(let name):
            beginBulk(name.utf8CodeUnitCount)
            append(name)
        case .text(let text):
            beginBulk(text.utf8.count)
            append(utf8: text)
        case .bytes(let bytes):
            beginBulk(bytes.count)
            append(bytes)
        case .integer(let value):
            beginBulk(Self.decimalCount(value))
            append(decimal: value)
        }
        append("\r\n" as StaticString)
    }

    private mutating func beginBulk(_ count: Int) {
        append(UInt8(ascii: "$"))
        append(decimal: count)
        append("\r\n" as StaticString)
    }

    private static func decimalCount(_ value: Int64) -> Int {
        var count = value < 0 ? 2 : 1
        var rest = value.magnitude
        while rest >= 10 {
            rest /= 10
            count += 1
        }
        return count
    }
}
