/// What can go wrong in this room, apart from key files (`KeyFileError`) and tokens (`TokenError`).
///
/// No case carries key material or plaintext, so an error may be logged as it is.
package enum CryptoError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The tag does not fit: another key, other associated data, or altered bytes. Which of them
    /// it was cannot be known, and must not be told to a caller.
    case authenticationFailed
    /// The bytes were sealed under a key version that the key at hand is not.
    case unknownKeyVersion(UInt32)
    /// The bytes cannot be what they are said to be.
    case malformed(StaticReason)
    /// OpenSSL refused a call that should succeed (memory, or a build without the algorithm).
    case library(call: StaticReason, code: UInt)

    package var description: String {
        switch self {
        case .authenticationFailed: "authentication failed"
        case .unknownKeyVersion(let version): "unknown key version \(version)"
        case .malformed(let reason): "malformed: \(reason.text)"
        case .library(let call, let code): "OpenSSL \(call.text) failed with code \(code)"
        }
    }
}

/// A constant text in an error; being constant, it cannot carry a secret.
package struct StaticReason: Hashable, Sendable, ExpressibleByStringLiteral {
    package let text: String

    package init(stringLiteral value: StaticString) {
        text = value.description
    }
}
