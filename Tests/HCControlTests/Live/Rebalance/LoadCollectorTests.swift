import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("What clinics use is sampled and kept", .onLoop)
@LoopActor
struct LoadCollectorTests {
    private func settings(_ json: String = "{}") throws -> RebalanceSettings {
        try RebalanceSettings(Array(json.utf8))
    }

    @Test("rates follow from two samples, of each clinic its own")
    func rates() async throws {
        try await withRebalanceGround { ground in
            let collector = LoadCollector(plane: ground.plane)
            try await ground.report([(1, 5_000_000, 100)])
            let first = try await collector.collect()
            #expect(first.map(\.shard) == ["s1", "s2"])
            #expect(first.map(\.result) == [.sampled(clinics: 40), .sampled(clinics: 0)])
            // The first look shows no rates: nobody knows for how long it was counted.
            let desk = RebalanceDesk(plane: ground.plane)
            var view = try await desk.view(try settings())
            #expect(view.unsampled == 0 && view.oldestSample != nil)
            #expect(view.loads.allSatisfy { $0[.execution] == 0 })

            try await ground.report([(1, 600_000_000, 6000), (2, 60_000_000, 1200)])
            try await ground.age(600)
            _ = try await collector.collect()
            view = try await desk.view(try settings())
            let (one, two) = (view.loads[0], view.loads[1])
            #expect(view.slugs[0] == "c1" && view.slugs[1] == "c2")
            // 600 s in the 600 s and some that have passed.
            #expect((0.8...1).contains(one[.execution]))
            #expect(abs(one[.pool] / one[.execution] - 2) < 0.01)
            #expect(abs(one[.execution] / two[.execution] - 10) < 0.01)
            #expect((8...10).contains(one[.rows]))
            #expect(one[.wal] > two[.wal] && two[.wal] > 0)
            // Two reports in one minute are added up, in two minutes they are not.
            #expect((20...20.2).contains(one[.connections]))
            #expect(view.loads[2...].allSatisfy { $0[.execution] == 0 && $0[.wal] == 0 })
        }
    }

    @Test("counters that began anew are no step back, and two looks at once are one")
    func restarts() async throws {
        try await withRebalanceGround { ground in
            let collector = LoadCollector(plane: ground.plane)
            try await ground.report([(1, 1_000_000_000, 100)])
            _ = try await collector.collect()
            #expect(try await collector.collect()[0].result == .fresh)
            try await ground.psql(ground.shards[0].superuser, "TRUNCATE hc_load")
            try await ground.report([(1, 300_000_000, 10)])
            try await ground.age(600)
            _ = try await collector.collect()
            let view = try await RebalanceDesk(plane: ground.plane).view(try settings())
            #expect((0.4...0.5).contains(view.loads[0][.execution]))
        }
    }

    @Test("bytes are shared out as the statistics say, and evenly where they say nothing")
    func bytes() async throws {
        try await withRebalanceGround { ground in
            try await ground.psql(
                ground.shards[0].superuser,
                """
                INSERT INTO cache_tag (tenant_id, tag, count)
                    SELECT '\(RebalanceGround.clinic(1))', 'a' || number, 1 FROM generate_series(1, 9000) AS number;
                INSERT INTO cache_tag (tenant_id, tag, count)
                    SELECT '\(RebalanceGround.clinic(2))', 'a' || number, 1 FROM generate_series(1, 1000) AS number;
                ANALYZE;
                """)
            _ = try await LoadCollector(plane: ground.plane).collect()
            let view = try await RebalanceDesk(plane: ground.plane).view(try settings())
            let disks = view.loads.map { $0[.disk] }
            let rest = disks[2]
            #expect(disks[2...].allSatisfy { $0 == rest })
            #expect(abs((disks[0] - rest) / (disks[1] - rest) - 9) < 0.5)
            #expect(
                try await ground.psql(
                    ground.control.admin,
                    "SELECT rows_stored BETWEEN 8950 AND 9050 FROM tenant_load WHERE tenant_id = '\(RebalanceGround.clinic(1))'"
                ) == "t")
            // What is planned for has the base of an empty clinic on top.
            #expect(view.fleet.clinics[5].bytes == rest + RebalanceRules().baseBytes)
        }
    }

    @Test("a shard that is another server, or gone, is said and holds up no other")
    func failures() async throws {
        try await withRebalanceGround { ground in
            try await ground.psql(
                ground.control.admin, "UPDATE shard SET timeline = 7 WHERE id = 's1'")
            let outcomes = try await LoadCollector(plane: ground.plane).collect()
            #expect(
                outcomes[0].result
                    == .failed("the server is not shard s1 as it is registered"))
            #expect(outcomes[1].result == .sampled(clinics: 0))
            let view = try await RebalanceDesk(plane: ground.plane).view(try settings())
            #expect(view.unsampled == 40 && view.oldestSample == nil)
        }
    }

    @Test("a shard that was filled on purpose is evened out, and then there is nothing to do")
    func evensOut() async throws {
        try await withRebalanceGround { ground in
            let collector = LoadCollector(plane: ground.plane)
            _ = try await collector.collect()
            try await ground.report((1...40).map { ($0, 120_000_000, 10) })
            try await ground.age(1000)
            _ = try await collector.collect()
            let rules = try settings(#"{"capacity":{"execution":8}}"#)
            let desk = RebalanceDesk(plane: ground.plane)
            let view = try await desk.view(rules)
            let plan = RebalancePlanner.plan(view.fleet, rules: rules.rules)
            #expect((15...20).contains(plan.moves.count))
            for move in plan.moves {
                try await ground.place(view.fleet.clinics[move.clinic].id, on: "s2")
            }
            let after = try await desk.view(rules)
            #expect(RebalancePlanner.plan(after.fleet, rules: rules.rules).moves.isEmpty)
            #expect(RebalanceUse(of: after.fleet).skew < 0.2)
        }
    }

    @Test("pins, groups and capacities of the settings hold; what there is not is refused in words")
    func settings() async throws {
        try await withRebalanceGround { ground in
            let desk = RebalanceDesk(plane: ground.plane)
            let view = try await desk.view(
                try settings(
                    """
                    {"shards":{"s2":{"capacity":{"wal":5}}},
                     "clinics":{"c1":{"pin":"s2"},"c2":{"group":"g"},"c3":{"group":"g"}}}
                    """))
            #expect(view.fleet.shards[1].capacity[.wal] == 5)
            #expect(view.fleet.shards[1].capacity[.connections] == 100)
            let plan = RebalancePlanner.plan(view.fleet, rules: RebalanceRules())
            #expect(Set(plan.moves.map(\.cause)) == [.pin, .group])
            let wrong = try settings(
                #"{"shards":{"s9":{}},"clinics":{"zed":{},"c1":{"pin":"s8"}}}"#)
            let error = await #expect(throws: ControlError.self) { _ = try await desk.view(wrong) }
            #expect(error?.code == "bad-rebalance-settings")
            for part in ["shards.s9", "clinics.zed", "clinics.c1.pin"] {
                #expect(error?.message.contains(part) == true)
            }
        }
    }

    @Test(
        "settings that mean nothing are refused with every place",
        arguments: [
            ("[]", ["the file is an array"]),
            ("nonsense", ["it is no JSON"]),
            (
                #"{"rule":{},"rules":{"tolerance":"x","speed":1,"fillMax":2}}"#,
                ["'rule'", "rules.tolerance", "'speed'", "fillMax is"]
            ),
            (
                #"{"capacity":{"cpu":1},"shards":{"s1":{"capacity":{"wal":-1},"zone":"a"}}}"#,
                ["'cpu'", "shards.s1.capacity has wal", "'zone'"]
            ),
            (#"{"clinics":{"c1":{"pin":7}}}"#, ["clinics.c1.pin"]),
        ])
    nonisolated func refused(text: String, parts: [String]) {
        let error = #expect(throws: RebalanceFormatError.self) {
            _ = try RebalanceSettings(Array(text.utf8))
        }
        for part in parts { #expect(error?.description.contains(part) == true, "\(part)") }
    }

    @Test("what is kept of a clinic is read as it was written")
    nonisolated func bytesOfHistory() {
        var history = LoadHistory()
        for number in 1...300 {
            history.note(
                LoadVector { Double($0.rawValue * number) }, elapsed: 3600, now: 3600 * number)
        }
        let read = LoadHistory(history.encoded, week: history.week, seen: history.seen)
        #expect(read == history && history.encoded.count == 192)
    }
}
