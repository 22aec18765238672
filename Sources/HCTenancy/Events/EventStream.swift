import HCCore
import HCIO
import HCRedis

/// The streams of clinics' events in Redis: adding to them and reading a window of one.
///
/// Redis may lose what it holds, all of it or the end of it, and a reader must not take the rest for the whole. So
/// every entry names the one before it, and the stream remembers which run of Redis wrote it: the first who comes
/// after a restart sets a mark that nobody reads past without noticing.
@LoopActor
final class EventStream {
    static let name = "events"
    private static let names = ["events", "events:run", "events:ids"]

    let redis: RedisClient
    private let limits: EventLimits
    private var run: (connection: MonotonicTime, id: String)?

    init(_ redis: RedisClient, limits: EventLimits) {
        self.redis = redis
        self.limits = limits
    }

    // MARK: Scripts

    /// What both scripts begin with. Keys: the stream, the run that wrote it, the ids it remembers. Arguments: the
    /// run of this connection, entries at most, microseconds of the window, milliseconds of the keys' life, ids at
    /// most. Entries get their number from Redis' clock, and at least one more than the last.
    ///
    /// Numbers stay below 2^53, which is what Lua counts exactly.
    private static let publishScript = RedisScript(
        """
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local last = 0
        local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
        if tail[1] then last = tonumber(string.match(tail[1][1], '^%d+')) end
        local function append(previous, text)
            last = math.max(now, last + 1)
            redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], string.format('%.0f-0', last),
                'e', string.format('%.0f|', previous) .. text)
        end
        local isNew = last == 0 or redis.call('GET', KEYS[2]) ~= ARGV[1]
        if isNew or redis.call('EXISTS', KEYS[3]) == 0 then
            append(0, '')
            redis.call('SET', KEYS[2], ARGV[1])
            redis.call('ZADD', KEYS[3], last, '')
        end
        local added = 0
        for index = 6, #ARGV, 2 do
            if redis.call('ZADD', KEYS[3], 'NX', now + index, ARGV[index]) == 1 then
                append(last, ARGV[index + 1])
                added = added + 1
            end
        end
        redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f-0', now - ARGV[3]))
        redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -ARGV[5] - 1)
        for index = 1, 3 do redis.call('PEXPIRE', KEYS[index], ARGV[4]) end
        return {added, string.format('%.0f', last)}
        """)

    /// Where a stream ends, and what came after a place in it. Arguments from the sixth: that place, or an empty
    /// text; entries at most.
    ///
    /// Answers the end, and the entries behind the place: nil if the place is no entry of the stream, if there are
    /// too many, or if no place was named.
    private static let windowScript = RedisScript(
        """
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local last = 0
        local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
        if tail[1] then last = tonumber(string.match(tail[1][1], '^%d+')) end
        local isNew = last == 0 or redis.call('GET', KEYS[2]) ~= ARGV[1]
        if isNew or redis.call('EXISTS', KEYS[3]) == 0 then
            last = math.max(now, last + 1)
            redis.call('XADD', KEYS[1], string.format('%.0f-0', last), 'e', '0|')
            redis.call('SET', KEYS[2], ARGV[1])
            redis.call('ZADD', KEYS[3], last, '')
        end
        for index = 1, 3 do redis.call('PEXPIRE', KEYS[index], ARGV[4]) end
        local place = string.format('%.0f', last)
        if ARGV[6] == '' then return {place, false} end
        local from = ARGV[6] .. '-0'
        if #redis.call('XRANGE', KEYS[1], from, from) == 0 then return {place, false} end
        local missed = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', ARGV[7] + 1)
        if #missed > tonumber(ARGV[7]) then return {place, false} end
        return {place, missed}
        """)

    private func arguments(_ run: String) -> [RedisArgument] {
        [
            .text(run), .integer(limits.streamEventsMax),
            .integer(limits.streamAge.inMicroseconds), .integer(limits.streamLife.inMilliseconds),
            .integer(limits.rememberedMax),
        ]
    }

    private func keys(of tenant: TenantRecord) -> [RedisArgument] {
        let prefix = tenant.redisPrefix
        return EventStream.names.map { .text(prefix + $0) }
    }

    // MARK: Verbs

    /// Adds events that the stream does not have yet, in this order.
    ///
    /// - Returns: how many were new.
    func publish(
        _ rows: [OutboxRow], of tenant: TenantRecord, deadline: Deadline
    ) async throws(RedisError) -> Int {
        var arguments = arguments(try await currentRun(deadline: deadline))
        for row in rows {
            arguments.append(.bytes(row.id.bytes))
            arguments.append(.text(StreamEntry.text(of: row)))
        }
        let reply = try await redis.evaluate(
            EventStream.publishScript, keys: keys(of: tenant), arguments: arguments,
            deadline: deadline)
        guard let added = reply.asArray?.first?.asInteger else { throw .unexpectedReply }
        return Int(added)
    }

    struct Window {
        /// The last entry.
        var end: EventSequence
        /// Everything between the place that was asked for and `end`; nil if that is not known.
        var missed: [StreamEntry]?
    }

    /// Looks at the end of a stream, and at what came behind `after`. Makes the stream if there is none.
    func window(
        of tenant: TenantRecord, after: EventSequence?, deadline: Deadline
    ) async throws(RedisError) -> Window {
        let arguments =
            arguments(try await currentRun(deadline: deadline))
            + [.text(after.map { "\($0)" } ?? ""), .integer(limits.replayMax)]
        let reply = try await redis.evaluate(
            EventStream.windowScript, keys: keys(of: tenant), arguments: arguments,
            deadline: deadline)
        guard let parts = reply.asArray, parts.count == 2,
            let end = parts[0].asString.flatMap({ Int64($0) }).flatMap({ EventSequence($0) })
        else { throw .unexpectedReply }
        guard let after, let entries = parts[1].asArray.flatMap(EventStream.entries) else {
            return Window(end: end, missed: nil)
        }
        return Window(end: end, missed: StreamEntry.isChain(entries, from: after) ? entries : nil)
    }

    // MARK: The run of Redis

    /// Which run of Redis is at the other end: it changes when Redis restarts or another takes over.
    private func currentRun(deadline: Deadline) async throws(RedisError) -> String {
        guard let connection = redis.connectedSince else { throw .unavailable }
        if let run, run.connection == connection { return run.id }
        let id = try await redis.runID(deadline: deadline)
        // Another connection meanwhile may lead to another Redis.
        guard redis.connectedSince == connection else { throw .connectionLost }
        run = (connection, id)
        return id
    }

    /// The entries of a reply of XRANGE or XREAD; nil for what is none.
    static func entries(_ replies: [RESPValue]) -> [StreamEntry]? {
        var entries: [StreamEntry] = []
        entries.reserveCapacity(replies.count)
        for reply in replies {
            guard let pair = reply.asArray, pair.count == 2, let place = pair[0].asString,
                let number = Int64(place.prefix { $0 != "-" }),
                let fields = pair[1].asArray, fields.count >= 2, let text = fields[1].asString,
                let entry = StreamEntry(number: number, text: text)
            else { return nil }
            entries.append(entry)
        }
        return entries
    }
}

extension StreamEntry {
    /// Whether these are all the entries behind `place`, one after the other.
    static func isChain(_ entries: [StreamEntry], from place: EventSequence) -> Bool {
        var previous = place
        for entry in entries {
            guard entry.previous == previous.number else { return false }
            previous = entry.sequence
        }
        return true
    }
}
