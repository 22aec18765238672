import HCControl
import HCCore
import HCIO

struct MigrateSimulate: Command {
    static let specification = CommandSpecification(
        path: ["migrate", "simulate"],
        summary: "Plays a migration over imagined shards: a good one, and what goes wrong.",
        discussion: """
            The waves, the order, the halt and the patience for locks are those of 'migrate up'; the shards are made of
            recorded times. Prints what it assumes. Asks nothing of a running platform and changes nothing. The same
            options give the same numbers.
            """,
        options: [
            .value("shards", "N", "1 to 100000; 1000."),
            .value("seed", "N", "Another one is another day; 1."),
            .value("waves", "PERCENTS", "Of all shards, after the canary; 5,25,100 if not said."),
            .value("parallel", "N", "So many shards of a wave at once, up to 64; 8 if not said."),
        ],
        examples: [
            "migrate simulate", "migrate simulate --shards 64 --parallel 4 --seed 7 --json",
        ])

    private struct Story {
        var name: String
        var outcome: RolloutSimulation.Outcome
        /// The same run, when what was wrong has been repaired.
        var resumed: RolloutSimulation.Outcome?
    }

    func run(_ invocation: Invocation, _ environment: AdminEnvironment) async throws -> Report {
        var settings = RolloutSimulation.Settings()
        settings.shards = try invocation.integer("shards", in: 1...100_000) ?? settings.shards
        settings.seed = UInt64(try invocation.integer("seed", in: 0...Int.max) ?? 1)
        settings.parallel = try WaveText.parallel(invocation) ?? settings.parallel
        settings.percents = try WaveText.percents(invocation) ?? settings.percents
        let stories = try MigrateSimulate.stories(settings)
        return Report(
            json: [
                "assumptions": .array(settings.assumptions.map { .string($0) }),
                "runs": .array(
                    stories.map { story in
                        [
                            "name": .string(story.name),
                            "run": MigrateSimulate.json(story.outcome),
                            "resumed": story.resumed.map(MigrateSimulate.json) ?? .null,
                        ]
                    }),
            ],
            text: [
                "assumed:", settings.assumptions.map { "  \($0)" }.joined(separator: "\n"), "",
                MigrateSimulate.table(stories).render(), "", "the waves of a good one:",
                MigrateSimulate.waves(stories[0].outcome).render(),
            ].joined(separator: "\n"))
    }

    private static func stories(
        _ settings: RolloutSimulation.Settings
    ) throws(ControlError) -> [Story] {
        let troubles: [(String, RolloutSimulation.Trouble)] = [
            ("a good one", .none), ("a bad one", .bad),
            ("it fails at the third shard", .one(position: 3)),
            ("a lock is held too long at the tenth", .locked(position: 10)),
            ("a wave does not pass its gate", .gate(wave: 2)),
            ("one shard in a hundred fails", .random(0.01)),
            ("three shards are down", .down(min(3, settings.shards - 1))),
        ]
        var stories: [Story] = []
        for (name, trouble) in troubles {
            var simulation = RolloutSimulation(settings)
            let outcome = try simulation.run(trouble)
            let isComplete = outcome.ending == .done
            stories.append(
                Story(
                    name: name, outcome: outcome,
                    resumed: isComplete
                        ? nil
                        : try simulation.run(
                            .none, done: outcome.done, except: Set(outcome.refused))))
        }
        return stories
    }

    private static func table(_ stories: [Story]) -> Table {
        Table(
            header: [
                "", "ENDS", "AFTER", "WAVE", "DONE", "FAILED", "UNTOUCHED", "NO LOCK",
                "REQUESTS WAIT", "REPAIRED, IT TAKES",
            ],
            rows: stories.map { story in
                let outcome = story.outcome
                return [
                    story.name, outcome.ending?.rawValue ?? "refused",
                    seconds(outcome.milliseconds),
                    outcome.waves.isEmpty ? "-" : "\(outcome.waves.count)",
                    "\(outcome.done.count)", "\(outcome.failed.count)", "\(outcome.untouched)",
                    "\(outcome.lockedOut)",
                    "\(outcome.longestRequestWait.inMilliseconds) ms",
                    story.resumed.map {
                        "\(seconds($0.milliseconds)): \($0.done.count) done"
                    } ?? "-",
                ]
            })
    }

    private static func waves(_ outcome: RolloutSimulation.Outcome) -> Table {
        Table(
            header: ["WAVE", "SHARDS", "TIME", "OF IT GATE", "SLOWEST SHARD"],
            rows: outcome.waves.enumerated().map { number, wave in
                [
                    "\(number + 1)", "\(wave.shards)", seconds(wave.milliseconds),
                    seconds(wave.gateMilliseconds), seconds(wave.slowestMilliseconds),
                ]
            })
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        let tenths = (milliseconds + 50) / 100
        return "\(tenths / 10).\(tenths % 10) s"
    }

    private static func json(_ outcome: RolloutSimulation.Outcome) -> JSONValue {
        [
            "ending": .string(outcome.ending?.rawValue ?? "refused"),
            "milliseconds": .integer(outcome.milliseconds),
            "planMilliseconds": .integer(outcome.planMilliseconds),
            "waves": .array(
                outcome.waves.map { wave in
                    [
                        "shards": .integer(Int64(wave.shards)),
                        "milliseconds": .integer(wave.milliseconds),
                        "gateMilliseconds": .integer(wave.gateMilliseconds),
                        "slowestMilliseconds": .integer(wave.slowestMilliseconds),
                    ]
                }),
            "done": .integer(Int64(outcome.done.count)),
            "failed": .array(outcome.failed.map { .string($0) }),
            "refused": .array(outcome.refused.map { .string($0) }),
            "untouched": .integer(Int64(outcome.untouched)),
            "lockedOut": .integer(Int64(outcome.lockedOut)),
            "longestRequestWaitMilliseconds": .integer(
                outcome.longestRequestWait.inMilliseconds),
        ]
    }
}
