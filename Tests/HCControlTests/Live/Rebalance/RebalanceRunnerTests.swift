import HCCore
import HCIO
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A plan is applied", .onLoop)
@LoopActor
struct RebalanceRunnerTests {
    /// Moves that happen at the second look, or fail.
    @LoopActor
    private final class Movers {
        let ground: RebalanceGround
        var fails: Set<String> = []
        /// Does something to the directory when so many were begun.
        var meddle: (after: Int, sql: String)?
        var begun: [String] = []
        private var looks: [UUID: Int] = [:]
        private var moves: [UUID: RebalancePlanFile.Move] = [:]
        private(set) var mostAtOnce = 0
        private var underWay = 0

        init(_ ground: RebalanceGround) {
            self.ground = ground
        }

        var moving: RebalanceRunner.Moves {
            RebalanceRunner.Moves(
                begin: { move in
                    if self.fails.contains(move.slug) {
                        throw ControlError(.refused, code: "x", "it is refused")
                    }
                    let id = UUID(high: 9, low: UInt64(self.begun.count))
                    self.begun.append(move.slug)
                    self.moves[id] = move
                    self.underWay += 1
                    self.mostAtOnce = max(self.mostAtOnce, self.underWay)
                    if let meddle = self.meddle, meddle.after == self.begun.count {
                        try await self.ground.psql(self.ground.control.admin, meddle.sql)
                    }
                    return id
                },
                look: { id in
                    guard let move = self.moves[id] else { return .failed("unknown") }
                    self.looks[id, default: 0] += 1
                    guard self.looks[id, default: 0] > 1 else { return .underWay }
                    self.underWay -= 1
                    try await self.ground.place(move.clinic, on: move.target)
                    return .there
                })
        }
    }

    private func plan(_ ground: RebalanceGround, clinics: ClosedRange<Int>) async throws
        -> RebalancePlanFile
    {
        let version = try await ground.psql(
            ground.control.admin, "SELECT version FROM placement_version")
        return RebalancePlanFile(
            mapVersion: Int64(version) ?? 0, madeAt: Timestamp(microseconds: 1),
            moves: clinics.map {
                RebalancePlanFile.Move(
                    clinic: RebalanceGround.clinic($0), slug: "c\($0)", source: "s1",
                    target: "s2", epoch: 1, cause: .balance, bytes: 7)
            })
    }

    private func run(
        _ ground: RebalanceGround, _ plan: RebalancePlanFile, _ movers: Movers,
        _ change: (inout RebalanceApplication.Limits) -> Void = { _ in }
    ) async throws -> RebalanceApplication {
        var limits = RebalanceApplication.Limits()
        limits.perShard = 4
        change(&limits)
        return try await RebalanceRunner(plane: ground.plane, plan: plan, moves: movers.moving)
            .run(limits, tell: { _ in })
    }

    @Test("every clinic of it goes, no more at once than the budget has")
    func applies() async throws {
        try await withRebalanceGround { ground in
            let movers = Movers(ground)
            let plan = try await plan(ground, clinics: 1...5)
            let done = try await run(ground, plan, movers)
            #expect(done.outcomes == Array(repeating: .there, count: 5))
            #expect(movers.begun == ["c1", "c2", "c3", "c4", "c5"])
            #expect(movers.mostAtOnce == 2)
            // Given again, it has been done.
            let again = try await run(ground, plan, movers)
            #expect(again.outcomes == Array(repeating: .wasThere, count: 5))
            #expect(movers.begun.count == 5)
        }
    }

    @Test("one that was interrupted goes on where it stopped")
    func resumes() async throws {
        try await withRebalanceGround { ground in
            let movers = Movers(ground)
            let plan = try await plan(ground, clinics: 1...3)
            try await ground.place(RebalanceGround.clinic(2), on: "s2")
            let preview = try await RebalanceRunner(
                plane: ground.plane, plan: plan, moves: movers.moving
            ).preview(.init())
            #expect(preview.outcomes == [.waiting, .wasThere, .waiting])
            #expect(movers.begun.isEmpty)
            let done = try await run(ground, plan, movers)
            #expect(done.outcomes == [.there, .wasThere, .there])
        }
    }

    @Test(
        "it refuses when the directory is not what it was made for",
        arguments: [
            ("UPDATE shard SET weight = 7 WHERE id = 's2'", "shard s2 was changed"),
            (
                "SELECT placement_swap(tenant_id, 1, 'serving', 's2', 'serving') FROM placement"
                    + " WHERE tenant_id = '018f0000-0000-7000-8000-000000000028'",
                "clinic 'c40' was moved"
            ),
            (
                "SELECT placement_swap(tenant_id, 1, 'serving', 's1', 'moving') FROM placement"
                    + " WHERE tenant_id = '018f0000-0000-7000-8000-000000000002'",
                "clinic 'c2' is moving: somebody else is at it"
            ),
        ])
    func drift(sql: String, reason: String) async throws {
        try await withRebalanceGround { ground in
            let movers = Movers(ground)
            let plan = try await plan(ground, clinics: 1...3)
            try await ground.psql(ground.control.admin, sql)
            let error = await #expect(throws: ControlError.self) {
                _ = try await run(ground, plan, movers)
            }
            #expect(error?.code == "plan-drifted" && error?.kind == .conflict)
            #expect(error?.message.contains(reason) == true, "\(error?.message ?? "-")")
            #expect(movers.begun.isEmpty)
        }
    }

    @Test("what has nothing to do with places is no drift: a new clinic, a domain, a tier")
    func noDrift() async throws {
        try await withRebalanceGround { ground in
            let plan = try await plan(ground, clinics: 1...1)
            try await ground.psql(
                ground.control.admin,
                """
                UPDATE tier SET version = 2;
                INSERT INTO domain (host, tenant_id, kind) SELECT 'x.localhost', id, 'custom' FROM tenant LIMIT 1;
                INSERT INTO tenant (id, slug, name, tier, state)
                    VALUES ('018f0000-0000-7000-8000-0000000000ff', 'new', 'New', 'basic', 'active');
                INSERT INTO placement (tenant_id, shard_id) VALUES ('018f0000-0000-7000-8000-0000000000ff', 's2');
                """)
            let done = try await run(ground, plan, Movers(ground))
            #expect(done.outcomes == [.there])
        }
    }

    @Test("when it drifts on the way, what is under way ends and nothing more begins")
    func driftOnTheWay() async throws {
        try await withRebalanceGround { ground in
            let movers = Movers(ground)
            movers.meddle = (2, "UPDATE shard SET state = 'draining' WHERE id = 's2'")
            let done = try await run(ground, try await plan(ground, clinics: 1...6), movers)
            #expect(done.outcomes.prefix(2) == [.there, .there])
            #expect(done.outcomes.dropFirst(2).allSatisfy { $0 == .waiting })
            #expect(done.stopped?.contains("shard s2 was changed") == true)
        }
    }

    @Test("failures beyond the budget stop it")
    func errorBudget() async throws {
        try await withRebalanceGround { ground in
            let movers = Movers(ground)
            movers.fails = ["c1", "c3"]
            let plan = try await plan(ground, clinics: 1...6)
            let done = try await run(ground, plan, movers) { $0.failuresMax = 1 }
            #expect(done.failures == 2)
            #expect(done.outcomes[1] == .there)
            #expect(done.stopped?.contains("2 of the moves failed") == true)
            #expect(done.outcomes.suffix(3).allSatisfy { $0 == .waiting })
            movers.fails = []
            let again = try await run(ground, plan, movers)
            #expect(again.stopped == nil && again.failures == 0)
        }
    }

    // MARK: Pure

    private nonisolated static func move(
        _ number: Int, _ source: String, _ target: String
    ) -> RebalancePlanFile.Move {
        RebalancePlanFile.Move(
            clinic: RebalanceGround.clinic(number), slug: "c\(number)", source: source,
            target: target, epoch: 1, cause: .drain, bytes: 1)
    }

    @Test("a move whose shards are busy lets others go before it")
    nonisolated func busyShards() {
        var limits = RebalanceApplication.Limits()
        (limits.atOnce, limits.perShard) = (3, 1)
        let moves = [
            Self.move(1, "s1", "s2"), Self.move(2, "s1", "s3"), Self.move(3, "s4", "s2"),
            Self.move(4, "s4", "s5"),
        ]
        var application = RebalanceApplication(moves, limits: limits)
        #expect(application.next() == .begin(0))
        application.begun(0, UUID(high: 0, low: 0))
        #expect(application.next() == .begin(3))
        application.begun(3, UUID(high: 0, low: 3))
        #expect(application.next() == .wait)
        application.ended(0)
        #expect(application.next() == .begin(1))
        application.begun(1, UUID(high: 0, low: 1))
        #expect(application.next() == .wait)
        application.ended(3)
        #expect(application.next() == .begin(2))
        application.drifted("x")
        #expect(application.next() == .wait)
        application.failed(1, "y")
        #expect(application.next() == .finish && application.stopped == "x")
    }

    @Test("a move that counts on an earlier one waits for it, and is not made if that failed")
    nonisolated func leaning() {
        var limits = RebalanceApplication.Limits()
        (limits.atOnce, limits.perShard, limits.failuresMax) = (4, 2, 1)
        // A chain from s1 to s3 by way of s2; one that fills what it relieves; one that has nothing to do with it.
        let moves = [
            Self.move(1, "s1", "s2"), Self.move(2, "s2", "s3"), Self.move(3, "s4", "s1"),
            Self.move(4, "s5", "s6"),
        ]
        for fails in [false, true] {
            var application = RebalanceApplication(moves, limits: limits)
            #expect(application.next() == .begin(0))
            application.begun(0, UUID(high: 0, low: 0))
            #expect(application.next() == .begin(3))
            application.begun(3, UUID(high: 0, low: 3))
            #expect(application.next() == .wait)
            if fails {
                application.failed(0, "x")
                #expect(application.next() == .wait)
                application.ended(3)
                #expect(application.next() == .finish && application.stopped == nil)
                #expect(application.outcomes[1] == .waiting && application.outcomes[2] == .waiting)
            } else {
                application.ended(0)
                #expect(application.next() == .begin(1))
                application.begun(1, UUID(high: 0, low: 1))
                #expect(application.next() == .begin(2))
            }
        }
    }

    @Test("a clinic is ready only where the plan found it, and done only by its own move")
    nonisolated func standing() {
        func standing(_ shard: String, _ epoch: Int64, _ state: String = "serving")
            -> RebalanceDrift.Standing
        {
            RebalanceDrift.standing(
                of: Self.move(1, "s1", "s2"),
                at: RebalanceDrift.Place(shard: shard, epoch: epoch, state: state))
        }
        #expect(standing("s1", 1) == .ready)
        #expect(standing("s2", 2) == .done)
        let moved = RebalanceDrift.Standing.drifted("clinic 'c1' was moved since the plan was made")
        // There and back again, to a third, there for the third time.
        for place in [standing("s1", 3), standing("s3", 2), standing("s2", 4)] {
            #expect(place == moved)
        }
        #expect(
            standing("s1", 1, "closed")
                == .drifted("clinic 'c1' is closed: somebody else is at it"))
        #expect(
            RebalanceDrift.standing(of: Self.move(1, "s1", "s2"), at: nil)
                == .drifted("clinic 'c1' is gone"))
    }

    @Test("a plan that is written can be read, and one that was changed cannot")
    nonisolated func file() throws {
        var file = RebalancePlanFile(
            mapVersion: 41, madeAt: Timestamp(microseconds: 1_800_000_000_000_000),
            moves: [Self.move(1, "s1", "s2"), Self.move(2, "s1", "s3")])
        file.moves[0].apart = [RebalanceGround.clinic(3)]
        let text = try file.json().text
        #expect(try RebalancePlanFile(Array(text.utf8)) == file)
        for (part, other) in [
            ("\"target\":\"s3\"", "\"target\":\"s4\""), ("41", "42"),
            ("\"epoch\":1", "\"epoch\":2"), ("\"apart\"", "\"after\""),
            ("hc-rebalance-plan/1", "hc-rebalance-plan/2"), ("\"moves\"", "\"mover\""),
        ] {
            #expect(text.contains(part))
            let changed = text.replacing(part, with: other, maxReplacements: 1)
            #expect(throws: RebalanceFormatError.self, "\(part)") {
                _ = try RebalancePlanFile(Array(changed.utf8))
            }
        }
    }
}
