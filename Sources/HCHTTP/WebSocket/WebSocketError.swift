/// What a peer did wrong, and what it is told (RFC 6455 7.1.7, RFC 7692 7.2).
package enum WebSocketError: String, Error, Sendable, CaseIterable {
    /// RSV2 or RSV3, or RSV1 where no extension gives it a meaning.
    case reservedBits = "reserved-bits"
    case reservedOpcode = "reserved-opcode"
    /// A client's frame without a mask.
    case unmasked
    /// A server's frame with one.
    case masked
    case fragmentedControl = "fragmented-control"
    /// A control frame of more than 125 bytes.
    case controlTooLong = "control-too-long"
    /// A length in more bytes than it needs.
    case lengthNotMinimal = "length-not-minimal"
    /// A length with the highest bit set.
    case lengthOutOfRange = "length-out-of-range"
    /// A continuation of nothing.
    case nothingToContinue = "nothing-to-continue"
    /// A new message inside another.
    case messageNotFinished = "message-not-finished"
    /// Fragments that bring nothing, one after the other.
    case emptyFragments = "empty-fragments"
    case frameTooLarge = "frame-too-large"
    case messageTooLarge = "message-too-large"
    case invalidUTF8 = "invalid-utf8"
    /// A Close frame with half a code.
    case closeTooShort = "close-too-short"
    case closeCode = "close-code"
    /// A compressed message that is not DEFLATE, or is cut off.
    case invalidDeflate = "invalid-deflate"

    package var closeCode: WebSocketCloseCode {
        switch self {
        case .frameTooLarge, .messageTooLarge: .messageTooBig
        case .invalidUTF8, .invalidDeflate: .invalidData
        case .emptyFragments: .policyViolation
        default: .protocolError
        }
    }
}
