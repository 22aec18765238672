import HCCore
import Testing

@testable import HCCrypto

@Suite("sealing")
struct AEADTests {
    let key: AEADKey
    let other: AEADKey
    let row: AssociatedData

    init() throws {
        key = try AEADKey(version: 7, key: SecretBytes(randomCount: 32))
        other = try AEADKey(version: 7, key: SecretBytes(randomCount: 32))
        row = AssociatedData(
            tenant: UUID(high: 1, low: 2), table: "patient", column: "sealed",
            row: UUID(high: 3, low: 4))
    }

    @Test("what was sealed opens, whatever its length", arguments: [0, 1, 15, 16, 17, 200, 70_000])
    func roundTrip(count: Int) throws {
        let plaintext = SystemRandom.bytes(count)
        let sealed = try key.seal(plaintext, associatedData: row.bytes)
        #expect(sealed.count == count + SealedBytes.overhead)
        #expect(try SealedBytes.keyVersion(of: sealed) == 7)
        #expect(try key.open(sealed, associatedData: row.bytes) == plaintext)
    }

    @Test("no byte can be altered, cut off or added")
    func tampering() throws {
        let sealed = try key.seal(Array("Ada Lovelace".utf8), associatedData: row.bytes)
        for index in sealed.indices {
            var altered = sealed
            altered[index] ^= 0x40
            let expected: CryptoError =
                switch index {
                case 0: .malformed("sealed bytes are of another format")
                case 1...4: .unknownKeyVersion(7 ^ (0x40 << UInt32(8 * (4 - index))))
                default: .authenticationFailed
                }
            #expect(throws: expected) { try key.open(altered, associatedData: row.bytes) }
        }
        for count in 0..<sealed.count {
            #expect(throws: CryptoError.self) {
                try key.open(Array(sealed[..<count]), associatedData: row.bytes)
            }
        }
        #expect(throws: CryptoError.authenticationFailed) {
            try key.open(sealed + [0], associatedData: row.bytes)
        }
    }

    @Test("sealed bytes open under their own key, in their own place, and nowhere else")
    func elsewhere() throws {
        let sealed = try key.seal([1, 2, 3], associatedData: row.bytes)
        #expect(throws: CryptoError.authenticationFailed) {
            try other.open(sealed, associatedData: row.bytes)
        }
        let neighbour = AssociatedData(
            tenant: UUID(high: 1, low: 2), table: "patient", column: "sealed",
            row: UUID(high: 3, low: 5))
        #expect(throws: CryptoError.authenticationFailed) {
            try key.open(sealed, associatedData: neighbour.bytes)
        }
        #expect(throws: CryptoError.authenticationFailed) {
            try key.open(sealed, associatedData: [])
        }
        // A failure leaves nothing behind in the context.
        #expect(try key.open(sealed, associatedData: row.bytes) == [1, 2, 3])
    }

    @Test("two lists of parts never give the same associated data")
    func associatedData() {
        var first = AssociatedData()
        first.append("ab" as StaticString)
        first.append("c" as StaticString)
        var second = AssociatedData()
        second.append("a")
        second.append("bc")
        #expect(first.bytes != second.bytes)
        #expect(first.bytes == [0, 0, 0, 2, 97, 98, 0, 0, 0, 1, 99])
    }

    @Test("every sealing has a nonce of its own")
    func nonces() throws {
        var seen: Set<[UInt8]> = []
        for _ in 0..<2000 {
            let sealed = try key.seal([], associatedData: [])
            #expect(seen.insert(Array(sealed[5..<17])).inserted)
        }
    }

    @Test("one key serves many threads at once")
    func threads() async throws {
        let key = key
        try await withThrowingTaskGroup(of: Void.self) { group in
            for thread in UInt8(0)..<8 {
                group.addTask {
                    for count in 0..<300 {
                        let plaintext = [UInt8](repeating: thread, count: count)
                        let sealed = try key.seal(plaintext, associatedData: [thread])
                        #expect(try key.open(sealed, associatedData: [thread]) == plaintext)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("a ring seals with its active key and opens with all of them")
    func ring() throws {
        let first = try AEADKey(version: 1, key: SecretBytes(randomCount: 32))
        let second = try AEADKey(version: 2, key: SecretBytes(randomCount: 32))
        let before = AEADKeyRing(active: first)
        let after = AEADKeyRing(active: second, retired: [first])
        let old = try before.seal([1], associatedData: [])
        let new = try after.seal([2], associatedData: [])
        #expect(try after.open(old, associatedData: []) == [1])
        #expect(try after.open(new, associatedData: []) == [2])
        #expect(try after.needsReseal(old))
        #expect(try !after.needsReseal(new))
        #expect(after.versions == [2, 1])
        #expect(throws: CryptoError.unknownKeyVersion(2)) {
            try before.open(new, associatedData: [])
        }
    }

    @Test("a key of another length is refused", arguments: [0, 16, 31, 33])
    func keyLength(count: Int) {
        #expect(throws: CryptoError.malformed("an AES-256 key has 32 bytes")) {
            try AEADKey(version: 1, key: SecretBytes(randomCount: count))
        }
    }
}

@Suite("wrapped keys")
struct KeyWrapTests {
    let binding = KeyBinding(tenant: UUID(high: 9, low: 9), purpose: "data", version: 3)

    @Test("a wrapped key unwraps to itself")
    func roundTrip() throws {
        let wrap = try KeyWrap(version: 4, key: SecretBytes(randomCount: 32))
        let secret = try SecretBytes(randomCount: 32)
        let wrapped = try wrap.wrap(secret, as: binding)
        #expect(wrapped.count == 65)
        #expect(try SealedBytes.keyVersion(of: wrapped) == 4)
        #expect(try wrap.unwrap(wrapped, as: binding) == secret)
    }

    @Test("it cannot be passed off as another tenant's, another purpose's or another version's")
    func bindings() throws {
        let wrap = try KeyWrap(version: 4, key: SecretBytes(randomCount: 32))
        let wrapped = try wrap.wrap(SecretBytes(randomCount: 32), as: binding)
        var others = [binding, binding, binding]
        others[0].tenant = UUID(high: 9, low: 8)
        others[1].purpose = "index"
        others[2].version = 4
        for other in others {
            #expect(throws: CryptoError.authenticationFailed) {
                try wrap.unwrap(wrapped, as: other)
            }
        }
        #expect(throws: CryptoError.malformed("a wrapped key has 65 bytes")) {
            try wrap.unwrap(Array(wrapped.dropLast()), as: binding)
        }
    }

    @Test("a master key in rotation unwraps the old and wraps the new; a foreign one says so")
    func masterKey() throws {
        let old = try SecretBytes(randomCount: 32)
        let new = try SecretBytes(randomCount: 32)
        let before = try MasterKey(keys: [("k1", old)])
        let during = try MasterKey(keys: [("k2", new), ("k1", old)])
        let after = try MasterKey(keys: [("k2", new)])
        let secret = try SecretBytes(randomCount: 32)
        let wrapped = try before.wrap(secret, as: binding)
        #expect(try during.unwrap(wrapped, as: binding) == secret)
        #expect(try during.needsRewrap(wrapped))
        let rewrapped = try during.wrap(during.unwrap(wrapped, as: binding), as: binding)
        #expect(try !during.needsRewrap(rewrapped))
        #expect(try after.unwrap(rewrapped, as: binding) == secret)
        #expect(throws: CryptoError.unknownKeyVersion(before.fingerprint)) {
            try after.unwrap(wrapped, as: binding)
        }
    }
}
