import HCTesting
import Testing

@testable import HCTenancy

@Suite("Gathering")
struct GatheringMachineTests {
    private func expectBegin(
        _ machine: inout GatheringMachine<Int>, _ elements: [Int], goesOn: Bool,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let group = machine.begin()
        #expect(group.elements == elements, sourceLocation: sourceLocation)
        #expect(group.goesOn == goesOn, sourceLocation: sourceLocation)
    }

    @Test("the first is announced, what follows waits and goes together")
    func groups() {
        var machine = GatheringMachine<Int>(waitingMax: 10, groupMax: 10, underWayMax: 1)
        expectEqual(machine.add(1), .announce)
        expectEqual(machine.add(2), .wait)
        expectBegin(&machine, [1, 2], goesOn: false)
        expectEqual(machine.add(3), .wait)
        expectEqual(machine.add(4), .wait)
        #expect(!machine.isIdle)
        expectEqual(machine.end(), true)
        expectBegin(&machine, [3, 4], goesOn: false)
        expectEqual(machine.end(), false)
        #expect(machine.isIdle)
        expectEqual(machine.add(5), .announce)
    }

    @Test("so many groups are under way at a time, and the next takes what gathered meanwhile")
    func underWay() {
        var machine = GatheringMachine<Int>(waitingMax: 10, groupMax: 10, underWayMax: 2)
        expectEqual(machine.add(1), .announce)
        expectBegin(&machine, [1], goesOn: false)
        expectEqual(machine.add(2), .announce)
        expectBegin(&machine, [2], goesOn: false)
        expectEqual(machine.add(3), .wait)
        expectEqual(machine.add(4), .wait)
        #expect(machine.underWayCount == 2)
        expectEqual(machine.end(), true)
        expectBegin(&machine, [3, 4], goesOn: false)
        expectEqual(machine.end(), false)
        expectEqual(machine.end(), false)
        #expect(machine.isIdle)
    }

    @Test("the queue and the group are bounded")
    func bounds() {
        var machine = GatheringMachine<Int>(waitingMax: 4, groupMax: 3, underWayMax: 2)
        expectEqual(machine.add(1), .announce)
        for number in 2...4 { expectEqual(machine.add(number), .wait) }
        expectEqual(machine.add(5), .refuse)
        expectBegin(&machine, [1, 2, 3], goesOn: true)
        expectEqual(machine.add(6), .wait)
        expectBegin(&machine, [4, 6], goesOn: false)
        expectEqual(machine.end(), false)
    }

    @Test(
        "every element goes once, in order, whatever happens when",
        arguments: 1...30 as ClosedRange<UInt64>)
    func conservation(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let underWayMax = Int.random(in: 1...4, using: &random)
        var machine = GatheringMachine<Int>(
            waitingMax: Int.random(in: 1...20, using: &random),
            groupMax: Int.random(in: 1...8, using: &random), underWayMax: underWayMax)
        var taken: [Int] = []
        var gone: [Int] = []
        var isAnnounced = false
        func begin() {
            let (elements, goesOn) = machine.begin()
            gone += elements
            isAnnounced = goesOn
        }
        for number in 0..<2000 {
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                switch machine.add(number) {
                case .announce:
                    #expect(!isAnnounced, "seed \(seed)")
                    isAnnounced = true
                    taken.append(number)
                case .wait: taken.append(number)
                case .refuse: break
                }
            case 1 where isAnnounced: begin()
            case 2 where machine.underWayCount > 0:
                if machine.end() { isAnnounced = true }
            default: break
            }
            #expect(machine.underWayCount <= underWayMax, "seed \(seed)")
        }
        while isAnnounced || machine.underWayCount > 0 {
            if isAnnounced { begin() } else { isAnnounced = machine.end() }
        }
        #expect(machine.isIdle, "seed \(seed)")
        #expect(gone == taken, "seed \(seed)")
    }
}
