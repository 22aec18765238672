import HCCore
import HCIO
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Copies in Redis", .onLoop)
@LoopActor
struct SharedCacheTests {
    private let key = CacheKey("thing", tags: [CacheTag("a"), CacheTag("b")])
    private let record = Sample.record()

    /// One process' view of Redis.
    @LoopActor
    private final class Side {
        let client: RedisClient
        let cache: SharedCache
        let metrics = CacheMetrics(MetricsRegistry())

        init(_ client: RedisClient, holdLife: Duration = .milliseconds(30)) {
            self.client = client
            var configuration = CacheConfiguration()
            configuration.holdLife = holdLife
            configuration.sharedPause = .milliseconds(20)
            cache = SharedCache(
                redis: client, configuration, clocks: .system, metrics: metrics)
        }
    }

    private var deadline: Deadline { .after(.seconds(30), from: Loop.now) }

    private func answer(_ text: String) -> CacheAnswer {
        .value(CachedValue(bytes: Array(text.utf8), entityTag: "\"t\""))
    }

    private func look(
        _ side: Side, _ key: CacheKey? = nil, _ record: TenantRecord? = nil,
        keys: TenantKeys? = nil
    ) async -> SharedCache.Look {
        await side.cache.look(
            key ?? self.key, of: record ?? self.record,
            keys: {
                guard let keys else { throw TenancyError.keyUnavailable }
                return keys
            }, deadline: deadline)
    }

    private func text(_ look: SharedCache.Look) -> String? {
        guard case .copy(let answer) = look, let value = answer.value else { return nil }
        return String(decoding: value.bytes, as: UTF8.self)
    }

    private func ticket(_ look: SharedCache.Look) throws -> SharedCache.Ticket {
        guard case .missing(let ticket) = look else { throw FixtureError("no ticket: \(look)") }
        return ticket
    }

    private func isNone(_ look: SharedCache.Look) -> Bool {
        if case .none = look { true } else { false }
    }

    /// A ticket, as soon as Redis has stood for long enough.
    private func settled(
        _ side: Side, _ key: CacheKey? = nil, _ record: TenantRecord? = nil
    ) async throws -> SharedCache.Ticket {
        let limit = deadline
        while true {
            let look = await look(side, key, record)
            if case .missing(let ticket) = look { return ticket }
            try await Loop.shared.sleep(for: .milliseconds(2))
            guard !limit.isExpired(at: Loop.now) else {
                throw FixtureError("never settled: \(look)")
            }
        }
    }

    @discardableResult
    private func fill(
        _ side: Side, _ text: String, _ ticket: SharedCache.Ticket, _ key: CacheKey? = nil,
        _ record: TenantRecord? = nil, keys: TenantKeys? = nil
    ) async -> Bool {
        await side.cache.fill(
            key ?? self.key, of: record ?? self.record, answer(text), ticket,
            life: .seconds(60),
            keys: {
                guard let keys else { throw TenancyError.keyUnavailable }
                return keys
            }, deadline: deadline)
    }

    private func hold(
        _ side: Side, _ tag: String = "a", _ record: TenantRecord? = nil
    ) async -> UUID {
        let name = UUID.v7(at: Clocks.system.now())
        let record = record ?? self.record
        let isHeld = await side.cache.hold(
            [CacheTag(tag)], of: record, prefixes: [record.redisPrefix], name: name,
            deadline: deadline)
        #expect(isHeld)
        return name
    }

    private func release(
        _ side: Side, _ name: UUID, _ tag: String = "a", _ record: TenantRecord? = nil
    ) async {
        let record = record ?? self.record
        await side.cache.release(
            [CacheTag(tag)], of: record, prefixes: [record.redisPrefix], name: name)
    }

    @Test("what one process fills the other finds")
    func shared() async throws {
        let redis = try await LiveRedis.make()
        let (one, two) = (Side(try await redis.client()), Side(try await redis.client()))
        _ = try await settled(two)
        #expect(await fill(one, "1", try await settled(one)))
        #expect(text(await look(one)) == "1")
        #expect(text(await look(two)) == "1")
        #expect(text(await look(two, key, Sample.record(2))) == nil, "another clinic's is its own")
    }

    @Test("what was read before a hold, or during it, is not filled; what is there is not found")
    func held() async throws {
        let redis = try await LiveRedis.make()
        let (writer, side) = (
            Side(try await redis.client(), holdLife: .seconds(10)), Side(try await redis.client())
        )
        let slow = try await settled(side)
        #expect(await fill(side, "1", slow))
        for tag in ["a", "b"] {
            let name = await hold(writer, tag)
            #expect(isNone(await look(side)), "held")
            #expect(await !fill(side, "2", slow), "read before the hold")
            await release(writer, name, tag)
            #expect(await !fill(side, "3", slow), "a hold came in between")
            let fresh = try ticket(await look(side))
            #expect(await fill(side, "4", fresh))
            #expect(text(await look(side)) == "4")
        }
        #expect(side.metrics.refusals(.redis) == 4)
    }

    @Test("of two holds the second still holds when the first is released")
    func twoHolds() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        let writer = Side(try await redis.client(), holdLife: .seconds(10))
        _ = try await settled(side)
        let (first, second) = (await hold(writer), await hold(writer))
        await release(writer, first)
        #expect(isNone(await look(side)))
        await release(writer, second)
        _ = try ticket(await look(side))
    }

    @Test("a hold whose writer died runs out, and what was there before it does not come back")
    func expired() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        #expect(await fill(side, "1", try await settled(side)))
        _ = await hold(side)
        let limit = deadline
        while true {
            let look = await look(side)
            #expect(text(look) == nil)
            if case .missing = look { break }
            try await Loop.shared.sleep(for: .milliseconds(2))
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("held for ever") }
        }
    }

    @Test("the epoch is in the key, and who has an older map finds and fills nothing")
    func epochs() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        let moved = Sample.record(epoch: 2)
        let early = try await settled(side)
        #expect(await fill(side, "1", early))
        #expect(text(await look(side)) == "1")
        let ticket = try await settled(side, key, moved)
        #expect(await fill(side, "2", ticket, key, moved))
        #expect(text(await look(side)) == "1", "nothing was changed in the new place yet")
        let name = await hold(side, "c", moved)
        #expect(isNone(await look(side)), "somebody has changed something there")
        #expect(await !fill(side, "3", early))
        await release(side, name, "c", moved)
        #expect(isNone(await look(side)))
        #expect(text(await look(side, key, moved)) == "2")
    }

    @Test("after a flush nothing is filled until every hold that was lost has run out")
    func flushed() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client(), holdLife: .milliseconds(300))
        let before = try await settled(side)
        _ = await hold(side)
        _ = try await side.client.send(["FLUSHALL"], deadline: deadline)
        let flushedAt = Clocks.system.monotonic()
        #expect(isNone(await look(side)), "a hold may be lost")
        #expect(await !fill(side, "1", before))
        _ = try await settled(side)
        #expect(Clocks.system.monotonic() - flushedAt >= .milliseconds(290))
    }

    @Test("what outlived a lost connection is not believed")
    func distrust() async throws {
        let redis = try await LiveRedis.make()
        let (side, other) = (
            Side(try await redis.client(), holdLife: .milliseconds(200)),
            try await redis.client()
        )
        #expect(await fill(side, "1", try await settled(side)))
        #expect(text(await look(side)) == "1")
        let before = side.client.connectedSince
        _ = try await other.send(
            ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"], deadline: deadline)
        let limit = deadline
        while side.client.connectedSince == before || side.client.connectedSince == nil {
            try await Loop.shared.sleep(for: .milliseconds(1))
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("not connected") }
        }
        #expect(isNone(await look(side)), "a hold may have been missed a moment ago")
        let ticket = try await settled(side)
        #expect(await fill(side, "2", ticket))
        #expect(text(await look(side)) == "2")
        side.cache.distrust(record.id)
        _ = try self.ticket(await look(side))
    }

    @Test("an answer that was under way when copies became doubtful is of no use, nor is its time")
    func distrustMeanwhile() async throws {
        let redis = try await LiveRedis.make()
        let (side, other) = (Side(try await redis.client()), Side(try await redis.client()))
        #expect(await fill(side, "1", try await settled(side)))
        #expect(text(await look(side)) == "1")
        let early = try await settled(other, CacheKey("other", tags: key.tags))
        for tenant in [record.id, nil] {
            let pending = Loop.shared.makeTask { await self.look(side) }
            // It has been sent; its answer is of the next tick at the earliest.
            await Task.yield()
            side.cache.distrust(tenant)
            #expect(isNone(try await pending.value))
            // What others copied before the distrust is not believed after it either.
            #expect(await fill(other, "2", early))
            #expect(text(await look(side)) == nil)
            #expect(await fill(side, "3", try await settled(side)))
            #expect(text(await look(side)) == "3")
        }
    }

    @Test("what was copied during a hold that Redis has forgotten goes with its release")
    func forgottenHold() async throws {
        let redis = try await LiveRedis.make()
        let (writer, side) = (
            Side(try await redis.client(), holdLife: .seconds(10)), Side(try await redis.client())
        )
        _ = try await settled(side)
        let name = await hold(writer)
        _ = try await side.client.send(
            ["DEL", .text(record.redisPrefix + "hold:a")], deadline: deadline)
        #expect(await fill(side, "from before the commit", try ticket(await look(side))))
        await release(writer, name)
        _ = try ticket(await look(side))
    }

    @Test("a copy that time has made wrong is not found")
    func goodUntil() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        let now = Clocks.system.now()
        for (end, isFound) in [(now + .seconds(60), true), (now - .seconds(1), false)] {
            let ticket = try await settled(side, CacheKey("\(isFound)", tags: key.tags))
            let key = CacheKey("\(isFound)", tags: key.tags)
            let value = CachedValue(bytes: [65], entityTag: "\"t\"", goodUntil: end)
            #expect(
                await side.cache.fill(
                    key, of: record, .value(value), ticket, life: .seconds(60),
                    keys: { throw TenancyError.keyUnavailable }, deadline: deadline))
            #expect((text(await look(side, key)) != nil) == isFound)
        }
    }

    @Test("a sensitive copy is sealed there, a large one compressed, a garbled one missing")
    func contents() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        let master = try Sample.master()
        let keys = try TenantKeys(
            of: record.id, wrapped: WrappedKey.makeSet(for: record.id, master: master),
            master: master)
        let secret = CacheKey("secret", tags: key.tags, isSensitive: true)
        let plainText = String(repeating: "secret ", count: 1000)
        for key in [key, secret] {
            #expect(await fill(side, plainText, try await settled(side, key), key, keys: keys))
            #expect(text(await look(side, key, keys: keys)) == plainText)
            let stored = try await side.client.send(
                ["GET", .text(record.redisPrefix + "copy:" + key.name)], deadline: deadline
            ).asBytes
            let bytes = try #require(stored)
            #expect(bytes.count < 1000)
            #expect(!bytes.contains(Array("secret".utf8)))
        }
        _ = try await side.client.send(
            ["SETRANGE", .text(record.redisPrefix + "copy:secret"), "60", "xxxx"],
            deadline: deadline)
        _ = try ticket(await look(side, secret, keys: keys))
        #expect(side.metrics.unreadable.value == 1)
    }

    @Test("a Redis that hangs is asked once in a while, not by every reader")
    func hangs() async throws {
        let redis = try await LiveRedis.make()
        let side = Side(try await redis.client())
        _ = try await settled(side)
        let server = redis.server
        try await offLoop { try server.suspend() }
        while redis.timeouts == 0 { _ = await look(side) }
        #expect(isNone(await look(side)))
        #expect(redis.timeouts == 1, "the second did not ask")
        try await offLoop { try server.resume() }
    }
}
