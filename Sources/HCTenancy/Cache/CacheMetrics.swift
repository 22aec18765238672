package import HCCore

/// What the cache counts. Labelled by level and reason, never by clinic or key.
package final class CacheMetrics: Sendable {
    enum Level: String, CaseIterable {
        case memory
        case redis
        case shard
    }

    private let hits: [Counter]
    private let misses: [Counter]
    private let fills: [Counter]
    private let refusals: [CacheMachine.Refusal: Counter]
    private let refusedElsewhere: [Counter]
    private let evictionsForQuota: Counter
    private let evictionsForRoom: Counter
    private let evictionsExpired: Counter
    let joined: Counter
    let withoutLease: Counter
    let unreadable: Counter
    let bytes: Gauge
    let entries: Gauge
    let holds: Counter
    let holdsUnshared: Counter
    let holdsOutlived: Counter
    let holdLatency: Histogram

    package init(_ registry: MetricsRegistry) {
        func perLevel(_ name: StaticString, _ help: StaticString) -> [Counter] {
            Level.allCases.map { registry.counter(name, help, labels: [("level", $0.rawValue)]) }
        }
        func evictions(_ reason: String) -> Counter {
            registry.counter(
                "hc_cache_evictions_total", "Copies in memory that were given up, by reason.",
                labels: [("reason", reason)])
        }
        hits = perLevel("hc_cache_hits_total", "Reads answered from a copy.")
        misses = perLevel("hc_cache_misses_total", "Looks for a copy that found none.")
        fills = perLevel("hc_cache_fills_total", "Copies made.")
        refusedElsewhere = perLevel(
            "hc_cache_copies_refused_total",
            "Copies not made because what they are of had changed meanwhile, as Redis or the shard knew."
        )
        refusals = Dictionary(
            uniqueKeysWithValues: CacheMachine.Refusal.allCases.map { refusal in
                let counter = registry.counter(
                    "hc_cache_fills_refused_total",
                    "Reads that were not kept in memory, by reason.",
                    labels: [("reason", refusal.rawValue)])
                return (refusal, counter)
            })
        evictionsForQuota = evictions("quota")
        evictionsForRoom = evictions("room")
        evictionsExpired = evictions("expired")
        joined = registry.counter(
            "hc_cache_joined_total", "Reads that took the outcome of another one under way.")
        withoutLease = registry.counter(
            "hc_cache_bypassed_total", "Reads that used no copy because none may be used now.")
        unreadable = registry.counter(
            "hc_cache_unreadable_total", "Copies in Redis or the shard that could not be read.")
        bytes = registry.gauge("hc_cache_memory_bytes", "What copies in memory take.")
        entries = registry.gauge("hc_cache_entries", "Copies in memory.")
        holds = registry.counter("hc_cache_holds_total", "Changes of cached things announced.")
        holdsUnshared = registry.counter(
            "hc_cache_holds_unshared_total",
            "Changes that Redis did not hear of: all copies there are distrusted.")
        holdsOutlived = registry.counter(
            "hc_cache_holds_outlived_total", "Changes that took longer than they were held.")
        holdLatency = registry.histogram(
            "hc_cache_hold_seconds", "How long a change waits until nobody uses old copies.")
    }

    func hit(_ level: Level) { hits[index(level)].increment() }
    func missed(_ level: Level) { misses[index(level)].increment() }
    func filled(_ level: Level) { fills[index(level)].increment() }
    func refused(_ level: Level) { refusedElsewhere[index(level)].increment() }
    func refused(_ refusal: CacheMachine.Refusal) { refusals[refusal]?.increment() }

    func hits(_ level: Level) -> UInt64 { hits[index(level)].value }
    func refusals(_ refusal: CacheMachine.Refusal) -> UInt64 { refusals[refusal]?.value ?? 0 }
    func refusals(_ level: Level) -> UInt64 { refusedElsewhere[index(level)].value }

    func update(_ memory: MemoryCache) {
        let evictions = memory.takeEvictions()
        if evictions.quota > 0 { evictionsForQuota.increment(by: evictions.quota) }
        if evictions.room > 0 { evictionsForRoom.increment(by: evictions.room) }
        if evictions.expired > 0 { evictionsExpired.increment(by: evictions.expired) }
        bytes.set(memory.bytes)
        entries.set(memory.count)
    }

    private func index(_ level: Level) -> Int {
        switch level {
        case .memory: 0
        case .redis: 1
        case .shard: 2
        }
    }
}
