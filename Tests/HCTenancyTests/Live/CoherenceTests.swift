import HCCore
import HCIO
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Copies in several processes", .onLoop)
@LoopActor
struct CoherenceTests {
    private let tenant = LivePlatform.sunrise

    /// What a process has of one value that all share.
    @LoopActor
    private final class Process {
        let redis: RedisClient
        let reader: RedisClient
        let coherence: Coherence
        let running: Task<Void, Never>
        /// Names whose copies were dropped.
        var dropped: [VoidedNames] = []

        init(_ live: LiveRedis, limits: CoherenceLimits) async throws {
            redis = try await live.client()
            reader = try await live.client()
            let coherence = Coherence(
                redis: redis,
                CoherenceSetup(
                    metrics: CoherenceMetrics(MetricsRegistry()), reader: reader, limits: limits),
                logger: .silent)
            self.coherence = coherence
            running = Loop.shared.spawn {
                do { try await coherence.run() } catch { return }
            }
            coherence.onVoid.append { [weak self] _, names in self?.dropped.append(names) }
        }

        /// Waits until copies of the clinic may be used.
        func join(_ tenant: TenantID) async throws {
            try await coherence.begun.wait(until: .after(.seconds(30), from: Loop.now))
            _ = coherence.mayUseCopies(of: tenant)
            await coherence.registering?.value
            try #require(coherence.mayUseCopies(of: tenant))
        }

        /// As a process that is killed: it answers nothing and renews nothing.
        func die() {
            reader.close()
            redis.close()
            running.cancel()
        }
    }

    /// Short lives, so that nobody waits long for a lease to run out.
    private var limits: CoherenceLimits {
        var limits = CoherenceLimits()
        limits.leaseLife = .milliseconds(400)
        limits.trust = .milliseconds(360)
        limits.renewAfter = .milliseconds(100)
        return limits
    }

    /// A Redis that has forgotten nothing for long.
    private func makeRedis() async throws -> LiveRedis {
        let live = try await LiveRedis.make()
        try await live.age()
        return live
    }

    @Test(
        "when a hold returns every process has dropped the copies, and makes none before the release"
    )
    func hold() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        let before = try #require(two.coherence.ticket(for: tenant))
        let held = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(held.isTold)
        #expect(two.dropped == [.names(["a"])])
        for process in [one, two] {
            #expect(process.coherence.isHeld("a", of: tenant))
            #expect(!process.coherence.isHeld("b", of: tenant))
            #expect(process.coherence.metrics.expiredWaits.value == 0, "nobody's lease ran out")
        }
        #expect(!two.coherence.isCurrent(before, of: tenant, ["a"]))
        #expect(two.coherence.isCurrent(before, of: tenant, ["b"]))

        // Who comes in the middle hears of the hold with its registration.
        let three = try await Process(live, limits: limits)
        try await three.join(tenant)
        #expect(three.coherence.isHeld("a", of: tenant))

        one.coherence.release(held)
        #expect(!one.coherence.isHeld("a", of: tenant))
        // A void of the same process comes behind the release.
        _ = await one.coherence.hold(["b"], of: tenant, for: .zero)
        #expect(!two.coherence.isHeld("a", of: tenant))
        let after = try #require(two.coherence.ticket(for: tenant))
        #expect(two.coherence.isCurrent(after, of: tenant, ["a"]))
        for process in [one, two, three] { process.die() }
    }

    @Test("who has copies of another clinic is not asked")
    func others() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(LivePlatform.lakeside)
        let held = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(held.holders.isEmpty && held.isTold)
        #expect(two.dropped.isEmpty)
        one.die()
        two.die()
    }

    @Test("a process that does not answer is waited for until its lease has run out")
    func silent() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        let trusted = two.coherence.ledger.trustedUntil
        two.die()
        _ = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(Loop.now >= trusted, "it might have used a copy all the while")
        #expect(one.coherence.metrics.expiredWaits.value == 1)
        // And once only.
        _ = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(one.coherence.metrics.expiredWaits.value == 1)
        one.die()
    }

    @Test("a process that leaves is not waited for")
    func leaving() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        await two.coherence.leave()
        #expect(!two.coherence.mayUseCopies(of: tenant))
        _ = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(one.coherence.metrics.expiredWaits.value == 0)
        one.die()
        two.die()
    }

    @Test("a Redis that forgot everything has not forgotten the leases that hold, nor the holds")
    func flushed() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        let trusted = two.coherence.ledger.trustedUntil
        _ = try await one.redis.send(["FLUSHALL"], deadline: live.deadline)
        _ = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(Loop.now >= trusted)
        // What was held before it forgot may be held still: nobody makes copies for a while.
        let three = try await Process(live, limits: limits)
        try await three.coherence.begun.wait(until: live.deadline)
        _ = three.coherence.mayUseCopies(of: tenant)
        await three.coherence.registering?.value
        #expect(!three.coherence.mayUseCopies(of: tenant))
        for process in [one, two, three] { process.die() }
    }

    @Test(
        "without Redis a change waits until nobody has a lease, and Redis hears of it when it is back"
    )
    func outage() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        let trusted = two.coherence.ledger.trustedUntil
        let server = live.server
        try await offLoop { try server.kill() }
        let held = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(!held.isTold)
        #expect(Loop.now >= trusted)
        #expect(!two.coherence.mayUseCopies(of: tenant))
        try await offLoop { try server.start() }
        one.coherence.release(held)
        await one.coherence.telling?.value
        #expect(one.coherence.untoldCount == 0)
        one.die()
        two.die()
    }

    @Test("a process whose lease is gone begins anew, without copies, under another name")
    func lostLease() async throws {
        let live = try await makeRedis()
        let process = try await Process(live, limits: limits)
        try await process.join(tenant)
        let ticket = try #require(process.coherence.ticket(for: tenant))
        let (name, era) = (process.coherence.process, process.coherence.ledger.era)
        #expect(process.dropped.isEmpty)
        _ = try await process.redis.send(
            ["DEL", .text(CoherenceScripts.lease(of: name))], deadline: live.deadline)
        let limit = live.deadline
        while process.coherence.ledger.era == era {
            try await Loop.shared.sleep(for: .milliseconds(2))
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("goes on") }
        }
        #expect(process.coherence.process != name)
        #expect(process.dropped == [.all])
        while !process.coherence.mayUseCopies(of: tenant) {
            try await Loop.shared.sleep(for: .milliseconds(2))
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("no lease") }
        }
        #expect(!process.coherence.isCurrent(ticket, of: tenant, ["a"]))
        process.die()
    }

    @Test("a lease that is gone, or whose inbox is too full, is not renewed; nor are the dead told")
    func scripts() async throws {
        let live = try await makeRedis()
        let client = try await live.client()
        let (lease, inbox) = (CoherenceScripts.lease(of: "p"), CoherenceScripts.inbox(of: "p"))
        func renew(isFirst: Bool = false) async throws -> [RESPValue]? {
            try await client.evaluate(
                CoherenceScripts.renew, keys: [.text(lease), .text(inbox)],
                arguments: [10_000, isFirst ? "1" : "0", 2], deadline: live.deadline
            ).asArray
        }
        func tell(born: String) async throws -> Int64? {
            try await client.evaluate(
                CoherenceScripts.tell,
                keys: [.text(lease), .text(inbox), .text(CoherenceScripts.born)],
                arguments: ["m", 10_000, .text(born), 400], deadline: live.deadline
            ).asInteger
        }
        let found = try await client.send(
            ["GET", .text(CoherenceScripts.born)], deadline: live.deadline)
        let born = try #require(found.asString)
        #expect(try await renew() == nil)
        #expect(try await tell(born: born) == 0, "there is nobody")
        #expect(try await tell(born: "another") == 400, "Redis may have forgotten somebody")
        #expect(try await renew(isFirst: true)?.count == 0)
        for _ in 0..<2 { #expect(try await tell(born: born) ?? 0 > 0) }
        #expect(try await renew()?.count == 2)
        for _ in 0..<3 { #expect(try await tell(born: born) ?? 0 > 0) }
        #expect(try await renew() == nil, "more than a process takes in at once")
        #expect(try await tell(born: born) == 0)
        client.close()
    }

    @Test("a clinic that makes room for another in the ledger leaves no copies behind")
    func evicted() async throws {
        let live = try await makeRedis()
        var limits = limits
        limits.tenantsMax = 1
        let process = try await Process(live, limits: limits)
        try await process.join(tenant)
        #expect(process.dropped.isEmpty)
        try await process.join(LivePlatform.lakeside)
        #expect(process.dropped == [.all], "nobody tells it of that clinic's changes any more")
        process.die()
    }

    @Test("what nobody could be told of is dropped again at its end, and told later")
    func untold() async throws {
        let live = try await makeRedis()
        let process = try await Process(live, limits: limits)
        try await process.join(tenant)
        // Its lease goes on, over the other connection.
        process.redis.close()
        let held = await process.coherence.hold(["a"], of: tenant, for: .milliseconds(1))
        #expect(!held.isTold && process.coherence.untoldCount == 0)
        #expect(process.coherence.metrics.untold.value == 1)
        let dropped = process.dropped.count
        process.coherence.release(held)
        #expect(process.dropped.count == dropped + 1)
        #expect(process.coherence.untoldCount == 1)
        process.coherence.telling?.cancel()
        process.die()
    }

    @Test("in a Redis that is full leases go on, and so everybody hears of every change")
    func full() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        try await one.join(tenant)
        try await two.join(tenant)
        try await live.setFull()
        let trusted = two.coherence.ledger.trustedUntil
        while Loop.now < trusted + .milliseconds(1) {
            try await Loop.shared.sleep(until: Deadline(trusted + .milliseconds(1)))
        }
        #expect(two.coherence.mayUseCopies(of: tenant), "its lease was renewed")
        let held = await one.coherence.hold(["a"], of: tenant, for: .seconds(5))
        #expect(held.isTold && two.dropped == [.names(["a"])])
        #expect(two.coherence.isHeld("a", of: tenant))
        one.coherence.release(held)
        _ = await one.coherence.hold(["b"], of: tenant, for: .zero)
        #expect(!two.coherence.isHeld("a", of: tenant))
        // Who comes now has no copies of its own.
        #expect(!one.coherence.mayUseCopies(of: LivePlatform.lakeside))
        await one.coherence.registering?.value
        #expect(!one.coherence.mayUseCopies(of: LivePlatform.lakeside))
        one.die()
        two.die()
    }

    @Test("a session that was revoked is admitted by no process' copy")
    func sessions() async throws {
        let live = try await makeRedis()
        let (one, two) = (
            try await Process(live, limits: limits), try await Process(live, limits: limits)
        )
        let copies = SessionCopies(two.coherence, life: .seconds(30), copiesMax: 10)
        try await one.join(tenant)
        try await two.join(tenant)
        let session = SessionID(UUID(high: 5, low: 5))
        let now = Timestamp(seconds: 1_780_000_000)
        let entry = SessionEntry(
            accountID: UUID(high: 1, low: 1), roles: ["doctor"],
            expiresAt: Timestamp(seconds: 1_790_000_000))
        let ticket = try #require(two.coherence.ticket(for: tenant))
        copies.keep(session, of: tenant, entry, ticket: ticket)
        #expect(copies.find(session, of: tenant, at: now) == entry)
        #expect(copies.find(session, of: LivePlatform.lakeside, at: now) == nil)
        #expect(copies.find(session, of: tenant, at: entry.expiresAt) == nil)
        _ = await one.coherence.hold(
            [SessionCopies.name(of: session)], of: tenant, for: .zero)
        #expect(copies.find(session, of: tenant, at: now) == nil)
        // An answer that was on its way meanwhile is too old to be kept.
        copies.keep(session, of: tenant, entry, ticket: ticket)
        #expect(copies.find(session, of: tenant, at: now) == nil)
        one.die()
        two.die()
    }

    @Test("a copy of a session is its clinic's, has its time, and is nobody's without a lease")
    func sessionsInBounds() async throws {
        let live = try await makeRedis()
        let process = try await Process(live, limits: CoherenceLimits())
        try await process.join(tenant)
        try await process.join(LivePlatform.lakeside)
        let session = SessionID(UUID(high: 5, low: 5))
        let now = Timestamp(seconds: 1_780_000_000)
        let entry = SessionEntry(
            accountID: UUID(high: 1, low: 1), roles: ["doctor"],
            expiresAt: Timestamp(seconds: 1_790_000_000))
        let copies = SessionCopies(process.coherence, life: .seconds(30), copiesMax: 10)
        let over = SessionCopies(process.coherence, life: .zero, copiesMax: 10)
        let ticket = try #require(process.coherence.ticket(for: tenant))
        for copies in [copies, over] { copies.keep(session, of: tenant, entry, ticket: ticket) }
        #expect(copies.find(session, of: tenant, at: now) == entry)
        #expect(copies.find(session, of: LivePlatform.lakeside, at: now) == nil)
        #expect(over.count == 1 && over.find(session, of: tenant, at: now) == nil)
        // The lease has run out, and who noticed that has not dropped the copies yet.
        process.coherence.ledger.lost()
        #expect(copies.count == 1 && copies.find(session, of: tenant, at: now) == nil)
        process.die()
    }
}
