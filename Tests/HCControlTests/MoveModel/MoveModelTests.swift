import Testing

/// What the protocol of moves keeps whatever happens (tenancy reference, section 3.5): I1, I2, I3, I5, I8 and I10 of the
/// doors, the rows and the placement, that readers see what was acknowledged before they began, and that every state
/// has a continuation that ends with the clinic served in one place. I4 is in the model's grain: entering is one event,
/// before any other of a transaction.
///
/// Left out: leases (that two movers may run at once is what attempts are for), verification (it would hide what the
/// stream loses), more than two writes, two pauses, one fault of a kind, and the neighbours.
@Suite("The protocol of moves, in every order of events")
struct MoveModelTests {
    /// From the end of the copy on: A serves, B follows.
    private static var forward: World {
        World(
            step: .verified, epoch: 1, placement: 0, a: ShardState(.rw, epoch: 1, attempt: 1),
            b: ShardState(.incoming, epoch: 1, attempt: 1))
    }

    private static func scenario(
        _ name: String, _ start: World, _ change: (inout MoveModel.Scenario) -> Void = { _ in }
    ) -> MoveModel.Scenario {
        var start = start
        if start.first.action == .none {
            start.first = MoverState(action: .beginPause, attempt: 1, base: start.epoch)
        }
        var scenario = MoveModel.Scenario(name: name, start: start)
        change(&scenario)
        return scenario
    }

    static let scenarios: [MoveModel.Scenario] = {
        var lonely = forward
        lonely.writerB = .done
        var crashes = lonely
        crashes.targetCrashes = 1
        crashes.sourceCrashes = 1
        var failoverA = lonely
        failoverA.failoversA = 1
        var failoverB = lonely
        failoverB.failoversB = 1
        failoverB.targetCrashes = 1
        var late = lonely
        late.ghosts = 1
        late.lostAnswers = 1
        var purge = lonely
        purge.first = MoverState(action: .lateFirstPurge, attempt: 1, base: 1)
        purge.second = MoverState(action: .beginPause, attempt: 2, base: 1)
        purge.attempt = 2
        purge.a.attempt = 2
        purge.b.attempt = 2
        // The way back: B serves at epoch 2, A was left and has followed.
        var back = World(
            step: .returning, epoch: 2, placement: 1, a: ShardState(.moved, epoch: 2, attempt: 1),
            b: ShardState(.rw, epoch: 2, attempt: 1))
        back.first = MoverState(action: .reserve, attempt: 1, base: 2)
        var backLate = back
        backLate.writerB = .done
        backLate.ghosts = 1
        backLate.lostAnswers = 1
        // … while a mover of the way there is still about to open B or to leave A.
        func zombie(_ action: Action) -> World {
            var world = back
            world.attempt = 2
            world.first = MoverState(action: action, attempt: 1, base: 1)
            world.second = MoverState(action: .takeReopen, attempt: 2, base: 2)
            return world
        }
        return [
            scenario("two writers", forward) {
                $0.mayBeAborted = true
                $0.pauseMax = 1
            },
            scenario("two pauses", lonely) { $0.mayBeAborted = true },
            scenario("late answers", late) { $0.hasLateWriters = false },
            scenario("late answers, each pause an attempt", late) {
                $0.hasLateWriters = false
                $0.isPauseAttempt = true
                $0.attemptMax = 4
            },
            scenario("the control database is away in a pause", late) {
                $0.hasLateWriters = false
                $0.isPauseAttempt = true
                $0.attemptMax = 4
                $0.mayOpenAlone = true
            },
            scenario("the control database is away, and a server crashes", crashes) {
                $0.pauseMax = 1
                $0.hasLateWriters = false
                $0.isPauseAttempt = true
                $0.attemptMax = 4
                $0.mayOpenAlone = true
            },
            scenario("the control database is away on the way back", backLate) {
                $0.pauseMax = 1
                $0.hasLateWriters = false
                $0.isPauseAttempt = true
                $0.attemptMax = 4
                $0.mayOpenAlone = true
            },
            scenario("both servers crash", crashes) {
                $0.pauseMax = 1
                $0.hasLateWriters = false
            },
            scenario("the source fails over", failoverA) {
                $0.hasStandbys = true
                $0.pauseMax = 1
                $0.hasLateWriters = false
            },
            scenario("the target fails over", failoverB) {
                $0.hasStandbys = true
                $0.pauseMax = 1
                $0.hasLateWriters = false
            },
            scenario("the target fails over to a standby that is late", failoverB) {
                $0.hasStandbys = true
                $0.areStandbysLate = true
                $0.pauseMax = 1
                $0.hasLateWriters = false
            },
            scenario("a first purge that is late", purge),
            scenario("the way back", back) { $0.pauseMax = 1 },
            scenario("the way back, late answers", backLate) {
                $0.pauseMax = 1
                $0.hasLateWriters = false
            },
            scenario("the way back, B opened late", zombie(.open)),
            scenario("the way back, A left late", zombie(.leave)),
        ]
    }()

    @Test("no order of events breaks an invariant, and every one can still end well")
    func sound() {
        var states = 0
        for scenario in Self.scenarios {
            let result = MoveExplorer.explore(MoveModel(scenario))
            states += result.states
            print("\(scenario.name): \(result.states) states, \(result.transitions) transitions")
            #expect(result.finding == nil, "\(scenario.name): \(result.finding?.text ?? "")")
            #expect(result.settled > 0)
        }
        print("together: \(states) states")
    }

    /// Where the absence of a rule is found, and as what.
    nonisolated static let needs: [(rule: MoveRule, scenario: String, violation: String)] = [
        (.fenceWaitsForWriters, "two writers", "I3"),
        (.doorIsKey, "two writers", "I3"),
        (.barrierBehindWriters, "two writers", "I3"),
        (.barrierOfThisTry, "two pauses", "I3"),
        (.barrierAndMarkerInOneSession, "both servers crash", "I3"),
        (.durableBeforeCommit, "both servers crash", "I3"),
        (.standbyBeforeCommit, "the target fails over", "I3"),
        (.shardsKnowAttempt, "two pauses", "I1"),
        (.purgeKnowsAttempt, "a first purge that is late", "I8"),
        (.commitNamesAttempt, "two pauses", "I1"),
        (.unknownEndsAttempt, "late answers", "I2"),
        (.giveUpBeforeReopening, "late answers", "I2"),
        (.openAfterCommit, "two writers", "I1"),
        // By its epoch a door tells whether it knows of the arrival.
        (.epochGrows, "the target fails over to a standby that is late", "I3"),
        (.openSeesArrival, "the target fails over to a standby that is late", "I3"),
        (.reconcileSeesArrival, "the target fails over to a standby that is late", "I3"),
        (
            .purgeSeesArrival, "the target fails over to a standby that is late",
            "the clinic is stuck"
        ),
        (
            .purgeSeesStandby, "the target fails over to a standby that is late",
            "the clinic is stuck"
        ),
        (.openAloneUnsent, "the control database is away in a pause", "I2"),
        (.readersWaitAtHandover, "two writers", "a reader"),
        (.identityGate, "the source fails over", "I1"),
        (.identitiesAfterDrain, "the target fails over", "I3"),
    ]

    @Test("a rule that is taken out is missed", arguments: needs)
    func needed(_ need: (rule: MoveRule, scenario: String, violation: String)) throws {
        let scenario = try #require(Self.scenarios.first { $0.name == need.scenario })
        let result = MoveExplorer.explore(MoveModel(scenario, without: [need.rule]))
        let finding = try #require(result.finding)
        print("without \(need.rule) (\(result.states) states): \(finding.text)")
        #expect(finding.violation.hasPrefix(need.violation))
    }

    /// What is there for other reasons than the invariants, or behind another rule.
    ///
    /// - `commitNamesStep`: whoever gives up goes on as another attempt if an answer is missing, and `commitNamesAttempt`
    ///   stops the rest. Without `unknownEndsAttempt` it is what is left (`pair`).
    /// - `commitRefusesAbort`: an abort is decided by the step, as the commit is; the wish alone only hurries it.
    /// - `openAloneAsNext`: whoever takes the move over opens the door again. Without it a statement of the pause that is
    ///   late closes it, for as long as the control database is away.
    @Test(
        "a rule that others stand behind is not missed alone",
        arguments: [MoveRule.commitNamesStep, .commitRefusesAbort, .openAloneAsNext])
    func redundant(_ rule: MoveRule) {
        for scenario in Self.scenarios {
            if scenario.mayOpenAlone != (rule == .openAloneAsNext) { continue }
            if ![.commitNamesStep, .openAloneAsNext].contains(rule) && scenario.isPauseAttempt {
                continue
            }
            let result = MoveExplorer.explore(MoveModel(scenario, without: [rule]))
            #expect(result.finding == nil, "\(scenario.name): \(result.finding?.text ?? "")")
        }
    }

    @Test("every rule is either missed or said to be redundant")
    func complete() {
        let all = Set(Self.needs.map(\.rule)).union([
            .commitNamesStep, .commitRefusesAbort, .openAloneAsNext,
        ])
        #expect(all == Set(MoveRule.allCases))
    }

    @Test("without the step and with late answers, a commit that was given up is carried out")
    func pair() throws {
        let scenario = try #require(Self.scenarios.first { $0.name == "late answers" })
        let model = MoveModel(scenario, without: [.commitNamesStep, .unknownEndsAttempt])
        let finding = try #require(MoveExplorer.explore(model).finding)
        print("without both: \(finding.text)")
        #expect(finding.trace.filter { $0.contains("beginPause") }.count == 1)
    }
}
