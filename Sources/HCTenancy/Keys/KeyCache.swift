import HCCore
import HCCrypto
import HCIO

/// Opened keys of the clinics that were served last. Bounded; what falls out is wiped (`SecretBytes`).
///
/// An entry belongs to the wrapped keys it was made from: when the directory brings others (rotation,
/// revocation), the next request opens those, and revoked keys are gone with it.
@LoopActor
final class KeyCache {
    private struct Entry {
        var wrapped: [WrappedKey]
        var keys: TenantKeys
    }

    private let master: MasterKey
    private var entries: LRUCache<TenantID, Entry>

    init(master: MasterKey, tenantsMax: Int) {
        self.master = master
        entries = LRUCache(capacityMax: tenantsMax)
    }

    var count: Int { entries.count }

    func keys(of record: TenantRecord) throws(TenancyError) -> TenantKeys {
        if let entry = entries.find(record.id), entry.wrapped == record.keys { return entry.keys }
        entries.remove(record.id)
        let keys = try TenantKeys(of: record.id, wrapped: record.keys, master: master)
        entries.insert(Entry(wrapped: record.keys, keys: keys), for: record.id)
        return keys
    }

    /// Wipes the keys of clinics whose record changed: revocation must not wait for their next request.
    func forget(_ tenants: [TenantID]) {
        for tenant in tenants { entries.remove(tenant) }
    }
}
