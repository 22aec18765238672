import HCCore
import HCCrypto
import HCIO
import HCRedis

/// Copies in Redis, for all processes: `<shard>:{<tenant>}:<epoch>:copy:<key>`.
///
/// Redis runs one script after the other, and that order is what makes a copy there safe by itself:
///
/// - R1. Each tag has a *token*, a random word that is never used again. A copy begins with the tokens that its
///   reader saw before it read the source, and is there only as long as the tokens are still the same.
/// - R2. While a tag is held it has no token and gets none. So a copy whose source was read before the hold has tokens
///   that are gone; one whose source was read during the hold has none and is not written.
/// - R3. The commit of a change comes after the hold was set. So whoever finds a copy at a moment after the commit finds
///   one whose source was read after the hold was over.
/// - R4. The highest epoch of the clinic that any writer had stands beside (`hc:{<tenant>}:epoch`): a process with an
///   older map finds nothing and writes nothing.
///
/// Where Redis forgets, or was not there to be told:
///
/// - R5. Holds that were set may be lost with Redis' memory (restart, flush). So after a new connection, and after
///   `begun` is found missing (a flush), nothing is read or written here until every hold that could have been lost has
///   run out (`holdLife`).
/// - R6. Redis may come back with older contents (a snapshot): old copies with their old tokens. So a copy counts only
///   if it was made, in Redis' own time, after this process' present connection had begun.
/// - R7. A writer that cannot set its hold here says so to the coherence (`CacheTag.shared`): every process with a
///   lease then distrusts all copies of the clinic from before, by Redis' time, and one that takes a lease later
///   distrusts what is older than its lease. That is `CacheTrust`.
///
/// A command that is late changes nothing: a fill compares tokens when it runs, not when it was sent; a hold that runs
/// late makes its writer wait, for the writer commits after the reply; a release that runs late keeps a hold longer.
@LoopActor
final class SharedCache {
    enum Look {
        case copy(CacheAnswer)
        /// None: after reading the source, `fill` with the ticket.
        case missing(Ticket)
        /// A tag is held, Redis is away or not to be used now, or the clinic has moved: nothing can be filled.
        case none
    }

    struct Ticket {
        fileprivate var tokens: String
        fileprivate var asOf: Int64
    }

    private let redis: RedisClient?
    private let configuration: CacheConfiguration
    private let metrics: CacheMetrics
    private let clocks: Clocks
    private var trust = CacheTrust(clinicsMax: 65_536)
    private var pausedUntil: MonotonicTime?
    /// Counts `distrust`.
    private var distrusts: UInt64 = 0

    init(
        redis: RedisClient?, _ configuration: CacheConfiguration, clocks: Clocks,
        metrics: CacheMetrics
    ) {
        self.redis = redis
        self.configuration = configuration
        self.metrics = metrics
        self.clocks = clocks
    }

    nonisolated static let tokenCount = 16
    /// Digits of Redis' time in microseconds until the year 5138.
    nonisolated private static let timeCount = 17
    nonisolated private static let plain = UInt8(ascii: "p")
    nonisolated private static let sealed = UInt8(ascii: "s")

    // MARK: Keys

    private func names(_ record: TenantRecord, _ tags: [CacheTag]) -> [RedisArgument] {
        names(prefix: record.redisPrefix, record.id, tags)
    }

    /// Epoch, begun, tokens, holds: what each script has after the copy.
    private func names(
        prefix: String, _ tenant: TenantID, _ tags: [CacheTag]
    ) -> [RedisArgument] {
        [.text("hc:{\(tenant)}:epoch"), .text(prefix + "copies-begun")]
            + tags.map { .text(prefix + "token:" + $0.name) }
            + tags.map { .text(prefix + "hold:" + $0.name) }
    }

    // MARK: Reading

    /// Keys: the copy; epoch, begun; tokens; holds. Arguments: epoch, count of tags, life of tokens in ms, time
    /// that holds may take in microseconds; a new token for each tag.
    private static let lookScript = RedisScript(
        """
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local stamp = string.format('%017.0f', now)
        local epoch = redis.call('GET', KEYS[2])
        if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return {'moved', stamp} end
        local begun = redis.call('GET', KEYS[3])
        if not begun then
            redis.call('SET', KEYS[3], stamp)
            begun = stamp
        end
        if now - tonumber(begun) < tonumber(ARGV[4]) then return {'settling', stamp} end
        local count = tonumber(ARGV[2])
        local tokens = {}
        for i = 1, count do
            local hold = KEYS[3 + count + i]
            redis.call('ZREMRANGEBYSCORE', hold, '-inf', now)
            if redis.call('EXISTS', hold) == 1 then return {'held', stamp} end
            tokens[i] = redis.call('GET', KEYS[3 + i])
            if not tokens[i] then
                tokens[i] = ARGV[4 + i]
                redis.call('SET', KEYS[3 + i], tokens[i], 'PX', ARGV[3])
            end
        end
        local all = table.concat(tokens)
        local copy = redis.call('GET', KEYS[1])
        if copy and string.sub(copy, 1, #all) == all then return {'copy', stamp, copy} end
        return {'missing', stamp, all}
        """)

    /// - Parameter keys: the clinic's; asked for only if the key is sensitive.
    func look(
        _ key: CacheKey, of record: TenantRecord, keys: () throws -> TenantKeys,
        deadline: Deadline
    ) async -> Look {
        let now = clocks.monotonic()
        let distrusts = distrusts
        guard let redis, let connection = redis.connectedSince,
            now - connection >= configuration.holdLife, pausedUntil.map({ $0 <= now }) ?? true
        else { return .none }
        var random = SystemRandom()
        let reply: RESPValue
        do throws(RedisError) {
            reply = try await redis.evaluate(
                SharedCache.lookScript,
                keys: [.text(record.redisPrefix + "copy:" + key.name)] + names(record, key.tags),
                arguments: [
                    .integer(record.epoch), .integer(key.tags.count),
                    .integer(2 * configuration.sharedLife.inMilliseconds),
                    .integer(configuration.holdLife.inMicroseconds),
                ] + key.tags.map { _ in .text(SharedCache.token(using: &random)) },
                deadline: bounded(deadline))
        } catch {
            if case .deadlineExceeded = error {
                pausedUntil = clocks.monotonic() + configuration.sharedPause
            }
            return .none
        }
        // The reply may be of a Redis from before, or from before what made the copies doubtful.
        guard redis.connectedSince == connection, self.distrusts == distrusts,
            let parts = reply.asArray, parts.count >= 2,
            let stamp = parts[1].asString.flatMap({ Int64($0) })
        else { return .none }
        trust.answered(record.id, on: connection, now: stamp)
        let tokensCount = key.tags.count * SharedCache.tokenCount
        switch (parts[0].asString, parts.count) {
        case ("missing", 3):
            guard let tokens = parts[2].asString, tokens.utf8.count == tokensCount else {
                return .none
            }
            return .missing(Ticket(tokens: tokens, asOf: stamp))
        case ("copy", 3):
            guard let bytes = parts[2].asBytes, bytes.count >= tokensCount else { return .none }
            let ticket = Ticket(
                tokens: String(decoding: bytes[..<tokensCount], as: UTF8.self), asOf: stamp)
            guard let answer = open(bytes[tokensCount...], key, record, keys) else {
                return .missing(ticket)
            }
            return .copy(answer)
        default: return .none
        }
    }

    /// Time · plain or sealed · record.
    private func open(
        _ bytes: ArraySlice<UInt8>, _ key: CacheKey, _ record: TenantRecord,
        _ keys: () throws -> TenantKeys
    ) -> CacheAnswer? {
        guard bytes.count > SharedCache.timeCount,
            let asOf = Int64(
                String(decoding: bytes.prefix(SharedCache.timeCount), as: UTF8.self)),
            let content = CacheSeal.open(
                bytes.dropFirst(SharedCache.timeCount), key, epoch: record.epoch, keys: keys,
                CacheRecord.Limits(configuration))
        else {
            metrics.unreadable.increment()
            return nil
        }
        guard trust.believes(asOf, of: record.id), content.isGood(at: clocks.now()) else {
            return nil
        }
        return content
    }

    // MARK: Writing

    /// Keys: as of `look`. Arguments: epoch, count of tags, life of tokens, tokens in one, the copy, its life in ms.
    private static let fillScript = RedisScript(
        """
        local epoch = redis.call('GET', KEYS[2])
        if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 0 end
        local count = tonumber(ARGV[2])
        local tokens = {}
        for i = 1, count do tokens[i] = redis.call('GET', KEYS[3 + i]) or '' end
        if table.concat(tokens) ~= ARGV[4] then return 0 end
        for i = 1, count do redis.call('PEXPIRE', KEYS[3 + i], ARGV[3]) end
        redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[6])
        return 1
        """)

    /// Writes a copy, unless one of its tags was changed or is held since `look`.
    /// - Returns: whether it was written. A failure is no matter: it is a copy.
    @discardableResult
    func fill(
        _ key: CacheKey, of record: TenantRecord, _ answer: CacheAnswer, _ ticket: Ticket,
        life: Duration, keys: () throws -> TenantKeys, deadline: Deadline
    ) async -> Bool {
        guard let redis,
            let content = CacheSeal.close(
                answer, key, epoch: record.epoch, keys: keys, CacheRecord.Limits(configuration))
        else { return false }
        let digits = String(ticket.asOf)
        let stamp =
            String(repeating: "0", count: max(0, SharedCache.timeCount - digits.utf8.count))
            + digits
        do throws(RedisError) {
            let reply = try await redis.evaluate(
                SharedCache.fillScript,
                keys: [.text(record.redisPrefix + "copy:" + key.name)] + names(record, key.tags),
                arguments: [
                    .integer(record.epoch), .integer(key.tags.count),
                    .integer(2 * configuration.sharedLife.inMilliseconds), .text(ticket.tokens),
                    .bytes(Array((ticket.tokens + stamp).utf8) + content),
                    .integer(max(1, life.inMilliseconds)),
                ], deadline: bounded(deadline))
            guard reply.asInteger == 1 else {
                metrics.refused(.redis)
                return false
            }
            metrics.filled(.redis)
            return true
        } catch {
            return false
        }
    }

    // MARK: Changes

    /// Keys: (none for the copy) epoch, begun; tokens; holds. Arguments: epoch, count of tags, name of the hold, its
    /// life in ms. Runs in a Redis that is full, too: there copies can still be read.
    private static let holdScript = RedisScript(
        """
        #!lua flags=allow-oom
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local epoch = redis.call('GET', KEYS[1])
        if not epoch or tonumber(epoch) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
        local count = tonumber(ARGV[2])
        for i = 1, count do
            local hold = KEYS[2 + count + i]
            redis.call('DEL', KEYS[2 + i])
            redis.call('ZREMRANGEBYSCORE', hold, '-inf', now)
            redis.call('ZADD', hold, now + ARGV[4] * 1000, ARGV[3])
            if redis.call('PTTL', hold) < tonumber(ARGV[4]) then redis.call('PEXPIRE', hold, ARGV[4]) end
        end
        return 1
        """)

    /// As of `hold`. A token that is there all the same was made because the hold was lost: it goes.
    private static let releaseScript = RedisScript(
        """
        local count = tonumber(ARGV[2])
        for i = 1, count do
            if redis.call('ZREM', KEYS[2 + count + i], ARGV[3]) == 0 then redis.call('DEL', KEYS[2 + i]) end
        end
        return 1
        """)

    /// Holds the tags here, under all the prefixes where somebody may look.
    /// - Returns: false if that is not certain.
    func hold(
        _ tags: [CacheTag], of record: TenantRecord, prefixes: [String], name: UUID,
        deadline: Deadline
    ) async -> Bool {
        guard redis != nil else { return true }
        return await run(
            SharedCache.holdScript, tags, of: record, prefixes, name: name, deadline: deadline)
    }

    /// A failure is no matter: the hold runs out.
    func release(
        _ tags: [CacheTag], of record: TenantRecord, prefixes: [String], name: UUID
    ) async {
        _ = await run(
            SharedCache.releaseScript, tags, of: record, prefixes, name: name,
            deadline: .after(.seconds(1), from: clocks.monotonic()))
    }

    private func run(
        _ script: RedisScript, _ tags: [CacheTag], of record: TenantRecord, _ prefixes: [String],
        name: UUID, deadline: Deadline
    ) async -> Bool {
        guard let redis else { return false }
        do throws(RedisError) {
            for prefix in prefixes {
                _ = try await redis.evaluate(
                    script, keys: names(prefix: prefix, record.id, tags),
                    arguments: [
                        .integer(record.epoch), .integer(tags.count), .text(name.description),
                        .integer(configuration.holdLife.inMilliseconds),
                    ],
                    deadline: deadline.earlier(
                        of: .after(.seconds(1), from: clocks.monotonic())))
            }
            return true
        } catch {
            return false
        }
    }

    /// Copies from before now are not believed (R7); with nil those of all clinics.
    func distrust(_ tenant: TenantID?) {
        distrusts += 1
        if let tenant { trust.forget(tenant) } else { trust.forgetAll() }
    }

    private func bounded(_ deadline: Deadline) -> Deadline {
        deadline.earlier(of: .after(configuration.sharedTimeout, from: clocks.monotonic()))
    }

    private static func token(using random: inout SystemRandom) -> String {
        Hex.encode((0..<8).map { _ in UInt8.random(in: .min ... .max, using: &random) })
    }
}

/// Which copies in Redis a process believes: those that were made, in Redis' own time, after the first answer that
/// it got on its present connection and under its present lease. Pure.
struct CacheTrust {
    private struct Floor {
        var connection: MonotonicTime
        var time: Int64
    }

    private var floors: LRUCache<TenantID, Floor>

    init(clinicsMax: Int) { floors = LRUCache(capacityMax: clinicsMax) }

    /// Redis answered, at `now` by its clock.
    mutating func answered(_ tenant: TenantID, on connection: MonotonicTime, now: Int64) {
        if let floor = floors.find(tenant), floor.connection == connection { return }
        floors.insert(Floor(connection: connection, time: now), for: tenant)
    }

    func believes(_ asOf: Int64, of tenant: TenantID) -> Bool {
        guard let floor = floors.peek(tenant) else { return false }
        return asOf >= floor.time
    }

    /// What is older than the next answer is not believed.
    mutating func forget(_ tenant: TenantID) { floors.remove(tenant) }
    mutating func forgetAll() { floors.removeAll() }
}

/// A record, sealed if its key is sensitive.
enum CacheSeal {
    private static let plain = UInt8(ascii: "p")
    private static let sealed = UInt8(ascii: "s")

    /// - Returns: nil if it cannot be kept: too large, or the clinic's keys are not to be had.
    static func close(
        _ answer: CacheAnswer, _ key: CacheKey, epoch: Int64, keys: () throws -> TenantKeys,
        _ limits: CacheRecord.Limits
    ) -> [UInt8]? {
        guard let record = CacheRecord.encode(answer, limits) else { return nil }
        guard key.isSensitive else { return [plain] + record }
        do {
            return [sealed] + (try keys().seal(copy: record, key: key.name, epoch: epoch))
        } catch {
            return nil
        }
    }

    /// - Returns: nil for what `close` did not make for this clinic, key and epoch.
    static func open(
        _ bytes: ArraySlice<UInt8>, _ key: CacheKey, epoch: Int64, keys: () throws -> TenantKeys,
        _ limits: CacheRecord.Limits
    ) -> CacheAnswer? {
        guard let mode = bytes.first, mode == (key.isSensitive ? sealed : plain) else { return nil }
        guard key.isSensitive else { return CacheRecord.decode(bytes.dropFirst(), limits) }
        do {
            let record = try keys().open(copy: bytes.dropFirst(), key: key.name, epoch: epoch)
            return CacheRecord.decode(record[...], limits)
        } catch {
            return nil
        }
    }
}
