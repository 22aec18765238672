/// One whole message.
package struct WebSocketMessage: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        /// The bytes are valid UTF-8.
        case text
        case binary
    }

    package let kind: Kind
    package let bytes: [UInt8]

    package init(text: String) {
        kind = .text
        bytes = Array(text.utf8)
    }

    package init(binary bytes: [UInt8]) {
        kind = .binary
        self.bytes = bytes
    }

    /// - Precondition: the bytes of a text are valid UTF-8, as a `JSONWriter`'s are: the peer ends the connection
    ///   otherwise.
    package init(_ kind: Kind, validated bytes: [UInt8]) {
        self.kind = kind
        self.bytes = bytes
    }

    package var count: Int { bytes.count }

    package var text: String { String(decoding: bytes, as: UTF8.self) }
}
