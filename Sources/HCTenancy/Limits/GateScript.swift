import HCCore
import HCRedis

/// The limit and the session of a request in one round trip.
///
/// Keys: the clinic's bucket, and, if there is a token, the session. Arguments: units asked, capacity, units per
/// second. The bucket is `<millionths of units>:<microseconds>`; Redis' own clock counts, so the clocks of
/// processes do not matter. A refused request takes nothing. A changed tier applies with the next request: the
/// level is cut to the new capacity and refilled at the new rate.
///
/// Answers: the session's text or nil; 1 or 0; whole units left; microseconds until the request would pass;
/// microseconds until the bucket is full; Redis' time in microseconds. All numbers stay below 2^53, which is
/// what Lua can count: capacity is at most 10^6 units.
enum GateScript {
    static let script = RedisScript(
        """
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local session = false
        if KEYS[2] then session = redis.call('GET', KEYS[2]) end
        local units, capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local full = capacity * 1000000
        local level = full
        local saved = redis.call('GET', KEYS[1])
        if saved then
            local before, at = string.match(saved, '^(%d+):(%d+)$')
            if before then
                local elapsed = math.max(0, now - tonumber(at))
                level = math.min(full, tonumber(before) + elapsed * rate)
            end
        end
        local need = units * 1000000
        local allowed, wait = 0, 0
        if need <= level then
            allowed = 1
            level = level - need
            if units > 0 then
                local life = math.ceil((full - level) / rate / 1000) + 1000
                redis.call('SET', KEYS[1], string.format('%.0f:%.0f', level, now), 'PX', life)
            end
        else
            wait = math.ceil((math.min(need, full) - level) / rate)
        end
        return {session, allowed, math.floor(level / 1000000), wait,
            math.ceil((full - level) / rate), now}
        """)

    struct Answer {
        var session: [UInt8]?
        var isAllowed: Bool
        var remaining: Int
        var retryAfter: Duration
        var resetAfter: Duration
        /// Redis' time in microseconds.
        var now: Int64

        init?(_ value: RESPValue) {
            guard let parts = value.asArray, parts.count == 6, let allowed = parts[1].asInteger,
                let remaining = parts[2].asInteger, let wait = parts[3].asInteger,
                let reset = parts[4].asInteger, let now = parts[5].asInteger
            else { return nil }
            session = parts[0].asBytes
            isAllowed = allowed == 1
            self.remaining = Int(remaining)
            retryAfter = .microseconds(wait)
            resetAfter = .microseconds(reset)
            self.now = now
        }
    }
}
