import HCCore
import Testing

@testable import HCCrypto

@Suite("secrets, randomness and encodings")
struct PrimitiveTests {
    @Test("a secret never prints")
    func secretsArePrintedAsStars() {
        let secret = SecretBytes(Array("top secret".utf8))
        var dumped = ""
        dump(secret, to: &dumped)
        for text in ["\(secret)", secret.debugDescription, dumped, String(reflecting: [secret])] {
            #expect(text.contains("***"))
            #expect(!text.contains("116"))
        }
    }

    @Test("secrets are equal when their bytes are")
    func equality() throws {
        #expect(SecretBytes([1, 2, 3]) == SecretBytes([1, 2, 3]))
        #expect(SecretBytes([1, 2, 3]) != SecretBytes([1, 2, 4]))
        #expect(SecretBytes([1, 2, 3]) != SecretBytes([1, 2]))
        #expect(SecretBytes([]) == SecretBytes([]))
        #expect(try SecretBytes(randomCount: 32) != SecretBytes(randomCount: 32))
        #expect(constantTimeEquals([1, 2], [1, 2]))
        #expect(!constantTimeEquals([1, 2], [2, 1]))
    }

    @Test("a difference of one bit is seen wherever it is", arguments: [1, 7, 8, 9, 16, 31, 300])
    func oneBit(count: Int) {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        #expect(constantTimeEquals(bytes, bytes))
        #expect(!constantTimeEquals(bytes, bytes + [0]))
        for index in bytes.indices {
            for bit in 0..<8 {
                var other = bytes
                other[index] ^= 1 << UInt8(bit)
                #expect(!constantTimeEquals(bytes, other), "bit \(bit) of byte \(index)")
            }
        }
    }

    @Test("a fill that fails is thrown on")
    func failedFill() {
        struct Failure: Error {}
        #expect(throws: Failure.self) {
            try SecretBytes(count: 4) { (_) throws(Failure) in throw Failure() }
        }
    }

    @Test("random bytes do not repeat, in blocks, beyond blocks or by copies")
    func random() {
        let first = SystemRandom()
        let second = first
        var words: Set<UInt64> = []
        for _ in 0..<500 {
            #expect(words.insert(first.next()).inserted)
            #expect(words.insert(second.next()).inserted)
        }
        #expect(SystemRandom.bytes(0).isEmpty)
        for count in [1, 7, 511, 512, 513, 5000] {
            #expect(SystemRandom.bytes(count).count == count)
        }
        #expect(Set(SystemRandom.bytes(5000)).count == 256)
    }

    @Test(
        "base64 (RFC 4648 section 10), without padding",
        arguments: [
            ("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"), ("foobar", "Zm9vYmFy"),
        ])
    func base64(text: String, encoded: String) {
        #expect(Base64.standard.encode(Array(text.utf8)) == encoded)
        #expect(Base64.url.decode(encoded) == Array(text.utf8))
    }

    @Test("the two alphabets differ in two digits")
    func alphabets() {
        #expect(Base64.standard.encode([0xfb, 0xff]) == "+/8")
        #expect(Base64.url.encode([0xfb, 0xff]) == "-_8")
        #expect(Base64.url.decode("+/8") == nil)
        #expect(Base64.standard.decode("-_8") == nil)
    }

    @Test(
        "base64 is read strictly",
        arguments: ["Z", "Zg==", "Zh", "Zm9=", "Zm9 v", "Zm9v\n", "Zm9vY", "Zm9\u{0}", "Zé"])
    func strictBase64(text: String) {
        #expect(Base64.url.decode(text) == nil)
    }

    @Test("every value survives base64 and hex")
    func roundTrips() {
        for count in 0..<100 {
            let bytes = SystemRandom.bytes(count)
            #expect(Base64.url.decode(Base64.url.encode(bytes)) == bytes)
            #expect(Base64.standard.decode(Base64.standard.encode(bytes)) == bytes)
            #expect(Hex.decode(Hex.encode(bytes)) == bytes)
        }
        #expect(Hex.decode("0aFf") == [0x0a, 0xff])
        for text in ["0", "0g", "0x00", " 00", "é"] { #expect(Hex.decode(text) == nil) }
    }
}
