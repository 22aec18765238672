import HCCore

@testable import HCTenancy

/// What `LimitScript` does, in Swift: a Redis for tests that need many of them, or one whose clock they hold.
struct LimitLedger {
    private struct Entry {
        var shape: BucketShape
        var state: BucketState
    }

    private var entries: [String: Entry] = [:]
    /// `LimitScript.birth`.
    private(set) var mark: String?

    /// - Parameter now: Redis' time in milliseconds.
    mutating func decide(
        _ questions: [(name: String, part: LimitScript.Part)], lane: LimitLane, birth: Int64,
        now: Int64
    ) -> LimitAnswer {
        var found: [BucketState] = []
        var passes = true
        var changed: Set<String> = []
        for (name, part) in questions {
            let shape = part.shape
            let time = shape.ticks(now)
            var state: BucketState
            if let entry = entries[name] {
                state = entry.state.converted(from: entry.shape, to: shape, at: now)
                if !entry.shape.countsAlike(shape) { changed.insert(name) }
            } else if birth > 0 {
                state = BucketState(lost: shape, known: shape.ticks(max(0, now - birth)), at: time)
            } else {
                state = BucketState(full: shape, at: time)
            }
            state.advance(shape, to: time)
            if state.available(shape, lane, at: time) < part.need { passes = false }
            found.append(state)
        }
        var parts: [LimitAnswer.Part] = []
        for (index, question) in questions.enumerated() {
            let part = question.part
            var state = found[index]
            var given: Int64 = 0
            if part.want < 0 {
                given = part.want
                state.giveBack(-part.want, since: part.since, part.shape)
            } else if passes {
                let time = part.shape.ticks(now)
                given = min(part.want, state.available(part.shape, lane, at: time))
                state.take(given, part.shape)
            }
            if given != 0 || changed.contains(question.name) {
                entries[question.name] = Entry(shape: part.shape, state: state)
            }
            parts.append(LimitAnswer.Part(given: given, state: state))
        }
        return LimitAnswer(now: now, passes: passes, parts: parts)
    }

    /// What `LimitScript.birth` does.
    mutating func birth(isFirst: Bool, random: String, now: Int64) -> String {
        if let mark { return mark }
        let made = "\(isFirst ? 0 : now):\(random)"
        mark = made
        return made
    }

    mutating func loseEverything() {
        entries = [:]
        mark = nil
    }
}

/// One process' limits and a Redis, which answers at once.
final class LimitBench {
    var redis = LimitLedger()
    let machine: LimitMachine
    let registry = MetricsRegistry()
    var now = MonotonicTime(nanoseconds: 1_000_000_000_000)
    var isConnected = true
    /// Redis answers, or has its answers lost.
    var failure: LimitMetrics.Failure?
    /// Questions of each purpose that were asked.
    private(set) var asked: [LimitFlight.Purpose: Int] = [:]
    var generation = 1

    init(processes: Int = 2, limits: LimitMachine.Limits = LimitMachine.Limits()) {
        machine = LimitMachine(
            processes: processes, limits: limits, metrics: LimitMetrics(registry))
    }

    var questions: Int { asked.values.reduce(0, +) }
    var redisTime: Int64 { now.nanoseconds / 1_000_000 }

    func advance(_ duration: Duration) { now += duration }

    func request(
        _ plan: LimitPlan, tenant: UInt64 = 1, _ kind: LimitClass = .default,
        _ units: Int = 1, lane: LimitLane = .ordinary, isExact: Bool = false, user: UInt64? = nil,
        address: LimitAddress? = nil
    ) -> BenchRequest {
        BenchRequest(
            request: LimitRequest(
                kind: kind, units: units, lane: lane, isExact: isExact,
                user: user.map { UUID(high: 0x99, low: $0) }, address: address),
            clinic: .make(plan, tenant: tenant, generation: generation))
    }

    func pass(_ request: BenchRequest) -> RateDecision {
        let decided = machine.decide(request, now: now, isConnected: isConnected)
        let pending = decided == nil ? machine.ask(request, now: now) : nil
        run()
        guard let decided = decided ?? pending?.decision else {
            preconditionFailure("Redis answers at once")
        }
        return decided
    }

    /// Delivers the questions that came up.
    func run() {
        while true {
            let flights = machine.takeOutbox()
            if flights.isEmpty { return }
            for flight in flights { deliver(flight) }
        }
    }

    func deliver(_ flight: LimitFlight) {
        asked[flight.purpose, default: 0] += 1
        if let failure { return machine.failed(flight, failure, now: now) }
        let answer = redis.decide(
            Array(zip(flight.questions.names, flight.questions.parts)).map {
                (name: $0.0, part: $0.1)
            },
            lane: flight.lane, birth: 0, now: redisTime)
        machine.answered(flight, answer, now: now)
    }

    func sweep() {
        machine.sweep(now: now)
        run()
    }
}

extension LimitPlan {
    /// One rule for everything that a clinic does, unless told otherwise.
    static func make(_ rules: RateRule..., reserve: Int = 0) -> LimitPlan {
        LimitPlan(TierDefinition(name: "t", rates: rules, safetyReservePercent: reserve))
    }
}

/// A request, and whose it is.
struct BenchRequest {
    let request: LimitRequest
    let clinic: TenantLimits
}

extension LimitMachine {
    /// As a gate decides and asks, in one step each.
    func decide(
        _ asked: BenchRequest, now: MonotonicTime, isConnected: Bool
    ) -> RateDecision? {
        decide(
            asked.request, asked.clinic, targets(of: asked), now: now, isConnected: isConnected)
    }

    func ask(_ asked: BenchRequest, now: MonotonicTime) -> PendingLimit {
        ask(asked.request, asked.clinic, targets(of: asked), now: now)
    }

    func targets(of asked: BenchRequest) -> LimitTargets {
        targets(of: asked.request, asked.clinic)
    }
}

extension TenantLimits {
    static func make(
        _ plan: LimitPlan, tenant: UInt64 = 1, generation: Int = 1
    ) -> TenantLimits {
        TenantLimits(
            plan, of: Sample.record(tenant), under: LimitMap(generation: generation))
    }
}

extension RateDecision {
    var policyField: String { text(withPolicyField) ?? "" }
    var limitField: String? { text(withLimitField) }

    private func text(_ lend: ((UnsafeRawBufferPointer) -> Void) -> Void) -> String? {
        var text: String?
        lend { text = String(decoding: $0, as: UTF8.self) }
        return text
    }
}
