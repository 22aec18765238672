import HCIO
import Testing

@testable import HCControl

@LoopActor
@Suite("MovePace")
struct MovePaceTests {
    @Test("It rests nine times as long as all parts of a piece took, and at most two seconds")
    func rests() {
        var pace = MovePace(sizes: 1...16)
        #expect(pace.next(after: [.milliseconds(3), .milliseconds(2)]) == .milliseconds(45))
        #expect(pace.next(after: [.milliseconds(200)]) == .milliseconds(1800))
        #expect(pace.next(after: [.milliseconds(600)]) == .seconds(2))
        #expect(pace.next(after: []) == .zero)
    }

    @Test("Pieces grow while they are quick, and shrink when one part of them is slow")
    func sizes() {
        var pace = MovePace(sizes: 1...16)
        #expect(pace.size == 1)
        for expected in [2, 4, 8, 16, 16] {
            _ = pace.next(after: [.microseconds(500), .microseconds(900)])
            #expect(pace.size == expected)
        }
        _ = pace.next(after: [.milliseconds(2), .milliseconds(2)])
        #expect(pace.size == 16, "together they are long, but no core has one for long")
        for expected in [8, 4, 2, 1, 1] {
            _ = pace.next(after: [.milliseconds(1), .milliseconds(3)])
            #expect(pace.size == expected)
        }
    }
}
