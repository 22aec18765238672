package import HCCore
import HCIO
import HCPostgres

extension TenantContext {
    /// The value of a key: a copy, or what `read` brings.
    ///
    /// A read that begins after a commit which named one of the key's tags (`write(…, changing:)`) never gets a value
    /// from before it, in any process: `CacheMachine` says why.
    ///
    /// - Parameter read: reads the source on the primary, and nothing else than what the key's tags name; nil if there
    ///   is nothing. Others may get what it brings: it must not depend on who asks.
    /// - Throws: what `read` throws; `.overloaded`, `.deadlineExceeded`, `.cancelled`.
    @LoopActor package func cached(
        _ key: CacheKey, deadline: Deadline,
        _ read: @LoopActor () async throws -> CachedValue?
    ) async throws -> CachedValue? {
        let record = door.newest(tenant)
        return try await door.cache.value(
            key,
            of: TenantCache.Clinic(
                record: record,
                quota: MemoryCache.Quota(
                    bytesMax: tier.cache.bytesMax, entriesMax: tier.cache.entriesMax),
                keys: { [door] in try door.keys(of: record) },
                run: { [door] mode, queries, deadline in
                    try await door.perform(
                        record, mode, queries, isRepeatable: true, deadline: deadline)
                }), deadline: deadline, read)
    }

    /// Commits something that changes what there may be copies of.
    @LoopActor func changing<Value>(
        _ tags: [CacheTag], _ deadline: Deadline,
        _ commit: @LoopActor (Deadline) async throws -> Value
    ) async throws -> Value {
        guard !tags.isEmpty else { return try await commit(deadline) }
        return try await door.cache.change(
            tags, of: door.newest(tenant), prefixes: door.redisPrefixes(of: tenant),
            deadline: deadline, commit)
    }
}
