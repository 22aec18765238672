import COpenSSL
import Synchronization

/// AES-256-GCM (NIST SP 800-38D) under one key and its version.
///
/// Both directions keep a context whose key schedule is ready; sealing or opening 200 bytes costs
/// less than 1 µs. Each context is behind a lock: a key is shared by the loop, the blocking pool,
/// `hc-admin` and tests, and the lock costs about 20 ns as long as nobody else holds it.
///
/// **Bound.** Nonces are random, so one key must seal at most 2^32 messages (SP 800-38D 8.3): the
/// chance of a repeated nonce then stays below 2^-32. A data key is one clinic's, of one purpose:
/// at 100 writes a second it lasts 16 months, and rotation comes long before.
package final class AEADKey: Sendable {
    package static let keyCount = 32

    package let version: UInt32
    private let sealing: Mutex<CipherContext>
    private let opening: Mutex<CipherContext>

    /// - Parameter key: 32 bytes.
    package init(version: UInt32, key: SecretBytes) throws(CryptoError) {
        guard key.count == Self.keyCount else { throw .malformed("an AES-256 key has 32 bytes") }
        self.version = version
        sealing = Mutex(try Self.makeContext(key, sealing: true))
        opening = Mutex(try Self.makeContext(key, sealing: false))
    }

    private static func makeContext(
        _ key: SecretBytes, sealing: Bool
    ) throws(CryptoError) -> CipherContext {
        ERR_clear_error()
        let context = try CipherContext()
        let result = key.withUnsafeBytes { key in
            EVP_CipherInit_ex2(
                context.pointer, Algorithms.aes256GCM.pointer,
                key.assumingMemoryBound(to: UInt8.self).baseAddress, nil, sealing ? 1 : 0, nil)
        }
        try require(result, "EVP_CipherInit_ex2")
        return context
    }

    /// Encrypts and authenticates. - Returns: bytes laid out as `SealedBytes` says.
    package func seal(
        _ plaintext: UnsafeRawBufferPointer, associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try seal(plaintext, associatedData: associatedData, nonce: nil)
    }

    package func seal(
        _ plaintext: [UInt8], associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try plaintext.withRawBytes { (bytes) throws(CryptoError) in
            try seal(bytes, associatedData: associatedData)
        }
    }

    /// - Parameter nonce: only tests against published vectors choose one.
    func seal(
        _ plaintext: UnsafeRawBufferPointer, associatedData: [UInt8], nonce: [UInt8]?
    ) throws(CryptoError) -> [UInt8] {
        guard plaintext.count <= Int(Int32.max) else { throw .malformed("plaintext is too long") }
        var failure: CryptoError?
        let total = plaintext.count + SealedBytes.overhead
        let sealed = [UInt8](unsafeUninitializedCapacity: total) { buffer, initialised in
            let output = UnsafeMutableRawBufferPointer(buffer)
            writePrefix(into: output)
            let nonceBytes = UnsafeMutableRawBufferPointer(
                rebasing: output[SealedBytes.prefixCount..<SealedBytes.headerCount])
            if let nonce {
                nonceBytes.copyBytes(from: nonce)
            } else {
                SystemRandom.fill(nonceBytes)
            }
            do throws(CryptoError) {
                try encrypt(plaintext, into: output, associatedData: associatedData)
                initialised = total
            } catch {
                failure = error
                initialised = 0
            }
        }
        if let failure { throw failure }
        return sealed
    }

    private func writePrefix(into output: UnsafeMutableRawBufferPointer) {
        output[0] = SealedBytes.format
        output.storeBytes(of: version.bigEndian, toByteOffset: 1, as: UInt32.self)
    }

    /// `output` has its header; ciphertext and tag are written behind it.
    private func encrypt(
        _ plaintext: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer,
        associatedData: [UInt8]
    ) throws(CryptoError) {
        ERR_clear_error()
        let bytes = output.assumingMemoryBound(to: UInt8.self)
        guard let base = bytes.baseAddress else { return }
        try sealing.withLock { (context) throws(CryptoError) in
            try begin(context.pointer, header: base, associatedData: associatedData)
            try Self.update(
                context.pointer, base + SealedBytes.headerCount,
                plaintext.assumingMemoryBound(to: UInt8.self))
            var rest: Int32 = 0
            let tag = base + SealedBytes.headerCount + plaintext.count
            try require(
                EVP_CipherFinal_ex(context.pointer, tag, &rest), "EVP_CipherFinal_ex")
            try require(
                EVP_CIPHER_CTX_ctrl(
                    context.pointer, EVP_CTRL_AEAD_GET_TAG, Int32(SealedBytes.tagCount), tag),
                "EVP_CTRL_AEAD_GET_TAG")
        }
    }

    /// Checks and decrypts.
    ///
    /// - Throws: `.unknownKeyVersion`, `.authenticationFailed`, `.malformed`. No byte of plaintext
    ///   is returned unless the tag fits.
    package func open(
        _ sealed: UnsafeRawBufferPointer, associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        let plainCount = try checkedPlaintextCount(sealed)
        var failure: CryptoError?
        let plaintext = [UInt8](unsafeUninitializedCapacity: plainCount) { buffer, initialised in
            let output = UnsafeMutableRawBufferPointer(buffer)
            do throws(CryptoError) {
                try decrypt(sealed, into: output, associatedData: associatedData)
                initialised = plainCount
            } catch {
                OPENSSL_cleanse(output.baseAddress, output.count)
                failure = error
                initialised = 0
            }
        }
        if let failure { throw failure }
        return plaintext
    }

    package func open(
        _ sealed: [UInt8], associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try sealed.withRawBytes { (bytes) throws(CryptoError) in
            try open(bytes, associatedData: associatedData)
        }
    }

    /// As `open`, for plaintext that is itself a key.
    package func openSecret(
        _ sealed: [UInt8], associatedData: [UInt8]
    ) throws(CryptoError) -> SecretBytes {
        try sealed.withRawBytes { (sealed) throws(CryptoError) in
            let count = try checkedPlaintextCount(sealed)
            return try SecretBytes(count: count) { (output) throws(CryptoError) in
                try decrypt(sealed, into: output, associatedData: associatedData)
            }
        }
    }

    private func checkedPlaintextCount(
        _ sealed: UnsafeRawBufferPointer
    ) throws(CryptoError) -> Int {
        let found = try SealedBytes.keyVersion(of: sealed)
        guard found == version else { throw .unknownKeyVersion(found) }
        guard sealed.count <= Int(Int32.max) else { throw .malformed("sealed bytes are too long") }
        return sealed.count - SealedBytes.overhead
    }

    private func decrypt(
        _ sealed: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer,
        associatedData: [UInt8]
    ) throws(CryptoError) {
        ERR_clear_error()
        guard let base = sealed.assumingMemoryBound(to: UInt8.self).baseAddress else { return }
        let plainCount = sealed.count - SealedBytes.overhead
        try opening.withLock { (context) throws(CryptoError) in
            try begin(context.pointer, header: base, associatedData: associatedData)
            // A pointer that is never written through stands in for an empty plaintext: a nil
            // output would make OpenSSL take the ciphertext for associated data.
            var none: UInt8 = 0
            try withUnsafeMutablePointer(to: &none) { (none) throws(CryptoError) in
                let plain = output.assumingMemoryBound(to: UInt8.self).baseAddress ?? none
                try Self.update(
                    context.pointer, plain,
                    UnsafeBufferPointer(
                        start: base + SealedBytes.headerCount, count: plainCount))
                // EVP_CTRL_AEAD_SET_TAG copies from the pointer and does not write through it.
                let tag = UnsafeMutablePointer(
                    mutating: base + SealedBytes.headerCount + plainCount)
                try require(
                    EVP_CIPHER_CTX_ctrl(
                        context.pointer, EVP_CTRL_AEAD_SET_TAG, Int32(SealedBytes.tagCount), tag),
                    "EVP_CTRL_AEAD_SET_TAG")
                var rest: Int32 = 0
                guard EVP_CipherFinal_ex(context.pointer, plain + plainCount, &rest) == 1 else {
                    ERR_clear_error()
                    throw .authenticationFailed
                }
            }
        }
    }

    /// Starts a message: the nonce, then the caller's associated data.
    @inline(__always)
    private func begin(
        _ context: OpaquePointer, header: UnsafePointer<UInt8>, associatedData: [UInt8]
    ) throws(CryptoError) {
        try require(
            EVP_CipherInit_ex2(context, nil, nil, header + SealedBytes.prefixCount, -1, nil),
            "EVP_CipherInit_ex2")
        guard !associatedData.isEmpty else { return }
        var written: Int32 = 0
        try require(
            EVP_CipherUpdate(context, nil, &written, associatedData, Int32(associatedData.count)),
            "EVP_CipherUpdate")
    }

    @inline(__always)
    private static func update(
        _ context: OpaquePointer, _ output: UnsafeMutablePointer<UInt8>,
        _ input: UnsafeBufferPointer<UInt8>
    ) throws(CryptoError) {
        guard !input.isEmpty else { return }
        var written: Int32 = 0
        try require(
            EVP_CipherUpdate(context, output, &written, input.baseAddress, Int32(input.count)),
            "EVP_CipherUpdate")
    }
}
