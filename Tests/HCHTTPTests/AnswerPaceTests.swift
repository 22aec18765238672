import HCCore
import Testing

@testable import HCHTTP

@Suite("the pace at which a client takes its answers")
struct AnswerPaceTests {
    private static func time(_ seconds: Int64) -> MonotonicTime { .zero + .seconds(seconds) }

    @Test("what was taken in one gulp does not pay for standing still afterwards")
    func gulp() {
        var pace = AnswerPace()
        #expect(pace.wait(at: .zero, grace: .seconds(60)) == Self.time(60))
        pace.take(100 << 20, isAll: false, at: Self.time(1), bytesPerSecond: 1024)
        #expect(pace.wait(at: Self.time(1), grace: .seconds(60)) == Self.time(61))
    }

    @Test("sips add up to nothing")
    func sips() {
        var pace = AnswerPace()
        var limit = pace.wait(at: .zero, grace: .seconds(60))
        var now: Int64 = 0
        while Self.time(now) < limit {
            now += 20
            pace.take(1, isAll: false, at: Self.time(now), bytesPerSecond: 1024)
            limit = pace.wait(at: Self.time(now), grace: .seconds(60))
        }
        #expect(now == 80)
    }

    @Test("a client at the least rate is served for ever; time without output does not count")
    func steady() {
        var pace = AnswerPace()
        for second in 0..<10_000 {
            let now = Self.time(Int64(second))
            #expect(pace.wait(at: now, grace: .seconds(2)) > now)
            pace.take(1024, isAll: true, at: now + .seconds(1), bytesPerSecond: 1024)
        }
        #expect(pace.wait(at: Self.time(90_000), grace: .seconds(2)) == Self.time(90_002))
    }
}
