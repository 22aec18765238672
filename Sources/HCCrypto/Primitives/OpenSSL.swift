import COpenSSL

/// Algorithms fetched once: fetching takes a lock and a search through the providers (about 1 µs).
enum Algorithms {
    static let aes256GCM = FetchedAlgorithm(EVP_CIPHER_fetch(nil, "AES-256-GCM", nil))
    static let sha256 = FetchedAlgorithm(EVP_MD_fetch(nil, "SHA2-256", nil))
    static let hmac = FetchedAlgorithm(EVP_MAC_fetch(nil, "HMAC", nil))
    static let hkdf = FetchedAlgorithm(EVP_KDF_fetch(nil, "HKDF", nil))
}

/// An `EVP_CIPHER`, `EVP_MD`, `EVP_MAC` or `EVP_KDF`, or nothing if this OpenSSL does not have it.
///
/// Sendable: a fetched algorithm is immutable and counts its references atomically (OpenSSL 3.0,
/// crypto(7)); these are fetched for the life of the process and never freed.
struct FetchedAlgorithm: @unchecked Sendable {
    let pointer: OpaquePointer?

    init(_ pointer: OpaquePointer?) {
        self.pointer = pointer
    }
}

/// Turns the result of an OpenSSL call (1 is success) into an error and empties the thread's queue.
@inline(__always)
func require(_ result: Int32, _ call: StaticReason) throws(CryptoError) {
    if result != 1 { throw libraryError(call) }
}

/// Takes the oldest entry of this thread's error queue (ERR_get_error) and drops the others.
@inline(never)
func libraryError(_ call: StaticReason) -> CryptoError {
    let code = ERR_get_error()
    ERR_clear_error()
    return .library(call: call, code: UInt(code))
}

/// The owner of one `EVP_CIPHER_CTX`; freeing it wipes the key schedule.
///
/// Sendable, as the other owners are: a context belongs to no thread (openssl-threads(7)), and
/// being ~Copyable this value is the only way to it, so two threads cannot be in it at once
/// without a lock around this value.
struct CipherContext: ~Copyable, @unchecked Sendable {
    let pointer: OpaquePointer

    init() throws(CryptoError) {
        guard let made = EVP_CIPHER_CTX_new() else { throw libraryError("EVP_CIPHER_CTX_new") }
        pointer = made
    }

    deinit { EVP_CIPHER_CTX_free(pointer) }
}

/// The owner of one `EVP_MAC_CTX`; freeing it wipes the key. Sendable for the same reason.
struct MACContext: ~Copyable, @unchecked Sendable {
    let pointer: OpaquePointer

    init(algorithm: FetchedAlgorithm) throws(CryptoError) {
        guard let fetched = algorithm.pointer, let made = EVP_MAC_CTX_new(fetched) else {
            throw libraryError("EVP_MAC_CTX_new")
        }
        pointer = made
    }

    deinit { EVP_MAC_CTX_free(pointer) }
}

/// The owner of one `EVP_KDF_CTX`.
struct KDFContext: ~Copyable {
    let pointer: OpaquePointer

    init(algorithm: FetchedAlgorithm) throws(CryptoError) {
        guard let fetched = algorithm.pointer, let made = EVP_KDF_CTX_new(fetched) else {
            throw libraryError("EVP_KDF_CTX_new")
        }
        pointer = made
    }

    deinit { EVP_KDF_CTX_free(pointer) }
}

/// The owner of one `EVP_MD_CTX`.
struct DigestContext: ~Copyable {
    let pointer: OpaquePointer

    init() throws(CryptoError) {
        guard let made = EVP_MD_CTX_new() else { throw libraryError("EVP_MD_CTX_new") }
        pointer = made
    }

    deinit { EVP_MD_CTX_free(pointer) }
}
