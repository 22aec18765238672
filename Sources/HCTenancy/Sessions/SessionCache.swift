import HCCore
package import HCIO
import HCRedis

package struct SessionCacheConfiguration: Sendable {
    /// An entry admits requests for as long as this before PostgreSQL is asked again.
    package var entryLife = Duration.seconds(60)
    /// A copy in memory of an entry is used for as long as this at most.
    package var copyLife = Duration.seconds(30)
    package var copiesMax = 65_536
    /// At least as long as an access token lives: a revoked session stays revoked in Redis.
    package var tombstoneLife = Duration.seconds(3600)
    /// A request that asked PostgreSQL before a revocation fills the cache within this time or not at all.
    package var fillWindow = Duration.seconds(30)
    /// Revocations that wait for Redis to come back.
    package var waitingMax = 10_000
    package var retryInterval = Duration.milliseconds(100)

    package init() {}
}

/// Sessions in Redis: a copy that spares PostgreSQL a question per request.
///
/// Invariant: once `revoke` has told Redis, no process admits the session from the cache. For
///
/// - a tombstone is written over whatever is there, in a Redis that is full, too, and no fill writes over a tombstone;
/// - an entry is believed only if it was written while this process's connection has stood (`SessionTrust`), so
///   that what outlived a time without Redis, in which no tombstone could be written, does not count;
/// - until a tombstone that could not be delivered is delivered, it is tried again, as long as an entry from
///   before the revocation can be left. A process that alone is cut off from Redis leaves others an entry for
///   `entryLife` at most.
@LoopActor
package final class SessionCache: Service {
    private let redis: RedisClient?
    private let configuration: SessionCacheConfiguration
    private let metrics: TenancyMetrics
    private var trust = SessionTrust()
    private var queue: TombstoneQueue
    private var news: Waiter<Void>?

    init(
        redis: RedisClient?, _ configuration: SessionCacheConfiguration, metrics: TenancyMetrics
    ) {
        self.redis = redis
        self.configuration = configuration
        self.metrics = metrics
        queue = TombstoneQueue(
            capacityMax: configuration.waitingMax,
            ageMax: configuration.entryLife + configuration.fillWindow)
    }

    nonisolated static func name(of session: SessionID) -> String { "session:\(session)" }

    // MARK: Looking up

    /// What an entry means now.
    func judge(
        _ bytes: [UInt8]?, redisNow: Int64, connection: MonotonicTime, now: Timestamp
    ) -> SessionLookup {
        trust.answered(on: connection, now: redisNow)
        let ticket = SessionLookup.FillTicket(asOf: redisNow)
        guard let bytes else { return .unknown(ticket) }
        switch SessionText.decode(bytes) {
        case .revoked: return .revoked
        case .entry(let entry, let asOf):
            guard trust.believes(asOf), entry.expiresAt > now else { return .unknown(ticket) }
            return .active(entry)
        case .malformed: return .unknown(ticket)
        }
    }

    /// As the gate looks one up, for many at once.
    ///
    /// - Parameter prefix: of the clinic's keys.
    func lookUp(
        _ sessions: [SessionID], prefix: String, now: Timestamp, deadline: Deadline
    ) async -> [SessionLookup] {
        let unknown = sessions.map { _ in SessionLookup.unknown(nil) }
        guard !sessions.isEmpty, let redis, let connection = redis.connectedSince else {
            return unknown
        }
        let keys = sessions.map { RedisArgument.text(prefix + SessionCache.name(of: $0)) }
        do throws(RedisError) {
            // The time comes first: what is read after it is at least as new.
            let replies = try await redis.pipeline(
                [["TIME"], ["MGET"] + keys],
                deadline: deadline.earlier(of: .after(Gate.timeout, from: Loop.now)))
            guard redis.connectedSince == connection, let time = replies[0].asArray,
                time.count == 2, let seconds = time[0].asString.flatMap({ Int64($0) }),
                let rest = time[1].asString.flatMap({ Int64($0) }),
                let values = replies[1].asArray, values.count == sessions.count
            else { return unknown }
            return values.map {
                judge(
                    $0.asBytes, redisNow: seconds * 1_000_000 + rest, connection: connection,
                    now: now)
            }
        } catch {
            return unknown
        }
    }

    // MARK: Filling

    /// Keys: the session. Arguments: the entry, when it was asked for, its life in milliseconds, how old a
    /// question may be in microseconds.
    private static let fillScript = RedisScript(
        """
        local clock = redis.call('TIME')
        if clock[1] * 1000000 + clock[2] - tonumber(ARGV[2]) > tonumber(ARGV[4]) then return 0 end
        local present = redis.call('GET', KEYS[1])
        if present == 'revoked' then return 0 end
        if present then
            local asOf = string.match(present, '^1|(%d+)|')
            if asOf and tonumber(asOf) > tonumber(ARGV[2]) then return 0 end
        end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
        return 1
        """)

    /// A failure is no matter: the next request asks PostgreSQL again.
    func fill(
        _ session: SessionID, of tenant: TenantRecord, _ entry: SessionEntry,
        ticket: SessionLookup.FillTicket, deadline: Deadline
    ) async {
        guard let redis else { return }
        do throws(RedisError) {
            _ = try await redis.evaluate(
                SessionCache.fillScript,
                keys: [.text(tenant.redisPrefix + SessionCache.name(of: session))],
                arguments: [
                    .text(SessionText.encode(entry, asOf: ticket.asOf)), .integer(ticket.asOf),
                    .integer(configuration.entryLife.inMilliseconds),
                    .integer(configuration.fillWindow.inMicroseconds),
                ],
                deadline: deadline.earlier(of: .after(Gate.timeout, from: Loop.now)))
        } catch {
            return
        }
    }

    // MARK: Revoking

    /// - Parameter prefixes: of the clinic's keys: where it is, and where processes with an older map may still
    ///   look.
    /// - Returns: whether Redis knows now.
    func revoke(_ session: SessionID, prefixes: [String], deadline: Deadline) async -> Bool {
        guard redis != nil else { return true }
        var isDelivered = true
        for prefix in prefixes {
            let tombstone = TombstoneQueue.Tombstone(
                key: prefix + SessionCache.name(of: session), since: Loop.now)
            if await deliver(tombstone, deadline: deadline) { continue }
            isDelivered = false
            if queue.add(tombstone) != nil { metrics.tombstonesDropped.increment() }
        }
        metrics.tombstonesWaiting.set(queue.count)
        if !isDelivered { news?.succeed(()) }
        return isDelivered
    }

    // MARK: Renewing

    /// Keys: the session. Arguments: for how long it is kept, in milliseconds. The time is Redis' own, so that no
    /// question from before can fill over it.
    private static let renewScript = RedisScript(
        """
        if redis.call('GET', KEYS[1]) == 'revoked' then return 0 end
        local clock = redis.call('TIME')
        local now = string.format('%.0f', clock[1] * 1000000 + clock[2])
        redis.call('SET', KEYS[1], '1|' .. now .. '|changed', 'PX', ARGV[1])
        return 1
        """)

    /// Forgets what the cache says of a session that goes on with other roles: PostgreSQL is asked anew. The roles are
    /// not written here, for of two changes the first may come last. If Redis does not hear of it, the session is
    /// revoked there as soon as it does: better a login too many than a role too many.
    ///
    /// - Returns: whether Redis knows now.
    func renew(_ session: SessionID, prefixes: [String], deadline: Deadline) async -> Bool {
        guard let redis else { return true }
        var isDelivered = true
        for prefix in prefixes {
            let key = prefix + SessionCache.name(of: session)
            do throws(RedisError) {
                _ = try await redis.evaluate(
                    SessionCache.renewScript, keys: [.text(key)],
                    arguments: [.integer(configuration.entryLife.inMilliseconds)],
                    deadline: deadline.earlier(of: .after(.seconds(1), from: Loop.now)))
            } catch {
                isDelivered = false
                let tombstone = TombstoneQueue.Tombstone(key: key, since: Loop.now)
                if queue.add(tombstone) != nil { metrics.tombstonesDropped.increment() }
            }
        }
        metrics.tombstonesWaiting.set(queue.count)
        if !isDelivered { news?.succeed(()) }
        return isDelivered
    }

    private func deliver(
        _ tombstone: TombstoneQueue.Tombstone, deadline: Deadline
    ) async -> Bool {
        guard let redis else { return false }
        do throws(RedisError) {
            _ = try await redis.evaluate(
                TenantRedis.setScript, keys: [.text(tombstone.key)],
                arguments: [
                    .text(SessionText.tombstone),
                    .integer(configuration.tombstoneLife.inMilliseconds),
                ], deadline: deadline.earlier(of: .after(.seconds(1), from: Loop.now)))
            return true
        } catch {
            return false
        }
    }

    package var serviceName: String { "revocations" }

    /// Delivers what could not be delivered at once.
    package func run() async throws {
        while !Task.isCancelled {
            guard let next = queue.next(at: Loop.now) else {
                metrics.tombstonesWaiting.set(0)
                let news = Waiter<Void>()
                self.news = news
                defer { self.news = nil }
                try await news.wait(until: .never)
                continue
            }
            if await deliver(next, deadline: .never) {
                queue.delivered(next)
                metrics.tombstonesWaiting.set(queue.count)
            } else {
                try await Loop.shared.sleep(
                    until: .after(configuration.retryInterval, from: Loop.now))
            }
        }
    }
}
