import HCCore
import HCIO
import HCRedis
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Limits of one process")
struct LimitMachineTests {
    private func bucket(_ units: Int, burst: Int, _ name: String = "tenant") -> RateRule {
        .bucket(name, units: units, burst: burst)
    }

    // MARK: Leases

    @Test("one process admits to the unit what the bucket holds, leased or not")
    func toTheUnit() {
        for isExact in [false, true] {
            let bench = LimitBench()
            let plan = LimitPlan.make(bucket(1, burst: 1000))
            var admitted = 0
            for _ in 0..<1200 where bench.pass(bench.request(plan, isExact: isExact)).isAllowed {
                admitted += 1
            }
            #expect(admitted == 1000)
        }
    }

    @Test("ordinary traffic asks once per lease, not once per request")
    func leases() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(10_000, burst: 20_000))
        for _ in 0..<20_000 {
            bench.advance(.microseconds(200))
            #expect(bench.pass(bench.request(plan)).isAllowed)
        }
        // 5,000 a second for four seconds, with 100 ms of that at a time once the use is measured.
        #expect(bench.questions < 200)
    }

    @Test("a lease is taken before the one before is used up, and nobody waits for it")
    func refill() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(10_000, burst: 20_000))
        var waited = 0
        for number in 0..<20_000 {
            bench.advance(.microseconds(200))
            let decision = bench.pass(bench.request(plan))
            if decision.origin == .redis, number > 2000 { waited += 1 }
        }
        #expect(waited == 0)
        #expect((bench.asked[.refill] ?? 0) > 10)
    }

    @Test("a process holds a tenth of a second of the rate at most, or what one request costs")
    func chunk() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 100_000))
        for _ in 0..<20_000 {
            // Far more than the rate is used, from the burst.
            bench.advance(.microseconds(50))
            _ = bench.pass(bench.request(plan))
            #expect(bench.held(plan) <= 100)
        }
        let small = LimitPlan.make(bucket(1, burst: 1000))
        bench.generation += 1
        _ = bench.pass(bench.request(small, tenant: 2, .default, 20))
        #expect(bench.held(small, tenant: 2) == 0)
    }

    @Test("what is leased and not used goes back, and runs out after a second")
    func unused() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 1000))
        bench.use(plan, until: 60)
        let held = bench.held(plan)
        #expect(held > 0)
        bench.advance(.milliseconds(300))
        bench.sweep()
        #expect(bench.held(plan) == 0)
        #expect((bench.asked[.giveBack] ?? 0) > 0)
        // Without anybody who gives it back it is void after its second.
        bench.use(plan, until: 60)
        #expect(bench.held(plan) > 0)
        bench.advance(.seconds(1))
        #expect(bench.held(plan) == 0)
        let givenBack = bench.asked[.giveBack]
        bench.sweep()
        #expect(bench.asked[.giveBack] == givenBack, "what has run out is not given back")
        bench.failure = .timeout
        let asked = bench.questions
        #expect(bench.pass(bench.request(plan)).isLocal)
        #expect(bench.questions == asked + 1, "it had nothing left and asked")
    }

    @Test("requests that come while a question is under way wait for its answer together")
    func singleFlight() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 1000))
        var pending: [PendingLimit] = []
        for _ in 0..<50 {
            let request = bench.request(plan)
            #expect(bench.machine.decide(request, now: bench.now, isConnected: true) == nil)
            pending.append(bench.machine.ask(request, now: bench.now))
        }
        let first = bench.machine.takeOutbox()
        #expect(first.count == 1)
        for flight in first { bench.deliver(flight) }
        bench.run()
        #expect(pending.count { $0.decision?.isAllowed == true } == 50)
        #expect(bench.questions == 2, "the second brings what all the others wait for")
        #expect(bench.held(plan) <= 20)
    }

    @Test("what was asked for requests that went away goes back")
    func abandoned() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 1000))
        var pending: [PendingLimit] = []
        for _ in 0..<200 {
            let request = bench.request(plan)
            _ = bench.machine.decide(request, now: bench.now, isConnected: true)
            pending.append(bench.machine.ask(request, now: bench.now))
        }
        for flight in bench.machine.takeOutbox() { bench.deliver(flight) }
        // The second question is under way, for 199.
        for one in pending {
            one.finish(bench.machine.decideAlone(one.request, one.targets, bench.now))
        }
        bench.run()
        #expect(bench.held(plan) <= 20)
        #expect(bench.asked[.giveBack] == 1)
    }

    @Test(
        "a lease runs out a second after it was asked for, however late the answer, and with others"
    )
    func leaseEnds() {
        var bucket = LeasedBucket(LimitPlan.make(bucket(1000, burst: 1000)).rules[0])
        func deposit(_ lane: LimitLane, sentAt: Int64, at now: Int64) {
            bucket.deposit(
                10, wanted: 10, lane, since: 0, sentAt: sentAt, life: 1000, spacing: 5, now)
        }
        deposit(.ordinary, sentAt: 0, at: 400)
        #expect(bucket.balance(.ordinary, 999) == 10)
        #expect(bucket.balance(.ordinary, 1000) == 0)
        // Of two that are counted as one the earlier end counts.
        deposit(.ordinary, sentAt: 100, at: 400)
        deposit(.ordinary, sentAt: 500, at: 500)
        #expect(bucket.balance(.ordinary, 999) == 30)
        #expect(bucket.balance(.ordinary, 1099) == 20)
        #expect(bucket.balance(.ordinary, 1100) == 0)
        // What the safety lane took of its reserve is nobody else's.
        deposit(.safety, sentAt: 2000, at: 2000)
        #expect(bucket.balance(.ordinary, 2000) == 0)
        #expect(bucket.balance(.safety, 2000) == 10)
    }

    @Test("a sensitive request asks for itself, whatever is leased")
    func exact() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 1000))
        bench.use(plan, until: 60)
        let held = bench.held(plan)
        #expect(held > 0)
        #expect(bench.pass(bench.request(plan, isExact: true)).origin == .redis)
        #expect(bench.asked[.exact] == 1)
        #expect(bench.held(plan) == held)
    }

    @Test(
        "so many requests wait for others' answers, and for so many answers; then each asks itself")
    func waitingIsBounded() {
        func exact(_ change: (inout LimitMachine.Limits) -> Void) -> Int? {
            var limits = LimitMachine.Limits()
            change(&limits)
            let bench = LimitBench(limits: limits)
            let plan = LimitPlan.make(bucket(1000, burst: 1000))
            let pending = (0..<50).map { _ in
                bench.machine.ask(bench.request(plan), now: bench.now)
            }
            bench.run()
            #expect(pending.count { $0.decision?.isAllowed == true } == 50)
            return bench.asked[.exact]
        }
        expectEqual(exact { _ in }, nil)
        expectEqual(exact { $0.waitingMax = 10 }, 39)
        // The first answer brings one unit, for who asked.
        expectEqual(exact { $0.roundsMax = 1 }, 49)
    }

    @Test("a request dearer than all that there can be takes all of it, and passes sooner or later")
    func dearerThanAll() {
        for isExact in [false, true] {
            let bench = LimitBench()
            let plan = LimitPlan.make(bucket(10, burst: 100), reserve: 10)
            let request = bench.request(plan, .export, 500, isExact: isExact)
            #expect(bench.pass(request).isAllowed)
            let refused = bench.pass(request)
            #expect(!refused.isAllowed)
            #expect(refused.retryAfter.map { $0 <= .seconds(10) } == true)
            bench.advance(refused.retryAfter ?? .zero)
            #expect(bench.pass(request).isAllowed)
        }
    }

    // MARK: All or none

    @Test("a request that one rule refuses is charged by none")
    func allOrNone() {
        for isExact in [false, true] {
            let bench = LimitBench()
            let user = RateRule(
                name: "user", scope: .user, algorithm: .fixedWindow, units: 3, per: .seconds(3600))
            let plan = LimitPlan.make(bucket(1, burst: 100), user)
            for _ in 0..<50 {
                _ = bench.pass(bench.request(plan, isExact: isExact, user: 1))
            }
            let refused = bench.pass(bench.request(plan, isExact: isExact, user: 1))
            #expect(!refused.isAllowed)
            #expect(refused.ruleName == "user")
            // 97 of the clinic's 100 are left for the others.
            var admitted = 0
            for number in 0..<200 {
                let user = UInt64(10 + number)
                if bench.pass(bench.request(plan, isExact: isExact, user: user)).isAllowed {
                    admitted += 1
                }
            }
            #expect(admitted == 97)
        }
    }

    @Test("rules count the classes that they name, weighted by what a request costs")
    func classes() {
        let bench = LimitBench()
        let search = RateRule(
            name: "search", scope: .tenant, classes: [.search], algorithm: .slidingWindow,
            units: 30, per: .seconds(60))
        let plan = LimitPlan.make(bucket(1, burst: 1000), search)
        for _ in 0..<3 { #expect(bench.pass(bench.request(plan, .search, 10)).isAllowed) }
        let refused = bench.pass(bench.request(plan, .search, 10))
        #expect(refused.ruleName == "search")
        #expect(bench.pass(bench.request(plan, .default, 20)).isAllowed)
        #expect(
            bench.pass(bench.request(plan, .default, 1)).policyField
                == #""tenant";q=1000;w=1000"#)
        #expect(
            refused.policyField == #""tenant";q=1000;w=1000, "search";q=30;w=60"#)
    }

    @Test("each account and each address has its own buckets, in each clinic")
    func scopes() throws {
        let bench = LimitBench()
        let login = RateRule(
            name: "login", scope: .address, classes: [.login], algorithm: .slidingWindow,
            units: 20, per: .seconds(60))
        let plan = LimitPlan.make(bucket(100, burst: 1000), login)
        let one = LimitAddress(try #require(SocketAddress(host: "192.0.2.1", port: 1)))
        let two = LimitAddress(try #require(SocketAddress(host: "192.0.2.2", port: 1)))
        func isAdmitted(_ address: LimitAddress, tenant: UInt64 = 1) -> Bool {
            bench.pass(
                bench.request(plan, tenant: tenant, .login, 20, isExact: true, address: address)
            ).isAllowed
        }
        #expect(isAdmitted(one))
        #expect(!isAdmitted(one))
        #expect(isAdmitted(two))
        #expect(isAdmitted(one, tenant: 2))
        #expect(
            LimitAddress(try #require(SocketAddress(host: "192.0.2.1", port: 9))) == one,
            "a port is no address")
        func v6(_ text: String) throws -> LimitAddress {
            LimitAddress(try #require(SocketAddress(host: text, port: 1)))
        }
        let (first, second) = (try v6("2001:db8::1"), try v6("2001:db8::2"))
        #expect(first == second, "a /64 is one customer")
        let (other, mapped) = (try v6("2001:db8:0:1::1"), try v6("::ffff:192.0.2.1"))
        #expect(first != other)
        #expect(mapped == one)
    }

    // MARK: The safety lane

    @Test(
        "who treats gets through when the clinic has used up its limit, and has a limit too",
        arguments: RateAlgorithm.allCases)
    func safetyLane(algorithm: RateAlgorithm) {
        let bench = LimitBench()
        let rule = RateRule(
            name: "tenant", scope: .tenant, algorithm: algorithm, units: 1000,
            per: .seconds(3600), burst: algorithm == .tokenBucket ? 1000 : nil)
        let plan = LimitPlan.make(rule, reserve: 10)
        var ordinary = 0
        while bench.pass(bench.request(plan)).isAllowed { ordinary += 1 }
        #expect(ordinary == 900)
        var safety = 0
        while bench.pass(bench.request(plan, lane: .safety)).isAllowed { safety += 1 }
        #expect(safety == 100)
        #expect(!bench.pass(bench.request(plan)).isAllowed)
    }

    @Test("what is kept for the safety lane is kept of the clinic's limits, not of anybody's own")
    func reserves() {
        for scope in RateScope.allCases {
            let rule = RateRule(
                name: "r", scope: scope, algorithm: .fixedWindow, units: 1000, per: .seconds(60))
            expectEqual(
                BucketShape(rule, reservePercent: 10).reserve, scope == .tenant ? 100 : 0)
        }
    }

    @Test("without Redis the safety lane has its part as well")
    func safetyLaneAlone() {
        let bench = LimitBench(processes: 1)
        bench.isConnected = false
        let plan = LimitPlan.make(bucket(1, burst: 10_000), reserve: 10)
        while bench.pass(bench.request(plan)).isAllowed {}
        var safety = 0
        while bench.pass(bench.request(plan, lane: .safety)).isAllowed { safety += 1 }
        #expect((50...60).contains(safety))
    }

    // MARK: Coming back

    @Test(
        "whoever comes back when told to is admitted, with a lease too",
        arguments: 1...20 as ClosedRange<UInt64>)
    func retryAfterIsTrue(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let bench = LimitBench()
        var refusals = 0
        for _ in 0..<20 {
            let algorithm = RateAlgorithm.allCases.randomElement(using: &random) ?? .tokenBucket
            let units = Int.random(in: 500...3000, using: &random)
            let window = Duration.milliseconds(Int.random(in: 1000...20_000, using: &random))
            let tenant = RateRule(
                name: "tenant", scope: .tenant, algorithm: algorithm, units: units, per: window,
                burst: algorithm == .tokenBucket
                    ? Int.random(in: 500...3000, using: &random) : nil)
            let user = RateRule(
                name: "user", scope: .user, algorithm: .slidingWindow,
                units: Int.random(in: 500...1000, using: &random), per: .seconds(10))
            let plan = LimitPlan.make(tenant, user)
            bench.generation += 1
            for _ in 0..<400 {
                bench.advance(.microseconds(Int64.random(in: 0...3000, using: &random)))
                let cost = RequestCost.allCases.randomElement(using: &random) ?? .read
                let request = bench.request(
                    plan, .default, cost.units, isExact: Bool.random(using: &random),
                    user: UInt64.random(in: 1...2, using: &random))
                let decision = bench.pass(request)
                guard let wait = decision.retryAfter else { continue }
                refusals += 1
                #expect(wait > .zero)
                bench.advance(wait)
                let again = bench.pass(request)
                #expect(
                    again.isAllowed,
                    "seed \(seed): \(request.request.units) by \(String(describing: again.ruleName)) after \(wait): \(again)"
                )
            }
        }
        #expect(refusals > 0)
    }

    @Test("an answer that there is none is believed for a moment, and spares Redis the question")
    func dry() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1, burst: 500))
        while bench.pass(bench.request(plan)).isAllowed {}
        let asked = bench.questions
        for _ in 0..<1000 { #expect(!bench.pass(bench.request(plan)).isAllowed) }
        for _ in 0..<1000 { #expect(!bench.pass(bench.request(plan, isExact: true)).isAllowed) }
        #expect(bench.questions == asked)
        bench.advance(.milliseconds(150))
        _ = bench.pass(bench.request(plan))
        #expect(bench.questions == asked + 1)
        // Somebody may have given units back.
        bench.advance(.milliseconds(150))
        _ = bench.pass(bench.request(plan, isExact: true))
        #expect(bench.questions == asked + 2)
    }

    @Test("a bucket that trickles is asked for now and then, not for each unit that comes")
    func spacing() {
        let bench = LimitBench()
        let plan = LimitPlan.make(bucket(1000, burst: 500))
        while bench.pass(bench.request(plan)).isAllowed {}
        let asked = bench.questions
        var admitted = 0
        for _ in 0..<10_000 {
            bench.advance(.microseconds(100))
            if bench.pass(bench.request(plan)).isAllowed { admitted += 1 }
        }
        #expect((990...1000).contains(admitted), "\(admitted)")
        #expect(bench.questions - asked <= 250, "one in 5 ms, not one in each")
    }

    // MARK: Changes

    @Test("a changed limit voids what is leased under the old one at once")
    func revoked() {
        let bench = LimitBench()
        let old = LimitPlan.make(bucket(1000, burst: 1000))
        bench.use(old, until: 60)
        #expect(bench.held(old) > 0)
        bench.generation += 1
        let new = LimitPlan.make(bucket(500, burst: 500))
        let decision = bench.pass(bench.request(new))
        #expect(decision.origin == .redis)
        #expect(decision.policyField == #""tenant";q=500;w=1"#)
        #expect(bench.machine.metrics.revocations.value == 1)
        #expect(bench.held(new) == 0)
        // A request that was begun under the old map does not bring the old rule back.
        let late = BenchRequest(
            request: LimitRequest(kind: .default, units: 1),
            clinic: .make(old, generation: bench.generation - 1))
        _ = bench.pass(late)
        #expect(bench.machine.metrics.revocations.value == 1)
        #expect(bench.machine.targets(of: late).tenant.plan === new)
    }

    @Test("units that come under the old rule are nobody's: they are asked for under the new one")
    func revokedBeforeAnswer() {
        let bench = LimitBench()
        let request = bench.request(LimitPlan.make(bucket(1000, burst: 1000)))
        let pending = bench.machine.ask(request, now: bench.now)
        let flights = bench.machine.takeOutbox()
        bench.generation += 1
        let new = LimitPlan.make(bucket(900, burst: 900))
        _ = bench.machine.targets(of: bench.request(new))
        for flight in flights { bench.deliver(flight) }
        #expect(pending.decision == nil)
        #expect(bench.held(new) == 0)
        bench.run()
        #expect(pending.decision?.isAllowed == true)
        #expect(bench.asked[.lease] == 2)
    }

    @Test("units that were asked for under the old rule are not used under the new one")
    func revokedInFlight() {
        let bench = LimitBench()
        let old = LimitPlan.make(bucket(1000, burst: 1000))
        let new = LimitPlan.make(bucket(1, burst: 500))
        let request = bench.request(old, .default, 20)
        _ = bench.machine.decide(request, now: bench.now, isConnected: true)
        let pending = bench.machine.ask(request, now: bench.now)
        let flights = bench.machine.takeOutbox()
        bench.generation += 1
        while bench.pass(bench.request(new, isExact: true)).isAllowed {}
        for flight in flights { bench.deliver(flight) }
        bench.run()
        #expect(pending.decision?.isAllowed == false)
        #expect(bench.held(new) == 0)
    }

    @Test("what was asked for under other rules and is too much is not given back to the new ones")
    func shedVoid() {
        let bench = LimitBench()
        let user = RateRule(
            name: "second", scope: .tenant, algorithm: .slidingWindow, units: 1000,
            per: .seconds(60))
        let old = LimitPlan.make(bucket(1000, burst: 1000), user)
        let pending = (0..<200).map { _ in
            bench.machine.ask(bench.request(old), now: bench.now)
        }
        for flight in bench.machine.takeOutbox() { bench.deliver(flight) }
        // The second question is under way, for 199 who go away; one rule is left.
        for one in pending {
            one.finish(bench.machine.decideAlone(one.request, one.targets, bench.now))
        }
        let flights = bench.machine.takeOutbox()
        #expect(flights.count == 1)
        let answers = flights.map { flight in
            bench.redis.decide(
                Array(zip(flight.questions.names, flight.questions.parts)).map {
                    (name: $0.0, part: $0.1)
                },
                lane: flight.lane, birth: 0, now: bench.redisTime)
        }
        bench.generation += 1
        let new = LimitPlan.make(bucket(500, burst: 500))
        _ = bench.pass(bench.request(new))
        for (flight, answer) in zip(flights, answers) {
            #expect(answer.passes)
            bench.machine.answered(flight, answer, now: bench.now)
        }
        bench.run()
        #expect(bench.asked[.giveBack] == nil)
    }

    @Test("a change of tier in the middle of a burst brings no new burst, up or down")
    func tierChange() {
        let bench = LimitBench()
        let small = LimitPlan.make(bucket(1, burst: 1000))
        while bench.pass(bench.request(small)).isAllowed {}
        bench.generation += 1
        // Called otherwise, and counted otherwise.
        for rule in [
            bucket(1, burst: 100_000, "all"),
            RateRule(
                name: "window", scope: .tenant, algorithm: .slidingWindow, units: 50_000,
                per: .seconds(3600)),
            RateRule(
                name: "hour", scope: .tenant, algorithm: .fixedWindow, units: 50_000,
                per: .seconds(3600)),
        ] {
            bench.generation += 1
            let other = LimitPlan.make(rule)
            bench.advance(.milliseconds(100))
            var admitted = 0
            while bench.pass(bench.request(other)).isAllowed { admitted += 1 }
            #expect(admitted <= 1, "\(rule.name)")
        }
    }

    @Test("a bucket's key is of the place where the clinic is, and another after a move")
    func keys() {
        let group = LimitGroup(
            LimitKey(tenant: Sample.tenant(1), scope: .tenant, subject: .zero),
            LimitPlan.make(bucket(1, burst: 500)), generation: 1)
        let prefixes = [1, 2, 1].map { Sample.record(epoch: $0).redisPrefix }
        let names = prefixes.map { group.name(of: 0, prefix: $0) }
        for (name, prefix) in zip(names, prefixes) { #expect(name.hasPrefix(prefix)) }
        #expect(names[0] != names[1] && names[0] == names[2])
    }

    @Test("a clinic whose buckets were forgotten goes on with those that all its requests find")
    func forgotten() {
        var limits = LimitMachine.Limits()
        limits.tenantsMax = 1
        let bench = LimitBench(limits: limits)
        let plan = LimitPlan.make(bucket(1000, burst: 1000))
        let request = bench.request(plan, tenant: 1)
        let first = bench.machine.targets(of: request).tenant
        #expect(bench.machine.targets(of: request).tenant === first)
        _ = bench.machine.targets(of: bench.request(plan, tenant: 2))
        let second = bench.machine.targets(of: request).tenant
        #expect(second !== first)
        #expect(bench.machine.targets(of: bench.request(plan, tenant: 1)).tenant === second)
        #expect(bench.machine.targets(of: request).tenant === second)
    }

    @Test("a changed tier reaches a clinic whose record stays as it was", .onLoop)
    @LoopActor
    func changedTier() {
        let record = Sample.record(1)
        func tier(_ units: Int) -> TierDefinition {
            TierDefinition(name: record.tierName, rates: [bucket(units, burst: 500)])
        }
        let plans = LimitPlans()
        plans.follow([tier(100)])
        let first = plans.limits(of: record)
        #expect(first.plan.tier == tier(100))
        #expect(plans.limits(of: record) === first)
        plans.follow([tier(50)])
        #expect(plans.limits(of: record).plan.tier == tier(50))
        // Nor is what one door has found asked by another.
        let others = LimitPlans()
        others.follow([tier(10)])
        #expect(others.limits(of: record).plan.tier == tier(10))
    }

    @Test("a map that brings a tier as it was voids nothing")
    func sameTier() {
        let plans = LimitPlans()
        let tier = LimitPlan.make(bucket(1000, burst: 1000)).tier
        plans.follow([tier])
        let first = plans.plan(named: "t")
        let other = TierDefinition(name: "o", rates: [bucket(1, burst: 500)])
        plans.follow([tier, other])
        #expect(plans.plan(named: "t") === first)
        var changed = tier
        changed.weight += 1
        plans.follow([changed, other])
        #expect(plans.plan(named: "t") !== first)
        #expect(plans.map.generation == 3)
        // What is not in the map has limits all the same.
        #expect(plans.plan(named: "gone").tier == .least("gone"))
    }

    @Test("an answer of Redis that cannot be one is not believed, whatever it would give")
    func answers() {
        let shape = BucketShape(bucket(1, burst: 500), reservePercent: 0)
        func answer(_ numbers: [Double], need: Int64 = 2, want: Int64 = 5) -> LimitAnswer? {
            let bytes = numbers.flatMap { number in
                (0..<8).map { UInt8(truncatingIfNeeded: number.bitPattern >> (8 * UInt64($0))) }
            }
            return LimitAnswer(
                .bytes(bytes), to: [LimitScript.Part(shape: shape, need: need, want: want)])
        }
        #expect(answer([1000, 1, 5, 300, 0, 1000]) != nil)
        #expect(answer([1000, 0, 0, 300, 0, 1000]) != nil)
        #expect(answer([1000, 1, -5, 300, 0, 1000], need: 0, want: -5) != nil)
        #expect(answer([1000, 1, 1, 300, 0, 1000]) == nil, "less than was needed")
        #expect(answer([1000, 1, 6, 300, 0, 1000]) == nil, "more than was wanted")
        #expect(answer([1000, 0, 2, 300, 0, 1000]) == nil, "given, and refused")
        #expect(answer([1000, 1, -4, 300, 0, 1000], need: 0, want: -5) == nil, "not all back")
        #expect(answer([0, 1, 5, 300, 0, 1000]) == nil, "no time")
        #expect(answer([1000, 2, 5, 300, 0, 1000]) == nil, "no verdict")
        #expect(answer([1000, 1, 5, 0x1p53, 0, 1000]) == nil, "more than can be counted")
        #expect(answer([1000, 1, 5, .nan, 0, 1000]) == nil)
        #expect(answer([1000, 1, 5, 0.5, 0, 1000]) == nil)
        #expect(answer([1000, 1, 5, 300, -1, 1000]) == nil)
        #expect(answer([1000, 1, 5, 300, 0, -1]) == nil)
    }

    // MARK: Bounds

    @Test("a flood of addresses takes bounded memory, and forgets no clinic")
    func bounded() throws {
        var limits = LimitMachine.Limits()
        limits.tenantsMax = 10
        limits.subjectsMax = 100
        let bench = LimitBench(limits: limits)
        let login = RateRule(
            name: "login", scope: .address, algorithm: .slidingWindow, units: 100, per: .seconds(60)
        )
        let plan = LimitPlan.make(bucket(1000, burst: 1000), login)
        bench.use(plan, until: 60)
        let held = bench.held(plan)
        #expect(held > 0)
        for number in 0..<10_000 as Range<UInt32> {
            let address = LimitAddress(.ipv4(address: number, port: 1))
            _ = bench.pass(bench.request(plan, tenant: 2, .login, 1, address: address))
        }
        #expect(bench.machine.groupCount <= 110)
        #expect(bench.held(plan) == held)
        for number in 0..<1000 as Range<UInt64> {
            _ = bench.pass(bench.request(plan, tenant: number))
        }
        #expect(bench.machine.groupCount <= 110)
    }
}

extension LimitBench {
    /// Units that the process holds of the clinic's first bucket.
    func held(_ plan: LimitPlan, tenant: UInt64 = 1) -> Int64 {
        let request = request(plan, tenant: tenant)
        return machine.targets(of: request).tenant.buckets[0].balance(.safety, now.nanoseconds)
    }

    /// Uses the clinic's limit for so many milliseconds, so that leases are taken.
    func use(_ plan: LimitPlan, until milliseconds: Int) {
        for _ in 0..<milliseconds {
            advance(.milliseconds(1))
            for _ in 0..<1 { _ = pass(request(plan)) }
        }
    }
}
