import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Copies in memory: bounded, and each clinic's its own")
struct MemoryCacheTests {
    private let tag = CacheTag("things")
    private let clock = Timestamp(seconds: 1_780_000_000)

    private func time(_ seconds: Int) -> MonotonicTime {
        MonotonicTime(nanoseconds: Int64(seconds) * 1_000_000_000)
    }

    private func value(_ count: Int = 10, until: Timestamp? = nil) -> CacheAnswer {
        .value(
            CachedValue(
                bytes: [UInt8](repeating: 1, count: count), entityTag: "\"t\"", goodUntil: until))
    }

    @discardableResult
    private func insert(
        _ cache: MemoryCache, _ name: String, _ tenant: UInt64 = 1, bytes: Int = 10,
        tags: [CacheTag]? = nil, epoch: Int64 = 1, quota: Int = 1 << 20, entries: Int = 1000,
        at now: Int = 0, until: Int = 300, goodUntil: Timestamp? = nil
    ) -> MemoryCache.Insertion {
        cache.insert(
            value(bytes, until: goodUntil), for: CacheKey(name, tags: tags ?? [tag]),
            of: Sample.tenant(tenant), epoch: epoch,
            quota: MemoryCache.Quota(bytesMax: quota, entriesMax: entries), now: time(now),
            expiresAt: time(until))
    }

    private func has(
        _ cache: MemoryCache, _ name: String, _ tenant: UInt64 = 1, epoch: Int64 = 1,
        at now: Int = 0,
        clock: Timestamp? = nil
    ) -> Bool {
        cache.find(
            name, of: Sample.tenant(tenant), epoch: epoch, now: time(now),
            clock: clock ?? self.clock) != nil
    }

    private func make(bytes: Int = 1 << 20, entries: Int = 1 << 16) -> MemoryCache {
        MemoryCache(MemoryCache.Limits(bytesMax: bytes, entriesMax: entries))
    }

    @Test("a copy is there until its life, or the value's own, is over")
    func lives() {
        let cache = make()
        insert(cache, "a", until: 300)
        insert(cache, "b", until: 300, goodUntil: clock + .seconds(60))
        #expect(has(cache, "a", at: 299) && has(cache, "b", at: 10))
        #expect(!has(cache, "a", at: 300))
        #expect(!has(cache, "b", at: 10, clock: clock + .seconds(60)))
        #expect(cache.count == 0 && cache.bytes == 0)
        #expect(cache.takeEvictions() == MemoryCache.Evictions(expired: 2))
    }

    @Test("a copy belongs to one clinic and one epoch of it")
    func places() {
        let cache = make()
        insert(cache, "a", 1, epoch: 1)
        #expect(!has(cache, "a", 2, epoch: 1))
        #expect(!has(cache, "a", 1, epoch: 2))
        insert(cache, "b", 1, epoch: 2)
        #expect(!has(cache, "a", 1, epoch: 1), "the old place is gone as a whole")
        #expect(insert(cache, "a", 1, epoch: 1) == .noRoom, "and does not come back")
        #expect(has(cache, "b", 1, epoch: 2))
    }

    @Test("a tag takes along every copy that has it, and no other")
    func tags() {
        let cache = make()
        let (one, two) = (CacheTag("one"), CacheTag("two"))
        insert(cache, "a", tags: [one])
        insert(cache, "b", tags: [one, two])
        insert(cache, "c", tags: [two])
        insert(cache, "d", 2, tags: [one])
        cache.drop(["one"], of: Sample.tenant(1))
        #expect(!has(cache, "a") && !has(cache, "b") && has(cache, "c") && has(cache, "d", 2))
        cache.forget(Sample.tenant(1))
        #expect(!has(cache, "c") && has(cache, "d", 2))
        cache.forgetAll()
        #expect(cache.count == 0 && cache.bytes == 0)
    }

    @Test("a clinic stays within its quota, and gives up what it has not asked for longest")
    func quota() {
        let cache = make()
        for name in ["a", "b", "c"] { insert(cache, name, bytes: 100, entries: 3) }
        #expect(has(cache, "a"))
        insert(cache, "d", bytes: 100, entries: 3)
        #expect(!has(cache, "b") && has(cache, "a") && has(cache, "c") && has(cache, "d"))
        #expect(cache.takeEvictions() == MemoryCache.Evictions(quota: 1))
        let cost = cache.bytes(of: Sample.tenant(1)) / 3
        insert(cache, "e", bytes: 100, quota: 2 * cost)
        #expect(cache.count(of: Sample.tenant(1)) == 2)
        #expect(insert(cache, "large", bytes: 4096, quota: 2 * cost) == .noRoom)
    }

    @Test("entries are bounded over all clinics too, however small they are")
    func entries() {
        let cache = make(bytes: 1 << 20, entries: 16)
        for number in 0..<100 { insert(cache, "\(number)", UInt64(number)) }
        #expect(cache.count == 16)
    }

    @Test("a clinic that floods the cache evicts itself, and leaves the small ones alone")
    func flood() {
        let cache = make(bytes: 256 << 10)
        for number in 1...20 {
            for name in ["a", "b", "c"] { insert(cache, name, UInt64(number), bytes: 500) }
        }
        for number in 0..<5000 { insert(cache, "\(number)", 99, bytes: 500) }
        for number in 1...20 {
            for name in ["a", "b", "c"] { #expect(has(cache, name, UInt64(number))) }
        }
        #expect(cache.bytes <= 256 << 10)
        #expect(cache.takeEvictions().room > 0)
    }

    @Test("what a clinic lost to another, the other had less than it", arguments: 0..<8)
    func fairness(_ run: Int) {
        var random = SeededRandom(seed: 0x51_6e_00 + UInt64(run))
        let cache = make(bytes: 64 << 10)
        for step in 0..<4000 {
            let tenant = UInt64.random(in: 1...(step % 7 == 0 ? 30 : 4), using: &random)
            var before: [UInt64: Int] = [:]
            for other in 1...30 {
                before[UInt64(other)] = cache.bytes(of: Sample.tenant(UInt64(other)))
            }
            insert(
                cache, "\(Int.random(in: 0..<60, using: &random))", tenant,
                bytes: Int.random(in: 0...3000, using: &random), at: 0, until: 10_000)
            #expect(cache.bytes <= 64 << 10, "seed \(random.seed)")
            let own = cache.bytes(of: Sample.tenant(tenant))
            for (other, bytes) in before where other != tenant {
                if cache.bytes(of: Sample.tenant(other)) < bytes {
                    #expect(bytes > own || bytes > (before[tenant] ?? 0), "seed \(random.seed)")
                }
            }
        }
        var sum = 0
        for other in 1...30 { sum += cache.bytes(of: Sample.tenant(UInt64(other))) }
        #expect(sum == cache.bytes, "seed \(random.seed)")
    }

    @Test("clinics that come no more do not keep their room")
    func sweep() {
        let cache = make()
        for number in 1...50 { insert(cache, "a", UInt64(number), until: 300) }
        for number in 0..<100 { insert(cache, "\(number)", 99, at: 301, until: 600) }
        #expect(cache.count == 100)
    }
}

@Suite("Records of copies")
struct CacheRecordTests {
    private let limits = CacheRecord.Limits(CacheConfiguration())

    private func text(_ answer: CacheAnswer?) -> String? {
        answer?.value.map { String(decoding: $0.bytes, as: UTF8.self) + $0.entityTag }
    }

    @Test("what is encoded is decoded, small, large, and nothing")
    func roundTrip() throws {
        for count in [0, 1, 1023, 1024, 100_000] {
            let bytes = (0..<count).map { UInt8(97 + $0 % 7) }
            let value = CachedValue(
                bytes: bytes, entityTag: "\"v7\"", goodUntil: Timestamp(seconds: 1_790_000_000))
            let record = try #require(CacheRecord.encode(.value(value), limits))
            #expect((record.count < count) == (count >= 1024), "\(count) bytes")
            let found = try #require(CacheRecord.decode(record[...], limits)?.value)
            #expect(found.bytes == bytes && found.entityTag == "\"v7\"")
            #expect(found.goodUntil == Timestamp(seconds: 1_790_000_000))
        }
        let nothing = try #require(CacheRecord.encode(.nothing, limits))
        guard case .nothing? = CacheRecord.decode(nothing[...], limits) else {
            Issue.record("nothing is something")
            return
        }
    }

    @Test("too large is not kept, and what is altered or cut is no record")
    func garbage() throws {
        let large = CachedValue(bytes: [UInt8](repeating: 0, count: (1 << 20) + 1), entityTag: "")
        #expect(CacheRecord.encode(.value(large), limits) == nil)
        let value = CachedValue(
            bytes: [UInt8](repeating: 65, count: 5000), entityTag: "\"v1\"")
        let record = try #require(CacheRecord.encode(.value(value), limits))
        for count in 0..<record.count {
            #expect(CacheRecord.decode(record[..<count], limits) == nil)
        }
        // A bomb says how large it is, or does not fit what it says.
        var bomb = record
        (bomb[2], bomb[3], bomb[4], bomb[5]) = (0x7F, 0xFF, 0xFF, 0xFF)
        #expect(CacheRecord.decode(bomb[...], limits) == nil)
        (bomb[2], bomb[3], bomb[4], bomb[5]) = (0, 0, 0x10, 0)
        #expect(CacheRecord.decode(bomb[...], limits) == nil)
        var smaller = limits
        smaller.bytesMax = 4999
        #expect(CacheRecord.decode(record[...], limits) != nil)
        #expect(CacheRecord.decode(record[...], smaller) == nil)
        var random = SeededRandom(seed: 0xCAC4E)
        for _ in 0..<2000 {
            let bytes = random.bytes(Int.random(in: 0...200, using: &random))
            _ = CacheRecord.decode(bytes[...], limits)
        }
    }

    @Test("a sensitive copy opens for its clinic, key and epoch only, and a plain one is none")
    func sealed() throws {
        let master = try Sample.master()
        func keys(_ number: UInt64) throws -> TenantKeys {
            try TenantKeys(
                of: Sample.tenant(number),
                wrapped: WrappedKey.makeSet(for: Sample.tenant(number), master: master),
                master: master)
        }
        let (one, other) = (try keys(1), try keys(2))
        let key = CacheKey("a", tags: [CacheTag("t")], isSensitive: true)
        let value = CachedValue(bytes: Array("secret".utf8), entityTag: "\"v1\"")
        let bytes = try #require(
            CacheSeal.close(.value(value), key, epoch: 3, keys: { one }, limits))
        func open(
            _ bytes: [UInt8], _ key: CacheKey = key, epoch: Int64 = 3, keys: TenantKeys? = nil
        ) -> String? {
            text(CacheSeal.open(bytes[...], key, epoch: epoch, keys: { keys ?? one }, limits))
        }
        #expect(open(bytes) == "secret\"v1\"")
        #expect(open(bytes, epoch: 4) == nil)
        #expect(open(bytes, CacheKey("b", tags: key.tags, isSensitive: true)) == nil)
        #expect(open(bytes, keys: other) == nil)
        let plainKey = CacheKey("a", tags: key.tags)
        let plain = try #require(
            CacheSeal.close(.value(value), plainKey, epoch: 3, keys: { one }, limits))
        #expect(open(plain) == nil, "somebody put it there who has no key")
        #expect(open(plain, plainKey) == "secret\"v1\"")
        #expect(open([UInt8(ascii: "s")] + plain.dropFirst(), plainKey) == nil)
        #expect(open(bytes, plainKey) == nil)
        #expect(!bytes.contains(Array("secret".utf8)))
    }
}
