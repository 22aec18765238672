import COpenSSL

/// Key material: held in one allocation that is wiped before it is freed, and printed as `***`.
///
/// Sendable because the bytes are written in `init` only and never afterwards.
package final class SecretBytes: @unchecked Sendable {
    package let count: Int
    private let storage: UnsafeMutableRawBufferPointer

    /// Bytes made by `fill`; if it throws, what it had written is wiped.
    package init<Failure: Error>(
        count: Int,
        filledBy fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        precondition(count >= 0)
        self.count = count
        storage = .allocate(byteCount: count, alignment: 16)
        storage.initializeMemory(as: UInt8.self, repeating: 0)
        try fill(storage)
    }

    /// A copy of `bytes`. The caller's own array is not wiped: pass only what is short-lived.
    package convenience init(_ bytes: some Collection<UInt8>) {
        self.init(count: bytes.count) { $0.copyBytes(from: bytes) }
    }

    /// `count` bytes of the system's generator (RAND_priv_bytes, the one meant for secrets).
    package convenience init(randomCount count: Int) throws(CryptoError) {
        try self.init(count: count) { (storage) throws(CryptoError) in
            ERR_clear_error()
            let bytes = storage.assumingMemoryBound(to: UInt8.self).baseAddress
            try require(RAND_priv_bytes(bytes, Int32(count)), "RAND_priv_bytes")
        }
    }

    deinit {
        OPENSSL_cleanse(storage.baseAddress, storage.count)
        storage.deallocate()
    }

    /// The bytes, for the length of `body`. The pointer must not leave it.
    package func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(storage))
    }
}

extension SecretBytes: Equatable {
    /// Takes a time that depends on the lengths only.
    package static func == (left: SecretBytes, right: SecretBytes) -> Bool {
        constantTimeEquals(UnsafeRawBufferPointer(left.storage), .init(right.storage))
    }
}

extension SecretBytes: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package var description: String { "***" }
    package var debugDescription: String { "***" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
