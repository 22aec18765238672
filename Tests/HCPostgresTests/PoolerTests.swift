import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("Behind a pooler in transaction mode", .onLoop)
@LoopActor
struct PoolerTests {
    private static let numbers = Query("SELECT $1::bigint + 1, pg_backend_pid()", [.int8(41)])

    private func pooler(
        sessions: Int = 1
    ) async throws -> (TransactionPooler, PostgresConfiguration) {
        let fixture = try await PostgresFixture.make()
        let direct = fixture.database.superuser
        let pooler = try await offLoop { try TransactionPooler(direct, sessions: sessions) }
        var configuration = PostgresConfiguration(
            connectionString: Sensitive(pooler.conninfo(direct).description),
            applicationName: "hc-test")
        configuration.isPooled = true
        return (pooler, configuration)
    }

    @Test("statements of clients who share one session of the server do not meet")
    func shared() async throws {
        let (pooler, configuration) = try await pooler()
        let one = try await PostgresConnection.connect(configuration, deadline: soon())
        let two = try await PostgresConnection.connect(configuration, deadline: soon())
        var servers: Set<Int> = []
        for round in 0..<4 {
            for client in [one, two] {
                let results = try await client.execute(
                    [Self.numbers, Query("SELECT $1::text", [.text("round \(round)")])],
                    deadline: soon())
                #expect(try results[0].single().int(0) == 42)
                #expect(try results[1].single().text(0) == "round \(round)")
                servers.insert(try results[0].single().int(1))
            }
        }
        #expect(servers.count == 1, "they shared it")
        #expect(one.statementCount == 0 && two.statementCount == 0, "nothing is prepared")
        one.close()
        two.close()
        withExtendedLifetime(pooler) {}
    }

    @Test("a transaction keeps its session, and an error leaves nothing for the next client")
    func transactions() async throws {
        let (pooler, configuration) = try await pooler()
        let one = try await PostgresConnection.connect(configuration, deadline: soon())
        let two = try await PostgresConnection.connect(configuration, deadline: soon())
        for _ in 0..<3 {
            try await one.transaction(deadline: soon()) { transaction in
                _ = try await transaction.execute(
                    Query("SELECT set_config('lock_timeout', '7s', true)"))
                let setting = try await transaction.execute(
                    Query("SELECT current_setting('lock_timeout')"))
                #expect(try setting.single().text(0) == "7s")
            }
            let error = await postgresError {
                _ = try await one.execute(Query("SELECT 1 / 0"), deadline: soon())
            }
            #expect(error?.server != nil)
            let setting = try await two.execute(
                Query("SELECT current_setting('lock_timeout')"), deadline: soon())
            #expect(try setting.single().text(0) == "0")
        }
        one.close()
        two.close()
        withExtendedLifetime(pooler) {}
    }

    @Test("a cancellation reaches the statement through the pooler")
    func cancellation() async throws {
        let (pooler, configuration) = try await pooler(sessions: 2)
        let busy = try await PostgresConnection.connect(configuration, deadline: soon())
        let watcher = try await PostgresConnection.connect(configuration, deadline: soon())
        let task = Loop.shared.makeTask {
            await postgresError {
                _ = try await busy.execute(
                    Query("SELECT pg_sleep(600), 'cancel me'"), deadline: soon())
            }
        }
        try await watcher.waitForSleepers(1)
        task.cancel()
        #expect(try await task.value?.kind.isCancelled == true)
        try await watcher.waitForSleepers(0)
        #expect(try await busy.execute(Self.numbers, deadline: soon()).single().int(0) == 42)
        busy.close()
        watcher.close()
        withExtendedLifetime(pooler) {}
    }
}

extension PostgresConnection {
    /// Waits until so many statements of the test sleep on the server.
    fileprivate func waitForSleepers(_ count: Int) async throws {
        let limit = soon()
        let query = Query(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE state = 'active' AND query LIKE '%cancel me%' AND pid <> pg_backend_pid()
            """)
        while try await execute(query, deadline: limit).single().int(0) != count {
            try await Loop.shared.sleep(for: .milliseconds(1))
        }
    }
}

extension PostgresError.Kind {
    fileprivate var isCancelled: Bool { if case .cancelled = self { true } else { false } }
}
