package import HCCore
package import HCIO
package import HCRedis

/// One clinic's keys in Redis: `<shard>:{<tenant>}:<epoch>:<name>`, and no others.
///
/// The tenant stands in braces, so a Redis cluster keeps a clinic's keys on one node. The epoch makes entries
/// from before a move unreachable. What is here is a copy of something: it may be gone at any moment.
@LoopActor
package struct TenantRedis {
    private let client: RedisClient
    private let prefix: String

    init(_ client: RedisClient, prefix: String) {
        self.client = client
        self.prefix = prefix
    }

    package func get(_ name: String, deadline: Deadline) async throws(RedisError) -> [UInt8]? {
        try await client.send(["GET", key(name)], deadline: deadline).asBytes
    }

    package func set(
        _ name: String, _ value: [UInt8], expiresAfter life: Duration, deadline: Deadline
    ) async throws(RedisError) {
        _ = try await client.send(
            [
                "SET", key(name), .bytes(value), "PX",
                .integer(max(1, life.inMilliseconds)),
            ], deadline: deadline)
    }

    /// As `set`, in a Redis that is full, too: for what is small, does not last, and would do harm if others read what was
    /// there before.
    package func setAlways(
        _ name: String, _ value: [UInt8], expiresAfter life: Duration, deadline: Deadline
    ) async throws(RedisError) {
        _ = try await evaluate(
            TenantRedis.setScript, names: [name],
            arguments: [.bytes(value), .integer(max(1, life.inMilliseconds))], deadline: deadline)
    }

    /// Keys: one. Arguments: its value, its life in milliseconds.
    static let setScript = RedisScript(
        """
        #!lua flags=allow-oom
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return 1
        """)

    /// Gets a value and removes it in one step: of several who ask, one gets it.
    package func take(_ name: String, deadline: Deadline) async throws(RedisError) -> [UInt8]? {
        try await client.send(["GETDEL", key(name)], deadline: deadline).asBytes
    }

    package func delete(_ name: String, deadline: Deadline) async throws(RedisError) {
        _ = try await client.send(["DEL", key(name)], deadline: deadline)
    }

    /// Runs a script on keys of this clinic.
    package func evaluate(
        _ script: RedisScript, names: [String], arguments: [RedisArgument], deadline: Deadline
    ) async throws(RedisError) -> RESPValue {
        try await client.evaluate(
            script, keys: names.map { key($0) }, arguments: arguments, deadline: deadline)
    }

    private func key(_ name: String) -> RedisArgument { .text(prefix + name) }
}
