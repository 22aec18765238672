import HCCore
import HCIO
import HCPostgres
import HCRedis
import HCTesting

@testable import HCTenancy

/// One process of several in one test: a door of its own, with connections to Redis and a lease of its own.
@LoopActor
final class CacheWorker {
    let platform: LivePlatform
    let client: RedisClient
    let reader: RedisClient
    let metrics: CacheMetrics
    private var running: Task<Void, Never>?

    /// Short enough for a test to wait for.
    nonisolated static var configuration: CacheConfiguration {
        var configuration = CacheConfiguration()
        configuration.holdLife = .seconds(1)
        configuration.holdMargin = .milliseconds(250)
        configuration.sharedTimeout = .milliseconds(500)
        configuration.sharedPause = .milliseconds(20)
        return configuration
    }

    nonisolated static var limits: CoherenceLimits {
        var limits = CoherenceLimits()
        limits.leaseLife = .milliseconds(600)
        limits.trust = .milliseconds(500)
        limits.renewAfter = .milliseconds(100)
        return limits
    }

    static func make(
        _ ground: LivePlatform.Ground, _ redis: LiveRedis,
        _ configuration: CacheConfiguration = CacheWorker.configuration,
        limits: CoherenceLimits = CacheWorker.limits
    ) async throws -> CacheWorker {
        let (client, reader) = (try await redis.client(), try await redis.client())
        let metrics = CacheMetrics(MetricsRegistry())
        let platform = try await LivePlatform.make(
            ground, redis: client,
            copies: CoherenceSetup(
                metrics: CoherenceMetrics(MetricsRegistry()), reader: reader, limits: limits),
            cache: CacheSetup(configuration, metrics: metrics))
        return CacheWorker(platform, client, reader, metrics)
    }

    private init(
        _ platform: LivePlatform, _ client: RedisClient, _ reader: RedisClient,
        _ metrics: CacheMetrics
    ) {
        self.platform = platform
        self.client = client
        self.reader = reader
        self.metrics = metrics
        let coherence = platform.door.coherence
        running = Loop.shared.spawn {
            do { try await coherence?.run() } catch { return }
        }
    }

    /// Answers nobody any more, and tells nobody: its lease must run out.
    func kill() {
        reader.close()
        client.close()
        running?.cancel()
    }

    var context: TenantContext {
        get throws { try platform.context(LivePlatform.sunrise) }
    }

    /// Waits until copies in memory may be used, and those in Redis too.
    func settle() async throws {
        let probe = CacheKey("probe", tags: [CacheTag("probe")])
        while true {
            let mayUse = try context.coherence?.mayUseCopies() ?? false
            let look = await platform.door.cache.shared.look(
                probe, of: try context.tenant, keys: { throw TenancyError.keyUnavailable },
                deadline: platform.deadline)
            if mayUse, case .missing = look { return }
            try await Loop.shared.sleep(for: .milliseconds(2))
        }
    }

    // MARK: A register: the version of a practitioner

    static func tags(_ id: UUID) -> [CacheTag] {
        [CacheTag("thing:\(id)"), CacheTag("things", isCounted: true)]
    }

    static func key(
        _ id: UUID, isSensitive: Bool = false, isReadModel: Bool = false
    ) -> CacheKey {
        CacheKey(
            "thing:\(id):\(isSensitive):\(isReadModel)", tags: [tags(id)[isReadModel ? 1 : 0]],
            isSensitive: isSensitive,
            isReadModel: isReadModel)
    }

    /// - Parameter pause: between the look at the source and its end.
    func read(
        _ key: CacheKey, _ id: UUID, pause: @LoopActor () async throws -> Void = {}
    ) async throws -> Int {
        let context = try context
        let deadline = platform.deadline
        let value = try await context.cached(key, deadline: deadline) {
            let row = try await context.read(
                [
                    Query(
                        "SELECT version FROM practitioner WHERE tenant_id = $1 AND id = $2",
                        [.id(context.id), .uuid(id)])
                ], deadline: deadline)[0].first
            try await pause()
            return try row.map {
                CachedValue(bytes: Array("\(try $0.int(0))".utf8), entityTag: "\"t\"")
            }
        }
        return value.flatMap { Int(String(decoding: $0.bytes, as: UTF8.self)) } ?? 0
    }

    func read(_ id: UUID) async throws -> Int { try await read(CacheWorker.key(id), id) }

    /// - Returns: the version that is committed.
    @discardableResult
    func write(_ id: UUID, changing tags: [CacheTag]? = nil) async throws -> Int {
        let context = try context
        let results = try await context.write(
            [
                Query(
                    """
                    UPDATE practitioner SET version = version + 1
                    WHERE tenant_id = $1 AND id = $2 RETURNING version
                    """, [.id(context.id), .uuid(id)])
            ], audit: [], changing: tags ?? CacheWorker.tags(id), deadline: platform.deadline)
        return try results[0].single().int(0)
    }

    func make(_ id: UUID) async throws {
        try await context.write(
            [LivePlatform.addPractitioner("P", id: id, to: LivePlatform.sunrise)], audit: [],
            changing: CacheWorker.tags(id), deadline: platform.deadline)
    }
}
