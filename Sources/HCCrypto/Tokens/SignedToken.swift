package import HCCore

/// A token whose signature and times were found right.
package struct SignedToken: Sendable {
    /// The key that signed it.
    package let keyID: String
    package let issuedAt: Timestamp
    package let window: TokenWindow
    /// All members of the payload, `iat` and `exp` among them. What they mean is the caller's part.
    package let claims: JSONObject

    package var notBefore: Timestamp { window.notBefore }
    package var expiresAt: Timestamp { window.expiresAt }
}

/// The time for which a token is good.
package struct TokenWindow: Sendable {
    package let notBefore: Timestamp
    package let expiresAt: Timestamp

    /// Whether it is its time: what has to be asked again each time that the token is shown.
    package func check(at now: Timestamp) throws(TokenError) {
        guard now < expiresAt + TokenKeyRing.clockSkewMax else { throw .expired }
        guard notBefore <= now + TokenKeyRing.clockSkewMax else { throw .notYetValid }
    }
}
