/// Signs statements of the platform about itself: HMAC-SHA256 under a key that HKDF derives from the master key, with
/// the purpose as its label.
///
/// Whoever has the master key file can check a signature, without any service, and could make one: it proves that a
/// statement was not changed since by those who have not, or by accident.
package struct PlatformSigner: Sendable {
    package static let algorithm = "HMAC-SHA256"

    /// Which key signed. 8 hex digits that tell nothing else of it.
    package struct KeyName: Hashable, Sendable, CustomStringConvertible {
        package let description: String

        package init(_ description: String) {
            self.description = description
        }

        init(fingerprint: UInt32) {
            description = Hex.encode(withUnsafeBytes(of: fingerprint.bigEndian) { Array($0) })
        }
    }

    private let keys: [(name: KeyName, key: HMACKey)]

    /// - Parameter purpose: `hc.move-manifest.1`. A signature for one purpose is none for another.
    package init(master: MasterKey, purpose: StaticString) throws(CryptoError) {
        var keys: [(name: KeyName, key: HMACKey)] = []
        for (fingerprint, key) in try master.deriveKeys(for: purpose) {
            keys.append((KeyName(fingerprint: fingerprint), try HMACKey(key)))
        }
        self.keys = keys
    }

    /// The key that signs: the active one.
    package var active: KeyName { keys[0].name }
    /// All that are in the master key file.
    package var names: [KeyName] { keys.map(\.name) }

    package func sign(_ message: [UInt8]) throws(CryptoError) -> [UInt8] {
        try keys[0].key.authenticationCode(for: message).bytes
    }

    /// In constant time.
    /// - Returns: nil if the master key file has no such key.
    package func isValid(
        _ signature: [UInt8], of message: [UInt8], by name: KeyName
    ) throws(CryptoError) -> Bool? {
        for (known, key) in keys where known == name {
            return try key.isValid(signature, for: message)
        }
        return nil
    }
}
