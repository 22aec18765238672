import HCCore
import HCRedis

/// What processes agree by, in Redis.
///
/// Keys: of a clinic `hc:copies:{<tenant>}`, a hash of the processes that are told of its voids (`p:<process>`)
/// and of the holds of the moment (`h:<void>`, `<end>|<names>`); of a process its lease and its inbox, which stand
/// on one node of a cluster; and `hc:copies:born`, `<run>|<time>`, which says since when Redis has forgotten nothing.
/// All times are Redis' own, in microseconds.
///
/// `begin`, `tell` and `renew` run in a Redis that is full, too (`allow-oom`): otherwise processes could go on with copies
/// whose change nobody can tell them of. What they write is small and does not last. A Redis that evicts keys breaks all
/// of this (`hc-admin doctor` looks for one).
enum CoherenceScripts {
    static let born = "hc:copies:born"

    static func key(of tenant: TenantID) -> String { "hc:copies:{\(tenant)}" }
    static func lease(of process: String) -> String { "hc:copies:{p:\(process)}:lease" }
    static func inbox(of process: String) -> String { "hc:copies:{p:\(process)}:inbox" }

    /// Counts a process among those who are told. Keys: the clinic, `born`. Arguments: process, life of the key in
    /// milliseconds, the run of Redis, for how many microseconds Redis must have forgotten nothing. Answers the
    /// holds: id, microseconds left, names, and so on; or how many microseconds are missing.
    static let register = RedisScript(
        """
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local run, since = string.match(redis.call('GET', KEYS[2]) or '', '^(.*)|(%d+)$')
        if run ~= ARGV[3] then
            since = now
            redis.call('SET', KEYS[2], ARGV[3] .. '|' .. string.format('%.0f', now))
        end
        local missing = tonumber(since) + tonumber(ARGV[4]) - now
        if missing > 0 then return missing end
        redis.call('HSET', KEYS[1], 'p:' .. ARGV[1], '1')
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        local fields = redis.call('HGETALL', KEYS[1])
        local holds = {}
        for i = 1, #fields, 2 do
            local id = string.match(fields[i], '^h:(.*)$')
            if id then
                local ends, names = string.match(fields[i + 1], '^(%d+)|(.*)$')
                local left = tonumber(ends) - now
                if left > 0 then
                    holds[#holds + 1] = id
                    holds[#holds + 1] = left
                    holds[#holds + 1] = names
                else
                    redis.call('HDEL', KEYS[1], fields[i])
                end
            end
        end
        return holds
        """)

    /// Begins a void. Keys: the clinic, `born`. Arguments: id, life of its hold in microseconds or 0, names, life
    /// of the key in milliseconds, the run of Redis. Answers for how many microseconds Redis has forgotten nothing,
    /// `born` as it stands, and the processes to tell.
    ///
    /// Another run than the one that wrote `born` (Redis was restarted, or another took over) may have lost what was
    /// written last, and without the key all is lost.
    static let begin = RedisScript(
        """
        #!lua flags=allow-oom
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local run, since = string.match(redis.call('GET', KEYS[2]) or '', '^(.*)|(%d+)$')
        if run ~= ARGV[5] then
            since = now
            redis.call('SET', KEYS[2], ARGV[5] .. '|' .. string.format('%.0f', now))
        end
        local answer = {now - tonumber(since), redis.call('GET', KEYS[2])}
        for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
            local process = string.match(field, '^p:(.*)$')
            if process then answer[#answer + 1] = process end
        end
        if tonumber(ARGV[2]) > 0 then
            redis.call(
                'HSET', KEYS[1], 'h:' .. ARGV[1],
                string.format('%.0f', now + ARGV[2]) .. '|' .. ARGV[3])
            redis.call('PEXPIRE', KEYS[1], ARGV[4])
        end
        return answer
        """)

    /// Puts a message into a process' inbox. Keys: its lease, its inbox, `born`. Arguments: the message, life of the
    /// inbox in milliseconds, `born` as it stood when the process was found, life of a lease in milliseconds. Answers
    /// the milliseconds that its lease has left, or may have if Redis has forgotten it meanwhile; 0 if it has none,
    /// and there is nobody to tell.
    static let tell = RedisScript(
        """
        #!lua flags=allow-oom
        local left = redis.call('PTTL', KEYS[1])
        if left <= 0 then
            if redis.call('GET', KEYS[3]) ~= ARGV[3] then return tonumber(ARGV[4]) end
            return 0
        end
        redis.call('RPUSH', KEYS[2], ARGV[1])
        redis.call('PEXPIRE', KEYS[2], ARGV[2])
        return left
        """)

    /// Extends a lease and takes what is in the inbox. Keys: the lease, the inbox. Arguments: its life in
    /// milliseconds, 1 for a process that begins, messages at most. Answers nothing if the lease is gone, or if
    /// there are more messages.
    static let renew = RedisScript(
        """
        #!lua flags=allow-oom
        if ARGV[2] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return false end
        if redis.call('LLEN', KEYS[2]) > tonumber(ARGV[3]) then
            redis.call('DEL', KEYS[1], KEYS[2])
            return false
        end
        local messages = redis.call('LRANGE', KEYS[2], 0, -1)
        redis.call('DEL', KEYS[2])
        redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
        return messages
        """)
}

/// A message in an inbox: lines.
enum CoherenceMessage: Equatable {
    /// `process` wants to hear that its void was taken in.
    case void(TenantID, VoidID, names: [String], life: Duration, process: String)
    case release(TenantID, VoidID)
    case acknowledgement(VoidID, process: String)

    var text: String {
        switch self {
        case .void(let tenant, let id, let names, let life, let process):
            "v\n\(tenant)\n\(id.text)\n\(life.inMicroseconds)\n\(process)\n"
                + names.joined(separator: "\n")
        case .release(let tenant, let id): "r\n\(tenant)\n\(id.text)"
        case .acknowledgement(let id, let process): "a\n\(id.text)\n\(process)"
        }
    }

    /// - Returns: nil for what is no message of ours.
    init?(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        switch lines.first {
        case "v" where lines.count > 5:
            guard let tenant = TenantID(lines[1]), let life = Int64(lines[3]), life >= 0 else {
                return nil
            }
            self = .void(
                tenant, VoidID(text: lines[2]), names: Array(lines[5...]),
                life: .microseconds(life), process: lines[4])
        case "r" where lines.count == 3:
            guard let tenant = TenantID(lines[1]) else { return nil }
            self = .release(tenant, VoidID(text: lines[2]))
        case "a" where lines.count == 3:
            self = .acknowledgement(VoidID(text: lines[1]), process: lines[2])
        default: return nil
        }
    }
}
