import HCCore

/// Copies in the memory of one process. Bounded by bytes and entries over all clinics and for each. Pure.
///
/// An entry counts its bytes and what its names take, and at least as much as makes `entriesMax` of them fill
/// `bytesMax`: so one measure bounds both. Invariants:
///
/// - a clinic's entries never exceed its quota, nor all together the limits;
/// - an entry of one clinic is given up for one of another only if the first clinic has more than the second: a
///   clinic that floods the cache takes room from itself, and from larger ones, never from smaller;
/// - an entry belongs to one epoch of its clinic: in another epoch it is not there.
final class MemoryCache {
    struct Limits {
        var bytesMax: Int
        var entriesMax: Int
    }

    /// Of one clinic: `TierCache`.
    struct Quota: Equatable {
        var bytesMax: Int
        var entriesMax: Int
    }

    enum Insertion: Equatable {
        case stored
        /// Larger than the clinic's quota, or than what there is without taking from smaller clinics.
        case noRoom
    }

    /// Why entries went, since the last look.
    struct Evictions: Equatable {
        var quota = 0
        var room = 0
        var expired = 0
    }

    private struct Entry {
        var answer: CacheAnswer
        var tags: [CacheTag]
        var expiresAt: MonotonicTime
        var cost: Int
    }

    private final class Shelf {
        let epoch: Int64
        var entries = LRUCache<String, Entry>(capacityMax: .max)
        var namesByTag: [String: Set<String>] = [:]
        var bytes = 0
        /// Where the clinic stands in `order`.
        var position = 0

        init(epoch: Int64) { self.epoch = epoch }
    }

    /// What an entry takes besides its texts: nodes of the tables, and the object.
    static let overheadBytes = 256

    private let limits: Limits
    private let costMin: Int
    private var shelves: [TenantID: Shelf] = [:]
    /// All clinics that have entries, in no order: what is expired is looked for along it.
    private var order: [TenantID] = []
    private var cursor = 0
    /// Clinics by the number of binary digits of their bytes.
    private var sizes = [Set<TenantID>](repeating: [], count: Int.bitWidth + 1)
    private(set) var bytes = 0
    private(set) var count = 0
    private var evictions = Evictions()

    init(_ limits: Limits) {
        precondition(limits.bytesMax > 0 && limits.entriesMax > 0, "room for something")
        self.limits = limits
        costMin = max(1, limits.bytesMax / limits.entriesMax)
    }

    func bytes(of tenant: TenantID) -> Int { shelves[tenant]?.bytes ?? 0 }
    func count(of tenant: TenantID) -> Int { shelves[tenant]?.entries.count ?? 0 }

    func takeEvictions() -> Evictions {
        defer { evictions = Evictions() }
        return evictions
    }

    // MARK: Looking up

    func find(
        _ name: String, of tenant: TenantID, epoch: Int64, now: MonotonicTime, clock: Timestamp
    ) -> CacheAnswer? {
        guard let shelf = shelves[tenant], shelf.epoch == epoch,
            let entry = shelf.entries.find(name)
        else { return nil }
        guard now < entry.expiresAt, entry.answer.isGood(at: clock) else {
            remove(name, from: shelf, of: tenant)
            evictions.expired += 1
            return nil
        }
        return entry.answer
    }

    // MARK: Keeping

    func insert(
        _ answer: CacheAnswer, for key: CacheKey, of tenant: TenantID, epoch: Int64,
        quota: Quota, now: MonotonicTime, expiresAt: MonotonicTime
    ) -> Insertion {
        sweep(now)
        if let shelf = shelves[tenant] {
            // An older map than the one that filled the shelf: its values belong to another place.
            guard shelf.epoch <= epoch else { return .noRoom }
            if shelf.epoch < epoch {
                forget(tenant)
            } else {
                remove(key.name, from: shelf, of: tenant)
            }
        }
        let cost = cost(of: answer, key)
        guard cost <= quota.bytesMax, quota.entriesMax > 0 else { return .noRoom }
        while let shelf = shelves[tenant],
            shelf.bytes + cost > quota.bytesMax || shelf.entries.count >= quota.entriesMax
        {
            evictOldest(of: tenant, shelf)
            evictions.quota += 1
        }
        guard makeRoom(cost, for: tenant) else { return .noRoom }
        let shelf = shelves[tenant] ?? makeShelf(tenant, epoch)
        shelf.entries.insert(
            Entry(answer: answer, tags: key.tags, expiresAt: expiresAt, cost: cost), for: key.name)
        for tag in key.tags { shelf.namesByTag[tag.name, default: []].insert(key.name) }
        count += 1
        changeBytes(of: tenant, shelf, by: cost)
        return .stored
    }

    private func cost(of answer: CacheAnswer, _ key: CacheKey) -> Int {
        let texts = key.tags.reduce(2 * key.name.utf8.count) { $0 + $1.name.utf8.count + 32 }
        return max(costMin, answer.bytesCount + texts + MemoryCache.overheadBytes)
    }

    /// Takes room from the largest clinic, which is the one that wants it if it is among the largest.
    private func makeRoom(_ cost: Int, for tenant: TenantID) -> Bool {
        while bytes + cost > limits.bytesMax {
            let own = MemoryCache.size((shelves[tenant]?.bytes ?? 0) + cost)
            let largest = sizes.lastIndex { !$0.isEmpty } ?? 0
            var victim = tenant
            if largest > own, let other = sizes[largest].first { victim = other }
            guard let shelf = shelves[victim] else { return false }
            evictOldest(of: victim, shelf)
            evictions.room += 1
        }
        return true
    }

    // MARK: Dropping

    /// Drops the copies that depend on one of the tags.
    func drop(_ tags: [String], of tenant: TenantID) {
        guard let shelf = shelves[tenant] else { return }
        for tag in tags {
            for name in shelf.namesByTag[tag] ?? [] { remove(name, from: shelf, of: tenant) }
        }
    }

    /// Drops everything of a clinic.
    func forget(_ tenant: TenantID) {
        guard let shelf = shelves[tenant] else { return }
        count -= shelf.entries.count
        changeBytes(of: tenant, shelf, by: -shelf.bytes)
        remove(shelf, of: tenant)
    }

    func forgetAll() {
        shelves = [:]
        order = []
        sizes = sizes.map { _ in [] }
        (bytes, count, cursor) = (0, 0, 0)
    }

    private func evictOldest(of tenant: TenantID, _ shelf: Shelf) {
        guard let (name, entry) = shelf.entries.removeOldest() else {
            preconditionFailure("a shelf has entries")
        }
        removed(entry, name, from: shelf, of: tenant)
    }

    private func remove(_ name: String, from shelf: Shelf, of tenant: TenantID) {
        guard let entry = shelf.entries.remove(name) else { return }
        removed(entry, name, from: shelf, of: tenant)
    }

    private func removed(_ entry: Entry, _ name: String, from shelf: Shelf, of tenant: TenantID) {
        for tag in entry.tags {
            shelf.namesByTag[tag.name]?.remove(name)
            if shelf.namesByTag[tag.name]?.isEmpty == true { shelf.namesByTag[tag.name] = nil }
        }
        count -= 1
        changeBytes(of: tenant, shelf, by: -entry.cost)
        if shelf.entries.isEmpty { remove(shelf, of: tenant) }
    }

    /// Looks at what one clinic has not asked for longest, and drops it if it is over: so clinics that come no
    /// more do not keep their room until somebody else needs it.
    private func sweep(_ now: MonotonicTime) {
        guard !order.isEmpty else { return }
        cursor = (cursor + 1) % order.count
        let tenant = order[cursor]
        guard let shelf = shelves[tenant], let oldest = shelf.entries.oldest,
            oldest.value.expiresAt <= now
        else { return }
        remove(oldest.key, from: shelf, of: tenant)
        evictions.expired += 1
    }

    // MARK: Shelves

    private func makeShelf(_ tenant: TenantID, _ epoch: Int64) -> Shelf {
        let shelf = Shelf(epoch: epoch)
        shelf.position = order.count
        order.append(tenant)
        shelves[tenant] = shelf
        return shelf
    }

    private func remove(_ shelf: Shelf, of tenant: TenantID) {
        shelves[tenant] = nil
        guard let last = order.popLast(), last != tenant else { return }
        order[shelf.position] = last
        shelves[last]?.position = shelf.position
    }

    private func changeBytes(of tenant: TenantID, _ shelf: Shelf, by change: Int) {
        let before = MemoryCache.size(shelf.bytes)
        shelf.bytes += change
        bytes += change
        let after = MemoryCache.size(shelf.bytes)
        guard before != after else { return }
        sizes[before].remove(tenant)
        if after > 0 { sizes[after].insert(tenant) }
    }

    private static func size(_ bytes: Int) -> Int { Int.bitWidth - bytes.leadingZeroBitCount }
}
