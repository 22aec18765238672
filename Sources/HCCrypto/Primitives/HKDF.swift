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
            let result = withParameters(key: key, salt: salt, info: info) {
                EVP_KDF_derive(context.pointer, bytes, count, $0)
            }
            try require(result, "EVP_KDF_derive")
        }
    }

    package static func deriveKey(
        from key: SecretBytes, salt: [UInt8] = [], info: StaticString, count: Int = 32
    ) throws(CryptoError) -> SecretBytes {
        try deriveKey(from: key, salt: salt, info: Array(info.description.utf8), count: count)
    }

    /// OSSL_PARAM takes mutable pointers, but EVP_KDF_derive only reads through these.
    private static func withParameters(
        key: SecretBytes, salt: [UInt8], info: [UInt8], _ body: ([OSSL_PARAM]) -> Int32
    ) -> Int32 {
        var digestName = Array("SHA2-256".utf8CString)
        // No salt means zeros (RFC 5869 2.2); EVP_KDF_derive of 3.0 fails without the parameter.
        var salt = salt.isEmpty ? [UInt8](repeating: 0, count: Digest256.byteCount) : salt
        var info = info
        return key.withUnsafeBytes { key in
            digestName.withUnsafeMutableBufferPointer { name in
                salt.withUnsafeMutableBytes { salt in
                    info.withUnsafeMutableBytes { info in
                        var parameters = [
                            OSSL_PARAM_construct_utf8_string(
                                OSSL_KDF_PARAM_DIGEST, name.baseAddress, 0),
                            OSSL_PARAM_construct_octet_string(
                                OSSL_KDF_PARAM_KEY,
                                UnsafeMutableRawPointer(mutating: key.baseAddress), key.count),
                            OSSL_PARAM_construct_octet_string(
                                OSSL_KDF_PARAM_SALT, salt.baseAddress, salt.count),
                        ]
                        // An empty array may have no address, which a parameter must have.
                        if !info.isEmpty {
                            parameters.append(
                                OSSL_PARAM_construct_octet_string(
                                    OSSL_KDF_PARAM_INFO, info.baseAddress, info.count))
                        }
                        parameters.append(OSSL_PARAM_construct_end())
                        return body(parameters)
                    }
                }
            }
        }
    }
}
