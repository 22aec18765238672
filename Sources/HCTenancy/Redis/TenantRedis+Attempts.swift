package import HCCore
package import HCRedis

extension TenantRedis {
    /// Keys: the count. Arguments, in microseconds: the time; for how long it is remembered; then the locks after the
    /// 1st, 2nd, … attempt, of which the last one goes on.
    private static let attemptScript = RedisScript(
        """
        local now, memory = tonumber(ARGV[1]), tonumber(ARGV[2])
        local attempts, locked = 0, 0
        local text = redis.call('GET', KEYS[1])
        local first, second = string.match(text or '', '^(%d+)|(%d+)$')
        if first then attempts, locked = tonumber(first), tonumber(second) end
        if locked > now then return locked - now end
        if now - locked >= memory then attempts = 0 end
        attempts = math.min(attempts + 1, 1000000)
        local lock = tonumber(ARGV[2 + math.min(attempts, #ARGV - 2)])
        redis.call('SET', KEYS[1], string.format('%.0f|%.0f', attempts, now + lock),
            'PX', string.format('%.0f', math.ceil((lock + memory) / 1000)))
        return 0
        """)

    /// Counts an attempt of something that has no row in which it could be counted, for all processes together.
    ///
    /// - Parameters:
    ///   - locks: microseconds after the 1st, 2nd, … attempt in which no other is looked at; the last one goes on.
    ///   - memory: so long after the end of the last lock the count begins anew.
    /// - Returns: nil if the attempt is looked at, else how long to wait.
    package func countAttempt(
        _ name: String, locks: [Int64], at now: Timestamp, memory: Duration, deadline: Deadline
    ) async throws(RedisError) -> Duration? {
        precondition(!locks.isEmpty, "an attempt has a lock, if one of no time")
        let reply = try await evaluate(
            TenantRedis.attemptScript, names: [name],
            arguments: [.integer(now.microseconds), .integer(memory.inMicroseconds)]
                + locks.map { .integer($0) }, deadline: deadline)
        guard let microseconds = reply.asInteger, microseconds >= 0 else {
            throw .unexpectedReply
        }
        return microseconds == 0 ? nil : .microseconds(microseconds)
    }
}
