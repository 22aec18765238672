import Glibc
package import HCCore

/// Signs and checks access tokens: JSON Web Tokens (RFC 7519) with HS256 and nothing else.
///
/// The header is never interpreted. It must be, byte for byte, the one this ring writes for one of
/// its keys, so that "none", other algorithms, `jku`, `crit` and the like (RFC 8725 2.1-2.10) are
/// not refused case by case but cannot be said. The signature is compared, in constant time,
/// before a byte of the payload is looked at.
package final class TokenKeyRing: Sendable {
    /// Longer tokens are refused unread.
    package static let tokenBytesMax = 4096
    /// How far the clocks of two machines may differ.
    package static let clockSkewMax = Duration.seconds(30)
    /// No token lives longer, whatever its payload says.
    package static let lifetimeMax = Duration.seconds(24 * 60 * 60)

    /// The text of a signature: 32 bytes in base64.
    private static let signatureCount = 43

    private let keys: [TokenKey]

    /// - Throws: `KeyFileError`, whose description tells the operator what to do.
    package static func load(path: String) throws(KeyFileError) -> TokenKeyRing {
        let entries = try KeyFile.load(path: path, kind: "token key")
        do throws(CryptoError) {
            return try TokenKeyRing(keys: entries.map { ($0.id, $0.key) })
        } catch {
            throw KeyFileError(path: path, kind: "token key", problem: .library(error))
        }
    }

    /// - Parameter keys: at least one; the first signs, all of them check. To take a new key into
    ///   use without a refused token, add it last everywhere, then put it first everywhere.
    package init(keys: [(id: String, key: SecretBytes)]) throws(CryptoError) {
        guard !keys.isEmpty else { throw .malformed("no token key") }
        var made: [TokenKey] = []
        for (id, key) in keys {
            guard KeyFile.isIdentifier(id) else { throw .malformed("invalid token key identifier") }
            guard !made.contains(where: { $0.id == id }) else {
                throw .malformed("two token keys of one identifier")
            }
            made.append(TokenKey(id: id, key: try HMACKey(key)))
        }
        self.keys = made
    }

    package var activeKeyID: String { keys[0].id }
    package var keyIDs: [String] { keys.map(\.id) }

    /// Signs `claims` under the active key, with `iat` and `exp` put before them.
    ///
    /// - Parameters:
    ///   - claims: without `iat`, `nbf` and `exp`, which are given here.
    ///   - lifetime: whole seconds, more than 0 and at most `lifetimeMax`.
    /// - Throws: `.malformed` if the token would be longer than `tokenBytesMax`.
    package func sign(
        _ claims: JSONObject, issuedAt: Timestamp, lifetime: Duration
    ) throws(CryptoError) -> String {
        precondition(lifetime >= .seconds(1) && lifetime <= Self.lifetimeMax)
        precondition(claims["iat"] == nil && claims["exp"] == nil && claims["nbf"] == nil)
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("iat", issuedAt.seconds)
        writer.member("exp", issuedAt.seconds + lifetime.components.seconds)
        for member in claims.members {
            writer.key(member.name)
            writer.value(member.value)
        }
        writer.endObject()
        let key = keys[0]
        var token = key.header
        token.append(UInt8(ascii: "."))
        token += writer.finish().withUnsafeReadableBytes { Base64.url.encodedBytes($0) }
        let code = try key.code.authenticationCode(for: token)
        token.append(UInt8(ascii: "."))
        token += code.bytes.withUnsafeBytes { Base64.url.encodedBytes($0) }
        guard token.count <= Self.tokenBytesMax else { throw .malformed("token is too long") }
        return String(decoding: token, as: UTF8.self)
    }

    /// Keys for other codes that live as long as these: in cursors, in refresh tokens. One per key of the ring,
    /// in its order. HMAC is the key derivation (NIST SP 800-108 4.1); what it is made of has no dot, which
    /// every signed token has.
    package func deriveKeys(for purpose: StaticString) throws(CryptoError) -> [HMACKey] {
        let label = Array(purpose.description.utf8)
        precondition(!label.contains(UInt8(ascii: ".")))
        var derived: [HMACKey] = []
        for key in keys {
            let code = try key.code.authenticationCode(for: label)
            derived.append(try HMACKey(SecretBytes(code.bytes)))
        }
        return derived
    }

    /// Checks a token: its length, header, signature, payload and times, in this order.
    ///
    /// About 2 µs, most of it the payload's JSON.
    package func verify(_ token: String, at now: Timestamp) throws(TokenError) -> SignedToken {
        var token = token
        var outcome: Result<SignedToken, TokenError> = .failure(.malformed)
        token.withUTF8 { bytes in
            do throws(TokenError) {
                outcome = .success(try verify(UnsafeRawBufferPointer(bytes), at: now))
            } catch {
                outcome = .failure(error)
            }
        }
        return try outcome.get()
    }

    /// As above, of the token's bytes.
    package func verify(
        _ token: UnsafeRawBufferPointer, at now: Timestamp
    ) throws(TokenError) -> SignedToken {
        guard token.count <= Self.tokenBytesMax else { throw .tooLong }
        let dot = UInt8(ascii: ".")
        guard let firstDot = token.firstIndex(of: dot), let lastDot = token.lastIndex(of: dot),
            firstDot < lastDot
        else { throw .malformed }
        let header = UnsafeRawBufferPointer(rebasing: token[..<firstDot])
        guard let key = keys.first(where: { $0.header.elementsEqual(header) }) else {
            throw .unknownKey
        }
        let signed = UnsafeRawBufferPointer(rebasing: token[..<lastDot])
        let signature = UnsafeRawBufferPointer(rebasing: token[(lastDot + 1)...])
        try check(signature, of: signed, under: key)
        let payload = UnsafeRawBufferPointer(rebasing: token[(firstDot + 1)..<lastDot])
        guard let json = Base64.url.decode(payload) else { throw .malformed }
        return try read(json, key: key, at: now)
    }

    /// Whether two tokens are the same to the last byte.
    ///
    /// What is signed is no secret, and is compared as any text. Who makes up a token guesses the signature behind it: only
    /// of that the time must not tell how far it is right.
    package static func isSame(
        _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer
    ) -> Bool {
        guard left.count == right.count else { return false }
        let signed = max(0, left.count - signatureCount)
        if signed > 0, let mine = left.baseAddress, let other = right.baseAddress,
            memcmp(mine, other, signed) != 0
        {
            return false
        }
        return constantTimeEquals(
            UnsafeRawBufferPointer(rebasing: left[signed...]),
            UnsafeRawBufferPointer(rebasing: right[signed...]))
    }

    private func check(
        _ signature: UnsafeRawBufferPointer, of signed: UnsafeRawBufferPointer, under key: TokenKey
    ) throws(TokenError) {
        guard let bytes = Base64.url.decode(signature), let given = Digest256(bytes) else {
            throw .malformed
        }
        do throws(CryptoError) {
            let right = try key.code.authenticationCode(for: signed)
            guard right == given else { throw CryptoError.authenticationFailed }
        } catch {
            throw error == .authenticationFailed ? .invalidSignature : .library(error)
        }
    }

    private func read(
        _ json: [UInt8], key: TokenKey, at now: Timestamp
    ) throws(TokenError) -> SignedToken {
        let limits = JSONLimits(bytesMax: Self.tokenBytesMax, depthMax: 4)
        let parsed: JSONValue
        do throws(JSONError) {
            parsed = try JSONReader.parse(json, limits: limits)
        } catch {
            throw .invalidClaims
        }
        guard let claims = parsed.asObject, let issued = Self.instant(claims["iat"]),
            let expires = Self.instant(claims["exp"]), issued < expires,
            expires - issued <= Self.lifetimeMax
        else { throw .invalidClaims }
        var notBefore = issued
        if let bound = claims["nbf"] {
            guard let instant = Self.instant(bound) else { throw .invalidClaims }
            notBefore = max(notBefore, instant)
        }
        let token = SignedToken(
            keyID: key.id, issuedAt: issued,
            window: TokenWindow(notBefore: notBefore, expiresAt: expires), claims: claims)
        try token.window.check(at: now)
        return token
    }

    /// Whole seconds since 1970, before the year 10000: far enough from overflow in microseconds.
    private static func instant(_ value: JSONValue?) -> Timestamp? {
        guard let seconds = value?.asInteger, (0..<253_402_300_800).contains(seconds) else {
            return nil
        }
        return Timestamp(seconds: seconds)
    }
}

private struct TokenKey: Sendable {
    let id: String
    let code: HMACKey
    /// base64url of the header, as every token of this key begins.
    let header: [UInt8]

    init(id: String, key: HMACKey) {
        self.id = id
        code = key
        // The identifier's alphabet (KeyFile) needs no escapes in JSON.
        let text = Array(#"{"alg":"HS256","typ":"JWT","kid":"\#(id)"}"#.utf8)
        header = text.withUnsafeBytes { Base64.url.encodedBytes($0) }
    }
}
