package import HCCore

/// What a wrapped key is: opened as anything else, it does not open.
package struct KeyBinding: Hashable, Sendable {
    package var tenant: UUID
    /// For example `kek`, `data`, `index`.
    package var purpose: String
    package var version: UInt32

    package init(tenant: UUID, purpose: String, version: UInt32) {
        self.tenant = tenant
        self.purpose = purpose
        self.version = version
    }

    var associatedData: [UInt8] {
        var data = AssociatedData()
        data.append("hc.key-wrap.1" as StaticString)
        data.append(tenant)
        data.append(purpose)
        data.append(version)
        return data.bytes
    }
}

/// A key that encrypts keys: AES-256-GCM with the binding as associated data, in the layout of
/// `SealedBytes` (whose key version is that of the wrapping key). 32 bytes become 65.
package final class KeyWrap: Sendable {
    private let key: AEADKey

    /// - Parameter version: of the wrapping key itself.
    package init(version: UInt32, key: SecretBytes) throws(CryptoError) {
        self.key = try AEADKey(version: version, key: key)
    }

    package var version: UInt32 { key.version }

    /// - Parameter secret: 32 bytes.
    package func wrap(
        _ secret: SecretBytes, as binding: KeyBinding
    ) throws(CryptoError) -> [UInt8] {
        guard secret.count == AEADKey.keyCount else { throw .malformed("a key has 32 bytes") }
        return try secret.withUnsafeBytes { (bytes) throws(CryptoError) in
            try key.seal(bytes, associatedData: binding.associatedData)
        }
    }

    /// - Throws: `.unknownKeyVersion` for another wrapping key, `.authenticationFailed` for another
    ///   tenant, purpose or version, or altered bytes.
    package func unwrap(
        _ wrapped: [UInt8], as binding: KeyBinding
    ) throws(CryptoError) -> SecretBytes {
        guard wrapped.count == AEADKey.keyCount + SealedBytes.overhead else {
            throw .malformed("a wrapped key has 65 bytes")
        }
        return try key.openSecret(wrapped, associatedData: binding.associatedData)
    }
}
