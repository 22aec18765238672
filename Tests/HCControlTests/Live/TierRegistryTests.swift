import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCControl
@testable import HCTenancy

@Suite("Tiers are applied", .onLoop)
@LoopActor
struct TierRegistryTests {
    private static func definition(
        _ name: String, units: Int = 50, burst: Int = 1000, weight: Int = 1
    ) -> TierDefinition {
        TierDefinition(name: name, weight: weight, rates: [.bucket(units: units, burst: burst)])
    }

    /// The three tiers of the ground as they are.
    private static var present: [TierDefinition] {
        [
            definition("basic"), definition("large", units: 500, burst: 5000, weight: 9),
            definition("trial", units: 5, burst: 500),
        ]
    }

    private func failure(_ body: () async throws -> Void) async -> ControlError? {
        do {
            try await body()
            return nil
        } catch {
            return error as? ControlError
        }
    }

    @Test("a change reaches a worker by its news, before any poll, and no clinic's record changes")
    func arrives() async throws {
        try await withGround { ground in
            let follower = try await ground.follower()
            let service = Loop.shared.spawn { try? await follower.run() }
            defer { service.cancel() }
            let news = Waiter<[TenantID]>()
            follower.onChange.append { changed, map in
                if map.findTier("basic")?.rates.first?.units == 70 { news.succeed(changed) }
            }
            let registry = TierRegistry(plane: ground.plane("ann"))
            let wanted = [Self.definition("basic", units: 70)] + Self.present.dropFirst()
            let plan = try await registry.plan(Array(wanted))
            try await registry.apply(plan, reason: "more for all")
            #expect(try await news.wait(until: ground.deadline) == [])
            #expect(follower.snapshot?.findTier("large")?.weight == 9)
            // The same file again changes nothing.
            #expect(try await registry.plan(Array(wanted)).changes.isEmpty)
        }
    }

    @Test("who, why, before and after are in the operators' audit, and its chain holds")
    func audited() async throws {
        try await withGround { ground in
            let registry = TierRegistry(plane: ground.plane("ann"))
            let wanted = [Self.definition("basic", units: 70)] + Self.present[1...1]
            try await registry.apply(
                registry.plan(wanted + [Self.definition("new")], removals: ["trial"]),
                reason: "spring")
            let lines = try await ground.psql(
                """
                SELECT operator_name, action, subject, detail ->> 'reason', detail ->> 'tenants',
                    detail -> 'before' -> 'unitsPerSecond', detail -> 'after' -> 'rates' -> 0 -> 'units'
                FROM operator_audit ORDER BY seq;
                SELECT count(*) FROM operator_audit WHERE hash <> operator_audit_hash(operator_audit.*);
                """)
            #expect(
                lines.split(separator: "\n") == [
                    "ann|tier.change|basic|spring|2|50|70", "ann|tier.add|new|spring|0||50",
                    "ann|tier.remove|trial|spring|0|5|", "0",
                ])
        }
    }

    @Test("of two operators the later one is told by whom she was overtaken, and changes nothing")
    func overtaken() async throws {
        try await withGround { ground in
            let (ann, bob) = (
                TierRegistry(plane: ground.plane("ann")), TierRegistry(plane: ground.plane("bob"))
            )
            let first = try await ann.plan(
                [Self.definition("basic", units: 60)] + Self.present.dropFirst())
            let second = try await bob.plan(
                [Self.definition("basic", units: 80)] + Self.present.dropFirst())
            try await bob.apply(second, reason: nil)
            let error = await failure { try await ann.apply(first, reason: nil) }
            #expect(error?.kind == .conflict && error?.code == "tiers-changed")
            #expect(error?.message.contains("'basic' was changed by bob at ") == true)
            #expect(try await ann.find("basic").definition?.rates.first?.units == 80)
            #expect(try await ground.psql("SELECT count(*) FROM operator_audit") == "1")
        }
    }

    @Test("of many at the same moment one wins, and the others know")
    func race() async throws {
        try await withGround { ground in
            var plans: [(TierRegistry, TierPlan)] = []
            for number in 1...6 {
                let registry = TierRegistry(plane: ground.plane("op\(number)"))
                plans.append(
                    (
                        registry,
                        try await registry.plan(
                            [Self.definition("basic", units: 100 + number)]
                                + Self.present.dropFirst())
                    ))
            }
            let tasks = plans.map { registry, plan in
                Loop.shared.makeTask {
                    await failure { try await registry.apply(plan, reason: nil) }
                }
            }
            var errors: [ControlError?] = []
            for task in tasks { errors.append(try await task.value) }
            #expect(errors.filter { $0 == nil }.count == 1)
            #expect(errors.compactMap { $0?.code } == Array(repeating: "tiers-changed", count: 5))
        }
    }

    @Test("a clinic that is placed in a tier between plan and removal keeps it")
    func placedMeanwhile() async throws {
        try await withGround { ground in
            let registry = TierRegistry(plane: ground.plane("ann"))
            let plan = try await registry.plan(Array(Self.present.prefix(2)), removals: ["trial"])
            try await ground.psql("UPDATE tenant SET tier = 'trial' WHERE slug = 'sunrise'")
            let error = await failure { try await registry.apply(plan, reason: nil) }
            #expect(error?.kind == .refused && error?.code == "tier-in-use")
            #expect(try await registry.find("trial").tenants == 1)
        }
    }

    @Test("a clinic that is being placed while its tier is removed holds the removal back")
    func placedAtTheSameMoment() async throws {
        try await withGround { ground in
            let registry = TierRegistry(plane: ground.plane("ann"))
            let plan = try await registry.plan(Array(Self.present.prefix(2)), removals: ["trial"])
            let (services, admin) = (ground.services, ground.database.admin)
            let session = try services.session(admin)
            // Not committed: the count does not see it, the foreign key does.
            _ = try session.run("BEGIN; UPDATE tenant SET tier = 'trial' WHERE slug = 'sunrise'")
            let removal = Loop.shared.makeTask {
                await failure { try await registry.apply(plan, reason: nil) }
            }
            let waiting = """
                SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND wait_event_type = 'Lock' AND application_name = 'hc-admin'
                """
            let deadline = ground.deadline
            while try await ground.psql(waiting) != "1" {
                try #require(!deadline.isExpired(at: Loop.now), "nobody waits")
            }
            _ = try session.run("COMMIT")
            let error = try await removal.value
            #expect(error?.kind == .refused && error?.code == "tier-in-use")
            #expect(try await registry.find("trial").tenants == 1)
        }
    }

    @Test("deleted clinics keep their tier, erased ones do not, and everybody else must have one")
    func tombstones() async throws {
        try await withGround { ground in
            let registry = TierRegistry(plane: ground.plane("ann"))
            try await ground.psql(
                """
                UPDATE tenant SET tier = 'trial';
                UPDATE tenant SET state = 'deleted' WHERE slug = 'sunrise';
                UPDATE tenant SET state = 'erased' WHERE slug = 'lakeside';
                """)
            let error = await failure {
                _ = try await registry.plan(Array(Self.present.prefix(2)), removals: ["trial"])
            }
            #expect(error?.message.contains("'trial' (1 clinic)") == true)
            try await ground.psql("UPDATE tenant SET tier = 'basic' WHERE slug = 'sunrise'")
            try await registry.apply(
                registry.plan(Array(Self.present.prefix(2)), removals: ["trial"]), reason: nil)
            #expect(
                try await ground.psql("SELECT slug, tier FROM tenant ORDER BY slug")
                    == "lakeside|\nsunrise|basic")
            await #expect(throws: (any Error).self) {
                try await ground.psql("UPDATE tenant SET tier = NULL WHERE slug = 'sunrise'")
            }
        }
    }
}

@Suite("A clinic is given another tier", .onLoop)
@LoopActor
struct TenantTierTests {
    private func failure(_ body: () async throws -> Void) async -> ControlError? {
        do {
            try await body()
            return nil
        } catch {
            return error as? ControlError
        }
    }

    @Test("the plan tells which limits change; the worker learns of it; the audit keeps it")
    func changes() async throws {
        try await withGround { ground in
            let follower = try await ground.follower()
            let service = Loop.shared.spawn { try? await follower.run() }
            defer { service.cancel() }
            let news = Waiter<[TenantID]>()
            follower.onChange.append { changed, _ in news.succeed(changed) }
            let tiers = TenantTier(plane: ground.plane("ann"))
            let plan = try await tiers.plan("sunrise", tier: "large")
            #expect(
                plan.differences.map(\.description) == [
                    "weight: 1 -> 9", "rates[tenant].units: 50 -> 500",
                    "rates[tenant].burst: 1000 -> 5000",
                ])
            #expect(plan.warnings.isEmpty)
            try await tiers.apply(plan, reason: "contract")
            let changed = try await news.wait(until: ground.deadline)
            #expect(changed == [plan.tenant.id])
            #expect(follower.snapshot?.find(plan.tenant.id)?.tierName == "large")
            #expect(
                try await ground.psql(
                    """
                    SELECT operator_name, action, subject, detail ->> 'reason',
                        detail -> 'before' ->> 'tier', detail -> 'after' ->> 'tier',
                        detail -> 'after' -> 'definition' -> 'unitsPerSecond'
                    FROM operator_audit
                    """) == "ann|tenant.set-tier|sunrise|contract|basic|large|500")
            // The shard was built for a weight of ten, and nine and one are there.
            let second = try await tiers.plan("lakeside", tier: "large")
            #expect(second.warnings.count == 1 && second.warnings[0].contains("will have 18"))
            let same = try await tiers.plan("sunrise", tier: "large")
            #expect(!same.isChange)
        }
    }

    @Test("of two operators who change one clinic at once, one gets a conflict and is told")
    func overtaken() async throws {
        try await withGround { ground in
            let (ann, bob) = (
                TenantTier(plane: ground.plane("ann")), TenantTier(plane: ground.plane("bob"))
            )
            let first = try await ann.plan("sunrise", tier: "large")
            let second = try await bob.plan("sunrise", tier: "trial")
            let tasks = [(ann, first), (bob, second)].map { tiers, plan in
                Loop.shared.makeTask {
                    await failure { try await tiers.apply(plan, reason: nil) }
                }
            }
            var errors: [ControlError?] = []
            for task in tasks { errors.append(try await task.value) }
            let lost = errors.compactMap { $0 }
            #expect(lost.count == 1 && lost[0].kind == .conflict)
            let winner = errors[0] == nil ? "ann" : "bob"
            #expect(lost[0].message.contains("changed by \(winner) (tenant.set-tier, "))
            #expect(try await ground.psql("SELECT count(*) FROM operator_audit") == "1")
        }
    }

    @Test("a tier that was changed since the operator saw it is not given")
    func tierChanged() async throws {
        try await withGround { ground in
            let tiers = TenantTier(plane: ground.plane("ann"))
            let plan = try await tiers.plan("sunrise", tier: "large")
            try await ground.psql("UPDATE tier SET version = 2 WHERE name = 'large'")
            let error = await failure { try await tiers.apply(plan, reason: nil) }
            #expect(error?.kind == .conflict)
            #expect(
                try await ground.psql("SELECT tier FROM tenant WHERE slug = 'sunrise'") == "basic")
        }
    }

    @Test("connections that clinics would have for themselves are refused where they do not fit")
    func dedicated() async throws {
        try await withGround { ground in
            // The shard takes 100; whatever this machine runs, each process would have 90 for one clinic.
            let wanted = TierDefinition(
                name: "large", rates: [.bucket(units: 500, burst: 5000)],
                pool: TierPool(inFlightMax: 90, dedicatedConnections: 90))
            let registry = TierRegistry(plane: ground.plane("ann"))
            let others = [
                TierDefinition(name: "basic", rates: [.bucket(units: 50, burst: 1000)]),
                TierDefinition(name: "trial", rates: [.bucket(units: 5, burst: 500)]),
            ]
            // Nobody is in it yet.
            try await registry.apply(registry.plan([wanted] + others), reason: nil)
            let tiers = TenantTier(plane: ground.plane("bob"))
            let moved = await failure { _ = try await tiers.plan("sunrise", tier: "large") }
            #expect(moved?.kind == .refused && moved?.code == "connections-exceeded")
            var basic = others[0]
            basic.pool = wanted.pool
            let changed = await failure {
                _ = try await registry.plan([basic, wanted, others[1]])
            }
            #expect(changed?.kind == .refused && changed?.code == "connections-exceeded")
            // What is too much already does not stop what makes it less, or leaves it.
            try await ground.psql("UPDATE tenant SET tier = 'large'")
            #expect(try await tiers.plan("sunrise", tier: "basic").isChange)
            #expect(try await registry.plan([wanted] + others).changes.isEmpty)
        }
    }

    @Test("what is not there is not found, and a clinic that is not open is refused")
    func refusals() async throws {
        try await withGround { ground in
            let tiers = TenantTier(plane: ground.plane("ann"))
            #expect(
                await failure { _ = try await tiers.plan("nobody", tier: "large") }?.kind
                    == .notFound)
            #expect(
                await failure { _ = try await tiers.plan("sunrise", tier: "huge") }?.kind
                    == .notFound)
            try await ground.psql("UPDATE tenant SET state = 'deleted' WHERE slug = 'sunrise'")
            #expect(
                await failure { _ = try await tiers.plan("sunrise", tier: "large") }?.code
                    == "tenant-not-open")
        }
    }
}
