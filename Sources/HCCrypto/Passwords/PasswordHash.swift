import COpenSSL
package import HCCore
@_spi(_Unicode) import Swift

/// A password's hash by scrypt (RFC 7914), written as
///
///     $scrypt$ln=15,r=8,p=1$<salt>$<hash>        (base64 without padding)
///
/// Making or checking one takes 32 MiB and 60-120 ms of a core, by intention: call it in the
/// blocking pool, never on the loop.
package struct PasswordHash: Sendable {
    package struct Parameters: Hashable, Sendable {
        /// Binary logarithm of the cost N.
        package var logN: Int
        /// Block size.
        package var r: Int
        /// Parallelisation.
        package var p: Int

        /// N = 2^15, r = 8, p = 1: 32 MiB.
        package static let current = Parameters(logN: 15, r: 8, p: 1)

        package init(logN: Int, r: Int, p: Int) {
            self.logN = logN
            self.r = r
            self.p = p
        }

        /// What we are ready to compute for a stored hash: a row must not make us take gigabytes.
        var isAcceptable: Bool {
            (1...18).contains(logN) && (1...32).contains(r) && (1...8).contains(p)
                && memoryBytes <= Self.memoryBytesMax
        }

        static let memoryBytesMax = 64 << 20
        var memoryBytes: Int { 128 * r << logN }
    }

    package static let saltCount = 16
    package static let hashCount = 32
    /// Longer passwords are refused rather than cut: 1024 bytes of UTF-8.
    package static let passwordBytesMax = 1024

    package let parameters: Parameters
    private let salt: [UInt8]
    private let hash: [UInt8]

    /// Hashes under a fresh salt.
    package init(
        of password: Sensitive<String>, parameters: Parameters = .current
    ) throws(CryptoError) {
        guard let bytes = Self.bytes(of: password) else { throw .malformed("password is too long") }
        let salt = SystemRandom.bytes(Self.saltCount)
        self.parameters = parameters
        self.salt = salt
        hash = try Self.derive(
            bytes, salt: salt, parameters: parameters, count: Self.hashCount)
    }

    /// Reads the written form; bounds are checked before anything is computed.
    ///
    /// - Throws: `.malformed`.
    package init(parsing text: String) throws(CryptoError) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "scrypt" else {
            throw .malformed("password hash is not of scrypt")
        }
        guard let parameters = Self.parameters(parts[2]), parameters.isAcceptable else {
            throw .malformed("password hash has parameters out of bounds")
        }
        guard let salt = Base64.standard.decode(parts[3]), (8...64).contains(salt.count),
            let hash = Base64.standard.decode(parts[4]), (16...64).contains(hash.count)
        else { throw .malformed("password hash has a malformed salt or hash") }
        self.parameters = parameters
        self.salt = salt
        self.hash = hash
    }

    /// The form that is stored.
    package var encoded: String {
        "$scrypt$ln=\(parameters.logN),r=\(parameters.r),p=\(parameters.p)"
            + "$\(Base64.standard.encode(salt))$\(Base64.standard.encode(hash))"
    }

    /// Whether this is the password; the comparison takes constant time.
    ///
    /// - Throws: `.library` only: a password that is too long to be one does not match.
    package func matches(_ password: Sensitive<String>) throws(CryptoError) -> Bool {
        let bytes = Self.bytes(of: password)
        let derived = try Self.derive(
            bytes ?? [], salt: salt, parameters: parameters, count: hash.count)
        return constantTimeEquals(derived, hash) && bytes != nil
    }

    /// Whether the password should be hashed anew at the next login.
    package var needsRehash: Bool {
        parameters != .current || salt.count != Self.saltCount || hash.count != Self.hashCount
    }

    /// The hash of no password, with current parameters: checked against when an account does not
    /// exist, so that the answer takes as long as for one that does.
    package static let dummy = PasswordHash(
        parameters: .current, salt: SystemRandom.bytes(saltCount),
        hash: SystemRandom.bytes(hashCount))

    private init(parameters: Parameters, salt: [UInt8], hash: [UInt8]) {
        self.parameters = parameters
        self.salt = salt
        self.hash = hash
    }

    /// `ln=15,r=8,p=1`, in this order and with plain decimals.
    private static func parameters(_ text: Substring) -> Parameters? {
        let names = ["ln", "r", "p"]
        let fields = text.split(separator: ",", omittingEmptySubsequences: false)
        guard fields.count == names.count else { return nil }
        var values: [Int] = []
        for (field, name) in zip(fields, names) {
            let pair = field.split(separator: "=", omittingEmptySubsequences: false)
            guard pair.count == 2, pair[0] == name, let value = Int(pair[1]), value > 0,
                String(value) == pair[1]
            else { return nil }
            values.append(value)
        }
        return Parameters(logN: values[0], r: values[1], p: values[2])
    }

    /// Normalised to NFC, so that two keyboards that compose letters differently agree
    /// (NIST SP 800-63B 5.1.1.2). Nil for a password that is too long.
    private static func bytes(of password: Sensitive<String>) -> [UInt8]? {
        let text = password.reveal()
        guard text.utf8.count <= passwordBytesMax else { return nil }
        var scalars = String.UnicodeScalarView()
        for scalar in text._nfc { scalars.append(scalar) }
        let bytes = Array(String(scalars).utf8)
        return bytes.count <= passwordBytesMax ? bytes : nil
    }

    /// EVP_PBE_scrypt; a gigabyte is never taken, since `isAcceptable` bounds the memory.
    static func derive(
        _ password: [UInt8], salt: [UInt8], parameters: Parameters, count: Int
    ) throws(CryptoError) -> [UInt8] {
        ERR_clear_error()
        var result = [UInt8](repeating: 0, count: count)
        let memoryMax = UInt64(parameters.memoryBytes) + (2 << 20) + UInt64(parameters.p << 16)
        let status = password.withUnsafeBytes { password in
            EVP_PBE_scrypt(
                password.assumingMemoryBound(to: CChar.self).baseAddress, password.count,
                salt, salt.count, 1 << UInt64(parameters.logN), UInt64(parameters.r),
                UInt64(parameters.p), memoryMax, &result, count)
        }
        try require(status, "EVP_PBE_scrypt")
        return result
    }
}

extension PasswordHash: CustomStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
