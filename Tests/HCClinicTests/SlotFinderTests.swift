import HCCore
import HCTesting
import Testing

@testable import HCClinic

struct SlotFinderTests {
    private func minute(_ minute: Int) -> Timestamp { Timestamp(seconds: Int64(minute) * 60) }

    private func busy(_ from: Int, _ to: Int, lane: Int = 0) -> SlotFinder.Busy {
        SlotFinder.Busy(lane: lane, span: minute(from)..<minute(to))
    }

    private func starts(
        _ finder: SlotFinder, _ busy: [SlotFinder.Busy], capacity: Int = 1, until: Int = 24 * 60
    ) -> [Int] {
        finder.slots(after: minute(540), until: minute(until), busy: busy, capacity: capacity)
            .map { Int($0.startsAt.seconds) / 60 }
    }

    private let halfHour = SlotFinder(
        duration: .seconds(1800), bufferBefore: .zero, bufferAfter: .zero)

    @Test("the next five free steps of a quarter of an hour are offered")
    func nextFree() {
        #expect(starts(halfHour, [busy(540, 570)]) == [570, 585, 600, 615, 630])
        #expect(starts(halfHour, [busy(540, 570), busy(600, 690)]) == [570, 690, 705, 720, 735])
    }

    @Test("nothing is offered that begins after the end of the day")
    func endOfDay() {
        #expect(starts(halfHour, [busy(540, 570)], until: 585) == [570])
        #expect(starts(halfHour, [busy(0, 1440)]).isEmpty)
    }

    @Test("buffers are kept on both sides")
    func buffers() {
        let finder = SlotFinder(
            duration: .seconds(1800), bufferBefore: .seconds(600), bufferAfter: .seconds(300))
        // Taken 540-570, and 640-700. From 580 there is room for 10 minutes before; a visit at 600 needs
        // until 635; one at 615 would need until 650.
        #expect(starts(finder, [busy(540, 570), busy(640, 700)]).prefix(3) == [585, 600, 720])
    }

    @Test("with several lanes one must be free from beginning to end")
    func lanes() {
        let split = [busy(540, 600, lane: 0), busy(600, 660, lane: 1), busy(540, 555, lane: 1)]
        // At 585 lane 0 is taken until 600 and lane 1 from 600: no lane is free for half an hour.
        #expect(starts(halfHour, split, capacity: 2).prefix(3) == [555, 570, 600])
    }

    @Test("no slot that is offered overlaps with what is taken")
    func neverOverlaps() {
        var random = SeededRandom(seed: 7)
        for round in 0..<200 {
            let taken = (0..<20).map { _ in
                let from = Int.random(in: 480..<1400, using: &random)
                return busy(from, from + Int.random(in: 5..<120, using: &random))
            }
            let slots = halfHour.slots(
                after: minute(540), until: minute(1440), busy: taken, capacity: 1)
            for slot in slots {
                let span = slot.startsAt..<slot.endsAt
                #expect(!taken.contains { $0.span.overlaps(span) }, "round \(round)")
            }
        }
    }

    @Test("a slot is free exactly if nothing that is taken in one of the lanes overlaps with it")
    func exactly() {
        var random = SeededRandom(seed: 11)
        for round in 0..<200 {
            let capacity = Int.random(in: 1...4, using: &random)
            let taken = (0..<30).map { _ in
                let from = Int.random(in: 0..<1400, using: &random)
                return busy(
                    from, from + Int.random(in: 0..<120, using: &random),
                    lane: Int.random(in: 0...4, using: &random))
            }
            let known = TakenTime(taken, capacity: capacity)
            for _ in 0..<50 {
                let from = Int.random(in: 0..<1440, using: &random)
                let span = minute(from)..<minute(from + Int.random(in: 1..<90, using: &random))
                let isFree = (0..<capacity).contains { lane in
                    !taken.contains { $0.lane == lane && $0.span.overlaps(span) }
                }
                #expect(known.hasRoom(for: span) == isFree, "round \(round)")
            }
        }
    }

    @Test("what takes no time at all does not hide what follows it")
    func empty() {
        let known = TakenTime(
            [busy(10, 10, lane: 0), busy(12, 20, lane: 0)], capacity: 1)
        #expect(!known.hasRoom(for: minute(5)..<minute(15)))
        #expect(known.hasRoom(for: minute(5)..<minute(12)))
    }

    @Test("a week of a hundred lanes, all of them full, is not walked over for each slot")
    func full() {
        // Ten thousand minutes in visits of fifteen: walked over for each slot it would take minutes.
        let taken = (0..<100).flatMap { lane in
            stride(from: 0, to: 10_080, by: 15).map { busy($0, $0 + 15, lane: lane) }
        }
        #expect(
            halfHour.offer(from: minute(0), until: minute(10_080), busy: taken, capacity: 100)
                .isEmpty)
    }
}
