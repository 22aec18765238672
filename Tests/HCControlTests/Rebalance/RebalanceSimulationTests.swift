import HCCore
import HCTesting
import Testing

@testable import HCControl

@Suite("The simulation of a rebalance")
struct RebalanceSimulationTests {
    private static func shape(seed: UInt64, weeks: Int = 2) -> GeneratedTrace.Shape {
        var shape = GeneratedTrace.Shape()
        (shape.shards, shape.clinics, shape.weeks, shape.seed) = (8, 400, weeks, seed)
        return shape
    }

    private static func run(
        _ trace: some LoadTrace, _ settings: RebalanceSimulation.Settings = .init()
    ) -> RebalanceSimulation.Outcome {
        var trace = trace
        return RebalanceSimulation.run(&trace, settings, now: { MonotonicTime(nanoseconds: 0) })
    }

    @Test("a rebalanced fleet is more even, and clinics do not go back and forth", arguments: 1...4)
    func better(seed: UInt64) {
        let outcome = Self.run(GeneratedTrace(Self.shape(seed: seed, weeks: 3)))
        let (with, without) = (outcome.with, outcome.without)
        #expect(with.moves > 0 && without.moves == 0)
        #expect(with.seen.busySkew < without.seen.busySkew, "seed \(seed)")
        #expect(with.seen.hoursAbove80 <= without.seen.hoursAbove80, "seed \(seed)")
        #expect(with.pingPong * 50 <= with.moves, "seed \(seed)")
        // Most is done when it has been seen for a week; then only what changes is followed.
        #expect(with.movesByWeek[2] <= with.movesByWeek[0], "seed \(seed)")
    }

    @Test(
        "who counts bytes alone leaves the shards less even than who counts everything",
        arguments: 1...3)
    func bySize(seed: UInt64) {
        let outcome = Self.run(GeneratedTrace(Self.shape(seed: seed, weeks: 3)))
        #expect(outcome.with.seen.busyUse < outcome.bySize.seen.busyUse, "seed \(seed)")
    }

    @Test("a seed says everything")
    func seeds() {
        let (one, same) = (GeneratedTrace(Self.shape(seed: 5)), GeneratedTrace(Self.shape(seed: 5)))
        let (first, second) = (Self.run(one), Self.run(same))
        for course in [\RebalanceSimulation.Outcome.with, \.without, \.bySize, \.free] {
            let (one, same) = (first[keyPath: course], second[keyPath: course])
            #expect(one.moves == same.moves && one.bytes == same.bytes)
            #expect(one.seen == same.seen && one.known == same.known)
        }
        let other = Self.run(GeneratedTrace(Self.shape(seed: 6)))
        #expect(other.without.seen != first.without.seen)
    }

    @Test("no more moves are under way than the budget has: with one at a time, fewer are made")
    func budget() {
        var settings = RebalanceSimulation.Settings()
        let many = Self.run(GeneratedTrace(Self.shape(seed: 3, weeks: 1)), settings).with
        settings.movesAtOnce = 1
        settings.copyBytesPerSecond = 100_000
        let few = Self.run(GeneratedTrace(Self.shape(seed: 3, weeks: 1)), settings).with
        #expect(few.moves < many.moves)
        // One move of a byte takes a minute and ten microseconds: a week has no more.
        #expect(few.bytes / settings.copyBytesPerSecond + 60 * Double(few.moves) <= 700_000)
    }

    @Test("what was generated can be recorded, and plays the same")
    func recorded() throws {
        var trace = GeneratedTrace(Self.shape(seed: 2, weeks: 1))
        var loads = Array(repeating: LoadVector(), count: trace.fleet.clinics.count)
        var text: [UInt8] = []
        let start = Timestamp(microseconds: 1_800_000_000_000_000)
        for second in stride(from: 0, through: trace.seconds, by: 3600) {
            trace.play(second, step: 3600, into: &loads)
            // Each time read anew would take long: once, and at the end.
            text +=
                second <= 3600
                ? try trace.fleet.traced(after: text, loads, now: start + .seconds(second))
                : Array(
                    trace.fleet.traceLines(at: second, loads).map { $0.text + "\n" }.joined().utf8)
        }
        let recorded = try RecordedTrace(text)
        #expect(recorded.seconds == trace.seconds)
        let first = Self.run(GeneratedTrace(Self.shape(seed: 2, weeks: 1)))
        let second = Self.run(recorded)
        #expect(first.with.moves == second.with.moves)
        #expect(abs(first.with.seen.busyUse - second.with.seen.busyUse) < 1e-9)
        #expect(abs(first.without.seen.busyUse - second.without.seen.busyUse) < 1e-9)
    }

    private static let shard = #"{"shard":"s1","capacity":{"execution":8}}"#
    private static let clinic = #"{"clinic":"01890000-0000-7000-8000-000000000001","shard":"s1"}"#
    private static func load(_ at: Int, _ load: String) -> String {
        #"{"at":\#(at),"clinic":"01890000-0000-7000-8000-000000000001","load":\#(load)}"#
    }

    @Test(
        "a trace that is none is refused with its line",
        arguments: [
            ([], "a trace has shards"),
            (["nonsense"], "line 1: "),
            ([shard, "", shard], "line 3: shard s1 comes twice"),
            ([shard, clinic, clinic], "line 3: clinic 01890000"),
            ([clinic], "line 1: shard 's1' was not introduced"),
            ([#"{"shard":"S 1"}"#], "line 1: 'shard' is no name"),
            ([#"{"shard":"s1","status":"shut"}"#], "line 1: 'status' of shard s1"),
            ([#"{"shard":"s1","weightMax":-1}"#], "line 1: 'weightMax' of shard s1"),
            ([#"{"shard":"s1","region":7}"#], "line 1: 'region' is no text"),
            ([shard, #"{"clinic":"x","shard":"s1"}"#], "line 2: 'clinic' is no id"),
            ([shard, load(0, "{}")], "line 2: clinic 01890000"),
            ([shard, clinic, load(-1, "{}")], "line 3: 'at' is no count"),
            ([shard, clinic, load(9, "{}"), load(8, "{}")], "line 4: 'at' is before"),
            ([shard, clinic, load(0, #"{"cpu":1}"#)], "line 3: 'load' has 'cpu'"),
            ([shard, clinic, load(0, #"{"rows":-1}"#)], "line 3: 'load' has rows that"),
            ([shard, clinic, load(0, "7")], "line 3: 'load' is an integer"),
            ([shard, clinic, load(0, "{}")], "a trace has shards"),
            (["{}"], "line 1: it is no shard"),
        ])
    func refused(lines: [String], reason: String) {
        let error = #expect(throws: RebalanceFormatError.self) {
            _ = try RecordedTrace(Array(lines.joined(separator: "\n").utf8))
        }
        #expect(error?.description.hasPrefix(reason) == true, "\(error?.description ?? "-")")
    }

    @Test("averages forget, and the peak is that of this week and the last")
    func history() {
        var history = LoadHistory()
        func load(_ amount: Double) -> LoadVector { RandomFleet.even(amount) }
        history.note(load(8), elapsed: 3600, now: 3600)
        #expect(history.hour[.wal] == 8 && history.day[.wal] == 8 && history.peak[.wal] == 8)
        for hour in 2...160 { history.note(load(0), elapsed: 3600, now: 3600 * hour) }
        #expect(history.hour[.wal] < 1e-6 && history.day[.wal] < 0.1)
        #expect(history.peak[.wal] == 8)
        let week = LoadHistory.weekSeconds
        history.note(load(1), elapsed: 3600, now: week + 3600)
        #expect(history.peak[.wal] == 8)
        history.note(load(1), elapsed: 3600, now: 2 * week + 3600)
        #expect(history.peak[.wal] < 1)
        history.note(load(2), elapsed: 3600, now: 9 * week)
        #expect(history.peak == history.hour)
    }

    @Test("planned for is the average, and a share of what the peak is above it")
    func planned() {
        let planned = LoadVector.planned(
            average: RandomFleet.even(2), peak: RandomFleet.even(6), peakShare: 0.25)
        #expect(planned == RandomFleet.even(3))
        let lower = LoadVector.planned(
            average: RandomFleet.even(2), peak: RandomFleet.even(1), peakShare: 0.25)
        #expect(lower == RandomFleet.even(2))
    }
}
