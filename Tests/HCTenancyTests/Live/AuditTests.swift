import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

@Suite("Reads are recorded before they are answered", .onLoop)
@LoopActor
struct AuditTests {
    private func read(
        _ platform: LivePlatform, deadline: Deadline? = nil, request: String = "test"
    ) async throws {
        _ = try await platform.context(LivePlatform.sunrise).readAudited(
            [LivePlatform.allPractitioners],
            audit: AuditEvent(
                actor: .account(UUID(high: 1, low: 1)), action: "read", entity: "patient",
                entityID: UUID(high: 2, low: 2), requestID: request,
                detail: ["name": "Mary Sample"]), deadline: deadline ?? platform.deadline)
    }

    @Test("concurrent reads share commits, and each has its row when it is answered")
    func groups() async throws {
        let platform = try await LivePlatform.make()
        _ = try await concurrently(60) { number in
            try await read(platform, request: "r\(number)")
        }
        let rows = try await platform.psql(
            platform.first.mover, "SELECT count(DISTINCT request_id), count(*) FROM audit_event")
        #expect(rows == "60|60\n")
        #expect(platform.metrics.auditRows.value == 60)
        #expect(platform.metrics.auditCommits.value < 60)
        #expect(platform.door.auditor.activeCount == 0)
    }

    @Test("an answer waits for the commit of its row")
    func answersWait() async throws {
        let platform = try await LivePlatform.make()
        let services = platform.services
        let database = platform.first.superuser
        let blocker = try await offLoop {
            let session = try services.session(database)
            try session.run("BEGIN; LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE")
            return session
        }
        let answered = LivePlatform.Flag()
        let reading = Loop.shared.makeTask {
            try await read(platform)
            answered.set(true)
        }
        // The commit is under way and stands before the lock.
        try await platform.until { platform.door.auditor.activeCount == 1 }
        let isBlocked = """
            SELECT count(*) > 0 FROM pg_stat_activity
            WHERE datname = '\(platform.first.database.name)' AND wait_event_type = 'Lock'
            """
        var seen = ""
        while seen != "t\n" { seen = try await platform.psql(platform.first.superuser, isBlocked) }
        #expect(!answered.isSet)
        // Another one with less patience is refused, not answered unrecorded.
        await #expect(throws: TenancyError.deadlineExceeded) {
            try await read(platform, deadline: .after(.seconds(1), from: Loop.now))
        }
        try await offLoop { _ = try blocker.run("COMMIT") }
        try await reading.value
        #expect(answered.isSet)
    }

    @Test("when the record cannot be stored the read is refused")
    func failsClosed() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(platform.first.owner, "REVOKE INSERT ON audit_event FROM hc_app")
        await #expect(throws: TenancyError.auditUnavailable(retryAfter: .seconds(1))) {
            try await read(platform)
        }
        #expect(platform.metrics.auditFailures.value == 1)
        try await platform.psql(platform.first.owner, "GRANT INSERT ON audit_event TO hc_app")
        try await read(platform)
    }

    @Test("rows move with the clinic: a read in the hand-over is recorded where the clinic is then")
    func followsTheClinic() async throws {
        let platform = try await LivePlatform.make()
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'draining' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        // Reads are still served here, their record is not taken any more.
        let reading = Loop.shared.makeTask {
            try await read(platform)
        }
        try await platform.until { platform.metrics.refusedDraining.value > 0 }
        try await platform.psql(
            platform.first.owner,
            "UPDATE hc_tenant SET state = 'rw' WHERE tenant_id = '\(LivePlatform.sunrise)'")
        try await platform.moveSunrise()
        try await reading.value
        let places = [
            try await platform.psql(platform.first.mover, "SELECT count(*) FROM audit_event"),
            try await platform.psql(platform.second.mover, "SELECT count(*) FROM audit_event"),
        ]
        #expect(places == ["1\n", "0\n"] || places == ["0\n", "1\n"])
    }

    @Test("what an event says beyond ids and names of the program is sealed")
    func sealed() async throws {
        let platform = try await LivePlatform.make()
        try await read(platform)
        let row = try await platform.psql(
            platform.first.mover,
            """
            SELECT actor_kind, actor_id, action, entity, entity_id, outcome, request_id, key_version,
                position('Mary'::bytea IN sealed) FROM audit_event
            """)
        #expect(
            row
                == "account|\(UUID(high: 1, low: 1))|read|patient|\(UUID(high: 2, low: 2))|success|test|1|0\n"
        )
        let context = try platform.context(LivePlatform.sunrise)
        let stored = try await context.read(
            [Query("SELECT id, sealed FROM audit_event")], deadline: platform.deadline)[0].single()
        let text = try context.keys.open(
            try stored.bytes(1), table: "audit_event", column: "sealed", row: try stored.uuid(0))
        #expect(
            String(decoding: text, as: UTF8.self)
                == #"{"purpose":"treatment","detail":{"name":"Mary Sample"}}"#)
    }

    @Test("a write that fails leaves no audit row, and one that succeeds leaves its own")
    func writes() async throws {
        let platform = try await LivePlatform.make()
        let context = try platform.context(LivePlatform.sunrise)
        let id = UUID.v7(at: Clocks.system.now())
        let add = LivePlatform.addPractitioner("Dr Once", id: id, to: context.id)
        try await context.write(
            [add], audit: [LivePlatform.event("create")],
            outbox: [
                OutboxMessage(
                    topic: "practitioner.created", payload: ["id": .string("\(id)"), "version": 1])
            ], deadline: platform.deadline)
        let error = await #expect(throws: PostgresError.self) {
            try await context.write(
                [add], audit: [LivePlatform.event("create")], deadline: platform.deadline)
        }
        #expect(error?.sqlstate == .uniqueViolation)
        let counts = try await platform.psql(
            platform.first.mover,
            "SELECT (SELECT count(*) FROM audit_event), (SELECT payload ->> 'version' FROM outbox)")
        #expect(counts == "1|1\n")
    }

    @Test("the same rows sent twice are stored once")
    func rowsAreRepeatable() async throws {
        let platform = try await LivePlatform.make()
        let context = try platform.context(LivePlatform.sunrise)
        let row = try AuditRow(
            LivePlatform.event(), at: Clocks.system.now(), keys: try context.keys)
        for _ in 0..<2 {
            try await platform.door.auditor.record(row, of: context.id, deadline: platform.deadline)
        }
        let count = try await platform.psql(
            platform.first.mover, "SELECT count(*) FROM audit_event")
        #expect(count == "1\n")
    }
}
