import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("a pool of sessions", .onLoop) @LoopActor
struct PoolTests {
    private static let processID = Query("SELECT pg_backend_pid()")

    private func makePool(
        _ fixture: PostgresFixture, _ configuration: PoolConfiguration,
        identify: PostgresPool.Identify? = nil
    ) -> PostgresPool {
        let postgres = fixture.configuration()
        return PostgresPool(
            name: "test", configuration: configuration, postgres: { postgres }, identify: identify)
    }

    private func processID(_ pool: PostgresPool) async throws -> Int {
        try await pool.withConnection(deadline: soon()) { connection in
            try await connection.execute(Self.processID, deadline: soon()).single().int(0)
        }
    }

    @Test("a session is lent again and again")
    func reuse() async throws {
        let pool = makePool(try await .make(), PoolConfiguration(hardLimit: 2))
        let first = try await processID(pool)
        let second = try await processID(pool)
        #expect(first == second)
        await pool.shutDown(deadline: soon())
    }

    @Test("a session that was killed at rest is replaced without anybody's error")
    func replaced() async throws {
        let fixture = try await PostgresFixture.make()
        let pool = makePool(fixture, PoolConfiguration(hardLimit: 2))
        let first = try await processID(pool)
        let killer = try await fixture.connect()
        defer { killer.close() }
        _ = try await killer.execute(
            Query("SELECT pg_terminate_backend($1, 5000)", [.int4(Int32(first))]), deadline: soon())
        while pool.statistics.idle > 0 { await Task.yield() }
        let second = try await processID(pool)
        #expect(second != first)
        await pool.shutDown(deadline: soon())
    }

    @Test("a session whose deadline could not be settled is not lent again")
    func unsettled() async throws {
        let fixture = try await PostgresFixture.make()
        let proxy = try await offLoop { try ProtocolProxy(to: fixture.database.superuser) }
        var postgres = fixture.configuration { $0.cancelGrace = .milliseconds(50) }
        postgres.connectionString = Sensitive(
            proxy.conninfo(like: fixture.database.superuser).description)
        let configuration = postgres
        let pool = PostgresPool(
            name: "test", configuration: PoolConfiguration(hardLimit: 1),
            postgres: { configuration })
        _ = try await processID(pool)
        proxy.setFilter { _, _ in .goSilent }
        let error = await postgresError {
            try await pool.withConnection(deadline: soon()) { connection in
                _ = try await connection.execute(
                    Self.processID, deadline: after(.milliseconds(50)))
            }
        }
        #expect(error?.outcomeIsUnknown == true)
        proxy.setFilter { _, _ in .pass }
        _ = try await processID(pool)
        #expect(pool.statistics.total == 1)
        #expect(pool.statistics.connects == 2)
        await pool.shutDown(deadline: soon())
    }

    @Test("a session that is not what it should be is refused, and the reason is told")
    func identity() async throws {
        var configuration = PoolConfiguration(hardLimit: 2)
        configuration.failuresUntilOpen = 1
        let pool = makePool(try await .make(), configuration) { connection, deadline in
            let result = try await connection.execute(
                Query("SELECT system_identifier FROM pg_control_system()"), deadline: deadline)
            guard try result.single().int(0) == 0 else {
                throw PostgresError(.connectFailed(.identityRefused))
            }
        }
        do {
            _ = try await processID(pool)
            Issue.record("a stranger was accepted")
        } catch let error as PoolError {
            #expect(error.code == .circuitOpen)
            guard case .connectFailed(.identityRefused)? = (error.cause as? PostgresError)?.kind
            else {
                Issue.record("\(error)")
                return
            }
        }
        #expect(pool.statistics.total == 0)
        await pool.shutDown(deadline: soon())
    }

    @Test("a server that dies opens the circuit: refused at once; when it is back, so is the pool")
    func breaker() async throws {
        let services = try await offLoop { try LocalServices(shards: 1) }
        let conninfo = try await offLoop {
            try services.conninfo("shards/s1.superuser").description
        }
        let postgres = PostgresConfiguration(
            connectionString: Sensitive(conninfo), applicationName: "hc-test")
        let pool = PostgresPool(
            name: "test",
            configuration: PoolConfiguration(
                hardLimit: 4, failuresUntilOpen: 2, backoffInitial: .milliseconds(20),
                backoffMaximum: .milliseconds(40)),
            postgres: { postgres })
        _ = try await processID(pool)
        try await offLoop { try services.killPostgres() }
        while pool.statistics.idle > 0 { await Task.yield() }
        var refused: PoolError?
        while refused == nil {
            do {
                _ = try await processID(pool)
            } catch let error as PoolError {
                refused = error
            }
        }
        #expect(refused?.code == .circuitOpen)
        guard case .connectFailed? = (refused?.cause as? PostgresError)?.kind else {
            Issue.record("\(String(describing: refused))")
            return
        }
        try await offLoop { try services.restart() }
        var isBack = false
        while !isBack {
            do {
                _ = try await processID(pool)
                isBack = true
            } catch let error as PoolError {
                try await Loop.shared.sleep(for: error.retryAfter ?? .milliseconds(1))
            }
        }
        #expect(pool.state == .running)
        await pool.shutDown(deadline: soon())
    }
}
