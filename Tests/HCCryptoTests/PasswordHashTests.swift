import HCCore
import Testing

@testable import HCCrypto

@Suite("password hashes")
struct PasswordHashTests {
    static let cheap = PasswordHash.Parameters(logN: 4, r: 1, p: 1)

    @Test("the right password matches, others do not")
    func matching() throws {
        let hash = try PasswordHash(of: Sensitive("correct horse"), parameters: .current)
        let stored = try PasswordHash(parsing: hash.encoded)
        #expect(hash.encoded.hasPrefix("$scrypt$ln=15,r=8,p=1$"))
        #expect(stored.encoded == hash.encoded)
        #expect(try stored.matches(Sensitive("correct horse")))
        #expect(try !stored.matches(Sensitive("correct horsf")))
        #expect(try !stored.matches(Sensitive("")))
        #expect(!stored.needsRehash)
    }

    @Test("salts are never the same, and hashes do not print")
    func salts() throws {
        let first = try PasswordHash(of: Sensitive("same"), parameters: Self.cheap)
        let second = try PasswordHash(of: Sensitive("same"), parameters: Self.cheap)
        #expect(first.encoded != second.encoded)
        #expect("\(first)" == "***")
        #expect(String(reflecting: first) == "***" || !String(reflecting: first).contains("salt"))
    }

    @Test("a password typed in decomposed letters is the same password")
    func normalisation() throws {
        let hash = try PasswordHash(of: Sensitive("Zo\u{eb}"), parameters: Self.cheap)
        #expect(try hash.matches(Sensitive("Zoe\u{308}")))
        #expect(try !hash.matches(Sensitive("Zoe")))
    }

    @Test("a hash with other parameters still matches, and asks to be made anew")
    func rehash() throws {
        let hash = try PasswordHash(of: Sensitive("old"), parameters: Self.cheap)
        #expect(try hash.matches(Sensitive("old")))
        #expect(hash.needsRehash)
    }

    @Test("a password of more than 1024 bytes is refused when set and never matches")
    func longPasswords() throws {
        let long = Sensitive(String(repeating: "a", count: 1025))
        #expect(throws: CryptoError.malformed("password is too long")) {
            try PasswordHash(of: long, parameters: Self.cheap)
        }
        let hash = try PasswordHash(of: Sensitive(""), parameters: Self.cheap)
        #expect(try hash.matches(Sensitive("")))
        #expect(try !hash.matches(long))
        let longest = Sensitive(String(repeating: "a", count: 1024))
        #expect(try PasswordHash(of: longest, parameters: Self.cheap).matches(longest))
    }

    @Test("the dummy costs what a real one costs and matches nothing")
    func dummy() throws {
        #expect(PasswordHash.dummy.parameters == .current)
        #expect(try !PasswordHash.dummy.matches(Sensitive("")))
    }

    @Test(
        "a stored hash is read strictly and within bounds",
        arguments: [
            "", "$", "plain", "$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=30,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=18,r=32,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=15,r=8,p=99$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=0,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=-1,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=015,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=+15,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=9223372036854775808,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$r=8,ln=15,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=15,r=8$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=15,r=8,p=1$$aGFzaGhhc2hoYXNoaGFzaA",
            "$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ$",
            "$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ=$aGFzaGhhc2hoYXNoaGFzaA==",
            "$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA$",
        ])
    func malformed(text: String) {
        #expect(throws: CryptoError.self) { try PasswordHash(parsing: text) }
    }
}
