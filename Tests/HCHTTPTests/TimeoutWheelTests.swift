import HCCore
import HCTesting
import Testing

@testable import HCHTTP

@Suite("Timeout wheel")
struct TimeoutWheelTests {
    private static func at(_ seconds: Double) -> MonotonicTime {
        MonotonicTime(nanoseconds: Int64(seconds * 1e9))
    }

    @Test("an entry comes out after its time, never before")
    func order() {
        var wheel = TimeoutWheel(resolution: .seconds(1), now: Self.at(100))
        let tick = wheel.arm(7, at: Self.at(102.5))
        #expect(wheel.advance(to: Self.at(102.9)).isEmpty)
        let due = wheel.advance(to: Self.at(103))
        #expect(due.map(\.connection) == [7])
        #expect(due.map(\.tick) == [tick])
        #expect(wheel.advance(to: Self.at(110)).isEmpty)
    }

    @Test("what is beyond the wheel's reach comes out at its end, to be armed again")
    func beyond() {
        var wheel = TimeoutWheel(resolution: .seconds(1), slotCount: 8, now: Self.at(0))
        _ = wheel.arm(1, at: Self.at(1000))
        #expect(wheel.advance(to: Self.at(6)).isEmpty)
        #expect(wheel.advance(to: Self.at(7)).count == 1)
    }

    @Test("after a long pause everything that is due comes out once")
    func pause() {
        var wheel = TimeoutWheel(resolution: .seconds(1), slotCount: 8, now: Self.at(0))
        for place in 0..<5 { _ = wheel.arm(place, at: Self.at(Double(place))) }
        #expect(
            wheel.advance(to: Self.at(1_000_000)).map(\.connection).sorted() == [0, 1, 2, 3, 4])
        #expect(wheel.advance(to: Self.at(2_000_000)).isEmpty)
    }

    @Test("any sequence of arming and waiting: nothing early, nothing late by more than a tick")
    func property() {
        var random = SeededRandom(seed: 42)
        var wheel = TimeoutWheel(resolution: .seconds(1), now: Self.at(0))
        var expected: [Int: Double] = [:]
        var now = 0.0
        for place in 0..<2000 {
            let time = now + Double.random(in: 0..<120, using: &random)
            _ = wheel.arm(place, at: Self.at(time))
            expected[place] = time
            let before = now
            now += Double.random(in: 0..<0.5, using: &random)
            for entry in wheel.advance(to: Self.at(now)) {
                let time = expected.removeValue(forKey: entry.connection) ?? .infinity
                #expect(time <= now)
                #expect(time > before - 1.001)
            }
        }
    }
}
