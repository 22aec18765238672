/// The versions of one key: the newest seals, all of them open.
package final class AEADKeyRing: Sendable {
    package let active: AEADKey
    /// A handful at most, so a walk is quicker than a table.
    private let keys: [AEADKey]

    /// - Parameter retired: older versions whose sealed bytes must still open.
    package init(active: AEADKey, retired: [AEADKey] = []) {
        self.active = active
        keys = [active] + retired
        precondition(Set(keys.map(\.version)).count == keys.count, "two keys of one version")
    }

    package var versions: [UInt32] { keys.map(\.version) }

    package func seal(
        _ plaintext: [UInt8], associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try active.seal(plaintext, associatedData: associatedData)
    }

    package func seal(
        _ plaintext: UnsafeRawBufferPointer, associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try active.seal(plaintext, associatedData: associatedData)
    }

    /// - Throws: `.unknownKeyVersion` if no key of the ring has the version that the bytes name.
    package func open(
        _ sealed: UnsafeRawBufferPointer, associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        let version = try SealedBytes.keyVersion(of: sealed)
        for key in keys where key.version == version {
            return try key.open(sealed, associatedData: associatedData)
        }
        throw .unknownKeyVersion(version)
    }

    package func open(
        _ sealed: [UInt8], associatedData: [UInt8]
    ) throws(CryptoError) -> [UInt8] {
        try sealed.withRawBytes { (bytes) throws(CryptoError) in
            try open(bytes, associatedData: associatedData)
        }
    }

    /// Whether the bytes open under an older key and should be sealed again.
    package func needsReseal(_ sealed: [UInt8]) throws(CryptoError) -> Bool {
        try SealedBytes.keyVersion(of: sealed) != active.version
    }
}
