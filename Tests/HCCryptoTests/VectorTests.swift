import HCCore
import Testing

@testable import HCCrypto

@Suite("published test vectors")
struct VectorTests {
    @Test(
        "SHA-256 (FIPS 180-4 examples)",
        arguments: [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ])
    func sha256(text: String, digest: String) throws {
        #expect(try SHA256.hash(text).hex == digest)
        var pieces = try SHA256()
        for byte in text.utf8 { try pieces.update([byte]) }
        let hashed = try pieces.finish()
        #expect(hashed.hex == digest)
        #expect(Digest256(hashed.bytes) == hashed)
    }

    struct HMACVector: Sendable {
        var key: [UInt8]
        var message: [UInt8]
        var code: String
    }

    static let hmacVectors = [
        HMACVector(
            key: .init(repeating: 0x0b, count: 20), message: Array("Hi There".utf8),
            code: "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        HMACVector(
            key: Array("Jefe".utf8), message: Array("what do ya want for nothing?".utf8),
            code: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        HMACVector(
            key: .init(repeating: 0xaa, count: 20), message: .init(repeating: 0xdd, count: 50),
            code: "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        HMACVector(
            key: Array(1...25), message: .init(repeating: 0xcd, count: 50),
            code: "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        HMACVector(
            key: .init(repeating: 0xaa, count: 131),
            message: Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8),
            code: "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
        HMACVector(
            key: .init(repeating: 0xaa, count: 131),
            message: Array(
                ("This is a test using a larger than block-size key and a larger than block-size "
                    + "data. The key needs to be hashed before being used by the HMAC algorithm.")
                    .utf8),
            code: "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ]

    @Test("HMAC-SHA256 (RFC 4231), twice under one key", arguments: hmacVectors)
    func hmac(vector: HMACVector) throws {
        let key = try HMACKey(SecretBytes(vector.key))
        #expect(try key.authenticationCode(for: vector.message).hex == vector.code)
        #expect(try key.authenticationCode(for: []).hex != vector.code)
        #expect(try key.authenticationCode(for: vector.message).hex == vector.code)
        let code = try #require(Hex.decode(vector.code))
        #expect(try key.isValid(code, for: vector.message))
        #expect(try !key.isValid(Array(code.dropLast()), for: vector.message))
    }

    @Test("HMAC under an empty key is that of an empty key")
    func hmacEmptyKey() throws {
        let code = try HMACKey(SecretBytes([])).authenticationCode(for: [])
        #expect(
            code.hex == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
    }

    @Test("HKDF-SHA256 (RFC 5869 A.1, A.2, A.3)")
    func hkdf() throws {
        func derive(_ key: [UInt8], _ salt: [UInt8], _ info: [UInt8], _ count: Int) throws -> String
        {
            try HKDF.deriveKey(from: SecretBytes(key), salt: salt, info: info, count: count)
                .withUnsafeBytes { Hex.encode(Array($0)) }
        }
        let short = [UInt8](repeating: 0x0b, count: 22)
        #expect(
            try derive(short, Array(0x00...0x0c), Array(0xf0...0xf9), 42)
                == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
                + "34007208d5b887185865")
        #expect(
            try derive(Array(0x00...0x4f), Array(0x60...0xaf), Array(0xb0...0xff), 82)
                == "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
                + "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
                + "cc30c58179ec3e87c14c01d5c1f3434f1d87")
        #expect(
            try derive(short, [], [], 42)
                == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
                + "9d201395faa4b61a96c8")
    }

    @Test(
        "scrypt (RFC 7914 section 12)",
        arguments: [
            (
                "", "", PasswordHash.Parameters(logN: 4, r: 1, p: 1),
                "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
                    + "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"
            ),
            (
                "password", "NaCl", PasswordHash.Parameters(logN: 10, r: 8, p: 16),
                "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
                    + "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
            ),
            (
                "pleaseletmein", "SodiumChloride", PasswordHash.Parameters(logN: 14, r: 8, p: 1),
                "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
                    + "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
            ),
        ])
    func scrypt(
        password: String, salt: String, parameters: PasswordHash.Parameters, key: String
    ) throws {
        let derived = try PasswordHash.derive(
            Array(password.utf8), salt: Array(salt.utf8), parameters: parameters, count: 64)
        #expect(Hex.encode(derived) == key)
    }

    struct GCMVector: Sendable {
        var key: String
        var nonce: String
        var plaintext: String
        var associatedData: String
        var ciphertext: String
        var tag: String
    }

    private static let gcmKey = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
    private static let zeroKey = String(repeating: "00", count: 32)
    static let gcmVectors = [
        GCMVector(
            key: zeroKey, nonce: "000000000000000000000000", plaintext: "", associatedData: "",
            ciphertext: "", tag: "530f8afbc74536b9a963b4f1c4cb738b"),
        GCMVector(
            key: zeroKey, nonce: "000000000000000000000000",
            plaintext: "00000000000000000000000000000000", associatedData: "",
            ciphertext: "cea7403d4d606b6e074ec5d3baf39d18", tag: "d0d1c8a799996bf0265b98b5d48ab919"),
        GCMVector(
            key: gcmKey, nonce: "cafebabefacedbaddecaf888",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                + "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            associatedData: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                + "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b"),
    ]

    @Test("AES-256-GCM (McGrew and Viega, cases 13, 14 and 16)", arguments: gcmVectors)
    func gcm(vector: GCMVector) throws {
        let key = try AEADKey(
            version: 0x0102_0304, key: SecretBytes(try #require(Hex.decode(vector.key))))
        let plaintext = try #require(Hex.decode(vector.plaintext))
        let associatedData = try #require(Hex.decode(vector.associatedData))
        let nonce = try #require(Hex.decode(vector.nonce))
        let sealed = try plaintext.withUnsafeBytes {
            try key.seal($0, associatedData: associatedData, nonce: nonce)
        }
        #expect(
            Hex.encode(sealed) == "0101020304" + vector.nonce + vector.ciphertext + vector.tag)
        #expect(try key.open(sealed, associatedData: associatedData) == plaintext)
    }
}
