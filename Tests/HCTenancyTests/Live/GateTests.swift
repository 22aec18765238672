import HCCore
import HCIO
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

/// A Redis of the test's own and clients to it.
@LoopActor
final class LiveRedis {
    nonisolated let server: RedisServer

    static func make() async throws -> LiveRedis {
        LiveRedis(try await offLoop { try RedisServer() })
    }

    private init(_ server: RedisServer) { self.server = server }

    var deadline: Deadline { .after(.seconds(30), from: Loop.now) }

    let registry = MetricsRegistry()
    /// Of all clients.
    var timeouts: UInt64 { RedisMetrics(registry: registry).timeouts.value }

    /// Times for which somebody has waited for replies, of all clients.
    var waits: UInt64 { RedisMetrics(registry: registry).latency.value.count }

    /// A client that is connected: what one worker has.
    func client() async throws -> RedisClient {
        var configuration = RedisConfiguration(password: Sensitive(server.password))
        configuration.backoffMax = .milliseconds(50)
        let address = try #require(SocketAddress("unix:\(server.socket)"))
        let client = RedisClient(
            configuration: configuration, connector: RedisConnectors.plain(address),
            metrics: registry)
        client.start()
        try await client.waitUntilReady(deadline: deadline)
        return client
    }

    /// From now on it has no room for anything, or has it again.
    func setFull(_ isFull: Bool = true) async throws {
        let client = try await client()
        _ = try await client.send(
            ["CONFIG", "SET", "maxmemory", isFull ? "1" : "0"], deadline: deadline)
        client.close()
    }

    /// Lets it be as a Redis that has forgotten nothing for long.
    func age() async throws {
        let client = try await client()
        let run = try await client.runID(deadline: deadline)
        _ = try await client.send(
            ["SET", .text(CoherenceScripts.born), .text("\(run)|0")], deadline: deadline)
        client.close()
    }
}

@Suite("The gate: limit and session in one round trip", .onLoop)
@LoopActor
struct GateTests {
    private let session = SessionID(UUID(high: 5, low: 5))
    private let now = Timestamp(seconds: 1_780_000_000)
    private let entry = SessionEntry(
        accountID: UUID(high: 1, low: 1), roles: ["doctor"],
        expiresAt: Timestamp(seconds: 1_790_000_000))

    /// What one worker does with requests.
    @LoopActor
    private final class Worker {
        let client: RedisClient
        let sessions: SessionCache
        let gate: HCTenancy.Gate
        var configuration = SessionCacheConfiguration()

        init(_ client: RedisClient) {
            self.client = client
            configuration.retryInterval = .milliseconds(5)
            sessions = SessionCache(redis: client, configuration, metrics: Sample.metrics)
            gate = HCTenancy.Gate(
                redis: client, sessions: sessions, processes: 2,
                metrics: LimitMetrics(MetricsRegistry()))
        }
    }

    private static let plan = LimitPlan(
        TierDefinition(name: "t", unitsPerSecond: 100_000, burstUnits: 1_000_000))

    private func pass(
        _ worker: Worker, _ record: TenantRecord = Sample.record(), session: SessionID? = nil
    ) async -> GateAnswer {
        await worker.gate.pass(
            LimitRequest(kind: .default, units: 1),
            of: TenantLimits(GateTests.plan, of: record, under: LimitMap(generation: 1)),
            session: session, now: now, deadline: .after(.seconds(30), from: Loop.now))
    }

    private func ticket(_ lookup: SessionLookup) throws -> SessionLookup.FillTicket {
        guard case .unknown(let ticket?) = lookup else {
            throw FixtureError("no ticket: \(lookup)")
        }
        return ticket
    }

    private func fill(_ worker: Worker, ticket: SessionLookup.FillTicket) async {
        await worker.sessions.fill(
            session, of: Sample.record(), entry, ticket: ticket,
            deadline: .after(.seconds(30), from: Loop.now))
    }

    private func revoke(_ worker: Worker) async -> Bool {
        await worker.sessions.revoke(
            session, prefixes: [Sample.record().redisPrefix],
            deadline: .after(.seconds(30), from: Loop.now))
    }

    // MARK: Sessions

    @Test("an unknown session is asked for once, then admitted from the cache by every worker")
    func cached() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        _ = await pass(two, session: session)
        let ticket = try ticket(await pass(one, session: session).session)
        await fill(one, ticket: ticket)
        #expect(await pass(one, session: session).session == .active(entry))
        #expect(await pass(two, session: session).session == .active(entry))
        // Another clinic with the same session id knows nothing of it.
        _ = try self.ticket(await pass(one, Sample.record(2), session: session).session)
    }

    @Test("an entry is not good beyond the session's end")
    func expired() async throws {
        let redis = try await LiveRedis.make()
        let worker = Worker(try await redis.client())
        let ticket = try ticket(await pass(worker, session: session).session)
        let over = SessionEntry(
            accountID: entry.accountID, roles: entry.roles, expiresAt: now)
        await worker.sessions.fill(
            session, of: Sample.record(), over, ticket: ticket, deadline: redis.deadline)
        _ = try self.ticket(await pass(worker, session: session).session)
    }

    @Test("a revocation is effective on the next request, on every worker")
    func revoked() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        _ = await pass(two, session: session)
        await fill(one, ticket: try ticket(await pass(one, session: session).session))
        #expect(await pass(two, session: session).session == .active(entry))
        #expect(await revoke(one))
        #expect(await pass(two, session: session).session == .revoked)
        #expect(await pass(one, session: session).session == .revoked)
    }

    @Test("a fill that was under way during the revocation does not bring the session back")
    func concurrentFill() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        // Two asks PostgreSQL, is told "active", and is slow; one revokes meanwhile.
        let ticket = try ticket(await pass(two, session: session).session)
        #expect(await revoke(one))
        await fill(two, ticket: ticket)
        #expect(await pass(one, session: session).session == .revoked)
        #expect(await pass(two, session: session).session == .revoked)
    }

    @Test("an old fill does not replace a newer one, nor comes in after its window")
    func staleFill() async throws {
        let redis = try await LiveRedis.make()
        let worker = Worker(try await redis.client())
        let early = try ticket(await pass(worker, session: session).session)
        try await Loop.shared.sleep(for: .milliseconds(1))
        let late = try ticket(await pass(worker, session: session).session)
        await fill(worker, ticket: late)
        let older = entry.with(roles: ["owner"])
        await worker.sessions.fill(
            session, of: Sample.record(), older, ticket: early, deadline: redis.deadline)
        #expect(await pass(worker, session: session).session == .active(entry))
        let other = SessionID(UUID(high: 6, low: 6))
        await worker.sessions.fill(
            other, of: Sample.record(), entry,
            ticket: SessionLookup.FillTicket(asOf: late.asOf - 31_000_000), deadline: redis.deadline
        )
        let key = Sample.record().redisPrefix + SessionCache.name(of: other)
        #expect(
            try await worker.client.send(["GET", .text(key)], deadline: redis.deadline).isNull)
    }

    @Test("entries that outlived a lost connection are not believed until PostgreSQL was asked")
    func distrust() async throws {
        let redis = try await LiveRedis.make()
        let worker = Worker(try await redis.client())
        let other = try await redis.client()
        await fill(worker, ticket: try ticket(await pass(worker, session: session).session))
        #expect(await pass(worker, session: session).session == .active(entry))
        // Redis keeps its data; only the connection is cut. A revocation might have been missed.
        let before = worker.client.connectedSince
        _ = try await other.send(
            ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"], deadline: redis.deadline)
        let limit = redis.deadline
        while worker.client.connectedSince == before || worker.client.connectedSince == nil {
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("not connected") }
            try await Loop.shared.lookAround()
        }
        let ticket = try ticket(await pass(worker, session: session).session)
        await fill(worker, ticket: ticket)
        #expect(await pass(worker, session: session).session == .active(entry))
    }

    @Test("a revocation while Redis is away is delivered when it is back")
    func revokedWithoutRedis() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        let service = Loop.shared.spawn {
            do { try await one.sessions.run() } catch { return }
        }
        defer { service.cancel() }
        let slow = try ticket(await pass(two, session: session).session)
        let server = redis.server
        try await offLoop { try server.kill() }
        while one.client.connectedSince != nil {
            try await Loop.shared.sleep(for: .milliseconds(1))
        }
        #expect(await !revoke(one), "nobody could be told")
        guard case .unknown(nil) = await pass(one, session: session).session else {
            Issue.record("without Redis PostgreSQL must be asked")
            return
        }
        try await offLoop { try server.start() }
        try await two.client.waitUntilReady(deadline: redis.deadline)
        // The slow fill of before comes first or second: it makes no difference.
        await fill(two, ticket: slow)
        let limit = redis.deadline
        var lookup = SessionLookup.unknown(nil)
        while lookup != .revoked {
            lookup = await pass(two, session: session).session
            if case .active = lookup {
                Issue.record("a revoked session was admitted")
                return
            }
            guard !limit.isExpired(at: Loop.now) else {
                throw FixtureError("never delivered")
            }
            try await Loop.shared.sleep(for: .milliseconds(1))
        }
    }

    @Test("new roles that Redis has no room for end the session")
    func renewedInFullRedis() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        let service = Loop.shared.spawn {
            do { try await one.sessions.run() } catch { return }
        }
        defer { service.cancel() }
        _ = await pass(two, session: session)
        await fill(one, ticket: try ticket(await pass(one, session: session).session))
        #expect(await pass(two, session: session).session == .active(entry))
        try await redis.setFull()
        #expect(
            await !one.sessions.renew(
                session, prefixes: [Sample.record().redisPrefix], deadline: redis.deadline))
        let limit = redis.deadline
        func lookUp() async -> SessionLookup? {
            await two.sessions.lookUp(
                [session], prefix: Sample.record().redisPrefix, now: now, deadline: redis.deadline
            ).first
        }
        while await lookUp() != .revoked {
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("never ended") }
            try await Loop.shared.lookAround()
        }
    }

    @Test("a revocation is effective in a Redis that is full")
    func revokedInFullRedis() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        _ = await pass(two, session: session)
        await fill(one, ticket: try ticket(await pass(one, session: session).session))
        #expect(await pass(two, session: session).session == .active(entry))
        try await redis.setFull()
        #expect(await revoke(one))
        #expect(await pass(two, session: session).session == .revoked)
        // What is only faster with Redis is not kept there, and nobody fails for it.
        let other = SessionID(UUID(high: 6, low: 6))
        for _ in 0..<2 {
            let found = await two.sessions.lookUp(
                [other], prefix: Sample.record().redisPrefix, now: now,
                deadline: redis.deadline)
            await two.sessions.fill(
                other, of: Sample.record(), entry, ticket: try ticket(found[0]),
                deadline: redis.deadline)
        }
    }

    @Test(
        "new roles count on the next request, also with a fill under way, and wake no revoked session"
    )
    func renewed() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Worker(try await redis.client()), Worker(try await redis.client()))
        let slow = try ticket(await pass(two, session: session).session)
        let prefixes = [Sample.record().redisPrefix]
        func renew(_ worker: Worker) async -> Bool {
            await worker.sessions.renew(session, prefixes: prefixes, deadline: redis.deadline)
        }
        #expect(await renew(one))
        await fill(two, ticket: slow)
        // Nobody knows the roles but PostgreSQL.
        let fresh = try ticket(await pass(two, session: session).session)
        let demoted = entry.with(roles: ["nurse"])
        await two.sessions.fill(
            session, of: Sample.record(), demoted, ticket: fresh, deadline: redis.deadline)
        #expect(await pass(two, session: session).session == .active(demoted))
        // What tells of an earlier change and comes late brings back no role.
        #expect(await renew(two))
        _ = try ticket(await pass(one, session: session).session)
        #expect(await revoke(one))
        #expect(await renew(one))
        #expect(await pass(two, session: session).session == .revoked)
    }

    @Test("a revocation reaches the place where a process with an older map looks")
    func revokedAcrossMove() async throws {
        let redis = try await LiveRedis.make()
        let platform = try await LivePlatform.make(redis: try await redis.client())
        let old = try platform.context(LivePlatform.sunrise)
        let before = await old.gate(session: session, cost: .read, deadline: platform.deadline)
        await old.fillSession(
            session,
            SessionEntry(
                accountID: .zero, roles: [], expiresAt: Clocks.system.now() + .seconds(900)),
            ticket: try ticket(before.session), deadline: platform.deadline)
        try await platform.moveSunrise()
        try await platform.directory.refresh(deadline: platform.deadline)
        let new = try platform.context(LivePlatform.sunrise)
        #expect(await new.revokeSession(session, deadline: platform.deadline))
        let answers = [
            await old.gate(session: session, cost: .read, deadline: platform.deadline).session,
            await new.gate(session: session, cost: .read, deadline: platform.deadline).session,
        ]
        #expect(answers == [.revoked, .revoked])
    }

    @Test("what others must not miss is written in a Redis that is full, and nothing else is")
    func writtenInFullRedis() async throws {
        let redis = try await LiveRedis.make()
        let store = TenantRedis(try await redis.client(), prefix: "s1:{a}:1:")
        try await store.set("mark", [1], expiresAfter: .seconds(60), deadline: redis.deadline)
        try await redis.setFull()
        try await store.setAlways(
            "mark", [2], expiresAfter: .seconds(60), deadline: redis.deadline)
        #expect(try await store.get("mark", deadline: redis.deadline) == [2])
        var code: String?
        do throws(RedisError) {
            try await store.set("mark", [3], expiresAfter: .seconds(60), deadline: redis.deadline)
        } catch {
            if case .server(let error) = error { code = error.code }
        }
        #expect(code == "OOM")
    }

    @Test("attempts are counted for all, the last lock goes on, and all of it is forgotten")
    func attempts() async throws {
        let redis = try await LiveRedis.make()
        let client = try await redis.client()
        let (one, two) = (TenantRedis(client, prefix: "a:"), TenantRedis(client, prefix: "b:"))
        var now = Timestamp(seconds: 1_780_000_000)
        func count(_ store: TenantRedis = one) async throws -> Duration? {
            try await store.countAttempt(
                "n", locks: [0, 0, 2_000_000, 4_000_000], at: now, memory: .seconds(60),
                deadline: redis.deadline)
        }
        for _ in 1...3 { #expect(try await count() == nil) }
        #expect(try await count() == .seconds(2))
        #expect(try await count(two) == nil, "of another clinic")
        for _ in 1...2 {
            now = now + .seconds(4)
            #expect(try await count() == nil)
            #expect(try await count() == .seconds(4))
        }
        // As long as they are remembered, and no longer.
        let life = try await client.send(["PTTL", "a:n"], deadline: redis.deadline).asInteger ?? 0
        #expect((60_000...64_000).contains(life), "\(life)")
        now = now + .seconds(63)
        #expect(try await count() == nil)
        #expect(try await count() == .seconds(4))
        now = now + .seconds(64)
        for _ in 1...3 { #expect(try await count() == nil) }
        #expect(try await count() == .seconds(2))
        // Endless guessing does not overflow the count.
        _ = try await client.send(
            ["SET", "a:n", .text("1000000|\(now.microseconds)")], deadline: redis.deadline)
        #expect(try await count() == nil)
        let text = try await client.send(["GET", "a:n"], deadline: redis.deadline).asString ?? ""
        #expect(text.hasPrefix("1000000|"), "\(text)")
    }

    @Test("a clinic's Redis is its own prefix, and another after a move")
    func prefixes() async throws {
        let redis = try await LiveRedis.make()
        let client = try await redis.client()
        let platform = try await LivePlatform.make(redis: client)
        let store = try #require(try platform.context(LivePlatform.sunrise).redis)
        try await store.set("note", [1], expiresAfter: .seconds(60), deadline: platform.deadline)
        #expect(try await store.get("note", deadline: platform.deadline) == [1])
        let other = try #require(try platform.context(LivePlatform.hillview).redis)
        #expect(try await other.get("note", deadline: platform.deadline) == nil)
        let keys = try await client.send(["KEYS", "*"], deadline: platform.deadline).asArray
        #expect(keys?.map(\.asString) == ["s1:{\(LivePlatform.sunrise)}:1:note"])
        try await platform.moveSunrise()
        try await platform.directory.refresh(deadline: platform.deadline)
        let after = try #require(try platform.context(LivePlatform.sunrise).redis)
        #expect(try await after.get("note", deadline: platform.deadline) == nil)
        try await store.delete("note", deadline: platform.deadline)
    }
}
