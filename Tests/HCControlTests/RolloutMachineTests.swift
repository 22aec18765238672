import Testing

@testable import HCControl

@Suite("The order of a run of migrations")
struct RolloutMachineTests {
    private let waves = [["s1"], ["s2", "s3"], ["s4", "s5", "s6"]]

    /// Every shard of the wave that is being worked on, without trouble.
    private func work(_ machine: inout RolloutMachine) -> [String] {
        var shards: [String] = []
        while let shard = machine.next() {
            machine.migrated(shard)
            shards.append(shard)
        }
        return shards
    }

    @Test("wave by wave, and the next one when the gate has opened")
    func good() {
        var machine = RolloutMachine(waves: waves)
        for (number, wave) in waves.enumerated() {
            #expect(machine.wave == number && machine.ending == nil)
            #expect(work(&machine) == wave)
            #expect(machine.next() == nil, "the gate is closed")
            machine.verified(failing: [])
        }
        #expect(machine.ending == .done && machine.done == 6)
        #expect(RolloutMachine(waves: []).ending == .done)
    }

    @Test("after a failure nothing is begun, and what is being worked on comes to its end")
    func failure() {
        var machine = RolloutMachine(waves: waves)
        #expect(work(&machine) == ["s1"])
        machine.verified(failing: [])
        let (first, second) = (machine.next(), machine.next())
        machine.failed(first ?? "")
        #expect(machine.next() == nil)
        #expect(!machine.isWaveOver && machine.ending == nil)
        machine.migrated(second ?? "")
        #expect(machine.isWaveOver && machine.ending == .halted)
        #expect(machine.failed == ["s2"] && machine.done == 2 && machine.running.isEmpty)
    }

    @Test("a wave that does not pass its gate is the last")
    func gate() {
        var machine = RolloutMachine(waves: waves)
        #expect(work(&machine) == ["s1"])
        machine.verified(failing: ["s1"])
        #expect(machine.ending == .halted && machine.next() == nil && machine.wave == 0)
    }

    @Test("stopped between two migrations of a shard it is neither done nor failed")
    func stopped() {
        var machine = RolloutMachine(waves: waves)
        let shard = machine.next()
        machine.stop()
        #expect(machine.next() == nil && machine.ending == nil)
        machine.leftOff(shard ?? "")
        #expect(machine.ending == .stopped && machine.done == 0 && machine.failed.isEmpty)
    }

    @Test("a stop that comes after the last gate changes nothing")
    func late() {
        var machine = RolloutMachine(waves: [["s1"]])
        #expect(work(&machine) == ["s1"])
        machine.verified(failing: [])
        machine.stop()
        #expect(machine.ending == .done)
    }
}
