import HCCore
import HCIO
import HCPostgres
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

/// Remembers what it is told.
@LoopActor
private final class Listener: EventSubscriber {
    enum Heard: Equatable {
        case joined([EventTopicBeginning])
        case event(String, entity: UUID, topic: String)
        case missed(String)
    }

    private(set) var heard: [Heard] = []
    private(set) var events: [TenantEvent] = []
    private var waiters: [(condition: @LoopActor () -> Bool, waiter: Waiter<Void>)] = []

    var entities: [UUID] { events.map(\.entity) }
    var missed: [Heard] {
        heard.filter { if case .missed = $0 { true } else { false } }
    }

    func didJoin(_ topics: [EventTopicBeginning], request: EventJoinRequest) {
        hear(.joined(topics))
    }

    func receive(_ event: TenantEvent, topic: String) {
        events.append(event)
        hear(.event(event.name, entity: event.entity, topic: topic))
    }

    func missed(topic: String, upTo sequence: EventSequence) { hear(.missed(topic)) }

    private func hear(_ news: Heard) {
        heard.append(news)
        for (condition, waiter) in waiters where condition() { waiter.succeed(()) }
    }

    /// Waits until it has heard what the condition wants.
    func wait(_ deadline: Deadline, until condition: @escaping @LoopActor () -> Bool) async throws {
        guard !condition() else { return }
        let waiter = Waiter<Void>()
        waiters.append((condition, waiter))
        defer { waiters.removeAll { $0.waiter === waiter } }
        try await waiter.wait(until: deadline)
    }
}

/// Lets everybody hear everything, and counts who was looked at.
@LoopActor
private final class Audience: EventAudience {
    var reviewed = 0
    /// Those who leave when they are looked at.
    var shut: Set<ObjectIdentifier> = []
    weak var feed: EventFeed?

    func review(_ subscribers: [any EventSubscriber], of tenant: TenantID) async {
        reviewed += subscribers.count
        for subscriber in subscribers where shut.contains(ObjectIdentifier(subscriber)) {
            feed?.leave(subscriber, of: tenant)
        }
    }
}

/// A worker that takes part in the feed.
@LoopActor
private final class Worker {
    let platform: LivePlatform
    let client: RedisClient
    let reader: RedisClient
    let audience = Audience()
    let registry = MetricsRegistry()
    let feed: EventFeed
    let sweeper: OutboxSweeper
    private var running: Task<Void, Never>?

    init(
        _ ground: LivePlatform.Ground, _ redis: LiveRedis,
        _ change: (inout EventLimits) -> Void = { _ in }
    ) async throws {
        client = try await redis.client()
        reader = try await redis.client()
        var limits = EventLimits()
        limits.sweepAge = .zero
        limits.forgetInterval = .milliseconds(20)
        limits.blockTime = .milliseconds(500)
        change(&limits)
        platform = try await LivePlatform.make(
            ground, redis: client,
            events: EventFeedSetup(
                metrics: EventMetrics(registry), reader: reader, limits: limits))
        feed = try #require(platform.door.events)
        sweeper = try #require(platform.door.sweeper)
        feed.audience = audience
        audience.feed = feed
        running = Loop.shared.spawn { [feed] in
            do { try await feed.run() } catch {}
        }
    }

    func stop() async {
        running?.cancel()
        await running?.value
        client.close()
        reader.close()
    }

    var deadline: Deadline { platform.deadline }

    func follow(
        _ listener: Listener, _ topics: [String], after: EventSequence? = nil,
        at tenant: TenantID = LivePlatform.sunrise
    ) async throws {
        try await feed.join(
            listener, topics: topics, after: after, request: EventJoinRequest(id: nil),
            in: try platform.context(tenant).tenant, deadline: deadline)
    }

    func counter(_ name: String) -> UInt64 {
        guard
            case .counter(let value)? = registry.snapshot().families[name]?.samples.values.first
        else { return 0 }
        return value
    }
}

extension LivePlatform {
    /// Commits an event, and says which entity it is about.
    @discardableResult
    fileprivate func tell(
        _ topics: String..., at tenant: TenantID = LivePlatform.sunrise
    ) async throws -> UUID {
        let id = UUID.v7(at: Clocks.system.now())
        try await context(tenant).write(
            [], audit: [],
            outbox: [
                OutboxMessage(
                    topic: "x.happened",
                    payload: [
                        "id": .string(id.description), "version": 1,
                        "topics": .array(topics.map { .string($0) }),
                    ])
            ], deadline: deadline)
        return id
    }

    fileprivate var left: Int {
        get async throws {
            let counts = try await [first, second].asyncMap {
                try await self.psql($0.superuser, "SELECT count(*) FROM outbox")
            }
            return counts.compactMap { Int($0.filter(\.isNumber)) }.reduce(0, +)
        }
    }
}

extension Array {
    @LoopActor
    fileprivate func asyncMap<Value>(
        _ transform: (Element) async throws -> Value
    ) async throws -> [Value] {
        var values: [Value] = []
        for element in self { values.append(try await transform(element)) }
        return values
    }
}

@Suite("The feed of events: PostgreSQL, Redis and several workers", .onLoop)
@LoopActor
struct EventFeedTests {
    @Test("what one worker commits another one tells, by topic, and the outbox is emptied")
    func acrossWorkers() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let here = try await Worker(ground, redis)
        let there = try await Worker(ground, redis)
        let listener = Listener()
        try await there.follow(listener, ["a", "b"])
        let stranger = Listener()
        try await there.follow(stranger, ["a", "b"], at: LivePlatform.lakeside)
        try await here.platform.tell("c")
        let first = try await here.platform.tell("a")
        let second = try await here.platform.tell("b", "a", "c")
        try await listener.wait(there.deadline) { listener.events.count == 3 }
        #expect(listener.entities == [first, second, second])
        #expect(stranger.events.isEmpty)
        #expect(there.audience.reviewed >= 2)
        var rounds = 0
        while try await here.platform.left > 0, rounds < 1000 { rounds += 1 }
        #expect(try await here.platform.left == 0)
        #expect(here.counter("hc_events_published_total") == 3)
        for worker in [here, there] { await worker.stop() }
    }

    @Test("a subscriber that the audience turns away hears nothing more")
    func review() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis)
        let (listener, other) = (Listener(), Listener())
        try await worker.follow(listener, ["a"])
        try await worker.follow(other, ["a"])
        try await worker.platform.tell("a")
        try await listener.wait(worker.deadline) { listener.events.count == 1 }
        worker.audience.shut = [ObjectIdentifier(listener)]
        try await worker.platform.tell("a")
        try await other.wait(worker.deadline) { other.events.count == 2 }
        #expect(listener.events.count == 1)
        // Nor what it missed, if it is turned away while it comes back.
        worker.audience.shut = []
        try await worker.follow(listener, ["a"], after: listener.events.first?.sequence)
        #expect(listener.events.count == 2)
        worker.feed.leave(listener, of: LivePlatform.sunrise)
        worker.audience.shut = [ObjectIdentifier(listener)]
        let before = listener.heard
        try await worker.follow(listener, ["a"], after: listener.events.first?.sequence)
        #expect(listener.heard == before)
        await worker.stop()
    }

    @Test("what cannot be published stays in the outbox, and goes out when it can be")
    func notPublished() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis)
        let key = RedisArgument.text(
            try worker.platform.context(LivePlatform.sunrise).tenant.redisPrefix
                + EventStream.name)
        // Something that nothing can be added to.
        _ = try await worker.client.send(["SET", key, "x"], deadline: worker.deadline)
        let told = try await worker.platform.tell("a")
        try await Loop.shared.wait { worker.counter("hc_events_left_to_sweeper_total") == 1 }
        // What was published meanwhile has been forgotten.
        try await worker.platform.tell("a", at: LivePlatform.hillview)
        var rounds = 0
        while try await worker.platform.left > 1, rounds < 1000 { rounds += 1 }
        #expect(try await worker.platform.left == 1)
        _ = try await worker.client.send(["DEL", key], deadline: worker.deadline)
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        await worker.sweeper.sweep()
        try await listener.wait(worker.deadline) { listener.entities == [told] }
        #expect(try await worker.platform.left == 0)
        await worker.stop()
    }

    @Test("so many messages wait in a process for Redis; the sweeper takes the others")
    func waitingMax() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis) {
            $0.waitingMax = 0
        }
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        let told = try await worker.platform.tell("a")
        // Nobody is to hear of this one, by whichever way it goes.
        try await worker.platform.tell()
        #expect(worker.counter("hc_events_left_to_sweeper_total") == 2)
        #expect(try await worker.platform.left == 2)
        await worker.sweeper.sweep()
        try await listener.wait(worker.deadline) { listener.entities == [told] }
        #expect(worker.counter("hc_events_published_total") == 1)
        #expect(worker.counter("hc_events_swept_total") == 2)
        #expect(try await worker.platform.left == 0)
        await worker.stop()
    }

    @Test("what a clinic's stream keeps has an end: in time, and in the ids that it remembers")
    func streamBounds() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis) {
            $0.rememberedMax = 3
        }
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        for _ in 0..<10 { try await worker.platform.tell("a") }
        // A message that is for nobody is not published.
        try await worker.platform.tell()
        try await listener.wait(worker.deadline) { listener.events.count == 10 }
        var rounds = 0
        while try await worker.platform.left > 0, rounds < 1000 { rounds += 1 }
        #expect(worker.counter("hc_events_published_total") == 10)
        let prefix = try worker.platform.context(LivePlatform.sunrise).tenant.redisPrefix
        for name in ["events", "events:run", "events:ids"] {
            let life = try await worker.client.send(
                ["PTTL", .text(prefix + name)], deadline: worker.deadline
            ).asInteger
            #expect(try #require(life) > 0, "\(name)")
        }
        let ids = try await worker.client.send(
            ["ZCARD", .text(prefix + "events:ids")], deadline: worker.deadline)
        #expect(ids.asInteger == 3)
        await worker.stop()
    }

    @Test("a clinic that nobody follows any more, or could not follow, is not read")
    func unused() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis)
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        #expect(worker.feed.position(of: LivePlatform.sunrise) != nil)
        worker.feed.leave(listener, topics: ["a"], of: LivePlatform.sunrise)
        #expect(worker.feed.position(of: LivePlatform.sunrise) == nil)
        await #expect(throws: TenancyError.eventsUnavailable(retryAfter: .seconds(1))) {
            try await worker.feed.join(
                listener, topics: ["a"], after: nil, request: EventJoinRequest(id: nil),
                in: try worker.platform.context(LivePlatform.sunrise).tenant,
                deadline: Deadline(.zero))
        }
        // By when another clinic is followed this one would be, too.
        try await worker.follow(Listener(), ["a"], at: LivePlatform.hillview)
        #expect(worker.feed.position(of: LivePlatform.sunrise) == nil)
        await worker.stop()
    }

    @Test("what a process left behind is published by the sweeper, and by several sweepers once")
    func sweeping() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let (worker, other) = (try await Worker(ground, redis), try await Worker(ground, redis))
        // It commits and publishes nothing, as one that dies in between.
        let dying = try await LivePlatform.make(ground)
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        var told: [UUID] = []
        for _ in 0..<5 { told.append(try await dying.tell("a")) }
        let elsewhere = try await dying.tell("a", at: LivePlatform.lakeside)
        #expect(try await dying.left == 6)
        _ = try await concurrently(2) { number in
            await (number == 0 ? worker : other).sweeper.sweep()
        }
        try await listener.wait(worker.deadline) { listener.events.count == 5 }
        #expect(listener.entities == told)
        #expect(try await dying.left == 0)
        let late = Listener()
        try await other.follow(late, ["a"], after: EventSequence(1), at: LivePlatform.lakeside)
        #expect(!late.entities.contains(elsewhere))
        for worker in [worker, other] { await worker.stop() }
    }

    @Test("a row that is published twice is one event")
    func idempotent() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        // Its rows stay as if it had died between publishing and deleting.
        let here = try await Worker(ground, redis) { $0.forgetInterval = .seconds(1000) }
        let there = try await Worker(ground, redis)
        let listener = Listener()
        try await there.follow(listener, ["a"])
        let first = try await here.platform.tell("a")
        try await listener.wait(there.deadline) { listener.events.count == 1 }
        #expect(try await here.platform.left == 1)
        await there.sweeper.sweep()
        #expect(try await here.platform.left == 0)
        let second = try await here.platform.tell("a")
        try await listener.wait(there.deadline) { listener.events.count == 2 }
        #expect(listener.entities == [first, second])
        #expect(there.counter("hc_events_repeated_total") == 1)
        for worker in [here, there] { await worker.stop() }
    }

    @Test("who comes back with the last place it saw misses nothing and hears nothing twice")
    func resuming() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let (here, there) = (try await Worker(ground, redis), try await Worker(ground, redis))
        let listener = Listener()
        try await here.follow(listener, ["a"])
        var told = [try await here.platform.tell("a")]
        try await listener.wait(here.deadline) { listener.events.count == 1 }
        here.feed.leave(listener, of: LivePlatform.sunrise)
        for _ in 0..<10 {
            told.append(try await here.platform.tell("a"))
            try await here.platform.tell("b")
        }
        // Elsewhere, while more is coming.
        let resumed = Listener()
        try await there.follow(resumed, ["a"], after: listener.events.last?.sequence)
        for _ in 0..<10 { told.append(try await here.platform.tell("a")) }
        try await resumed.wait(there.deadline) { resumed.events.count == 20 }
        #expect(listener.entities + resumed.entities == told)
        #expect(resumed.missed.isEmpty)
        for worker in [here, there] { await worker.stop() }
    }

    @Test("a place outside the window, too far back in it, or invented is answered by a gap")
    func outsideWindow() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis) {
            $0.replayMax = 5
        }
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        // One by one: those that are published together have places without room between them.
        for count in 1...8 {
            try await worker.platform.tell("a")
            try await listener.wait(worker.deadline) { listener.events.count == count }
        }
        let places = listener.events.map(\.sequence)
        let invented = try #require(EventSequence(places[5].number + 1))
        for (after, isBroken, count) in [
            (EventSequence(5), true, 0), (places[0], true, 0), (invented, true, 0),
            (places[4], false, 3), (places[7], false, 0),
        ] {
            let resumed = Listener()
            try await worker.follow(resumed, ["a"], after: after)
            guard case .joined(let begun)? = resumed.heard.first else {
                Issue.record("not joined")
                continue
            }
            #expect(begun.map(\.isBroken) == [isBroken])
            #expect(resumed.events.count == count)
            worker.feed.leave(resumed, of: LivePlatform.sunrise)
        }
        await worker.stop()
    }

    @Test("a stream is bounded by number, and what was trimmed cannot be resumed from")
    func trimming() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis) {
            $0.streamEventsMax = 50
            $0.replayMax = 10_000
        }
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        for _ in 0..<400 { try await worker.platform.tell("a") }
        try await listener.wait(worker.deadline) { listener.events.count == 400 }
        #expect(listener.missed.isEmpty)
        let length = try await worker.client.send(
            ["XLEN", .text("s1:{\(LivePlatform.sunrise)}:1:events")], deadline: worker.deadline)
        #expect(try #require(length.asInteger) <= 250)
        let resumed = Listener()
        try await worker.follow(resumed, ["a"], after: listener.events[3].sequence)
        guard case .joined(let begun)? = resumed.heard.first else {
            Issue.record("not joined")
            return
        }
        #expect(begun.map(\.isBroken) == [true])
        await worker.stop()
    }

    @Test("connections that break lose nothing, and nobody is told anything")
    func brokenConnections() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let (here, there) = (try await Worker(ground, redis), try await Worker(ground, redis))
        let listener = Listener()
        try await there.follow(listener, ["a"])
        var told = [try await here.platform.tell("a")]
        try await listener.wait(there.deadline) { listener.events.count == 1 }
        let breaker = try await redis.client()
        for _ in 0..<3 {
            _ = try await breaker.send(
                ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"], deadline: here.deadline)
            told.append(try await here.platform.tell("a"))
            try await here.client.waitUntilReady(deadline: here.deadline)
        }
        // What found no Redis waits in the outbox.
        while try await here.platform.left > 0 {
            try await there.client.waitUntilReady(deadline: there.deadline)
            await there.sweeper.sweep()
        }
        try await listener.wait(there.deadline) { listener.events.count == told.count }
        #expect(Set(listener.entities) == Set(told))
        #expect(listener.missed.isEmpty)
        breaker.close()
        for worker in [here, there] { await worker.stop() }
    }

    @Test("Redis killed: subscribers stay, are told of the gap, and hear what comes after it")
    func redisKilled() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis)
        let listener = Listener()
        try await worker.follow(listener, ["a", "b"])
        try await worker.platform.tell("a")
        try await listener.wait(worker.deadline) { listener.events.count == 1 }
        let before = try #require(listener.events.last?.sequence)
        try await offLoop { try redis.server.kill() }
        let during = try await worker.platform.tell("a")
        await #expect(throws: TenancyError.self) {
            try await worker.feed.join(
                Listener(), topics: ["a"], after: nil, request: EventJoinRequest(id: nil),
                in: try worker.platform.context(LivePlatform.hillview).tenant,
                deadline: .after(.milliseconds(50), from: Loop.now))
        }
        try await offLoop { try redis.server.start() }
        try await listener.wait(worker.deadline) { listener.missed.count == 2 }
        #expect(Set(listener.missed.map { "\($0)" }).count == 2)
        try await worker.client.waitUntilReady(deadline: worker.deadline)
        await worker.sweeper.sweep()
        let after = try await worker.platform.tell("b")
        try await listener.wait(worker.deadline) { listener.events.count == 3 }
        #expect(listener.entities.dropFirst() == [during, after])
        // The place from before is of a stream that is no more.
        let resumed = Listener()
        try await worker.follow(resumed, ["a"], after: before)
        guard case .joined(let begun)? = resumed.heard.first else {
            Issue.record("not joined")
            return
        }
        #expect(begun.map(\.isBroken) == [true])
        await worker.stop()
    }

    @Test("what a restarted Redis had kept is not taken for the whole")
    func restartedWithData() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await Worker(try await LivePlatform.makeGround(), redis)
        let listener = Listener()
        try await worker.follow(listener, ["a"])
        try await worker.platform.tell("a")
        try await listener.wait(worker.deadline) { listener.events.count == 1 }
        // As if the stream were from a run of Redis that may have lost its last entries.
        _ = try await worker.client.send(
            ["SET", .text("s1:{\(LivePlatform.sunrise)}:1:events:run"), "another"],
            deadline: worker.deadline)
        try await worker.platform.tell("a")
        try await listener.wait(worker.deadline) { listener.events.count == 2 }
        #expect(listener.missed.count == 1)
        let resumed = Listener()
        try await worker.follow(resumed, ["a"], after: listener.events[0].sequence)
        guard case .joined(let begun)? = resumed.heard.first else {
            Issue.record("not joined")
            return
        }
        #expect(begun.map(\.isBroken) == [true])
        await worker.stop()
    }

    @Test("a clinic that moves: its followers are told, and follow it to its new place")
    func moving() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let (here, there) = (try await Worker(ground, redis), try await Worker(ground, redis))
        let listener = Listener()
        try await there.follow(listener, ["a"])
        try await here.platform.tell("a")
        try await listener.wait(there.deadline) { listener.events.count == 1 }
        try await here.platform.moveSunrise()
        let moved = try await here.platform.tell("a")
        try await there.platform.directory.refresh(deadline: there.deadline)
        try await listener.wait(there.deadline) { listener.missed.count == 1 }
        let after = try await here.platform.tell("a")
        try await listener.wait(there.deadline) { listener.entities.last == after }
        #expect(listener.entities.filter { $0 == moved }.count <= 1)
        for worker in [here, there] { await worker.stop() }
    }

    @Test("a clinic whose events come faster than they can be delivered has a gap, and goes on")
    func overflow() async throws {
        let ground = try await LivePlatform.makeGround()
        let redis = try await LiveRedis.make()
        let here = try await Worker(ground, redis)
        let there = try await Worker(ground, redis) {
            $0.inboxMax = 4
            $0.readPause = .milliseconds(100)
        }
        let listener = Listener()
        try await there.follow(listener, ["a"])
        for _ in 0..<40 { try await here.platform.tell("a") }
        try await listener.wait(there.deadline) { !listener.missed.isEmpty }
        let last = try await here.platform.tell("a")
        try await listener.wait(there.deadline) { listener.entities.last == last }
        let places = listener.events.map(\.sequence)
        #expect(places == places.sorted())
        #expect(Set(places).count == places.count)
        for worker in [here, there] { await worker.stop() }
    }
}
