import HCCore
package import HCCrypto

/// The way from the master key to a clinic's keys, and how a new clinic's keys are made.
struct TenantKeyring {
    let data: AEADKeyRing
    let index: BlindIndex

    enum Problem: Error {
        case missing(WrappedKey.Purpose)
    }

    init(of tenant: TenantID, wrapped: [WrappedKey], master: MasterKey) throws {
        var keks: [UInt32: KeyWrap] = [:]
        for key in wrapped where key.purpose == .kek {
            let secret = try master.unwrap(key.wrapped, as: key.binding(of: tenant))
            keks[key.version] = try KeyWrap(version: key.version, key: secret)
        }
        var active: AEADKey?
        var retired: [AEADKey] = []
        var index: BlindIndex?
        for key in wrapped where key.purpose != .kek {
            guard let version = key.wrappingVersion, let kek = keks[version] else {
                throw Problem.missing(.kek)
            }
            let secret = try kek.unwrap(key.wrapped, as: key.binding(of: tenant))
            switch (key.purpose, key.state) {
            case (.data, .active): active = try AEADKey(version: key.version, key: secret)
            case (.data, .retired): retired.append(try AEADKey(version: key.version, key: secret))
            case (.index, .active): index = try BlindIndex(key: secret)
            // A retired index key finds nothing: its tokens are made anew when it is rotated.
            case (.index, .retired), (.kek, _): break
            }
        }
        guard let active else { throw Problem.missing(.data) }
        guard let index else { throw Problem.missing(.index) }
        data = AEADKeyRing(active: active, retired: retired)
        self.index = index
    }
}

extension WrappedKey {
    fileprivate func binding(of tenant: TenantID) -> KeyBinding {
        KeyBinding(tenant: tenant.uuid, purpose: purpose.rawValue, version: version)
    }

    /// The first keys of a clinic: a key-encryption key under the master key; a data and an index key under it.
    /// Random, version 1, never seen outside this function.
    package static func makeSet(
        for tenant: TenantID, master: MasterKey
    ) throws(CryptoError) -> [WrappedKey] {
        let secret = try SecretBytes(randomCount: AEADKey.keyCount)
        let kek = try KeyWrap(version: 1, key: secret)
        func binding(_ purpose: Purpose) -> KeyBinding {
            KeyBinding(tenant: tenant.uuid, purpose: purpose.rawValue, version: 1)
        }
        var keys = [
            WrappedKey(
                purpose: .kek, version: 1, state: .active, masterKeyID: master.id,
                wrappingVersion: nil, wrapped: try master.wrap(secret, as: binding(.kek)))
        ]
        for purpose in [Purpose.data, .index] {
            let key = try SecretBytes(randomCount: AEADKey.keyCount)
            keys.append(
                WrappedKey(
                    purpose: purpose, version: 1, state: .active, masterKeyID: nil,
                    wrappingVersion: 1, wrapped: try kek.wrap(key, as: binding(purpose))))
        }
        return keys
    }
}
