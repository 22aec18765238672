import HCCore
import HCTesting
import Testing

@Suite("Collections with a bound")
struct CollectionTests {
    @Test("a ring refuses what is above its bound and keeps the order around the corner")
    func ring() {
        var ring = RingBuffer<Int>(capacityMax: 20)
        var model: [Int] = []
        var random = SeededRandom(seed: 6)
        for number in 0..<5000 {
            if Int.random(in: 0...2, using: &random) > 0 {
                #expect(ring.append(number) == (model.count < 20))
                if model.count < 20 { model.append(number) }
            } else {
                #expect(ring.popFirst() == (model.isEmpty ? nil : model.removeFirst()))
            }
            if number % 50 == 0 {
                ring.removeAll { $0 % 2 == 0 }
                model.removeAll { $0 % 2 == 0 }
            }
            #expect(ring.first == model.first)
            #expect((0..<ring.count).map { ring[$0] } == model, "seed \(random.seed)")
        }
        while ring.append(0) {}
        #expect(ring.isFull)
        let first = ring.first
        #expect(ring.appendDroppingFirst(7) == first)
        #expect(ring[19] == 7)
    }

    @Test("a cache forgets the least recently used first")
    func cache() {
        var cache = LRUCache<String, Int>(capacityMax: 2)
        #expect(cache.insert(1, for: "a") == nil)
        #expect(cache.insert(2, for: "b") == nil)
        #expect(cache.find("a") == 1)
        #expect(cache.peek("b") == 2)
        let evicted = cache.insert(3, for: "c")
        #expect(evicted?.key == "b" && evicted?.value == 2)
        #expect(cache.find("b") == nil)
        #expect(cache.insert(4, for: "a") == nil)
        #expect(cache.removeOldest()?.key == "c")
        #expect(cache.remove("a") == 4)
        #expect(cache.remove("a") == nil)
        #expect(cache.removeOldest() == nil)
        #expect(cache.isEmpty)
    }

    @Test("a cache agrees with a plain list, at every step")
    func cacheModel() {
        var random = SeededRandom(seed: 9)
        var cache = LRUCache<Int, Int>(capacityMax: 8)
        var model: [(key: Int, value: Int)] = []
        for step in 0..<20_000 {
            let key = Int.random(in: 0..<16, using: &random)
            let index = model.firstIndex { $0.key == key }
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let evicted = cache.insert(step, for: key)
                if let index { model.remove(at: index) }
                let expected = index == nil && model.count == 8 ? model.removeFirst() : nil
                model.append((key, step))
                #expect(evicted?.key == expected?.key && evicted?.value == expected?.value)
            case 5..<8:
                #expect(cache.find(key) == index.map { model[$0].value })
                if let index { model.append(model.remove(at: index)) }
            case 8:
                #expect(cache.remove(key) == index.map { model.remove(at: $0).value })
            default:
                if step % 100 == 0 {
                    cache.removeAll { key, _ in key % 2 == 0 }
                    model.removeAll { $0.key % 2 == 0 }
                }
            }
            #expect(cache.count == model.count, "seed \(random.seed)")
        }
        cache.removeAll()
        #expect(cache.isEmpty)
    }
}

@Suite("Waiting and limiting")
struct LimitingTests {
    @Test("waits double up to the bound, between half of it and the whole")
    func backoff() {
        var random = SeededRandom(seed: 1)
        var backoff = Backoff(initial: .milliseconds(100), maximum: .seconds(2))
        for bound in [100, 200, 400, 800, 1600, 2000, 2000] {
            let wait = backoff.next(using: &random)
            #expect(wait >= .milliseconds(bound / 2) && wait <= .milliseconds(bound))
        }
        #expect(backoff.failures == 7)
        for _ in 0..<200 { #expect(backoff.next(using: &random) <= .seconds(2)) }
        backoff.reset()
        #expect(backoff.next(using: &random) <= .milliseconds(100))
    }

    @Test("waits differ")
    func jitter() {
        var random = SeededRandom(seed: 2)
        let waits = (0..<50).map { _ in
            var backoff = Backoff(initial: .seconds(1), maximum: .seconds(1))
            return backoff.next(using: &random)
        }
        #expect(Set(waits).count > 40)
    }

    @Test("a bucket gives what it holds, refuses, says when to come back, and is then right")
    func bucket() {
        let clock = ManualClock()
        var bucket = TokenBucket(
            capacity: 3, refill: 2, per: .seconds(1), at: clock.monotonic)
        #expect(bucket.take(at: clock.monotonic) == .allowed(remaining: 2))
        #expect(bucket.take(2, at: clock.monotonic) == .allowed(remaining: 0))
        #expect(bucket.take(at: clock.monotonic) == .refused(retryAfter: .milliseconds(500)))
        clock.advance(by: .milliseconds(499))
        #expect(bucket.take(at: clock.monotonic) == .refused(retryAfter: .milliseconds(1)))
        clock.advance(by: .milliseconds(1))
        #expect(bucket.take(at: clock.monotonic) == .allowed(remaining: 0))
        #expect(bucket.timeUntilFull(at: clock.monotonic) == .milliseconds(1500))
        clock.advance(by: .seconds(100))
        #expect(bucket.remaining(at: clock.monotonic) == 3)
        #expect(bucket.timeUntilFull(at: clock.monotonic) == .zero)
        #expect(bucket.take(0, at: clock.monotonic) == .allowed(remaining: 3))
        #expect(bucket.take(4, at: clock.monotonic) == .refused(retryAfter: .nanoseconds(1)))
        #expect(bucket.take(.max, at: clock.monotonic) == .refused(retryAfter: .nanoseconds(1)))
    }

    @Test(
        "a bucket never holds more than its capacity, and a clock reading from before changes nothing"
    )
    func bucketEdges() {
        let start = MonotonicTime(nanoseconds: 1_000_000)
        var bucket = TokenBucket(capacity: 2, refill: 1, per: .seconds(60), at: start)
        bucket.giveBack(5, at: start)
        #expect(bucket.take(2, at: start) == .allowed(remaining: 0))
        #expect(bucket.remaining(at: .zero) == 0)
        bucket.giveBack(1, at: start)
        #expect(bucket.remaining(at: start) == 1)
        bucket.giveBack(.max, at: start)
        #expect(bucket.remaining(at: start) == 2)
        #expect(bucket.take(2, at: start) == .allowed(remaining: 0))
        #expect(bucket.remaining(at: MonotonicTime(nanoseconds: .max)) == 2)
    }

    @Test("over a long time a bucket admits its rate, not one more")
    func bucketRate() {
        var random = SeededRandom(seed: 3)
        var now = MonotonicTime.zero
        var bucket = TokenBucket(capacity: 10, refill: 7, per: .seconds(3), at: now)
        var admitted = 0
        while now.nanoseconds < 3_000_000_000_000 {
            if case .allowed = bucket.take(at: now) { admitted += 1 }
            now += .nanoseconds(.random(in: 1...150_000_000, using: &random) as Int64)
        }
        #expect((6990...7010).contains(admitted), "seed \(random.seed): \(admitted)")
    }
}

@Suite("Fault points", .serialized)
struct FaultPointTests {
    @Test("nothing happens where nothing is armed")
    func disarmed() {
        FaultPoint.disarm()
        #expect(throws: Never.self) { try FaultPoint.reach("test.nowhere") }
    }

    @Test("an armed point fails every time, or the nth time only")
    func failing() throws {
        defer { FaultPoint.disarm() }
        try FaultPoint.arm("test.a=fail,test.b=fail@2") { _ in }
        for _ in 0..<2 {
            #expect(throws: FaultPointFailure(point: "test.a")) { try FaultPoint.reach("test.a") }
        }
        #expect(throws: Never.self) { try FaultPoint.reach("test.b") }
        #expect(throws: FaultPointFailure.self) { try FaultPoint.reach("test.b") }
        #expect(throws: Never.self) { try FaultPoint.reach("test.b") }
        #expect(throws: Never.self) { try FaultPoint.reach("test.c") }
    }

    @Test("killing and stopping are the program's to do")
    func performing() throws {
        defer { FaultPoint.disarm() }
        let seen = Counter()
        try FaultPoint.arm("test.k=kill,test.s=stop") { action in
            seen.increment(by: action == .kill ? 1 : 100)
        }
        try FaultPoint.reach("test.k")
        try FaultPoint.reach("test.s")
        #expect(seen.value == 101)
    }

    @Test(
        "a text of another form arms nothing",
        arguments: [
            "test.a", "=kill", "test.a=", "test.a=explode", "test.a=fail@0", "test.a=fail@x",
            "test.a=fail@1@2", "test.b=fail,test.a", "test.a=b=c",
        ])
    func syntax(text: String) {
        defer { FaultPoint.disarm() }
        #expect(throws: FaultPointSyntaxError.self) { try FaultPoint.arm(text) { _ in } }
        #expect(throws: Never.self) { try FaultPoint.reach("test.b") }
    }
}
