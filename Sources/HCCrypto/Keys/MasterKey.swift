/// The key at the top: it wraps the key-encryption key of each tenant, and signs what the platform itself states
/// (`PlatformSigner`, with a key of its own derived from it).
///
/// A file of several lines (`KeyFile`) is a rotation under way: the first key wraps, all of them
/// unwrap, and `needsRewrap` says which wrapped keys still hang on an older one.
package final class MasterKey: Sendable {
    /// The active key's identifier, for records and reports.
    package let id: String
    /// The identifiers of all keys, the active one first.
    package let ids: [String]
    private let keys: [KeyWrap]
    private let secrets: [SecretBytes]

    /// - Throws: `KeyFileError`, whose description tells the operator what to do.
    package static func load(path: String) throws(KeyFileError) -> MasterKey {
        let entries = try KeyFile.load(path: path, kind: "master key")
        do throws(CryptoError) {
            return try MasterKey(keys: entries.map { ($0.id, $0.key) })
        } catch {
            throw KeyFileError(path: path, kind: "master key", problem: .library(error))
        }
    }

    /// - Parameter keys: at least one, of 32 bytes each, the active one first.
    package init(keys: [(id: String, key: SecretBytes)]) throws(CryptoError) {
        guard let active = keys.first else { throw .malformed("no master key") }
        id = active.id
        ids = keys.map(\.id)
        var wraps: [KeyWrap] = []
        for (_, key) in keys {
            wraps.append(try KeyWrap(version: Self.fingerprint(of: key), key: key))
        }
        self.keys = wraps
        secrets = keys.map(\.key)
    }

    /// Keys for another purpose, one derived from each key of the file (HKDF), the active one first, and which key it
    /// is. Neither tells anything of the master key or of a key for any other purpose.
    func deriveKeys(
        for purpose: StaticString
    ) throws(CryptoError) -> [(fingerprint: UInt32, key: SecretBytes)] {
        var derived: [(fingerprint: UInt32, key: SecretBytes)] = []
        for (wrap, secret) in zip(keys, secrets) {
            derived.append((wrap.version, try HKDF.deriveKey(from: secret, info: purpose)))
        }
        return derived
    }

    /// Which key it is, in four bytes that tell nothing else about it. It stands as the key version
    /// in what the key wraps, so that a wrong master key is named as such and not as tampering.
    package var fingerprint: UInt32 { keys[0].version }

    private static func fingerprint(of key: SecretBytes) throws(CryptoError) -> UInt32 {
        let code = try HMACKey(key).authenticationCode(for: Array("hc.master-key.1".utf8))
        return UInt32(truncatingIfNeeded: code.leadingWord >> 32)
    }

    package func wrap(
        _ secret: SecretBytes, as binding: KeyBinding
    ) throws(CryptoError) -> [UInt8] {
        try keys[0].wrap(secret, as: binding)
    }

    /// - Throws: `.unknownKeyVersion` if no key of the file wrapped these bytes.
    package func unwrap(
        _ wrapped: [UInt8], as binding: KeyBinding
    ) throws(CryptoError) -> SecretBytes {
        let version = try SealedBytes.keyVersion(of: wrapped)
        for key in keys where key.version == version {
            return try key.unwrap(wrapped, as: binding)
        }
        throw .unknownKeyVersion(version)
    }

    /// Whether these bytes are wrapped under a key that is no longer the active one.
    package func needsRewrap(_ wrapped: [UInt8]) throws(CryptoError) -> Bool {
        try SealedBytes.keyVersion(of: wrapped) != fingerprint
    }
}
