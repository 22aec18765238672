import HCCore
import HCCrypto
import HCIO
import HCTesting
import Testing

@testable import HCTenancy

@Suite("A clinic's keys")
struct TenantKeysTests {
    private let one = Sample.tenant(1)
    private let two = Sample.tenant(2)
    private let row = UUID(high: 3, low: 3)

    private func keys(_ tenant: TenantID, _ master: MasterKey) throws -> TenantKeys {
        try TenantKeys(
            of: tenant, wrapped: try WrappedKey.makeSet(for: tenant, master: master), master: master
        )
    }

    @Test("what is sealed opens where it was sealed for, and nowhere else")
    func binding() throws {
        let master = try Sample.master()
        let wrapped = try WrappedKey.makeSet(for: one, master: master)
        let keys = try TenantKeys(of: one, wrapped: wrapped, master: master)
        let text = Array("Mary Sample".utf8)
        let sealed = try keys.seal(text, table: "patient", column: "sealed", row: row).bytes
        #expect(try keys.open(sealed, table: "patient", column: "sealed", row: row) == text)
        #expect(throws: TenancyError.sealBroken) {
            try keys.open(sealed, table: "account", column: "sealed", row: row)
        }
        #expect(throws: TenancyError.sealBroken) {
            try keys.open(sealed, table: "patient", column: "notes", row: row)
        }
        #expect(throws: TenancyError.sealBroken) {
            try keys.open(sealed, table: "patient", column: "sealed", row: UUID(high: 3, low: 4))
        }
        let others = try self.keys(two, master)
        #expect(throws: TenancyError.sealBroken) {
            try others.open(sealed, table: "patient", column: "sealed", row: row)
        }
    }

    @Test("what is sealed is bound to its clinic and its place, whatever the key is")
    func sameSecrets() throws {
        let master = try Sample.master()
        let secrets = try (0..<3).map { _ in try SecretBytes(randomCount: AEADKey.keyCount) }
        func keys(_ tenant: TenantID) throws -> TenantKeys {
            let kek = try KeyWrap(version: 1, key: secrets[0])
            func binding(_ purpose: WrappedKey.Purpose) -> KeyBinding {
                KeyBinding(tenant: tenant.uuid, purpose: purpose.rawValue, version: 1)
            }
            var wrapped = [
                WrappedKey(
                    purpose: .kek, version: 1, state: .active, masterKeyID: master.id,
                    wrappingVersion: nil, wrapped: try master.wrap(secrets[0], as: binding(.kek)))
            ]
            for (purpose, secret) in [(WrappedKey.Purpose.data, secrets[1]), (.index, secrets[2])] {
                wrapped.append(
                    WrappedKey(
                        purpose: purpose, version: 1, state: .active, masterKeyID: nil,
                        wrappingVersion: 1, wrapped: try kek.wrap(secret, as: binding(purpose))))
            }
            return try TenantKeys(of: tenant, wrapped: wrapped, master: master)
        }
        let (here, there) = (try keys(one), try keys(two))
        let sealed = try here.seal([1], table: "patient", column: "sealed", row: row).bytes
        #expect(try here.open(sealed, table: "patient", column: "sealed", row: row) == [1])
        #expect(throws: TenancyError.sealBroken) {
            try there.open(sealed, table: "patient", column: "sealed", row: row)
        }
        var (place, other) = (AssociatedData(), AssociatedData())
        place.append("slots")
        other.append("services")
        let copy = try here.seal([2], as: place)
        #expect(try here.open(copy, as: place) == [2])
        #expect(throws: TenancyError.sealBroken) { try here.open(copy, as: other) }
        #expect(throws: TenancyError.sealBroken) { try there.open(copy, as: place) }
    }

    @Test("one clinic's wrapped keys do not open as another's, nor one purpose as another")
    func wrapBinding() throws {
        let master = try Sample.master()
        let wrapped = try WrappedKey.makeSet(for: one, master: master)
        #expect(throws: TenancyError.keyUnavailable) {
            try TenantKeys(of: two, wrapped: wrapped, master: master)
        }
        let swapped = wrapped.map { key in
            WrappedKey(
                purpose: key.purpose == .data ? .index : key.purpose == .index ? .data : .kek,
                version: key.version, state: key.state, masterKeyID: key.masterKeyID,
                wrappingVersion: key.wrappingVersion, wrapped: key.wrapped)
        }
        #expect(throws: TenancyError.keyUnavailable) {
            try TenantKeys(of: one, wrapped: swapped, master: master)
        }
    }

    @Test("without the master key, a kek, a data key or an index key nothing opens")
    func missingKeys() throws {
        let master = try Sample.master()
        let wrapped = try WrappedKey.makeSet(for: one, master: master)
        #expect(throws: TenancyError.keyUnavailable) {
            try TenantKeys(of: one, wrapped: wrapped, master: try Sample.master(2))
        }
        for purpose in WrappedKey.Purpose.allCases {
            #expect(throws: TenancyError.keyUnavailable) {
                try TenantKeys(
                    of: one, wrapped: wrapped.filter { $0.purpose != purpose }, master: master)
            }
        }
        #expect(throws: TenancyError.keyUnavailable) {
            try TenantKeys(of: one, wrapped: [], master: master)
        }
    }

    @Test("bytes under a version that is gone are not called broken")
    func shredded() throws {
        let master = try Sample.master()
        let keys = try keys(one, master)
        var sealed = try keys.seal([1], table: "t", column: "c", row: row).bytes
        sealed[4] = 9
        #expect(throws: TenancyError.keyUnavailable) {
            try keys.open(sealed, table: "t", column: "c", row: row)
        }
    }

    @Test("equal values have equal tokens in one clinic and one field only")
    func tokens() throws {
        let master = try Sample.master()
        let keys = try keys(one, master)
        let others = try self.keys(two, master)
        let token = try keys.token(kind: "patient.phone", value: "+15550100")
        #expect(try keys.token(kind: "patient.phone", value: "+15550100") == token)
        #expect(try keys.token(kind: "patient.email", value: "+15550100") != token)
        #expect(try others.token(kind: "patient.phone", value: "+15550100") != token)
        let stored = try keys.prefixTokens(kind: "patient.familyName", value: "sample")
        let asked = try keys.prefixToken(kind: "patient.familyName", prefix: "sam")
        #expect(asked.map(stored.contains) == true)
    }

    @Test("the cache is bounded, and does not serve keys that were replaced", .onLoop)
    @LoopActor func cache() throws {
        let master = try Sample.master()
        let cache = KeyCache(master: master, tenantsMax: 2)
        func record(_ number: UInt64, _ keys: [WrappedKey]) -> TenantRecord {
            Sample.record(number, keys: keys)
        }
        let first = try WrappedKey.makeSet(for: one, master: master)
        let keys = try cache.keys(of: record(1, first))
        #expect(try cache.keys(of: record(1, first)) === keys)
        let rotated = try WrappedKey.makeSet(for: one, master: master)
        #expect(try cache.keys(of: record(1, rotated)) !== keys)
        #expect(throws: TenancyError.keyUnavailable) { try cache.keys(of: record(1, [])) }
        #expect(cache.count == 0, "revoked keys are not kept")
        for number in 1...5 as ClosedRange<UInt64> {
            _ = try cache.keys(
                of: record(
                    number, try WrappedKey.makeSet(for: Sample.tenant(number), master: master)))
        }
        #expect(cache.count == 2)
        weak var evicted: TenantKeys?
        do {
            let set = try WrappedKey.makeSet(for: Sample.tenant(9), master: master)
            evicted = try cache.keys(of: record(9, set))
        }
        #expect(evicted != nil)
        cache.forget([Sample.tenant(9)])
        #expect(evicted == nil, "nothing holds the keys any more")
    }
}
