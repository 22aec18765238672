import HCCore
import HCIO
import HCPostgres
import HCTesting
import Testing

@testable import HCTenancy

/// Servers of the test's own, which it kills.
@Suite("When a shard's server dies", .onLoop)
@LoopActor
struct ShardLossTests {
    @Test(
        "a write under way has an unknown outcome and is not repeated; afterwards all goes on by itself"
    )
    func killed() async throws {
        let services = try await offLoop { try LocalServices(shards: 1) }
        let ground = try await LivePlatform.makeGround(services)
        let platform = try await LivePlatform.make(ground)
        let context = try platform.context(LivePlatform.sunrise)
        let database = platform.first.superuser
        let blocker = try await offLoop {
            let session = try services.session(database)
            try session.run("BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            return session
        }
        let writing = Loop.shared.makeTask {
            _ = try await context.write(
                [LivePlatform.addPractitioner("Dr Maybe", to: context.id)],
                audit: [LivePlatform.event("create")],
                outbox: [OutboxMessage(topic: "practitioner.created", payload: JSONObject())],
                deadline: platform.deadline)
        }
        let isBlocked = """
            SELECT count(*) > 0 FROM pg_stat_activity
            WHERE datname = '\(platform.first.database.name)' AND wait_event_type = 'Lock'
            """
        var seen = ""
        while seen != "t\n" { seen = try await platform.psql(platform.first.superuser, isBlocked) }
        try await offLoop { try services.killPostgres() }
        do {
            try await writing.value
            Issue.record("nobody can know that it was committed")
        } catch {
            #expect(error as? TenancyError == .outcomeUnknown)
        }
        #expect(platform.metrics.outcomesUnknown.value == 1)
        withExtendedLifetime(blocker) {}

        let error = await #expect(throws: TenancyError.self) {
            try await platform.names(LivePlatform.sunrise)
        }
        #expect(error?.code == "shard-unavailable")
        #expect(error?.retryAfter != nil)

        try await offLoop { try services.restart() }
        let limit = platform.deadline
        var names: [String]?
        while names == nil {
            do {
                names = try await platform.names(LivePlatform.sunrise)
            } catch let error as TenancyError {
                guard error.code == "shard-unavailable", !limit.isExpired(at: Loop.now)
                else {
                    throw error
                }
                try await Loop.shared.sleep(for: .milliseconds(20))
            }
        }
        #expect(names == [], "it had not been committed, and nobody tried it again")
    }
}
