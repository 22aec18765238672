import HCCore
import Testing

@testable import HCApp

/// Drives the machine through a story: processes are numbered as they are spawned, time is a number of seconds.
private struct Story {
    var machine: SupervisorStateMachine
    var now = MonotonicTime(nanoseconds: 0)
    var nextProcess: Int32 = 100

    init(slots: Int, limits: SupervisorStateMachine.Limits = .init()) {
        machine = SupervisorStateMachine(slots: slots, limits: limits)
    }

    mutating func wait(_ duration: Duration) { now = now + duration }

    /// Carries out the spawn actions and returns the processes that were started.
    mutating func spawn(_ actions: [SupervisorStateMachine.Action]) -> [Int32] {
        var started: [Int32] = []
        for case .spawn(let slot) in actions {
            let process = nextProcess
            nextProcess += 1
            started.append(process)
            _ = machine.spawned(process: process, slot: slot, now: now)
        }
        return started
    }

    /// Starts every slot and makes every worker ready.
    mutating func open() -> [Int32] {
        let processes = spawn(machine.start())
        for process in processes { _ = machine.ready(process: process, now: now) }
        return processes
    }
}

@Suite struct SupervisorStateMachineTests {
    @Test("a worker that dies young is replaced with a growing backoff")
    func backoff() {
        var story = Story(slots: 1)
        var process = story.open()[0]
        var delays: [Duration] = []
        for _ in 0..<4 {
            story.wait(.milliseconds(1))
            #expect(story.machine.exited(process: process, now: story.now) == [])
            let died = story.now
            var actions: [SupervisorStateMachine.Action] = []
            while actions.isEmpty {
                story.wait(.milliseconds(50))
                actions = story.machine.tick(now: story.now)
            }
            delays.append(story.now - died)
            process = story.spawn(actions)[0]
        }
        #expect(
            delays == [
                .milliseconds(100), .milliseconds(200), .milliseconds(400), .milliseconds(800),
            ])
    }

    @Test("a worker that was stable is replaced at once")
    func restart() {
        var story = Story(slots: 2)
        let processes = story.open()
        story.wait(.seconds(60))
        #expect(story.machine.exited(process: processes[1], now: story.now) == [.spawn(slot: 1)])
    }

    @Test("a worker without heartbeats is killed, and one with heartbeats is not")
    func stuck() {
        var story = Story(slots: 2)
        let processes = story.open()
        for _ in 0..<9 {
            story.wait(.seconds(1))
            #expect(story.machine.tick(now: story.now) == [])
            _ = story.machine.heartbeat(process: processes[1], residentBytes: 1, now: story.now)
        }
        story.wait(.seconds(1))
        #expect(
            story.machine.tick(now: story.now) == [.kill(process: processes[0], reason: .stuck)])
        // Once: the exit is awaited after that.
        #expect(story.machine.tick(now: story.now) == [])
    }

    @Test("a worker above its memory ceiling is drained only after its successor is ready")
    func memory() {
        var limits = SupervisorStateMachine.Limits()
        limits.memoryBytesMax = 1000
        var story = Story(slots: 1, limits: limits)
        let old = story.open()[0]
        // A worker that has only begun is given time: a ceiling below what it needs must not make it spin.
        #expect(story.machine.heartbeat(process: old, residentBytes: 1001, now: story.now) == [])
        story.wait(.seconds(10))
        let actions = story.machine.heartbeat(process: old, residentBytes: 1001, now: story.now)
        #expect(actions == [.spawn(slot: 0)])
        // A second report does not start a second successor.
        #expect(story.machine.heartbeat(process: old, residentBytes: 1001, now: story.now) == [])
        let new = story.spawn(actions)[0]
        #expect(story.machine.heartbeat(process: old, residentBytes: 1001, now: story.now) == [])
        #expect(story.machine.ready(process: new, now: story.now) == [.drain(process: old)])
        #expect(story.machine.exited(process: old, now: story.now) == [])
        #expect(story.machine.processes == [new])
    }

    @Test("far above the ceiling there is no time for a drain")
    func memoryKill() {
        var limits = SupervisorStateMachine.Limits()
        limits.memoryBytesMax = 1000
        limits.memoryBytesSlack = 1500
        var story = Story(slots: 1, limits: limits)
        let old = story.open()[0]
        #expect(story.machine.heartbeat(process: old, residentBytes: 2500, now: story.now) == [])
        #expect(
            story.machine.heartbeat(process: old, residentBytes: 2501, now: story.now)
                == [.kill(process: old, reason: .memory)])
        limits.memoryBytesSlack = 10
        #expect(limits.memoryBytesKill == 2000)
    }

    @Test(
        "a roll replaces one slot after the other, and each old worker leaves before the next slot")
    func roll() {
        var story = Story(slots: 2)
        let old = story.open()
        let first = story.machine.hangup(now: story.now)
        #expect(first == [.spawn(slot: 0)])
        let new0 = story.spawn(first)[0]
        #expect(story.machine.ready(process: new0, now: story.now) == [.drain(process: old[0])])
        let second = story.machine.exited(process: old[0], now: story.now)
        #expect(second == [.spawn(slot: 1)])
        let new1 = story.spawn(second)[0]
        #expect(story.machine.ready(process: new1, now: story.now) == [.drain(process: old[1])])
        #expect(story.machine.isRolling)
        #expect(story.machine.exited(process: old[1], now: story.now) == [.rollFinished])
        #expect(!story.machine.isRolling)
        #expect(story.machine.processes == [new0, new1])
    }

    @Test("a roll during a roll replaces those too that the first has made")
    func rollDuringRoll() {
        var story = Story(slots: 2)
        let old = story.open()
        let new0 = story.spawn(story.machine.hangup(now: story.now))[0]
        #expect(story.machine.hangup(now: story.now) == [])
        #expect(story.machine.ready(process: new0, now: story.now) == [.drain(process: old[0])])
        // Slot 0 has a worker that was started before the second request: it is not the last.
        let second = story.machine.exited(process: old[0], now: story.now)
        #expect(second == [.spawn(slot: 0)])
        let newer0 = story.spawn(second)[0]
        _ = story.machine.ready(process: newer0, now: story.now)
        let third = story.machine.exited(process: new0, now: story.now)
        #expect(third == [.spawn(slot: 1)])
        let newer1 = story.spawn(third)[0]
        _ = story.machine.ready(process: newer1, now: story.now)
        #expect(story.machine.exited(process: old[1], now: story.now) == [.rollFinished])
        #expect(story.machine.members.allSatisfy { $0.worker.generation == 3 })
    }

    @Test(
        "a roll waits for a slot whose worker is being replaced anyway, and ends with all slots new"
    )
    func rollMeetsRestart() {
        var story = Story(slots: 2)
        let old = story.open()
        story.wait(.seconds(60))
        let restarted = story.spawn(story.machine.exited(process: old[0], now: story.now))[0]
        let first = story.machine.hangup(now: story.now)
        #expect(first == [.spawn(slot: 1)])
        let new1 = story.spawn(first)[0]
        _ = story.machine.ready(process: new1, now: story.now)
        #expect(story.machine.exited(process: old[1], now: story.now) == [])
        #expect(story.machine.isRolling)
        // It was started before the roll was asked for.
        let second = story.machine.ready(process: restarted, now: story.now)
        #expect(second == [.spawn(slot: 0)])
        let new0 = story.spawn(second)[0]
        _ = story.machine.ready(process: new0, now: story.now)
        #expect(story.machine.exited(process: restarted, now: story.now) == [.rollFinished])
    }

    @Test("SIGTERM during a roll drains old and new, and nothing is started any more")
    func terminateDuringRoll() {
        var story = Story(slots: 2)
        let old = story.open()
        let new0 = story.spawn(story.machine.hangup(now: story.now))[0]
        #expect(
            story.machine.terminate(now: story.now)
                == [.drain(process: old[0]), .drain(process: new0), .drain(process: old[1])])
        #expect(story.machine.exited(process: old[0], now: story.now) == [])
        #expect(story.machine.exited(process: old[1], now: story.now) == [])
        #expect(story.machine.hangup(now: story.now) == [])
        #expect(story.machine.exited(process: new0, now: story.now) == [.exit])
    }

    @Test("another program takes the workers over as they are, and replaces them one by one")
    func adoption() {
        var story = Story(slots: 2)
        let old = story.open()
        let new0 = story.spawn(story.machine.hangup(now: story.now))[0]
        story.wait(.seconds(20))
        var next = SupervisorStateMachine(
            adopting: story.machine.members, slots: 2, generation: story.machine.generation,
            limits: .init(), now: story.now)
        #expect(next.processes == story.machine.processes)
        // Their last heartbeat was long ago, but nobody has listened.
        #expect(next.tick(now: story.now) == [])
        // The successor that is on its way comes first; it is of the program before, like the others.
        let first = next.resume(now: story.now)
        #expect(first == [.spawn(slot: 1)])
        story.machine = next
        let new1 = story.spawn(first)[0]
        #expect(story.machine.ready(process: new1, now: story.now) == [.drain(process: old[1])])
        #expect(story.machine.ready(process: new0, now: story.now) == [.drain(process: old[0])])
        #expect(story.machine.exited(process: old[1], now: story.now) == [.spawn(slot: 0)])
    }

    @Test("a worker that died during an adoption is replaced, and a slot without one gets one")
    func adoptionOfTheDead() {
        var story = Story(slots: 2)
        let old = story.open()
        story.wait(.seconds(60))
        let members = story.machine.members.filter { $0.slot == 1 }
        story.machine = SupervisorStateMachine(
            adopting: members, slots: 2, generation: 1, limits: .init(), now: story.now)
        #expect(
            story.machine.resume(now: story.now) == [.spawn(slot: 1), .spawn(slot: 0)])
        #expect(story.machine.processes == [old[1]])
    }

    @Test("when no worker of a generation was ever ready, the roll says so")
    func unproven() {
        var story = Story(slots: 2)
        _ = story.open()
        let first = story.spawn(story.machine.hangup(now: story.now))[0]
        #expect(
            story.machine.exited(process: first, now: story.now) == [
                .rollAbandoned(isProven: false)
            ]
        )
        let second = story.spawn(story.machine.hangup(now: story.now))[0]
        let drained = story.machine.ready(process: second, now: story.now)
        guard case .drain(let old) = drained.first else { return #expect(Bool(false)) }
        let third = story.spawn(story.machine.exited(process: old, now: story.now))[0]
        #expect(
            story.machine.exited(process: third, now: story.now) == [.rollAbandoned(isProven: true)]
        )
    }

    @Test("a successor that cannot start abandons the roll and the old worker goes on serving")
    func rollAbandoned() {
        var story = Story(slots: 2)
        let old = story.open()
        let broken = story.spawn(story.machine.hangup(now: story.now))[0]
        #expect(
            story.machine.exited(process: broken, now: story.now)
                == [.rollAbandoned(isProven: false)])
        #expect(!story.machine.isRolling)
        #expect(story.machine.processes == old)
        #expect(story.machine.readyCount == 2)
    }

    @Test("the old worker dying during the hand-over leaves the slot to its successor")
    func deathInHandOver() {
        var story = Story(slots: 1)
        let old = story.open()[0]
        story.wait(.seconds(60))
        let new = story.spawn(story.machine.hangup(now: story.now))[0]
        #expect(story.machine.exited(process: old, now: story.now) == [])
        #expect(story.machine.ready(process: new, now: story.now) == [.rollFinished])
        #expect(!story.machine.isRolling)
        #expect(story.machine.readyCount == 1)
    }

    @Test("SIGTERM drains everybody, and the last exit ends the supervisor")
    func terminate() {
        var story = Story(slots: 2)
        let processes = story.open()
        #expect(
            story.machine.terminate(now: story.now) == processes.map { .drain(process: $0) })
        #expect(story.machine.exited(process: processes[0], now: story.now) == [])
        #expect(story.machine.exited(process: processes[1], now: story.now) == [.exit])
    }

    @Test("what does not drain in time is killed; a second SIGTERM does not wait for it")
    func terminateDeadline() {
        var story = Story(slots: 1)
        let process = story.open()[0]
        _ = story.machine.terminate(now: story.now)
        story.wait(.seconds(35))
        #expect(
            story.machine.tick(now: story.now) == [.kill(process: process, reason: .drainTimeout)])
        #expect(story.machine.terminate(now: story.now) == [])
        #expect(story.machine.exited(process: process, now: story.now) == [.exit])

        var hasty = Story(slots: 1)
        let other = hasty.open()[0]
        _ = hasty.machine.terminate(now: hasty.now)
        #expect(
            hasty.machine.terminate(now: hasty.now) == [.kill(process: other, reason: .impatience)])
    }

    @Test("a worker whose spawn was under way at SIGTERM is drained as soon as it is known")
    func terminateDuringSpawn() {
        var story = Story(slots: 1)
        _ = story.machine.start()
        #expect(story.machine.terminate(now: story.now) == [])
        #expect(
            story.machine.spawned(process: 7, slot: 0, now: story.now) == [.drain(process: 7)])
        #expect(story.machine.exited(process: 7, now: story.now) == [.exit])
    }

    @Test(
        "no event of any order makes two active workers, or leaves a slot for good",
        arguments: 0..<200)
    func anyOrder(seed: UInt64) {
        var random = SplitMix(state: seed)
        var story = Story(slots: 3)
        var alive = Set(story.open())
        // Told to end: a real process does so some time, whatever else happens.
        var doomed: Set<Int32> = []
        for _ in 0..<400 {
            story.wait(.milliseconds(Int64(random.next() % 3000)))
            var actions: [SupervisorStateMachine.Action]
            let someone = alive.sorted().randomElement(using: &random)
            switch random.next() % 6 {
            case 0: actions = story.machine.hangup(now: story.now)
            case 1:
                actions = someone.map { story.machine.exited(process: $0, now: story.now) } ?? []
                if let someone { alive.remove(someone) }
            case 2: actions = someone.map { story.machine.ready(process: $0, now: story.now) } ?? []
            case 3:
                actions =
                    someone.map {
                        story.machine.heartbeat(
                            process: $0, residentBytes: Int(random.next() % (4 << 30)),
                            now: story.now)
                    } ?? []
            default: actions = story.machine.tick(now: story.now)
            }
            for action in actions {
                switch action {
                case .kill(let process, _), .drain(let process):
                    #expect(alive.contains(process), "seed \(seed)")
                    doomed.insert(process)
                case .spawn, .exit, .rollFinished, .rollAbandoned: break
                }
            }
            alive.formUnion(story.spawn(actions))
            #expect(Set(story.machine.processes) == alive, "seed \(seed)")
            #expect(alive.count <= 3 * 6, "seed \(seed)")
        }
        // Left in peace, every slot ends with exactly one ready worker.
        for _ in 0..<200 {
            story.wait(.seconds(1))
            var actions = story.machine.tick(now: story.now)
            for process in doomed.intersection(alive).sorted() {
                alive.remove(process)
                actions += story.machine.exited(process: process, now: story.now)
            }
            while !actions.isEmpty {
                let due = actions
                actions = []
                for action in due {
                    switch action {
                    case .kill(let process, _), .drain(let process):
                        alive.remove(process)
                        actions += story.machine.exited(process: process, now: story.now)
                    case .spawn, .exit, .rollFinished, .rollAbandoned: break
                    }
                }
                for process in story.spawn(due) {
                    alive.insert(process)
                    actions += story.machine.ready(process: process, now: story.now)
                }
            }
            for process in alive.sorted() {
                _ = story.machine.heartbeat(process: process, residentBytes: 1, now: story.now)
            }
        }
        #expect(story.machine.readyCount == 3, "seed \(seed)")
        #expect(!story.machine.isRolling, "seed \(seed)")
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): a seed printed on failure repeats the whole run.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
