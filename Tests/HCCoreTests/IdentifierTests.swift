import HCCore
import HCTesting
import Testing

@Suite("Identifiers")
struct IdentifierTests {
    private enum CatKind {}

    @Test("a UUID is read in either case and written in lower case")
    func text() throws {
        let uuid = try #require(UUID("F81D4FAE-7DEC-11d0-A765-00A0C91E6BF6"))
        #expect(uuid.description == "f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
        #expect(uuid.high == 0xf81d_4fae_7dec_11d0)
        #expect(uuid.low == 0xa765_00a0_c91e_6bf6)
        var buffer = ByteBuffer()
        buffer.append(uuid)
        #expect(buffer.string == uuid.description)
        #expect(UUID(bytes: uuid.bytes) == uuid)
        #expect(uuid.bytes.prefix(3) == [0xf8, 0x1d, 0x4f])
        #expect(UUID.zero.description == "00000000-0000-0000-0000-000000000000")
        #expect(UUID(utf8: Array(uuid.description.utf8)) == uuid)
    }

    @Test(
        "what is no UUID is refused",
        arguments: [
            "", "f81d4fae7dec11d0a76500a0c91e6bf6", "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf", "f81d4fae-7dec-11d0-a765-00a0c91e6bf60",
            "g81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae-7dec-11d0-a765_00a0c91e6bf6",
            "f81d4fa-e7dec-11d0-a765-00a0c91e6bf6", " f81d4fae-7dec-11d0-a765-00a0c91e6bf",
            "f81d4fae-7dec-11d0-a765-00a0c91e6b\u{ff16}6", "-81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ])
    func refused(text: String) {
        #expect(UUID(text) == nil)
        #expect(Identifier<CatKind>(text) == nil)
    }

    @Test("a UUID's text is its bytes in hexadecimal, with hyphens, in a buffer as well")
    func textInBuffers() {
        var random = SeededRandom(seed: 17)
        for _ in 0..<2000 {
            let uuid = UUID(high: random.next(), low: random.next())
            var digits = ByteBuffer()
            digits.append(hex: uuid.bytes)
            var expected = ""
            for (place, digit) in digits.string.enumerated() {
                if [8, 12, 16, 20].contains(place) { expected += "-" }
                expected.append(digit)
            }
            var buffer = ByteBuffer()
            buffer.append(uuid)
            #expect(uuid.description == expected)
            #expect(buffer.string == expected)
        }
    }

    @Test("fifteen or seventeen bytes are no UUID")
    func bytes() {
        #expect(UUID(bytes: [UInt8](repeating: 1, count: 15)) == nil)
        #expect(UUID(bytes: [UInt8](repeating: 1, count: 17)) == nil)
    }

    @Test("version 7 has its time, version and variant, and sorts in the order it was made")
    func versionSeven() throws {
        var random = SeededRandom(seed: 7)
        // The example of RFC 9562 A.6.
        let time = Timestamp(microseconds: 1_645_557_742_000_000)
        let uuid = UUID.v7(at: time, using: &random)
        #expect(uuid.description.hasPrefix("017f22e2-79b0-7"))
        #expect(uuid.high >> 12 & 15 == 7)
        #expect(uuid.low >> 62 == 2)
        #expect(uuid.madeAt == time)
        var last = uuid
        for step in 1...5000 {
            let next = UUID.v7(at: time + .microseconds(step), using: &random)
            #expect(last < next)
            last = next
        }
        #expect(UUID.v7(at: Timestamp(seconds: -5), using: &random).madeAt == .epoch)
        #expect(UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")?.madeAt == nil)
    }

    @Test("an identifier of a kind is its UUID's text")
    func identifier() throws {
        let id = try #require(Identifier<CatKind>("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))
        #expect(id.description == id.uuid.description)
        #expect(Identifier<CatKind>(.zero) < id)
    }

    @Test("a sensitive value is never printed, and says so only when asked")
    func sensitive() {
        let secret = Sensitive("0123 456789")
        var dumped = ""
        dump([secret], to: &dumped)
        for text in [
            "\(secret)", String(describing: [secret]), String(reflecting: secret), dumped,
            String(describing: ["a": secret]), "\(Sensitive<String?>("456789"))",
            String(describing: Optional(secret)),
        ] {
            #expect(!text.contains("456789"))
        }
        #expect("\(secret)" == "***")
        #expect(secret.reveal() == "0123 456789")
        #expect(secret.map(\.count).reveal() == 11)
        #expect(secret == Sensitive("0123 456789"))
    }
}
