/// The layout of sealed bytes:
///
///     1 byte   format (1)
///     4 bytes  key version, big-endian
///     12 bytes nonce, random
///     n bytes  ciphertext, as long as the plaintext
///     16 bytes tag
///
/// The first five bytes need no tag of their own: another format is refused, and another key
/// version leads to another key, under which nothing opens.
package enum SealedBytes {
    static let format: UInt8 = 1
    static let prefixCount = 5
    static let nonceCount = 12
    static let tagCount = 16
    static let headerCount = prefixCount + nonceCount

    /// What sealing adds to the plaintext's length.
    package static let overhead = headerCount + tagCount

    /// The key version, read without decrypting: nothing about it is proved yet.
    ///
    /// - Throws: `.malformed` if the bytes are too short or of another format.
    package static func keyVersion(
        of sealed: UnsafeRawBufferPointer
    ) throws(CryptoError) -> UInt32 {
        guard sealed.count >= overhead else { throw .malformed("sealed bytes are too short") }
        guard sealed[0] == format else { throw .malformed("sealed bytes are of another format") }
        return UInt32(bigEndian: sealed.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
    }

    package static func keyVersion(of sealed: [UInt8]) throws(CryptoError) -> UInt32 {
        try sealed.withRawBytes { (bytes) throws(CryptoError) in try keyVersion(of: bytes) }
    }
}
