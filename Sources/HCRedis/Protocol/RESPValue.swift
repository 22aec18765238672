/// A reply of Redis (RESP2). Small, and without a box: but for errors, which are rare.
package enum RESPValue: Sendable, Equatable {
    /// `$-1` or `*-1`: there is nothing.
    case null
    case integer(Int64)
    /// A status, such as `OK`.
    case simple(String)
    case bytes([UInt8])
    case array([RESPValue])
    /// An error among the elements of an array or the replies of a pipeline.
    indirect case error(RedisServerError)

    package var isNull: Bool { self == .null }

    package var asInteger: Int64? {
        if case .integer(let value) = self { value } else { nil }
    }

    package var asBytes: [UInt8]? {
        if case .bytes(let value) = self { value } else { nil }
    }

    /// The text of a status, or of bytes that are UTF-8.
    package var asString: String? {
        switch self {
        case .simple(let value): value
        case .bytes(let value): String(validating: value, as: UTF8.self)
        default: nil
        }
    }

    package var asArray: [RESPValue]? {
        if case .array(let value) = self { value } else { nil }
    }

    package var asError: RedisServerError? {
        if case .error(let value) = self { value } else { nil }
    }

    package var isOK: Bool { self == .simple("OK") }
}

extension RESPValue: CustomStringConvertible, CustomReflectable {
    /// Kinds and sizes: what is cached may be somebody's data.
    package var description: String {
        switch self {
        case .null: "null"
        case .integer: "integer"
        case .simple(let text): "simple(\(text.utf8.count) bytes)"
        case .bytes(let bytes): "bytes(\(bytes.count))"
        case .array(let elements): "array(\(elements.count))"
        case .error(let error): "error(\(error.code))"
        }
    }

    package var customMirror: Mirror { Mirror(self, children: []) }
}
