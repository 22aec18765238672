import COpenSSL

/// HKDF with SHA-256 (RFC 5869): one well-mixed key in, many independent keys out.
package enum HKDF {
    /// 255 blocks (RFC 5869 2.3).
    package static let outputBytesMax = 255 * Digest256.byteCount

    /// - Parameter info: what the derived key is for; different texts give unrelated keys.
    package static func deriveKey(
        from key: SecretBytes, salt: [UInt8] = [], info: [UInt8], count: Int = 32
    ) throws(CryptoError) -> SecretBytes {
        precondition(count > 0 && count <= outputBytesMax)
        ERR_clear_error()
        let context = try KDFContext(algorithm: Algorithms.hkdf)
        return try SecretBytes(count: count) { (output) throws(CryptoError) in
            let bytes = output.assumingMemoryBound(to: UInt8.self).baseAddress
            let result = key.withUnsafeBytes { key in
                hc_hkdf_sha256(
                    context.pointer, key.baseAddress, key.count, salt, salt.count, info,
                    info.count, bytes, count)
            }
            try require(result, "EVP_KDF_derive")
        }
    }

    package static func deriveKey(
        from key: SecretBytes, salt: [UInt8] = [], info: StaticString, count: Int = 32
    ) throws(CryptoError) -> SecretBytes {
        try deriveKey(from: key, salt: salt, info: Array(info.description.utf8), count: count)
    }
}
