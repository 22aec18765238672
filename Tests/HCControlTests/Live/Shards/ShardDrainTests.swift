import HCCore
import HCIO
import HCPostgres
import HCTenancy
import HCTesting
import Testing

@testable import HCControl

@Suite("A shard is drained", .serialized, .onLoop)
@LoopActor
struct ShardDrainTests {
    private func drain(
        _ ground: MoveGround, _ shard: String = "s1", _ plane: ControlPlane? = nil,
        _ change: (inout ShardDrain.Options) -> Void = { _ in }
    ) -> ShardDrain {
        var options = ShardDrain.Options(
            parallel: 3, move: MoveOptions(pauseBudget: .seconds(5), soak: .zero))
        change(&options)
        return ShardDrain(shard, plane: plane ?? ground.plane(), options, tell: { _ in })
    }

    private func state(_ ground: MoveGround, _ shard: String = "s1") async throws -> String {
        try await ground.psql(ground.control.admin, "SELECT state FROM shard WHERE id = '\(shard)'")
    }

    @Test("everybody is moved away, under writers, and nothing is lost or left over")
    func everybody() async throws {
        try await withMoveGround { ground in
            try await ground.addClinics(4)
            let load = try await MoveLoad.start(ground)
            let outcome = try await drain(ground).run()
            let before = load.acknowledged.count
            try await Loop.shared.wait { load.acknowledged.count > before + 5 }
            try await load.stop()
            #expect(outcome.isEmpty && outcome.moved == 6, "\(outcome)")
            #expect(load.failures == [])
            #expect(try await load.lost(on: ground.shards[1], ground) == 0)
            #expect(try await ground.places().allSatisfy { $0.hasSuffix(" s2 2 serving") })
            #expect(try await ground.leftovers() == [])
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser,
                    "SELECT (SELECT count(*) FROM practitioner), (SELECT count(*) FROM hc_tenant WHERE state = 'moved')"
                ) == "0|6")
            #expect(try await state(ground) == "draining")
            let back = await controlFailure { _ = try await ground.begin(ground.plane(), to: "s1") }
            #expect(
                back?.message.contains("shard s1 is draining") == true,
                "\(String(describing: back))")

            let again = try await drain(ground).run()
            #expect(again.isEmpty && again.moved == 0)
            let registry = ShardRegistry(plane: ground.plane())
            #expect(try await registry.open("s1", reason: "test"))
            #expect(try await registry.open("s1", reason: "test") == false)
            #expect(try await state(ground) == "open")
        }
    }

    @Test("a move that was checked while its target was open is not begun when it is drained")
    func late() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan("sunrise", to: "s2")
            _ = try await ShardRegistry(plane: plane).drain("s2", reason: nil)
            let refusal = await controlFailure {
                _ = try await MoveService(plane: plane).begin(plan, reason: nil, tell: { _, _ in })
            }
            #expect(refusal?.code == "move-refused")
            #expect(try await ground.wrongs(servedBy: "s1", epoch: 1) == [])
        }
    }

    @Test(
        "a clinic that is being made while its shard is drained is refused, and nothing of it is left"
    )
    func created() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            // Not committed before the shard was chosen.
            let drain = try await offLoop {
                let session = try services.session(admin)
                try session.run("BEGIN; UPDATE shard SET state = 'draining' WHERE id = 's1'")
                return session
            }
            let provisioner = TenantProvisioner(
                plane: ground.plane(),
                hooks: .init(populate: { _, _, _, _ in }, smoke: { _, _, _ in nil }))
            let request = TenantProvisioner.Request(
                slug: try Slug("hillview"), name: "Hillview", tier: "basic", shard: "s1",
                ownerEmail: "owner@example.org", timeZone: "UTC")
            let creating = Loop.shared.makeTask {
                await controlFailure { _ = try await provisioner.create(request) }
            }
            let waiting = """
                SELECT count(*) FROM pg_locks
                WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
                """
            let limit = ground.deadline
            while try await ground.psql(ground.control.superuser, waiting) == "0" {
                guard !limit.isExpired(at: Loop.now) else {
                    throw FixtureError("nobody waits for the drain")
                }
            }
            _ = try await offLoop { try drain.run("COMMIT") }
            #expect(try await creating.value?.code == "shard-closed")
            #expect(
                try await ground.psql(admin, "SELECT count(*) FROM tenant WHERE slug = 'hillview'")
                    == "0")
            #expect(
                try await ground.psql(
                    ground.shards[0].superuser, "SELECT count(*) FROM hc_tenant") == "2")
        }
    }

    @Test("after a drain has died the next one takes over what it had begun")
    func resumed() async throws {
        try await withMoveGround { ground in
            try await ground.addClinics(2)
            try FaultPoint.arm("move.handed-over=fail", perform: { _ in })
            let plane = ground.plane()
            let first = try await drain(ground, "s1", plane) {
                $0.parallel = 1
                $0.failuresMax = 0
            }.run()
            FaultPoint.disarm()
            #expect(first.failed.count == 1 && first.stopReason != nil && first.moved == 0)
            #expect(first.untried == 3, "\(first)")
            await plane.close()
            try await ground.expireLeases()
            let second = try await drain(ground).run()
            #expect(second.isEmpty && second.moved == 4, "\(second)")
            #expect(try await ground.places().allSatisfy { $0.hasSuffix(" s2 2 serving") })
            #expect(try await ground.leftovers() == [])
        }
    }

    @Test("one drain of a shard at a time")
    func twice() async throws {
        try await withMoveGround { ground in
            let plane = ground.plane()
            _ = try await plane.control().execute(
                Query("SELECT pg_advisory_lock(3, hashtext('s1'))"), deadline: ground.deadline)
            let second = await controlFailure { _ = try await drain(ground).run() }
            #expect(second?.code == "drain-running" && second?.kind == .conflict)
            await plane.close()
            let only = try await drain(ground) { $0.parallel = 0 }.run()
            #expect(only.moved == 0 && only.untried == 2)
            #expect(try await state(ground) == "draining")
            #expect(try await drain(ground).run().isEmpty)
        }
    }

    @Test("with more failures than are allowed no more is begun, and each is named with its reason")
    func budget() async throws {
        try await withMoveGround { ground in
            try await ground.addClinics(5)
            // Doors that are not as the map says: such clinics are refused.
            try await ground.psql(
                ground.shards[0].superuser,
                "UPDATE hc_tenant SET epoch = 7 WHERE tenant_id::text LIKE '018f0000-0000-7000-9000-%'"
            )
            let outcome = try await drain(ground) {
                $0.parallel = 1
                $0.failuresMax = 1
            }.run()
            #expect(outcome.stopReason?.contains("2 moves have failed, 1 are allowed") == true)
            #expect(outcome.failed.map(\.slug) == ["small-1", "small-2"])
            #expect(outcome.failed.allSatisfy { $0.reason.contains("epoch 7") })
            #expect(outcome.moved == 1 && outcome.untried == 4, "\(outcome)")

            let allowed = try await drain(ground) { $0.failuresMax = 10 }.run()
            #expect(allowed.stopReason == nil && allowed.failed.count == 5 && allowed.moved == 1)
            #expect(!allowed.isEmpty)
        }
    }

    @Test("what is on its way to the shard is undone, what has come and soaks is moved on")
    func arrivals() async throws {
        try await withMoveGround { ground in
            // From s1 to s2, where it soaks.
            #expect(try await ground.begin(ground.plane()).run().state == .soaking)
            // A second one is on its way.
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let plane = ground.plane()
            let plan = try await MovePreflight(plane: plane).plan("lakeside", to: "s2")
            let mover = try await MoveService(plane: plane).begin(
                plan, reason: nil, tell: { _, _ in })
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            try await ground.expireLeases()
            let outcome = try await drain(ground, "s2").run()
            #expect(outcome.isEmpty && outcome.moved == 1, "\(outcome)")
            #expect(
                try await ground.places() == ["lakeside s1 1 serving", "sunrise s1 3 serving"])
            #expect(try await ground.leftovers() == [])
        }
    }

    @Test("a clinic that nobody can move as it is stays, and is named")
    func stuck() async throws {
        try await withMoveGround { ground in
            try await ground.psql(
                ground.control.admin,
                "UPDATE tenant SET state = 'deleted' WHERE slug = 'lakeside'")
            let preview = try await drain(ground).preview()
            #expect(preview.plan.steps.map(\.clinic.slug) == ["sunrise"])
            #expect(preview.stuck.map(\.slug) == ["lakeside"])
            let outcome = try await drain(ground).run()
            #expect(outcome.moved == 1 && outcome.stuck.map(\.slug) == ["lakeside"])
            #expect(!outcome.isEmpty)
        }
    }

    private func rules(_ text: String) throws -> RebalanceSettings {
        try RebalanceSettings(Array(text.utf8))
    }

    @Test(
        "a clinic that is pinned to the shard is named before anything is begun, and moved if that is wanted"
    )
    func pinned() async throws {
        try await withMoveGround { ground in
            let settings = try rules(#"{"clinics":{"sunrise":{"pin":"s1"}}}"#)
            let refusal = await controlFailure {
                _ = try await drain(ground) {
                    $0.settings = settings
                    $0.rulesFile = "tenants/rebalance.json"
                }.run()
            }
            #expect(refusal?.code == "pinned" && refusal?.kind == .refused)
            #expect(
                refusal?.message.contains("pinned to it in tenants/rebalance.json: 'sunrise'")
                    == true, "\(String(describing: refusal))")
            #expect(try await state(ground) == "open", "nothing is begun")
            let preview = await controlFailure {
                _ = try await drain(ground) { $0.settings = settings }.preview()
            }
            #expect(preview?.code == "pinned")
            let forced = try await drain(ground) {
                $0.settings = settings
                $0.ignoresPins = true
            }.run()
            #expect(forced.isEmpty && forced.moved == 2, "\(forced)")
            // When it is open again the plan brings it back.
            _ = try await ShardRegistry(plane: ground.plane()).open("s1", reason: nil)
            let view = try await RebalanceDesk(plane: ground.plane()).view(settings)
            let plan = RebalancePlanner.plan(view.fleet, rules: settings.rules)
            #expect(plan.moves.map(\.cause) == [.pin])
        }
    }

    @Test("clinics go where the rules let them, as a plan of the rebalancer would")
    func ruled() async throws {
        try await withMoveGround { ground in
            try await ground.addClinics(1)
            // Two more shards that nobody has to reach: what is planned is looked at.
            try await ground.psql(
                ground.control.admin,
                """
                INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name)
                VALUES ('s3', 's3', '3', 1, 3, 's3'), ('s4', 's4', '4', 1, 4, 's4');
                """)
            let settings = try rules(
                """
                {"shards": {"s4": {"dedicatedTo": "chain"}},
                 "clinics": {"sunrise": {"pin": "s3"}, "lakeside": {"dedicatedTo": "chain"}}}
                """)
            let view = try await RebalanceDesk(plane: ground.plane()).view(settings)
            let shards = try await ShardRegistry(plane: ground.plane()).list()
            let ruled = drain(ground) { $0.settings = settings }
            let (targets, plan) = try await ruled.plan(
                for: try await ruled.census(), of: try #require(shards.first), among: shards)
            #expect(targets.map(\.id) == ["s2", "s3", "s4"])
            #expect(
                plan.steps.map { "\($0.clinic.slug) \($0.target) \($0.cause)" }.sorted() == [
                    "lakeside s4 drain", "small-1 s2 drain", "sunrise s3 pin",
                ])
            // The planner of the rebalancer gives the same.
            var fleet = view.fleet
            fleet.shards[0].status = .draining
            let same = RebalancePlanner.plan(fleet, rules: settings.rules)
            #expect(
                same.moves.map { "\(view.slugs[$0.clinic]) \(fleet.shards[$0.target].id)" }
                    .sorted() == ["lakeside s4", "small-1 s2", "sunrise s3"])
            let unknown = try rules(#"{"clinics":{"nobody":{"pin":"s1"}}}"#)
            let refusal = await controlFailure {
                _ = try await drain(ground) { $0.settings = unknown }.run()
            }
            #expect(refusal?.code == "bad-rebalance-settings")
            #expect(try await state(ground) == "open")
        }
    }

    @Test("one of its group that is on its way to a shard counts there already")
    func groupUnderWay() async throws {
        try await withMoveGround { ground in
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            let settings = try rules(
                #"{"clinics":{"sunrise":{"group":"chain"},"lakeside":{"group":"chain"}}}"#)
            let refusal = await controlFailure {
                _ = try await drain(ground) { $0.settings = settings }.run()
            }
            #expect(refusal?.code == "no-room")
            #expect(
                refusal?.message.contains("'lakeside' (s2 has another clinic of its group)")
                    == true,
                "\(String(describing: refusal))")
            #expect(try await ground.carryOn().state == .soaking)
        }
    }

    /// Clinics of one group, and what a drain is to know of them.
    private static let chain =
        #"{"clinics":{"sunrise":{"group":"chain"},"lakeside":{"group":"chain"}}}"#

    @Test(
        "a clinic whose place was taken by one of its group since it was planned does not go there")
    func groupTaken() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            // Another drain is about to bring a clinic of the group away from a shard that nobody has to reach.
            try await ground.psql(
                admin,
                """
                INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name, state)
                VALUES ('s3', 's3', '3', 1, 3, 's3', 'draining');
                UPDATE placement SET shard_id = 's3', epoch = 2 WHERE tenant_id = '\(MoveGround.lakeside)'
                """)
            let settings = try rules(Self.chain)
            let placed =
                "UPDATE placement SET shard_id = 's2', epoch = 3 WHERE tenant_id = '\(MoveGround.lakeside)'"
            try FaultPoint.arm("drain.planned=stop@1") { _ in
                do { try services.psql(admin, placed) } catch { fatalError("\(error)") }
            }
            let outcome = try await drain(ground) { $0.settings = settings }.run()
            FaultPoint.disarm()
            #expect(outcome.moved == 0 && outcome.failed.map(\.slug) == ["sunrise"])
            #expect(
                outcome.failed.first?.reason
                    == "no shard has room for it: s2 has another clinic of its group",
                "\(outcome.failed)")
            #expect(
                try await ground.places() == ["lakeside s2 3 serving", "sunrise s1 1 serving"])
        }
    }

    @Test(
        "of two drains that have chosen one shard for two clinics of a group one moves its clinic")
    func groupAtOnce() async throws {
        try await withMoveGround { ground in
            let (services, admin) = (ground.services, ground.control.admin)
            var plans: [(plane: ControlPlane, plan: MovePlan)] = []
            for (slug, other) in [
                ("sunrise", MoveGround.lakeside), ("lakeside", MoveGround.sunrise),
            ] {
                let plane = ground.plane()
                var plan = try await MovePreflight(plane: plane).plan(slug, to: "s2")
                plan.apart = [other]
                plans.append((plane, plan))
            }
            // Both are written down at one time.
            let holder = try await offLoop {
                let session = try services.session(admin)
                try session.run("BEGIN; SELECT FROM shard WHERE id = 's2' FOR UPDATE")
                return session
            }
            let begun = plans.map { plane, plan in
                Loop.shared.makeTask {
                    await controlFailure {
                        _ = try await MoveStore(plane: plane).begin(
                            plan, owner: "\(plan.tenant.slug)", reason: nil)
                    }
                }
            }
            let limit = ground.deadline
            while try await ground.psql(
                ground.control.superuser,
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'
                """) != "2"
            {
                guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            }
            _ = try await offLoop { try holder.run("COMMIT") }
            var refusals: [ControlError] = []
            for task in begun {
                if let refusal = try await task.value { refusals.append(refusal) }
            }
            #expect(refusals.map(\.code) == ["group-there"], "\(refusals)")
            #expect(try await ground.psql(admin, "SELECT count(*) FROM move") == "1")
        }
    }

    @Test("while one of its group may still stay on a shard nobody else of it goes there")
    func groupLeaving() async throws {
        try await withMoveGround { ground in
            try await ground.psql(
                ground.control.admin,
                """
                INSERT INTO shard (id, dsn_ref, system_id, timeline, database_oid, database_name, state)
                VALUES ('s3', 's3', '3', 1, 3, 's3', 'open');
                UPDATE placement SET shard_id = 's3', epoch = 2 WHERE tenant_id = '\(MoveGround.lakeside)'
                """)
            try FaultPoint.arm("move.mirrored=fail", perform: { _ in })
            let mover = try await ground.begin(ground.plane())
            await #expect(throws: FaultPointFailure.self) { try await mover.run() }
            FaultPoint.disarm()
            var view = try await RebalanceDesk(plane: ground.plane()).view(try rules(Self.chain))
            view.expect(MoveGround.sunrise, on: "s2")
            let fleet = view.fleet
            let lakeside = try #require(
                fleet.clinics.firstIndex { $0.id == MoveGround.lakeside })
            let places = RebalancePlaces(fleet, RebalanceRules())
            for shard in [0, 1] {
                #expect(places.refusal(shard, lakeside, fillMax: 0.85) == .group)
            }
            #expect(try await ground.carryOn().state == .soaking)
        }
    }

    @Test("a soak is waited for if that is wanted")
    func soaks() async throws {
        try await withMoveGround { ground in
            let outcome = try await drain(ground) {
                $0.move.soak = .seconds(1)
                $0.waitsForSoaks = true
            }.run()
            #expect(outcome.isEmpty && outcome.soaking == 0 && outcome.moved == 2)
            #expect(try await ground.leftovers() == [])
        }
    }

    @Test("what cannot be meant is refused before anything is changed")
    func refusals() async throws {
        try await withMoveGround { ground in
            func refusal(
                _ shard: String = "s1",
                _ change: @escaping @Sendable (inout ShardDrain.Options) -> Void = { _ in }
            ) async -> ControlError? {
                await controlFailure {
                    _ = try await drain(ground, shard, nil, change).run()
                }
            }
            #expect(await refusal("s9")?.kind == .notFound)
            #expect(await refusal { $0.targets = ["s9"] }?.kind == .notFound)
            #expect(await refusal { $0.targets = ["s1"] }?.code == "drain-to-itself")
            let control = ground.control.admin
            try await ground.psql(control, "UPDATE shard SET capacity = 1 WHERE id = 's2'")
            let full = await refusal()
            #expect(full?.code == "no-room")
            #expect(
                full?.message.contains("'sunrise' (s2 has 1 of 1 in tier weight)") == true,
                "\(String(describing: full))")
            try await ground.psql(
                control,
                """
                UPDATE shard SET capacity = 1000, labels = '{"region": "north"}' WHERE id = 's2'
                """)
            #expect(await refusal()?.code == "no-target")
            #expect(await refusal { $0.targets = ["s2"] }?.code == "other-region")
            try await ground.psql(
                control, "UPDATE shard SET labels = '{}', timeline = 9 WHERE id = 's2'")
            #expect(await refusal()?.code == "identity-changed")
            try await ground.psql(
                control, "UPDATE shard SET timeline = 1, state = 'draining' WHERE id = 's2'")
            #expect(await refusal()?.message.contains("is the last open one") == true)
            #expect(await refusal { $0.targets = ["s2"] }?.code == "target-not-open")
            #expect(try await state(ground) == "open")
            try await ground.psql(control, "UPDATE shard SET state = 'closed' WHERE id = 's2'")
            #expect(await refusal("s2")?.code == "shard-retired")
            let opened = await controlFailure {
                _ = try await ShardRegistry(plane: ground.plane()).open("s2", reason: nil)
            }
            #expect(opened?.code == "shard-retired")
        }
    }
}
