import HCCore
import HCTesting
import Testing

@testable import HCHTTP

@Suite("What is tried again, and when")
struct RetryPolicyTests {
    private let start = MonotonicTime(nanoseconds: 1_000_000_000)
    private let never = Deadline.never

    private func decide(
        _ outcome: RetryPolicy.Outcome, repeatable: Bool, deadline: Deadline = .never
    ) -> RetryPolicy.Decision {
        var policy = RetryPolicy(.init(), isRepeatable: repeatable)
        var budget = RetryBudget()
        var random = SeededRandom(seed: 1)
        return policy.decide(
            after: outcome, at: start, deadline: deadline, budget: &budget, using: &random)
    }

    private func isRetry(_ decision: RetryPolicy.Decision) -> Bool {
        if case .retry = decision { true } else { false }
    }

    static let outcomes: [(RetryPolicy.Outcome, whenRepeatable: Bool, else: Bool)] = [
        (.notSent, true, true), (.broken, true, false), (.final, false, false),
        (.status(429, retryAfter: nil), true, false), (.status(502, retryAfter: nil), true, false),
        (.status(503, retryAfter: nil), true, false), (.status(504, retryAfter: nil), true, false),
        (.status(500, retryAfter: nil), false, false),
        (.status(501, retryAfter: nil), false, false),
        (.status(408, retryAfter: nil), false, false),
        (.status(200, retryAfter: nil), false, false),
    ]

    @Test("only what was not sent, or may be sent twice, is sent again", arguments: outcomes)
    func sentTwice(_ outcome: RetryPolicy.Outcome, _ whenRepeatable: Bool, _ other: Bool) {
        #expect(isRetry(decide(outcome, repeatable: true)) == whenRepeatable)
        #expect(isRetry(decide(outcome, repeatable: false)) == other)
    }

    @Test("attempts have an end, and the waits between them grow within their bounds")
    func attempts() {
        let limits = RetryPolicy.Limits(
            attemptsMax: 5, backoffInitial: .milliseconds(100), backoffMax: .milliseconds(300))
        for seed in UInt64(0)..<50 {
            var policy = RetryPolicy(limits, isRepeatable: true)
            var budget = RetryBudget()
            var random = SeededRandom(seed: seed)
            for bound in [100, 200, 300, 300] {
                let decision = policy.decide(
                    after: .broken, at: start, deadline: never, budget: &budget, using: &random)
                guard case .retry(let time) = decision else {
                    Issue.record("gave up early, seed \(seed)")
                    return
                }
                let wait = time.remaining(at: start)
                #expect(wait >= .milliseconds(bound / 2) && wait <= .milliseconds(bound))
            }
            let last = policy.decide(
                after: .broken, at: start, deadline: never, budget: &budget, using: &random)
            #expect(last == .giveUp(.attempts))
        }
    }

    @Test("Retry-After is waited for, and what comes too late is not tried")
    func retryAfter() {
        let asked = RetryPolicy.Outcome.status(503, retryAfter: .seconds(4))
        guard case .retry(let time) = decide(asked, repeatable: true) else {
            Issue.record("gave up")
            return
        }
        #expect(time.remaining(at: start) > .seconds(4))
        #expect(time.remaining(at: start) < .seconds(5))
        let soon = Deadline.after(.seconds(4), from: start)
        #expect(decide(asked, repeatable: true, deadline: soon) == .giveUp(.deadline))
        let long = RetryPolicy.Outcome.status(503, retryAfter: .seconds(11))
        #expect(decide(long, repeatable: true) == .giveUp(.deadline))
        #expect(
            decide(.notSent, repeatable: true, deadline: Deadline(start)) == .giveUp(.deadline))
    }

    @Test("an outage is met with a tenth more requests, not with three times as many")
    func budget() {
        var budget = RetryBudget(percent: 10, burst: 10)
        var random = SeededRandom(seed: 3)
        var retries = 0
        var refusals = 0
        for _ in 0..<1000 {
            budget.noteRequest()
            var policy = RetryPolicy(.init(), isRepeatable: true)
            attempts: while true {
                switch policy.decide(
                    after: .broken, at: start, deadline: never, budget: &budget, using: &random)
                {
                case .retry: retries += 1
                case .giveUp(let reason):
                    if reason == .budget { refusals += 1 }
                    break attempts
                }
            }
        }
        #expect(retries <= 110 && retries >= 100)
        #expect(refusals > 800)
        #expect(budget.remaining == 0)
    }

    @Test("a budget saves no more than its burst")
    func burst() {
        var budget = RetryBudget(percent: 50, burst: 3)
        for _ in 0..<100 { budget.noteRequest() }
        #expect(budget.remaining == 3)
        var none = RetryBudget(percent: 0, burst: 0)
        none.noteRequest()
        #expect(none.remaining == 0)
    }

    static let values: [(String, Duration?)] = [
        ("0", .zero), ("120", .seconds(120)), ("007", .seconds(7)),
        ("999999999", .seconds(999_999_999)), ("1000000000", nil), ("-1", nil), ("1.5", nil),
        ("", nil), (" 1", nil), ("soon", nil), ("Thu, 15 Jan 2026 09:00:30 GMT", .seconds(30)),
        ("Thu, 15 Jan 2026 08:00:00 GMT", .zero), ("Thu, 15 Jan 2026 09:00:30 UTC", nil),
        ("Thu, 32 Jan 2026 09:00:30 GMT", nil), ("Thu, 15 Jan 2026 24:00:30 GMT", nil),
        ("Thursday, 15-Jan-26 09:00:30 GMT", nil), ("Thu, 15 jan 2026 09:00:30 GMT", nil),
        ("Thu, 15 Jan 2026 09:00:30 GMTx", nil),
    ]

    @Test("Retry-After is seconds or an instant", arguments: values)
    func parses(_ text: String, _ expected: Duration?) {
        #expect(RetryAfter.parse(text, now: ManualClock().now) == expected)
    }
}

@Suite("An origin that fails is left alone")
struct OriginBreakerTests {
    private let limits = OriginBreaker.Limits(
        failuresMax: 3, restInitial: .seconds(1), restMax: .seconds(4))
    private let start = MonotonicTime(nanoseconds: 0)

    @Test("it opens after failures in a row, and one probe decides")
    func opens() {
        var random = SeededRandom(seed: 1)
        var breaker = OriginBreaker(limits)
        for _ in 0..<2 { breaker.failed(at: start, using: &random) }
        breaker.succeeded()
        for _ in 0..<2 { breaker.failed(at: start, using: &random) }
        #expect(breaker.ask(at: start) == .allowed && breaker.isClosed)
        breaker.failed(at: start, using: &random)
        guard case .refused(let wait) = breaker.ask(at: start) else {
            Issue.record("still closed")
            return
        }
        #expect(wait > .zero && wait <= .seconds(1))
        #expect(breaker.ask(at: start + wait) == .allowed)
        #expect(breaker.ask(at: start + wait) == .refused(retryAfter: .seconds(1)))
        breaker.succeeded()
        #expect(breaker.isClosed)
    }

    @Test("a probe that fails opens it for longer, one that tells nothing lets the next try")
    func probes() {
        var random = SeededRandom(seed: 2)
        var breaker = OriginBreaker(limits)
        for _ in 0..<3 { breaker.failed(at: start, using: &random) }
        var now = start + .seconds(1)
        #expect(breaker.ask(at: now) == .allowed)
        breaker.failed(at: now, using: &random)
        guard case .refused(let wait) = breaker.ask(at: now) else {
            Issue.record("closed by a failure")
            return
        }
        #expect(wait >= .seconds(1) && wait <= .seconds(2))
        now += wait
        #expect(breaker.ask(at: now) == .allowed)
        breaker.abandoned(at: now)
        #expect(breaker.ask(at: now) == .allowed)
        // A probe that never tells does not close the way for ever.
        #expect(breaker.ask(at: now + .seconds(3)) == .refused(retryAfter: .seconds(1)))
        #expect(breaker.ask(at: now + .seconds(4)) == .allowed)
    }
}

@Suite("Transfers take turns")
struct TransferAdmissionTests {
    @Test("origins have their own bound and their own order")
    func bounds() {
        var admission = TransferAdmission(
            .init(transfersMax: 3, transfersPerOriginMax: 2, queuedMax: 3, queuedPerOriginMax: 2))
        #expect(admission.ask("a") == .begin)
        #expect(admission.ask("a") == .begin)
        #expect(admission.ask("a") == .wait(1))
        #expect(admission.ask("a") == .wait(2))
        #expect(admission.ask("a") == .refuse)
        #expect(admission.ask("b") == .begin)
        #expect(admission.ask("b") == .wait(3))
        #expect(admission.ask("c") == .refuse)
        #expect(admission.active == 3 && admission.queued == 3)
        // The place that b leaves is b's: a is full.
        #expect(admission.end("b") == 3)
        #expect(admission.end("a") == 1)
        let isFirst = admission.leave(2)
        let isSecond = admission.leave(2)
        #expect(isFirst && !isSecond)
        #expect(admission.end("a") == nil)
        #expect(admission.end("a") == nil)
        #expect(admission.end("b") == nil)
        #expect(admission.active == 0 && admission.originCount == 0)
    }

    @Test("whatever happens, the counts stay true", arguments: 0..<20)
    func random(_ seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        let limits = TransferAdmission.Limits(
            transfersMax: 5, transfersPerOriginMax: 2, queuedMax: 6, queuedPerOriginMax: 3)
        var admission = TransferAdmission(limits)
        var active: [String] = []
        var waiting: [Int: String] = [:]
        for _ in 0..<2000 {
            let origin = ["a", "b", "c", "d"].randomElement(using: &random) ?? "a"
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                switch admission.ask(origin) {
                case .begin: active.append(origin)
                case .wait(let id): waiting[id] = origin
                case .refuse: break
                }
            case 1:
                guard let index = active.indices.randomElement(using: &random) else { break }
                if let id = admission.end(active.remove(at: index)) {
                    if let next = waiting.removeValue(forKey: id) { active.append(next) }
                }
            default:
                guard let id = waiting.keys.sorted().randomElement(using: &random) else { break }
                waiting[id] = nil
                let isQueued = admission.leave(id)
                #expect(isQueued)
            }
            #expect(admission.active == active.count && active.count <= 5)
            #expect(admission.queued == waiting.count && waiting.count <= 6)
            for name in ["a", "b", "c", "d"] {
                let count = active.count { $0 == name }
                #expect(count <= 2)
                // Nobody waits while there is room for him.
                let waits = waiting.values.contains(name)
                #expect(!waits || count == 2 || active.count == 5)
            }
        }
    }
}
