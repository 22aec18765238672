import HCCore
import Testing

@testable import HCCrypto

@Suite("signed tokens")
struct TokenTests {
    static let now = Timestamp(seconds: 1_772_978_400)
    let secret: SecretBytes
    let ring: TokenKeyRing
    let token: String

    init() throws {
        secret = SecretBytes(Array(100..<132))
        ring = try TokenKeyRing(keys: [("k1", secret)])
        token = try ring.sign(
            Self.claims, issuedAt: Self.now, lifetime: .seconds(900))
    }

    static let claims: JSONObject = {
        var claims = JSONObject()
        claims.set("0197-session", for: "sid")
        claims.set(["doctor"], for: "roles")
        return claims
    }()

    /// A token with any header and payload, signed as ours are.
    private func forge(header: String, payload: String) throws -> String {
        let signed =
            Base64.url.encode(Array(header.utf8)) + "." + Base64.url.encode(Array(payload.utf8))
        let code = try HMACKey(secret).authenticationCode(for: Array(signed.utf8))
        return signed + "." + Base64.url.encode(code.bytes)
    }

    private static let header = #"{"alg":"HS256","typ":"JWT","kid":"k1"}"#

    @Test("a token says what was signed")
    func roundTrip() throws {
        let verified = try ring.verify(token, at: Self.now + .seconds(60))
        #expect(verified.keyID == "k1")
        #expect(verified.issuedAt == Self.now)
        #expect(verified.expiresAt == Self.now + .seconds(900))
        #expect(verified.claims["sid"]?.asString == "0197-session")
        #expect(verified.claims["roles"] == ["doctor"])
        #expect(verified.claims["iat"]?.asInteger == Self.now.seconds)
    }

    @Test("no character of a token can be altered, left out or added")
    func tampering() throws {
        let bytes = Array(token.utf8)
        for index in bytes.indices {
            var altered = bytes
            altered[index] = altered[index] == UInt8(ascii: "A") ? UInt8(ascii: "B") : 0x41
            let text = String(decoding: altered, as: UTF8.self)
            #expect(throws: TokenError.self) { try ring.verify(text, at: Self.now) }
            altered = bytes
            altered.remove(at: index)
            let shorter = String(decoding: altered, as: UTF8.self)
            #expect(throws: TokenError.self) { try ring.verify(shorter, at: Self.now) }
        }
        for text in [token + "A", token + "=", " " + token, token + ".", token + "\n", ""] {
            #expect(throws: TokenError.self) { try ring.verify(text, at: Self.now) }
        }
    }

    @Test(
        "no header but ours is accepted, even well signed",
        arguments: [
            #"{"alg":"none"}"#, #"{"alg":"none","typ":"JWT","kid":"k1"}"#,
            #"{"alg":"HS512","typ":"JWT","kid":"k1"}"#, #"{"alg":"RS256","typ":"JWT","kid":"k1"}"#,
            #"{"alg":"HS256","typ":"JWT","kid":"k2"}"#, #"{"alg":"HS256","typ":"JWT"}"#,
            #"{"typ":"JWT","alg":"HS256","kid":"k1"}"#,
            #"{"alg":"HS256","typ":"JWT","kid":"k1","crit":["b64"],"b64":false}"#,
            #"{"alg":"HS256","typ":"JWT","kid":"k1","kid":"k1"}"#, "",
        ])
    func headers(header: String) throws {
        let payload = #"{"iat":\#(Self.now.seconds),"exp":\#(Self.now.seconds + 60)}"#
        #expect(throws: TokenError.unknownKey) {
            try ring.verify(forge(header: header, payload: payload), at: Self.now)
        }
        #expect(throws: Never.self) {
            try ring.verify(forge(header: Self.header, payload: payload), at: Self.now)
        }
    }

    @Test(
        "a signed payload without sane times is refused",
        arguments: [
            "", "[]", "null", "{", #"{"iat":1}"#, #"{"exp":1}"#, #"{"iat":"1","exp":"2"}"#,
            #"{"iat":1.5,"exp":2.5}"#, #"{"iat":-1,"exp":5}"#, #"{"iat":5,"exp":5}"#,
            #"{"iat":5,"exp":4}"#, #"{"iat":1,"exp":9223372036854775807}"#,
            #"{"iat":1,"exp":1e30}"#, #"{"iat":1,"iat":1,"exp":2}"#,
            #"{"iat":1772978400,"exp":1773064801}"#,
            #"{"iat":1772978400,"exp":1772978500,"nbf":"soon"}"#,
        ])
    func claims(payload: String) throws {
        #expect(throws: TokenError.invalidClaims) {
            try ring.verify(forge(header: Self.header, payload: payload), at: Self.now)
        }
    }

    @Test("a token is the same as itself only, wherever another differs")
    func sameness() {
        func isSame(_ left: [UInt8], _ right: [UInt8]) -> Bool {
            left.withUnsafeBytes { left in
                right.withUnsafeBytes { TokenKeyRing.isSame(left, $0) }
            }
        }
        // Texts that are no longer than a signature, too.
        for count in [0, 1, 42, 43, 44, token.utf8.count] {
            let bytes = Array(token.utf8.suffix(count))
            #expect(isSame(bytes, bytes))
            #expect(!isSame(bytes, bytes + [0x41]))
            for index in bytes.indices {
                var other = bytes
                other[index] ^= 1
                #expect(!isSame(bytes, other), "byte \(index) of \(count)")
            }
        }
    }

    @Test("times are checked with a bounded difference of clocks")
    func times() throws {
        let expiry = Self.now + .seconds(900)
        #expect(throws: Never.self) { try ring.verify(token, at: expiry + .seconds(29)) }
        #expect(throws: TokenError.expired) { try ring.verify(token, at: expiry + .seconds(30)) }
        #expect(throws: Never.self) { try ring.verify(token, at: Self.now - .seconds(30)) }
        #expect(throws: TokenError.notYetValid) {
            try ring.verify(token, at: Self.now - .seconds(31))
        }
        let seconds = Self.now.seconds
        let later = try forge(
            header: Self.header,
            payload: #"{"iat":\#(seconds),"exp":\#(seconds + 300),"nbf":\#(seconds + 100)}"#)
        #expect(throws: TokenError.notYetValid) { try ring.verify(later, at: Self.now) }
        #expect(throws: Never.self) { try ring.verify(later, at: Self.now + .seconds(100)) }
    }

    @Test("keys rotate without a refused token, and a key taken out refuses its own")
    func rotation() throws {
        let new = try SecretBytes(randomCount: 32)
        let during = try TokenKeyRing(keys: [("k2", new), ("k1", secret)])
        let after = try TokenKeyRing(keys: [("k2", new)])
        #expect(try during.verify(token, at: Self.now).keyID == "k1")
        let fresh = try during.sign(JSONObject(), issuedAt: Self.now, lifetime: .seconds(60))
        #expect(try during.verify(fresh, at: Self.now).keyID == "k2")
        #expect(try after.verify(fresh, at: Self.now).keyID == "k2")
        #expect(throws: TokenError.unknownKey) { try after.verify(token, at: Self.now) }
        // The same identifier with another secret is another key.
        let impostor = try TokenKeyRing(keys: [("k1", new)])
        #expect(throws: TokenError.invalidSignature) { try impostor.verify(token, at: Self.now) }
    }

    @Test("a token above 4 KiB is neither made nor read")
    func length() throws {
        var claims = JSONObject()
        claims.set(.string(String(repeating: "x", count: 4000)), for: "note")
        #expect(throws: CryptoError.malformed("token is too long")) {
            try ring.sign(claims, issuedAt: Self.now, lifetime: .seconds(60))
        }
        let long = String(repeating: "A", count: 4097)
        #expect(throws: TokenError.tooLong) { try ring.verify(long, at: Self.now) }
    }

    @Test("rings of no key, of two keys of one name, or of a name that needs escapes are refused")
    func rings() throws {
        #expect(throws: CryptoError.self) { try TokenKeyRing(keys: []) }
        #expect(throws: CryptoError.self) {
            try TokenKeyRing(keys: [("k1", secret), ("k1", SecretBytes(randomCount: 32))])
        }
        #expect(throws: CryptoError.self) { try TokenKeyRing(keys: [(#"k"1"#, secret)]) }
    }
}
