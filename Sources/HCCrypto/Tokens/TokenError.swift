/// Why a token is not accepted. To whoever sent it all of these are one answer: 401.
package enum TokenError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Longer than `TokenKeyRing.tokenBytesMax`.
    case tooLong
    /// Not three parts of strict base64url.
    case malformed
    /// The header is not `HS256` under a key of the ring: another algorithm, or a key taken out.
    case unknownKey
    /// The signature is not that of a key of the ring.
    case invalidSignature
    /// The payload is signed but is no object with sane `iat` and `exp`.
    case invalidClaims
    /// `exp` is over.
    case expired
    /// `nbf` or `iat` lies in the future, by more than clocks may differ.
    case notYetValid
    case library(CryptoError)

    package var description: String {
        switch self {
        case .tooLong: "token is too long"
        case .malformed: "token is malformed"
        case .unknownKey: "token names no known algorithm and key"
        case .invalidSignature: "token has an invalid signature"
        case .invalidClaims: "token has invalid claims"
        case .expired: "token has expired"
        case .notYetValid: "token is not valid yet"
        case .library(let error): error.description
        }
    }
}
