import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

/// What happens to requests while clinics move, and to maps while they change.
@Suite("Requests find their clinic", .onLoop)
@LoopActor
struct RoutingTests {
    private func add(_ name: String, _ platform: LivePlatform) async throws {
        try await platform.context(LivePlatform.sunrise).write(
            [LivePlatform.addPractitioner(name, to: LivePlatform.sunrise)],
            audit: [LivePlatform.event("create")], deadline: platform.deadline)
    }

    @Test(
        "a stale map is refused by the shard, read again once, and the request goes on where it belongs"
    )
    func staleMap() async throws {
        let platform = try await LivePlatform.make()
        let old = try platform.context(LivePlatform.sunrise)
        try await platform.moveSunrise()
        #expect(
            platform.directory.snapshot?.find(LivePlatform.sunrise)?.epoch == 1, "nobody told us")
        try await add("Dr New", platform)
        #expect(platform.directory.snapshot?.find(LivePlatform.sunrise)?.epoch == 2)
        #expect(platform.metrics.refusedMoved.value == 1)
        // A context from before the move works on: it asks the map anew.
        let results = try await old.read(
            [LivePlatform.allPractitioners], deadline: platform.deadline)
        #expect(try results[0].single().text(0) == "Dr New")
        let left = try await platform.psql(
            platform.first.mover, "SELECT count(*) FROM practitioner")
        #expect(left == "0\n")
        let audited = try await platform.psql(
            platform.second.mover, "SELECT count(*) FROM audit_event")
        #expect(audited == "1\n", "the audit row went with the write")
    }

    @Test("of many refused requests one reads the map")
    func singleFlight() async throws {
        let platform = try await LivePlatform.make()
        try await platform.moveSunrise()
        let before = platform.directory.snapshot?.version
        _ = try await concurrently(20) { number in try await add("Dr \(number)", platform) }
        #expect(try await platform.names(LivePlatform.sunrise).count == 20)
        #expect(platform.directory.snapshot?.version != before)
        // As many refusals as were under way at once; far fewer readings.
        #expect(platform.metrics.refusedMoved.value >= 1)
        #expect(platform.directory.pollCount <= 4)
    }

    @Test("a clinic that is nowhere is told to come back, after one reading of the map")
    func nowhere() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.owner,
            """
            UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id = '\(LivePlatform.sunrise)';
            UPDATE hc_tenant SET state = 'absent' WHERE tenant_id = '\(LivePlatform.sunrise)';
            """)
        await #expect(throws: TenancyError.moving(retryAfter: .seconds(1))) {
            try await add("Dr Lost", platform)
        }
        #expect(platform.metrics.refusedMoved.value == 1)
    }

    @Test("writers wait for the end of a move that is called off, readers do not")
    func parkedUntilCalledOff() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        #expect(try await platform.names(LivePlatform.sunrise) == [])
        let written = Loop.shared.makeTask {
            try await add("Dr Patient", platform)
        }
        try await platform.until { platform.metrics.refusedDraining.value > 0 }
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        try await written.value
        #expect(try await platform.names(LivePlatform.sunrise) == ["Dr Patient"])
    }

    @Test("parked requests go on as soon as the map changes")
    func parkedUntilMoved() async throws {
        let platform = try await LivePlatform.make()
        let service = Loop.shared.spawn { try? await platform.directory.run() }
        defer { service.cancel() }
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        let written = Loop.shared.makeTask {
            try await add("Dr Patient", platform)
        }
        try await platform.until { platform.metrics.refusedDraining.value > 0 }
        try await platform.psql(
            platform.first.owner,
            """
            UPDATE hc_tenant SET state = 'fenced' WHERE tenant_id = '\(LivePlatform.sunrise)';
            UPDATE hc_tenant SET state = 'handover' WHERE tenant_id = '\(LivePlatform.sunrise)';
            """)
        try await platform.psql(
            platform.second.owner,
            "INSERT INTO hc_tenant VALUES ('\(LivePlatform.sunrise)', 2, 'rw')")
        try await platform.psql(
            platform.control.admin,
            "SELECT placement_swap('\(LivePlatform.sunrise)', 1, 'serving', 's2', 'serving')")
        try await written.value
        let there = try await platform.psql(platform.second.mover, "SELECT name FROM practitioner")
        #expect(there == "Dr Patient\n")
    }

    @Test("a parked request gives up at its deadline, and of many none writes meanwhile")
    func parkingIsBounded() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        let context = try platform.context(LivePlatform.sunrise)
        await #expect(throws: TenancyError.moving(retryAfter: .seconds(1))) {
            try await context.write(
                [LivePlatform.addPractitioner("Dr Late", to: context.id)], audit: [],
                deadline: .after(.milliseconds(60), from: Loop.now))
        }
        // The tier lets 64 wait.
        let outcomes = try await concurrently(80) { _ in
            do {
                try await context.write(
                    [LivePlatform.addPractitioner("Dr Late", to: context.id)], audit: [],
                    deadline: .after(.seconds(2), from: Loop.now))
                return "written"
            } catch {
                return (error as? TenancyError)?.code ?? "\(error)"
            }
        }
        // Some had their turn, or a connection, only when their time was up.
        #expect(
            Set(outcomes).isSubset(of: ["tenant-moving", "overloaded", "deadline-exceeded"]))
        #expect(outcomes.contains("tenant-moving"))
    }

    @Test(
        "suspended and read-only clinics say so; a read-only one can be read, and the read is recorded"
    )
    func states() async throws {
        let platform = try await LivePlatform.make()
        func set(_ state: String) async throws {
            try await platform.psql(
                platform.first.owner,
                "UPDATE hc_tenant SET state = '\(state)' WHERE tenant_id = '\(LivePlatform.sunrise)'"
            )
        }
        try await set("ro")
        await #expect(throws: TenancyError.readOnly) { try await add("Dr No", platform) }
        _ = try await platform.context(LivePlatform.sunrise).readAudited(
            [LivePlatform.allPractitioners], audit: LivePlatform.event(),
            deadline: platform.deadline)
        let audited = try await platform.psql(
            platform.first.mover, "SELECT count(*) FROM audit_event")
        #expect(audited == "1\n")
        let context = try platform.context(LivePlatform.sunrise)
        let count = try await context.transaction(.read, deadline: platform.deadline) {
            try await $0.execute(LivePlatform.allPractitioners).count
        }
        #expect(count == 0)
        await #expect(throws: TenancyError.readOnly) {
            try await context.transaction(.write, deadline: platform.deadline) {
                try await $0.execute(LivePlatform.allPractitioners).count
            }
        }
        try await set("suspended")
        await #expect(throws: TenancyError.suspended) {
            try await platform.names(LivePlatform.sunrise)
        }
    }

    @Test(
        "an interactive transaction is refused before its body's effects, and runs again elsewhere")
    func interactive() async throws {
        let platform = try await LivePlatform.make()
        try await platform.moveSunrise()
        var runs = 0
        let count = try await platform.context(LivePlatform.sunrise).transaction(
            .write, deadline: platform.deadline
        ) { transaction in
            runs += 1
            _ = try await transaction.execute(
                [LivePlatform.addPractitioner("Dr Twice", to: LivePlatform.sunrise)])
            let result = try await transaction.execute(Query("SELECT count(*) FROM practitioner"))
            transaction.audit(LivePlatform.event("create"))
            transaction.publish(OutboxMessage(topic: "practitioner.created", payload: JSONObject()))
            return try result.single().int(0)
        }
        #expect(count == 1)
        #expect(runs == 2)
        let stored = try await platform.psql(
            platform.second.mover,
            "SELECT (SELECT count(*) FROM audit_event), (SELECT count(*) FROM outbox)")
        #expect(stored == "1|1\n")
    }

    @Test("a body that swallows a refusal does not commit")
    func swallowedRefusal() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'suspended' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        await #expect(throws: TenancyError.suspended) {
            try await platform.context(LivePlatform.sunrise).transaction(
                .write, deadline: platform.deadline
            ) { transaction in
                do {
                    _ = try await transaction.execute(LivePlatform.allPractitioners)
                } catch {
                    return
                }
            }
        }
    }

    @Test("serialization failures are tried again until both have their turn")
    func serialization() async throws {
        let platform = try await LivePlatform.make()
        let context = try platform.context(LivePlatform.sunrise)
        let id = UUID.v7(at: Clocks.system.now())
        try await context.write(
            [LivePlatform.addPractitioner("Dr Count", id: id, to: context.id)], audit: [],
            deadline: platform.deadline)
        _ = try await concurrently(3) { _ in
            try await context.transaction(
                .write, isolation: .serializable, deadline: platform.deadline
            ) { transaction in
                let version = try await transaction.execute(
                    Query("SELECT version FROM practitioner WHERE id = $1", [.uuid(id)])
                ).single().int(0)
                _ = try await transaction.execute(
                    Query(
                        "UPDATE practitioner SET version = $2 WHERE id = $1",
                        [.uuid(id), .int8(Int64(version) + 1)]))
            }
        }
        let version = try await context.read(
            [Query("SELECT version FROM practitioner")], deadline: platform.deadline)
        #expect(try version[0].single().int(0) == 4, "no update was lost")
    }

    @Test("a server that is not the shard of the map is refused")
    func identity() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.control.admin, "UPDATE shard SET timeline = timeline + 1 WHERE id = 's1'")
        try await platform.directory.refresh(deadline: platform.deadline)
        let error = await #expect(throws: TenancyError.self) {
            try await platform.names(LivePlatform.sunrise)
        }
        #expect(error?.code == "shard-unavailable")
        #expect(platform.metrics.identityRefusals.value >= 1)
        #expect(try await platform.names(LivePlatform.lakeside) == [], "the other shard serves on")
        // What an operator does after a promotion.
        try await platform.psql(
            platform.control.admin, "UPDATE shard SET timeline = timeline - 1 WHERE id = 's1'")
        try await platform.directory.refresh(deadline: platform.deadline)
        #expect(try await platform.names(LivePlatform.sunrise) == [])
    }
}

extension LivePlatform {
    /// Waits for something that happens on this loop.
    func until(_ condition: @LoopActor () -> Bool) async throws {
        let limit = deadline
        while !condition() {
            guard !limit.isExpired(at: Loop.now) else {
                throw FixtureError("it never happened")
            }
            try await Loop.shared.sleep(for: .milliseconds(1))
        }
    }
}
