import HCCore
import HCIO
import HCTesting
import Synchronization
import Testing

@testable import HCPostgres

/// Each way of losing a connection, and what the caller is told about the fate of its work: checked against
/// what the server really did.
@Suite("lost connections", .onLoop) @LoopActor
struct LossTests {
    private struct Setting {
        let fixture: PostgresFixture
        let proxy: ProtocolProxy
        let through: PostgresConnection
        let direct: PostgresConnection

        @LoopActor
        func rows() async throws -> Int {
            try await direct.execute(Query("SELECT count(*) FROM t"), deadline: soon()).single()
                .int(0)
        }
    }

    private func make(
        _ change: (inout PostgresConfiguration) -> Void = { _ in }
    ) async throws -> Setting {
        let fixture = try await PostgresFixture.make()
        let direct = try await fixture.connect()
        try await direct.executeScript("CREATE TABLE t (n int8)", deadline: soon())
        let proxy = try await offLoop { try ProtocolProxy(to: fixture.database.superuser) }
        let address = proxy.conninfo(like: fixture.database.superuser).description
        let through = try await fixture.connect {
            $0.connectionString = Sensitive(address)
            change(&$0)
        }
        return Setting(fixture: fixture, proxy: proxy, through: through, direct: direct)
    }

    private static let insert = Query("INSERT INTO t VALUES (1)")

    @Test("the answer to an implicit transaction is lost: unknown, and here it was committed")
    func implicitAnswerLost() async throws {
        let setting = try await make()
        // 'Z' is ReadyForQuery: the commit is done by then.
        setting.proxy.setFilter { type, _ in type == UInt8(ascii: "Z") ? .hangUp : .pass }
        let error = await postgresError {
            _ = try await setting.through.execute(Self.insert, deadline: soon())
        }
        #expect(error?.outcomeIsUnknown == true)
        #expect(setting.through.isClosed)
        let rowsNow = try await setting.rows()
        #expect(rowsNow == 1)
    }

    @Test("all answers to an implicit transaction are lost: unknown")
    func implicitAllLost() async throws {
        let setting = try await make()
        setting.proxy.setFilter { _, _ in .hangUp }
        let error = await postgresError {
            _ = try await setting.through.execute(Self.insert, deadline: soon())
        }
        #expect(error?.outcomeIsUnknown == true)
    }

    @Test("the batch never left completely: lost, and certainly not committed")
    func requestLost() async throws {
        let setting = try await make()
        setting.proxy.holdRequests()
        let large = [UInt8](repeating: 7, count: 16 << 20)
        let error = await postgresError {
            _ = try await setting.through.execute(
                [Self.insert, Query("SELECT octet_length($1)", [.bytes(large)])], deadline: soon())
        }
        guard case .connectionLost? = error?.kind else {
            Issue.record("\(String(describing: error))")
            return
        }
        let rowsNow = try await setting.rows()
        #expect(rowsNow == 0)
    }

    @Test("the answer to COMMIT is lost: unknown, and here it was committed")
    func commitAnswerLost() async throws {
        let setting = try await make()
        setting.proxy.setFilter { type, body in
            type == UInt8(ascii: "C") && body.starts(with: "COMMIT".utf8) ? .hangUp : .pass
        }
        let error = await postgresError {
            try await setting.through.transaction(deadline: soon()) { transaction in
                _ = try await transaction.execute(Self.insert)
            }
        }
        #expect(error?.outcomeIsUnknown == true)
        let rowsNow = try await setting.rows()
        #expect(rowsNow == 1)
    }

    @Test("COMMIT was answered and then the connection was lost: a success")
    func commitConfirmed() async throws {
        let setting = try await make()
        let isCommitted = Mutex(false)
        setting.proxy.setFilter { type, body in
            isCommitted.withLock { isCommitted in
                if isCommitted { return .hangUp }
                isCommitted = type == UInt8(ascii: "C") && body.starts(with: "COMMIT".utf8)
                return .pass
            }
        }
        try await setting.through.transaction(deadline: soon()) { transaction in
            _ = try await transaction.execute(final: [Self.insert])
        }
        #expect(setting.through.isClosed)
        let rowsNow = try await setting.rows()
        #expect(rowsNow == 1)
    }

    @Test("within a transaction, before COMMIT: lost, and certainly not committed")
    func beforeCommit() async throws {
        let setting = try await make()
        setting.proxy.setFilter { type, body in
            type == UInt8(ascii: "C") && body.starts(with: "INSERT".utf8) ? .hangUp : .pass
        }
        let error = await postgresError {
            try await setting.through.transaction(deadline: soon()) { transaction in
                _ = try await transaction.execute(Self.insert)
            }
        }
        guard case .connectionLost? = error?.kind else {
            Issue.record("\(String(describing: error))")
            return
        }
        let rowsNow = try await setting.rows()
        #expect(rowsNow == 0)
    }

    @Test("the server falls silent: the deadline stands, the grace ends, the outcome is unknown")
    func silence() async throws {
        let setting = try await make { $0.cancelGrace = .milliseconds(100) }
        setting.proxy.setFilter { _, _ in .goSilent }
        let error = await postgresError {
            _ = try await setting.through.execute(Self.insert, deadline: after(.milliseconds(50)))
        }
        #expect(error?.outcomeIsUnknown == true)
        #expect(error?.interruption == .deadline)
        #expect(setting.through.isClosed)
    }

    @Test(
        "terminated while it works: lost, not unknown, since the server said so before it committed"
    )
    func terminatedAtWork() async throws {
        try await PostgresFixture.withConnection { victim, fixture in
            let killer = try await fixture.connect()
            defer { killer.close() }
            let pid = PostgresValue.int4(victim.processID)
            let killed = Waiter<PostgresError?>()
            Loop.shared.spawn {
                killed.succeed(await postgresError { try await Self.killWhenAsleep(pid, killer) })
            }
            let error = await postgresError {
                _ = try await victim.execute(Query("SELECT pg_sleep(60)"), deadline: soon())
            }
            let killerError = try await killed.wait(until: soon())
            #expect(killerError == nil)
            guard case .connectionLost? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(victim.isClosed)
        }
    }

    private static func killWhenAsleep(
        _ pid: PostgresValue, _ killer: PostgresConnection
    ) async throws {
        let asleep = Query(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'", [pid]
        )
        while try await killer.execute(asleep, deadline: soon()).single().int(0) == 0 {}
        _ = try await killer.execute(
            Query("SELECT pg_terminate_backend($1)", [pid]), deadline: soon())
    }

    @Test("terminated while idle: the session is seen to be gone without being used")
    func terminatedIdle() async throws {
        try await PostgresFixture.withConnection { victim, fixture in
            let closed = Waiter<Void>()
            victim.onClose = { closed.succeed(()) }
            let killer = try await fixture.connect()
            defer { killer.close() }
            _ = try await killer.execute(
                Query("SELECT pg_terminate_backend($1)", [.int4(victim.processID)]),
                deadline: soon())
            try await closed.wait(until: soon())
            #expect(!victim.isUsable)
            let error = await postgresError {
                _ = try await victim.execute(Query("SELECT 1"), deadline: soon())
            }
            guard case .connectionLost? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
        }
    }
}
