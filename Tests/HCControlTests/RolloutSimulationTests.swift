import HCCore
import Testing

@testable import HCControl

@Suite("Migrations of imagined shards")
struct RolloutSimulationTests {
    private static let seeds: [UInt64] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]

    private func settings(
        _ seed: UInt64, shards: Int = 1000, parallel: Int = 8, longShare: Double? = nil
    ) -> RolloutSimulation.Settings {
        var settings = RolloutSimulation.Settings()
        settings.seed = seed
        settings.shards = shards
        settings.parallel = parallel
        if let longShare { settings.profile.longShare = longShare }
        return settings
    }

    /// How many shards the waves up to this one have.
    private func shardsThrough(_ wave: Int, of count: Int) throws -> Int {
        let ids = (1...count).map { "s\($0)" }
        return try MigrationWaves(shards: ids, canary: "s1").waves.prefix(wave + 1)
            .reduce(0) { $0 + $1.count }
    }

    @Test("a good one reaches a thousand shards within ten minutes", arguments: seeds)
    func good(seed: UInt64) throws {
        var simulation = RolloutSimulation(settings(seed))
        let outcome = try simulation.run(.none)
        #expect(outcome.ending == .done && outcome.failed.isEmpty && outcome.untouched == 0)
        #expect(outcome.done.count == 1000 && Set(outcome.begun).count == 1000)
        #expect(outcome.waves.map(\.shards) == [1, 49, 200, 750])
        #expect(outcome.milliseconds < 600_000)
        // Each of the parts is cut to whole milliseconds.
        let parts = outcome.planMilliseconds + outcome.waves.reduce(0) { $0 + $1.milliseconds }
        #expect(abs(outcome.milliseconds - parts) <= outcome.waves.count)
        for wave in outcome.waves {
            #expect(wave.milliseconds >= wave.slowestMilliseconds + wave.gateMilliseconds - 1)
        }
    }

    @Test("the same seed is the same day, and another is another")
    func repeatable() throws {
        func time(_ seed: UInt64) throws -> Int64 {
            var simulation = RolloutSimulation(settings(seed))
            return try simulation.run(.none).milliseconds
        }
        #expect(try time(7) == time(7))
        #expect(try Set(Self.seeds.map(time)).count > 1)
    }

    @Test("a bad one ends with the canary", arguments: seeds)
    func bad(seed: UInt64) throws {
        var simulation = RolloutSimulation(settings(seed))
        let outcome = try simulation.run(.bad)
        #expect(outcome.ending == .halted)
        #expect(outcome.begun.count == 1 && outcome.failed == outcome.begun)
        #expect(outcome.done.isEmpty && outcome.untouched == 999)
    }

    @Test(
        "wherever shards fail, it ends in their wave, with no more of them than are worked on at once",
        arguments: seeds, [1, 8, 64])
    func bounded(seed: UInt64, parallel: Int) throws {
        var simulation = RolloutSimulation(settings(seed, parallel: parallel))
        for share in [0.001, 0.01, 0.1, 0.9] {
            let outcome = try simulation.run(.random(share))
            #expect(outcome.failed.count <= parallel, "seed \(seed), share \(share)")
            let reached = try shardsThrough(outcome.waves.count - 1, of: 1000)
            #expect(outcome.begun.count <= reached)
            #expect(outcome.untouched == 1000 - outcome.begun.count)
            #expect(outcome.done.count + outcome.failed.count == outcome.begun.count)
            if outcome.waves.count == 1, outcome.ending == .halted {
                #expect(outcome.failed.count == 1)
            }
        }
    }

    @Test("the third of ten halts it; those before keep what they have, and repaired it goes on")
    func third() throws {
        var simulation = RolloutSimulation(settings(1, shards: 10, parallel: 1, longShare: 0))
        let outcome = try simulation.run(.one(position: 3))
        #expect(outcome.ending == .halted && outcome.failed == ["s03"])
        #expect(outcome.done == ["s01", "s02"] && outcome.untouched == 7)
        let resumed = try simulation.run(.none, done: outcome.done)
        #expect(resumed.ending == .done && resumed.done.count == 10)
        #expect(resumed.begun == (3...9).map { "s0\($0)" } + ["s10"])
    }

    @Test(
        "a lock that is held for too long halts it; meanwhile requests go through", arguments: seeds
    )
    func locked(seed: UInt64) throws {
        var simulation = RolloutSimulation(settings(seed, longShare: 0))
        let outcome = try simulation.run(.locked(position: 10))
        #expect(outcome.ending == .halted && outcome.failed.count == 1)
        #expect(outcome.lockedOut > 20 && outcome.lockedOut <= LockRetry().attemptsMax)
        #expect(outcome.waves.count == 2)
    }

    @Test("a wave that does not pass its gate is the last, though all of its shards are done")
    func gate() throws {
        var simulation = RolloutSimulation(settings(1))
        let outcome = try simulation.run(.gate(wave: 1))
        #expect(outcome.ending == .halted && outcome.waves.count == 2)
        #expect(outcome.done.count == 50 && outcome.untouched == 950)
    }

    @Test("with servers down nothing is begun; without those shards it goes through the others")
    func down() throws {
        var simulation = RolloutSimulation(settings(1, shards: 20))
        let refused = try simulation.run(.down(3))
        #expect(refused.ending == nil && refused.begun.isEmpty && refused.untouched == 20)
        #expect(refused.refused == ["s18", "s19", "s20"])
        let outcome = try simulation.run(.none, except: Set(refused.refused))
        #expect(outcome.ending == .done && outcome.done.count == 17 && outcome.untouched == 3)
    }

    @Test("no run takes longer than its shards, worked on one after the other")
    func timeBound() throws {
        for parallel in [1, 3, 8] {
            var slow = RolloutSimulation(settings(3, shards: 200, parallel: 1))
            var fast = RolloutSimulation(settings(3, shards: 200, parallel: parallel))
            #expect(try fast.run(.none).milliseconds <= slow.run(.none).milliseconds)
        }
    }

    @Test("waves that are none are refused")
    func waves() {
        var wrong = settings(1)
        wrong.percents = [50, 20]
        var simulation = RolloutSimulation(wrong)
        let error = #expect(throws: ControlError.self) { try simulation.run(.none) }
        #expect(error?.code == "bad-waves")
    }
}
