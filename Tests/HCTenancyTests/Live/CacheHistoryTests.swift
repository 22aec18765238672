import HCCore
import HCIO
import HCPostgres
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

/// What was invoked and answered, in the order of one clock, and whether that can be of a single register that only
/// grows: no read gives less than what was acknowledged, or read, before it began.
@LoopActor
private final class History {
    private struct Known {
        /// The largest version of a write that was acknowledged.
        var acknowledged = 0
        /// The largest version that a read has given that has ended.
        var seen = 0
    }

    private var known: [UUID: Known] = [:]
    /// Whether reads are compared with reads too: while Redis is away or forgets, a write that is not acknowledged yet may
    /// be seen by one and not by another.
    var isStrict = true
    private(set) var reads = 0
    private(set) var writes = 0
    private(set) var violations: [String] = []

    func read(_ id: UUID, _ who: String, _ body: () async throws -> Int) async throws {
        let before = known[id] ?? Known()
        let value = try await body()
        reads += 1
        let floor = isStrict ? max(before.acknowledged, before.seen) : before.acknowledged
        if value < floor, violations.count < 5 {
            violations.append(
                "\(who) read \(value) of \(id), but \(before.acknowledged) was acknowledged and "
                    + "\(before.seen) read before")
        }
        known[id, default: Known()].seen = max(known[id]?.seen ?? 0, value)
    }

    func write(_ id: UUID, _ body: () async throws -> Int) async throws {
        let value = try await body()
        writes += 1
        known[id, default: Known()].acknowledged = max(known[id]?.acknowledged ?? 0, value)
    }
}

@Suite("Several processes with copies, on a real PostgreSQL and Redis", .onLoop)
@LoopActor
struct CacheHistoryTests {
    private func things(_ count: Int, _ worker: CacheWorker) async throws -> [UUID] {
        var ids: [UUID] = []
        for _ in 0..<count {
            let id = UUID.v7(at: Clocks.system.now())
            try await worker.make(id)
            ids.append(id)
        }
        return ids
    }

    private func makeWorkers(
        _ count: Int, _ redis: LiveRedis, holdLife: Duration = .seconds(1),
        nothingLife: Duration = .seconds(15)
    ) async throws -> [CacheWorker] {
        let ground = try await LivePlatform.makeGround()
        // Nobody is refused for having waited: how fast the machine is does not matter here.
        _ = try await offLoop {
            try ground.services.psql(
                ground.control.admin,
                """
                UPDATE tier SET definition = '{"name":"basic","rates":[{"name":"tenant",
                    "scope":"tenant","algorithm":"token-bucket","units":50,"per":"1s","burst":1000}],
                    "pool":{"queueTimeout":"30s"}}' WHERE name = 'basic'
                """)
        }
        try await redis.age()
        var workers: [CacheWorker] = []
        var configuration = CacheWorker.configuration
        configuration.holdLife = holdLife
        configuration.nothingLife = nothingLife
        for _ in 0..<count {
            workers.append(try await CacheWorker.make(ground, redis, configuration))
        }
        return workers
    }

    /// Readers and writers in all processes at once, each so many times.
    private func run(
        _ workers: [CacheWorker], _ ids: [UUID], _ history: History, seed: UInt64, rounds: Int,
        isReadModel: Bool = false
    ) async throws {
        let tasks = workers.enumerated().flatMap { number, worker in
            (0..<5).map { part in
                Loop.shared.makeTask {
                    var random = SeededRandom(seed: seed &+ UInt64(number * 100 + part))
                    for _ in 0..<rounds {
                        guard let id = ids.randomElement(using: &random) else { return }
                        if part == 0 {
                            try await history.write(id) { try await worker.write(id) }
                            // Copies are of use only where reads are more than writes.
                            try await Loop.shared.sleep(for: .milliseconds(10))
                        } else {
                            let isModel = isReadModel && part == 1
                            let key = CacheWorker.key(
                                id, isSensitive: part == 2, isReadModel: isModel)
                            let slow = Int.random(in: 0..<8, using: &random) == 0
                            try await history.read(id, "process \(number)") {
                                try await worker.read(key, id) {
                                    if slow { try await Loop.shared.sleep(for: .milliseconds(2)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        var failure: (any Error)?
        for task in tasks {
            do { try await task.value } catch { failure = error }
        }
        if let failure { throw failure }
    }

    @Test("a read after a commit never gives what was before it, in any process", arguments: 0..<3)
    func linearizable(_ run: Int) async throws {
        let seed = 0x11_7e_00 + UInt64(run)
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(3, redis)
        let ids = try await things(3, workers[0])
        for worker in workers { try await worker.settle() }
        let history = History()
        try await self.run(workers, ids, history, seed: seed, rounds: 80, isReadModel: true)
        #expect(history.violations == [], "seed \(seed)")
        #expect(history.writes == 240 && history.reads == 960)
        let hits = workers.reduce(0) { $0 + $1.metrics.hits(.memory) }
        #expect(hits > 20, "the copies were used")
        for worker in workers { worker.kill() }
    }

    @Test("Redis forgets everything in the middle", arguments: 0..<2)
    func flushed(_ run: Int) async throws {
        let seed = 0xF1_05_00 + UInt64(run)
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(3, redis, holdLife: .seconds(4))
        let ids = try await things(2, workers[0])
        for worker in workers { try await worker.settle() }
        let history = History()
        history.isStrict = false
        let flusher = try await redis.client()
        let flushes = Loop.shared.makeTask {
            for _ in 0..<4 {
                _ = try await flusher.send(["FLUSHALL"], deadline: redis.deadline)
                try await Loop.shared.sleep(for: .milliseconds(150))
            }
        }
        try await self.run(workers, ids, history, seed: seed, rounds: 40)
        try await flushes.value
        #expect(history.violations == [], "seed \(seed)")
        for worker in workers { worker.kill() }
    }

    @Test("Redis is full for a while, again and again", arguments: 0..<2)
    func full(_ run: Int) async throws {
        let seed = 0xF0_11_00 + UInt64(run)
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(3, redis)
        let ids = try await things(2, workers[0])
        for worker in workers { try await worker.settle() }
        let history = History()
        let filling = Loop.shared.makeTask {
            for number in 0..<8 {
                try await redis.setFull(number % 2 == 0)
                try await Loop.shared.sleep(for: .milliseconds(100))
            }
        }
        try await self.run(workers, ids, history, seed: seed, rounds: 60)
        try await filling.value
        #expect(history.violations == [], "seed \(seed)")
        for worker in workers { worker.kill() }
    }

    @Test("Redis is killed and comes back")
    func restarted() async throws {
        let seed: UInt64 = 0x5e_57_a7
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis, holdLife: .seconds(4))
        let ids = try await things(2, workers[0])
        for worker in workers { try await worker.settle() }
        let history = History()
        history.isStrict = false
        let server = redis.server
        let loss = Loop.shared.makeTask {
            try await Loop.shared.sleep(for: .milliseconds(30))
            try await offLoop { try server.kill() }
            try await Loop.shared.sleep(for: .milliseconds(200))
            try await offLoop { try server.start() }
        }
        try await self.run(workers, ids, history, seed: seed, rounds: 60)
        try await loss.value
        // And once more when all is back.
        for worker in workers { try await worker.client.waitUntilReady(deadline: redis.deadline) }
        try await self.run(workers, ids, history, seed: seed + 1, rounds: 20)
        #expect(history.violations == [], "seed \(seed)")
        for worker in workers { worker.kill() }
    }

    @Test(
        "a process that is killed delays a change by its lease, and no more; its own holds run out")
    func killed() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(3, redis)
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        for worker in workers { _ = try await worker.read(id) }
        workers[2].kill()
        let written = try await workers[0].write(id)
        #expect(try await workers[0].read(id) == written)
        #expect(try await workers[1].read(id) == written)
        #expect(try await workers[2].read(id) == written, "it goes on without a lease")
        let history = History()
        try await run([workers[0], workers[1]], [id], history, seed: 0xdead, rounds: 30)
        #expect(history.violations == [])
        for worker in workers { worker.kill() }
    }

    @Test("a process whose lease has run out uses no copy, though nobody has told it of anything")
    func leaseRanOut() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(1, redis)
        var limits = CacheWorker.limits
        // It takes a lease and never renews it: as a process that hangs for a while.
        limits.renewAfter = .seconds(60)
        (limits.trust, limits.leaseLife) = (.milliseconds(1500), .milliseconds(1600))
        let hanging = try await CacheWorker.make(
            workers[0].platform.ground, redis, limits: limits)
        let id = try await things(1, workers[0])[0]
        let coherence = try #require(try hanging.context.coherence)
        while !coherence.mayUseCopies() { try await Loop.shared.sleep(for: .milliseconds(1)) }
        _ = try await hanging.read(id)
        #expect(try await hanging.read(id) == 1)
        #expect(hanging.metrics.hits(.memory) == 1, "there is a copy")
        while coherence.mayUseCopies() { try await Loop.shared.sleep(for: .milliseconds(10)) }
        // For Redis too: nobody tells it of anything.
        let process = try #require(hanging.platform.door.coherence).process
        let lease = CoherenceScripts.lease(of: process)
        while try await workers[0].client.send(["EXISTS", .text(lease)], deadline: redis.deadline)
            .asInteger == 1
        {
            try await Loop.shared.sleep(for: .milliseconds(10))
        }
        let written = try await workers[0].write(id)
        #expect(try await hanging.read(id) == written)
        for worker in workers + [hanging] { worker.kill() }
    }

    @Test("who reads the source before a change and is slow keeps nothing, in memory nor in Redis")
    func slowReader() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis)
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        let (gate, entered) = (Waiter<Void>(), Waiter<Void>())
        let slow = Loop.shared.makeTask {
            try await workers[1].read(CacheWorker.key(id), id) {
                entered.succeed(())
                try await gate.wait(until: redis.deadline)
            }
        }
        try await entered.wait(until: redis.deadline)
        let written = try await workers[0].write(id)
        // Joins nobody who began before the change; waits for it, though, so that a key is read once at a time.
        let late = Loop.shared.makeTask {
            try await workers[1].read(id)
        }
        gate.succeed(())
        #expect(try await slow.value == written - 1, "it began before the change")
        #expect(try await late.value == written)
        #expect(try await workers[1].read(id) == written)
        #expect(try await workers[0].read(id) == written)
        #expect(workers[1].metrics.refusals(.changed) == 1)
        for worker in workers { worker.kill() }
    }

    @Test(
        "a copy goes from one process' source to another's memory through Redis, and through the shard"
    )
    func levels() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis)
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        let key = CacheWorker.key(id, isReadModel: true)
        // The trust of the second begins with its first look.
        let value = try await workers[0].read(key, id)
        let limit = redis.deadline
        while try await workers[0].platform.psql(
            workers[0].platform.first.superuser, "SELECT count(*) FROM read_model"
        ).first != "1" {
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("no model") }
        }
        #expect(try await workers[1].read(key, id) == value)
        #expect(workers[1].metrics.hits(.redis) + workers[1].metrics.hits(.shard) == 1)
        #expect(try await workers[1].read(key, id) == value)
        #expect(workers[1].metrics.hits(.memory) == 1)
        let written = try await workers[0].write(id)
        #expect(try await workers[1].read(key, id) == written)
        for worker in workers { worker.kill() }
    }

    @Test("a model is not found once its tags are counted, and not filled late")
    func models() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis)[0]
        let id = try await things(1, worker)[0]
        let key = CacheWorker.key(id, isReadModel: true)
        let context = try worker.context
        let models = ReadModels(record: context.tenant)
        func find() async throws -> ReadModels.Found {
            try ReadModels.found(
                try await context.read([models.find(key)], deadline: redis.deadline)[0].single())
        }
        func fill(_ counts: String) async throws -> Int {
            try await context.write(
                [models.fill(key, body: [1], counts: counts, life: .seconds(60))], audit: [],
                deadline: redis.deadline)[0].affectedRows
        }
        let before = try await find()
        #expect(before.body == nil)
        #expect(try await fill(before.counts) == 1)
        #expect(try await find().body == [1])
        try await worker.write(id)
        #expect(try await find().body == nil)
        #expect(try await fill(before.counts) == 0, "what it was made of has changed")
        worker.kill()
    }

    @Test("after a move nothing of the old place is given out")
    func moved() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis)[0]
        let id = try await things(1, worker)[0]
        try await worker.settle()
        #expect(try await worker.read(id) == 1)
        #expect(try await worker.read(id) == 1)
        let platform = worker.platform
        try await platform.moveSunrise()
        // The rows arrive changed: what the old place said is wrong.
        try await platform.psql(
            platform.second.superuser,
            """
            INSERT INTO practitioner (tenant_id, id, name, version)
            VALUES ('\(LivePlatform.sunrise)', '\(id)', 'P', 7)
            """)
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(try await worker.read(id) == 7)
        worker.kill()
    }

    @Test("that there is nothing is known too, until something is made")
    func nothing() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis)
        for worker in workers { try await worker.settle() }
        let id = UUID.v7(at: Clocks.system.now())
        for worker in workers { #expect(try await worker.read(id) == 0) }
        #expect(try await workers[0].read(id) == 0)
        #expect(workers[0].metrics.hits(.memory) == 1)
        try await workers[1].make(id)
        #expect(try await workers[0].read(id) == 1)
        for worker in workers { worker.kill() }
    }

    @Test("that there is nothing is believed for its own time, not for that of a value")
    func nothingEnds() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis, nothingLife: .zero)[0]
        try await worker.settle()
        let id = UUID.v7(at: Clocks.system.now())
        for _ in 0..<3 { #expect(try await worker.read(id) == 0) }
        #expect(worker.metrics.hits(.memory) == 0)
        try await worker.make(id)
        for _ in 0..<3 { #expect(try await worker.read(id) == 1) }
        #expect(worker.metrics.hits(.memory) == 2)
        worker.kill()
    }

    @Test("a commit that outlives its hold is announced anew: what was copied meanwhile is dropped")
    func outlived() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis, holdLife: .milliseconds(300))
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        let record = try workers[0].context.tenant
        let (tags, limit) = (CacheWorker.tags(id), redis.deadline)
        let written = try await workers[0].platform.door.cache.change(
            tags, of: record, prefixes: [record.redisPrefix], deadline: .never
        ) { _ in
            while workers[1].platform.door.coherence?.isHeld(tags[0].name, of: record.id) == true {
                try await Loop.shared.sleep(for: .milliseconds(2))
                guard !limit.isExpired(at: Loop.now) else { throw FixtureError("for ever") }
            }
            for _ in 0..<2 { _ = try await workers[1].read(id) }
            #expect(workers[1].metrics.hits(.memory) == 1, "nobody holds it any more")
            return try await workers[0].write(id, changing: [])
        }
        #expect(try await workers[1].read(id) == written)
        #expect(workers[0].metrics.holdsOutlived.value == 1)
        for worker in workers { worker.kill() }
    }

    @Test("what may have been committed stays held until it can be no more, what was not does not")
    func inDoubt() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis, holdLife: .seconds(5))[0]
        let record = try worker.context.tenant
        let coherence = try #require(worker.platform.door.coherence)
        let limit = redis.deadline
        while !coherence.mayUseCopies(of: record.id) {
            try await Loop.shared.sleep(for: .milliseconds(2))
            guard !limit.isExpired(at: Loop.now) else { throw FixtureError("no lease") }
        }
        func change(_ tag: String, _ error: any Error) async throws {
            do {
                try await worker.platform.door.cache.change(
                    [CacheTag(tag)], of: record, prefixes: [record.redisPrefix], deadline: .never
                ) { _ in
                    #expect(coherence.isHeld(tag, of: record.id))
                    throw error
                }
            } catch let thrown as TenancyError {
                #expect(thrown == error as? TenancyError)
            }
        }
        try await change("a", TenancyError.deadlineExceeded)
        #expect(!coherence.isHeld("a", of: record.id))
        try await change("b", TenancyError.outcomeUnknown)
        #expect(coherence.isHeld("b", of: record.id))
        worker.kill()
    }

    @Test("a writer that cannot reach the copies in Redis makes everybody doubt those of before")
    func unshared() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis)
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        let record = try workers[0].context.tenant
        let (copy, limit) = (
            record.redisPrefix + "copy:" + CacheWorker.key(id).name, redis.deadline
        )
        let client = try await redis.client()
        _ = try await workers[1].read(id)
        while try await client.send(["EXISTS", .text(copy)], deadline: limit).asInteger != 1 {
            try await Loop.shared.sleep(for: .milliseconds(2))
        }
        // The hold of the first tag fails, and so nothing is said about the others.
        _ = try await client.send(
            ["SET", .text(record.redisPrefix + "hold:a"), "no hold"], deadline: limit)
        let written = try await workers[0].write(
            id, changing: [CacheTag("a")] + CacheWorker.tags(id))
        #expect(workers[0].metrics.holdsUnshared.value == 1)
        for worker in workers { #expect(try await worker.read(id) == written) }
        for worker in workers { worker.kill() }
        client.close()
    }

    @Test("whom nobody could tell of a change before it is told before it is acknowledged")
    func toldAfter() async throws {
        let redis = try await LiveRedis.make()
        let workers = try await makeWorkers(2, redis)
        let id = try await things(1, workers[0])[0]
        for worker in workers { try await worker.settle() }
        for _ in 0..<2 { _ = try await workers[1].read(id) }
        #expect(workers[1].metrics.hits(.memory) == 1)
        let record = try workers[0].context.tenant
        let (key, limit) = (CoherenceScripts.key(of: record.id), redis.deadline)
        let client = try await redis.client()
        // Nobody can be found for a while.
        _ = try await client.send(["RENAME", .text(key), "aside"], deadline: limit)
        _ = try await client.send(["SET", .text(key), "no table"], deadline: limit)
        let written = try await workers[0].platform.door.cache.change(
            CacheWorker.tags(id), of: record, prefixes: [record.redisPrefix], deadline: limit
        ) { _ in
            let written = try await workers[0].write(id, changing: [])
            _ = try await client.send(["RENAME", "aside", .text(key)], deadline: limit)
            return written
        }
        #expect(try await workers[1].read(id) == written)
        for worker in workers { worker.kill() }
        client.close()
    }

    @Test("a commit is over, or will never be, while its hold still stands")
    func commitDeadline() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis)[0]
        try await worker.settle()
        let configuration = CacheWorker.configuration
        let record = try worker.context.tenant
        let latest = try await worker.platform.door.cache.change(
            [CacheTag("a")], of: record, prefixes: [record.redisPrefix], deadline: .never
        ) { limit in
            limit.time - Loop.now
        }
        #expect(latest <= configuration.holdLife - configuration.holdMargin)
        worker.kill()
    }

    @Test("a hundred readers of one key are one read of the source, and an error is everybody's")
    func singleFlight() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis)[0]
        let id = try await things(1, worker)[0]
        try await worker.settle()
        var reads = 0
        let values = try await concurrently(100) { _ in
            try await worker.read(CacheWorker.key(id), id) { reads += 1 }
        }
        #expect(Set(values) == [1] && reads == 1)
        struct Refusal: Error {}
        try await worker.write(id)
        reads = 0
        let failures = try await concurrently(50) { _ in
            do {
                _ = try await worker.read(CacheWorker.key(id), id) {
                    reads += 1
                    throw Refusal()
                }
                return false
            } catch is Refusal {
                return true
            }
        }
        #expect(!failures.contains(false) && reads == 1)
        worker.kill()
    }

    @Test("a clinic that asks for everything keeps within its tier, and leaves the others theirs")
    func quota() async throws {
        let redis = try await LiveRedis.make()
        let worker = try await makeWorkers(1, redis)[0]
        try await worker.settle()
        let context = try worker.context
        let bytes = context.tier.cache.bytesMax
        let cache = worker.platform.door.cache
        for number in 0..<40 {
            let key = CacheKey("large:\(number)", tags: [CacheTag("large")])
            _ = try await context.cached(key, deadline: worker.platform.deadline) {
                CachedValue(bytes: [UInt8](repeating: 1, count: bytes / 10), entityTag: "\"t\"")
            }
        }
        #expect(cache.memoryBytes(of: context.id) <= bytes)
        #expect(cache.memoryBytes(of: context.id) > bytes / 2)
        worker.kill()
    }
}
