import HCCore
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Limits without Redis")
struct LimitOutageTests {
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    private func machine() -> OutageMachine {
        OutageMachine(graceMax: .seconds(30), rearmAfter: .seconds(60))
    }

    // MARK: The grace

    @Test("the first 30 seconds without Redis are a grace, what comes after them is not")
    func grace() {
        var outage = machine()
        outage.answered(at: start)
        outage.failed(at: start + .seconds(100))
        #expect(outage.phase(at: start + .seconds(129)) == .grace)
        #expect(outage.phase(at: start + .seconds(130)) == .share)
        outage.answered(at: start + .seconds(200))
        #expect(outage.phase(at: start + .seconds(200)) == .well)
    }

    @Test("a Redis that comes and goes brings no second grace, one that was well for a minute does")
    func flapping() {
        var outage = machine()
        var now = start
        outage.answered(at: now)
        now += .seconds(100)
        var graced = Duration.zero
        for _ in 0..<100 {
            outage.failed(at: now)
            for _ in 0..<10 {
                if outage.phase(at: now) == .grace { graced += .seconds(1) }
                now += .seconds(1)
            }
            outage.answered(at: now)
            // Just too short.
            now += .seconds(59)
        }
        #expect(graced == .seconds(30))
        #expect(outage.era == 1)
        now += .seconds(1)
        outage.failed(at: now)
        #expect(outage.phase(at: now) == .grace)
        #expect(outage.graceLeft(at: now) == .seconds(30))
        #expect(outage.era == 2)
    }

    @Test("a process that never reached Redis has no grace")
    func never() {
        var outage = machine()
        outage.failed(at: start)
        #expect(outage.phase(at: start) == .share)
        outage.answered(at: start + .seconds(5))
        #expect(outage.clock(at: start + .seconds(50)) == .seconds(5))
        outage.failed(at: start + .seconds(60))
        #expect(outage.clock(at: start + .seconds(61)) == .seconds(6))
    }

    // MARK: Shares

    @Test(
        "a share is never nothing and never all, for each algorithm",
        arguments: RateAlgorithm.allCases)
    func share(algorithm: RateAlgorithm) {
        let bench = LimitBench(processes: 4)
        bench.isConnected = false
        let rule = RateRule(
            name: "tenant", scope: .tenant, algorithm: algorithm, units: 4000, per: .seconds(1),
            burst: algorithm == .tokenBucket ? 4000 : nil)
        let plan = LimitPlan.make(rule)
        var admitted = 0
        while bench.pass(bench.request(plan)).isAllowed { admitted += 1 }
        #expect(admitted == 1000, "a second of a quarter")
        let refused = bench.pass(bench.request(plan, .default, 20))
        #expect(refused.origin == .share)
        let wait = refused.retryAfter ?? .zero
        #expect(wait > .zero && wait <= .milliseconds(21))
        bench.advance(wait)
        #expect(bench.pass(bench.request(plan, .default, 20)).isAllowed)
        #expect(bench.questions == 0)
    }

    @Test("the dearest request passes sooner or later, however many processes share")
    func exports() {
        let bench = LimitBench(processes: 200)
        bench.isConnected = false
        let plan = LimitPlan.make(.bucket(units: 1, burst: 500))
        #expect(bench.pass(bench.request(plan, .export, 500)).isAllowed)
        let refused = bench.pass(bench.request(plan, .export, 500))
        bench.advance(refused.retryAfter ?? .zero)
        #expect(bench.pass(bench.request(plan, .export, 500)).isAllowed)
    }

    @Test("a rule of few units a day gives each of many processes something all the same")
    func seldom() throws {
        let rule = RateRule(
            name: "login", scope: .tenant, classes: [.login], algorithm: .slidingWindow, units: 40,
            per: .seconds(86_400))
        let made = try #require(LimitPlan.make(rule).rules.first)
        #expect(made.nanosPerSecond == 40 * LocalShare.unit / 86_400)
        // More processes than billionths, too.
        for processes in [1, 100, 1_000_000] {
            let measure = LocalShare.Measure(made, processes: processes, before: nil)
            #expect(measure.perSecond == max(1, made.nanosPerSecond / Int64(processes)))
        }
        let bench = LimitBench(processes: 100)
        bench.isConnected = false
        let plan = LimitPlan.make(rule)
        #expect(bench.pass(bench.request(plan, .login, 20)).isAllowed)
        let refused = bench.pass(bench.request(plan, .login, 20))
        // Half of the 40, of a hundredth of them a day.
        #expect(refused.retryAfter.map { $0 <= .seconds(51 * 86_400) } == true)
        bench.advance(refused.retryAfter ?? .zero)
        #expect(bench.pass(bench.request(plan, .login, 20)).isAllowed)
    }

    @Test("a share holds one second of itself, however long nobody has used it")
    func shareIsBounded() {
        let bench = LimitBench(processes: 4)
        bench.isConnected = false
        let plan = LimitPlan.make(.bucket(units: 4000, burst: 4000))
        func drain() -> Int {
            var count = 0
            while bench.pass(bench.request(plan)).isAllowed { count += 1 }
            return count
        }
        _ = drain()
        bench.advance(.seconds(600))
        #expect(drain() == 1000)
    }

    @Test("in the grace a process has no more than the limit, whatever a burst let it use before")
    func graceIsBounded() {
        let bench = LimitBench(processes: 10)
        let plan = LimitPlan.make(.bucket(units: 1000, burst: 100_000))
        for _ in 0..<90_000 {
            bench.advance(.microseconds(200))
            _ = bench.pass(bench.request(plan))
        }
        bench.isConnected = false
        _ = bench.pass(bench.request(plan))
        let group = bench.machine.targets(of: bench.request(plan)).tenant
        #expect(group.buckets[0].lastShare > 2000)
        let measure = bench.machine.share(of: 0, in: group, bench.now).measure
        #expect(measure.perSecond == 1000 * LocalShare.unit)
    }

    @Test("what else was asked of Redis and not answered makes it away too, for a rest")
    func lookUpFailed() {
        let bench = LimitBench()
        let plan = LimitPlan.make(.bucket(units: 1000, burst: 1000))
        #expect(!bench.pass(bench.request(plan, isExact: true)).isLocal)
        bench.machine.lookUpFailed(now: bench.now)
        #expect(bench.machine.isAway(at: bench.now))
        let asked = bench.questions
        for _ in 0..<10 {
            #expect(bench.pass(bench.request(plan, isExact: true)).origin == .grace)
            bench.advance(.milliseconds(99))
        }
        #expect(bench.questions == asked)
        bench.advance(.milliseconds(100))
        #expect(bench.pass(bench.request(plan, isExact: true)).origin == .redis)
        #expect(!bench.machine.isAway(at: bench.now))
    }

    @Test("too many questions of our own are no outage")
    func overloaded() {
        let bench = LimitBench()
        let plan = LimitPlan.make(.bucket(units: 1000, burst: 1000))
        bench.failure = .overloaded
        #expect(bench.pass(bench.request(plan)).isLocal)
        #expect(!bench.machine.isAway(at: bench.now))
        bench.failure = nil
        #expect(bench.pass(bench.request(plan)).origin == .redis)
    }

    @Test("in the grace a process goes on as before, after it has its fixed share")
    func lastShare() {
        let bench = LimitBench(processes: 10)
        let plan = LimitPlan.make(.bucket(units: 1000, burst: 5000))
        // All of the clinic's traffic comes to this process: 800 a second for a minute.
        for _ in 0..<48_000 {
            bench.advance(.microseconds(1250))
            _ = bench.pass(bench.request(plan))
        }
        bench.isConnected = false
        func admitted(_ seconds: Int) -> Int {
            var count = 0
            for _ in 0..<seconds * 1000 {
                bench.advance(.milliseconds(1))
                for _ in 0..<2 where bench.pass(bench.request(plan)).isAllowed { count += 1 }
            }
            return count
        }
        _ = admitted(2)
        let inGrace = admitted(20)
        #expect((700 * 20...1000 * 20).contains(inGrace), "\(inGrace)")
        _ = admitted(8)
        let after = admitted(20)
        #expect((99 * 20...101 * 20).contains(after), "\(after)")
    }

    @Test("shares gain nothing while Redis is well, and are filled again only with a new grace")
    func noSecondFilling() {
        let bench = LimitBench(processes: 2)
        let plan = LimitPlan.make(.bucket(units: 10, burst: 1000))
        bench.isConnected = false
        _ = bench.pass(bench.request(plan))
        func drain() -> Int {
            var count = 0
            while bench.pass(bench.request(plan, .default, 5)).isAllowed { count += 5 }
            return count
        }
        _ = drain()
        for _ in 0..<50 {
            bench.isConnected = true
            _ = bench.pass(bench.request(plan, tenant: 2, isExact: true))
            bench.advance(.seconds(22))
            bench.isConnected = false
            // What was leased meanwhile is another matter.
            _ = bench.pass(bench.request(plan, tenant: 2))
            bench.advance(.seconds(1))
            #expect(drain() <= 10)
        }
    }

    @Test(
        "a Redis that does not answer is asked by one request at a time, and not for a second after"
    )
    func hanging() {
        let bench = LimitBench()
        let plan = LimitPlan.make(.bucket(units: 1000, burst: 1000))
        _ = bench.pass(bench.request(plan, isExact: true))
        bench.failure = .timeout
        let asked = bench.questions
        #expect(bench.pass(bench.request(plan)).isLocal)
        for _ in 0..<100 {
            bench.advance(.milliseconds(9))
            _ = bench.pass(bench.request(plan))
        }
        #expect(bench.questions == asked + 1)
        bench.advance(.milliseconds(200))
        // One finds out; the others do not wait for it.
        let prober = bench.request(plan)
        #expect(bench.machine.decide(prober, now: bench.now, isConnected: true) == nil)
        _ = bench.machine.ask(prober, now: bench.now)
        #expect(
            bench.machine.decide(bench.request(plan), now: bench.now, isConnected: true)?.isLocal
                == true)
        bench.failure = nil
        bench.run()
        #expect(!bench.pass(bench.request(plan)).isLocal)
        #expect(bench.machine.metrics.failures(.timeout) == 1)
    }

    @Test("who is refused by a share is told when to come back, and is admitted then")
    func retryAfter() {
        let bench = LimitBench(processes: 3)
        bench.isConnected = false
        let plan = LimitPlan.make(.bucket(units: 7, burst: 500))
        for cost in [1, 10, 20, 500] {
            while true {
                let decision = bench.pass(bench.request(plan, .default, cost))
                guard let wait = decision.retryAfter else { continue }
                bench.advance(wait)
                #expect(bench.pass(bench.request(plan, .default, cost)).isAllowed)
                break
            }
        }
    }
}

@Suite("A Redis that has lost its data")
struct RedisBirthTests {
    @Test("a process that begins believes what it finds, one that comes back knows of the loss")
    func birth() {
        var first = RedisBirth()
        #expect(first.isFirst)
        expectEqual(first.learn("0:aa", now: 1000), true)
        #expect(first.since == 0)
        // The connection was lost, the data were not.
        expectEqual(first.learn("0:aa", now: 2000), true)
        #expect(first.since == 0)
        // It was restarted; this process leaves the mark.
        expectEqual(first.learn("3000:bb", now: 3000), true)
        #expect(first.since == 3000)
        var second = RedisBirth()
        expectEqual(second.learn("3000:bb", now: 4000), true)
        #expect(second.since == 3000)
        // A new process was there first and knew of nothing.
        expectEqual(second.learn("0:cc", now: 5000), true)
        #expect(second.since == 5000)
        for text in ["", "x", ":", "-1:a", "a:b"] { expectEqual(second.learn(text, now: 1), false) }
    }

    @Test("a bucket that was lost begins with its reserve and one chunk, and gains from there")
    func lost() {
        let shape = BucketShape(
            RateRule.bucket(units: 1000, burst: 20_000), reservePercent: 10)
        var ledger = LimitLedger()
        let question = LimitScript.Part(shape: shape, need: 0, want: 0)
        func available(after: Int64) -> Int64 {
            ledger.decide(
                [("k", question)], lane: .ordinary, birth: 1_000_000, now: 1_000_000 + after
            )
            .parts[0].state.available(shape, .ordinary, at: 1_000_000 + after)
        }
        #expect(available(after: 0) == 500)
        #expect(available(after: 1000) == 1500)
        #expect(available(after: 1_000_000) == 18_000)
    }
}

@Suite("Limit header fields")
struct RateDecisionTests {
    private func decision(
        remaining: Int, resetAfter: Duration, retryAfter: Duration?
    ) -> RateDecision {
        let plan = LimitPlan.make(.bucket(units: 50, burst: 1000))
        return RateDecision(
            isAllowed: retryAfter == nil, origin: .redis,
            plan: plan, policy: LimitPlan.policyPlace(of: .default, withUser: false), rule: 0,
            remaining: remaining, resetMilliseconds: resetAfter.inMilliseconds,
            retryAfter: retryAfter)
    }

    @Test("fields are as the draft writes them, and times are rounded up")
    func fields() {
        let decision = decision(
            remaining: 3, resetAfter: .milliseconds(19_940), retryAfter: .milliseconds(1001))
        #expect(decision.policyField == #""tenant";q=1000;w=20"#)
        #expect(decision.limitField == #""tenant";r=3;t=20"#)
        #expect(decision.retryAfterField == "2")
    }

    @Test("a wait of less than a second is one second")
    func shortWaits() {
        let decision = decision(remaining: 0, resetAfter: .zero, retryAfter: .microseconds(1))
        #expect(decision.retryAfterField == "1")
        #expect(decision.limitField == #""tenant";r=0;t=0"#)
    }
}
