import HCCore
import HCIO
import HCTesting
import Synchronization
import Testing

@testable import HCPostgres

@Suite("prepared statements on a real server", .onLoop) @LoopActor
struct PreparedStatementTests {
    private static let distinct: [Query] = [
        Query("SELECT 0 + 0"), Query("SELECT 1 + 0"), Query("SELECT 2 + 0"), Query("SELECT 3 + 0"),
        Query("SELECT 4 + 0"), Query("SELECT 5 + 0"), Query("SELECT 6 + 0"), Query("SELECT 7 + 0"),
    ]

    @Test("no more statements than allowed are kept, even within one batch")
    func eviction() async throws {
        let change: (inout PostgresConfiguration) -> Void = { $0.statementsMax = 3 }
        try await PostgresFixture.withConnection(change) { connection, _ in
            for _ in 0..<3 {
                let results = try await connection.execute(Self.distinct, deadline: soon())
                #expect(try results.map { try $0.single().int(0) } == Array(0..<8))
            }
            let kept = try await connection.execute(
                .unsafeSQL("SELECT count(*) FROM pg_prepared_statements"), deadline: soon())
            #expect(try kept.single().int(0) == 3)
        }
    }

    @Test("a schema change under a prepared statement is not seen by the caller")
    func schemaChange() async throws {
        try await PostgresFixture.withConnection { connection, fixture in
            let other = try await fixture.connect()
            defer { other.close() }
            try await other.executeScript(
                "CREATE TABLE t (a int8); INSERT INTO t VALUES (7)", deadline: soon())
            let select = Query("SELECT * FROM t")
            #expect(try await connection.execute(select, deadline: soon()).columnCount == 1)
            try await other.executeScript("ALTER TABLE t ADD b text", deadline: soon())
            let results = try await connection.execute(
                [Query("INSERT INTO t VALUES (8, 'x')"), select], deadline: soon())
            #expect(results[1].columnCount == 2)
            #expect(results[1].count == 2)
        }
    }

    @Test("statements that vanished are prepared again")
    func vanished() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            _ = try await connection.execute(Self.distinct, deadline: soon())
            _ = try await connection.execute(.unsafeSQL("DEALLOCATE ALL"), deadline: soon())
            let results = try await connection.execute(Self.distinct, deadline: soon())
            #expect(try results.map { try $0.single().int(0) } == Array(0..<8))
            _ = try await connection.execute(.unsafeSQL("DEALLOCATE ALL"), deadline: soon())
            try await connection.transaction(deadline: soon()) { transaction in
                let results = try await transaction.execute(Self.distinct)
                #expect(results.count == 8)
            }
        }
    }

    @Test(
        "in the middle of a transaction a vanished statement is the caller's to retry, from the start"
    )
    func vanishedInTransaction() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            var attempts = 0
            let attempt = {
                attempts += 1
                let isFirst = attempts == 1
                try await connection.transaction(deadline: soon()) { transaction in
                    _ = try await transaction.execute(Self.distinct)
                    if isFirst { _ = try await transaction.execute(.unsafeSQL("DEALLOCATE ALL")) }
                    _ = try await transaction.execute(Self.distinct)
                }
            }
            let error = await postgresError { try await attempt() }
            #expect(error?.sqlstate == .unknownStatement)
            #expect(error?.isRetryable == true)
            try await attempt()
        }
    }

    @Test("a text that could not be parsed is parsed when it can be")
    func parseFailure() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let late = Query("SELECT n FROM late")
            let error = await postgresError {
                _ = try await connection.execute(
                    [Self.distinct[0], late, Self.distinct[1]], deadline: soon())
            }
            #expect(error?.sqlstate == .undefinedTable)
            #expect(error?.queryIndex == 1)
            try await connection.executeScript("CREATE TABLE late (n int8)", deadline: soon())
            let results = try await connection.execute(
                [Self.distinct[0], late, Self.distinct[1]], deadline: soon())
            #expect(results.count == 3)
        }
    }

    @Test("one text with other types of parameters is another statement")
    func types() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let ask = { (value: PostgresValue) in
                try await connection.execute(
                    Query("SELECT coalesce($1::text, 'none')", [value]), deadline: soon()
                ).single().text(0)
            }
            var answers: [String] = []
            for value: PostgresValue in [.null, .text("x"), .int8(5), .null] {
                answers.append(try await ask(value))
            }
            #expect(answers == ["none", "x", "5", "none"])
            #expect(connection.statementCount == 1)
        }
    }
}

@Suite("transactions on a real server", .onLoop) @LoopActor
struct TransactionTests {
    private static let insert = Query("INSERT INTO t VALUES (1)")
    private static let count = Query("SELECT count(*) FROM t")

    private func withTable(
        _ body: (PostgresConnection, PostgresFixture) async throws -> Void
    ) async throws {
        try await PostgresFixture.withConnection { connection, fixture in
            try await connection.executeScript("CREATE TABLE t (n int8)", deadline: soon())
            try await body(connection, fixture)
        }
    }

    private func rows(_ connection: PostgresConnection) async throws -> Int {
        try await connection.execute(Self.count, deadline: soon()).single().int(0)
    }

    @Test("the body's return commits")
    func commits() async throws {
        try await withTable { connection, _ in
            let seen = try await connection.transaction(deadline: soon()) { transaction in
                _ = try await transaction.execute(Self.insert)
                return try await transaction.execute(Self.count).single().int(0)
            }
            #expect(seen == 1)
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 1)
        }
    }

    @Test("a final execute commits in its own round trip, and nothing may follow")
    func final() async throws {
        try await withTable { connection, _ in
            let error = await postgresError {
                try await connection.transaction(deadline: soon()) { transaction in
                    _ = try await transaction.execute(final: [Self.insert, Self.insert])
                    _ = try await transaction.execute(Self.insert)
                }
            }
            guard case .misuse? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 2)
        }
    }

    private struct Refusal: Error {}

    @Test("a throw rolls back and goes on")
    func rollsBack() async throws {
        try await withTable { connection, _ in
            await #expect(throws: Refusal.self) {
                try await connection.transaction(deadline: soon()) { transaction in
                    _ = try await transaction.execute(Self.insert)
                    throw Refusal()
                }
            }
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 0)
            #expect(connection.isUsable)
        }
    }

    @Test("a failure that the body swallows still fails the transaction")
    func swallowed() async throws {
        try await withTable { connection, _ in
            let error = await postgresError {
                try await connection.transaction(deadline: soon()) { transaction in
                    _ = try await transaction.execute(Self.insert)
                    _ = await postgresError {
                        _ = try await transaction.execute(Query("SELECT 1 / 0"))
                    }
                }
            }
            #expect(error?.sqlstate == .divisionByZero)
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 0)
            #expect(connection.isUsable)
        }
    }

    @Test("a final batch that fails leaves a usable session and no rows")
    func finalFails() async throws {
        try await withTable { connection, _ in
            let error = await postgresError {
                try await connection.transaction(deadline: soon()) { transaction in
                    _ = try await transaction.execute(final: [Self.insert, Query("SELECT 1 / 0")])
                }
            }
            #expect(error?.sqlstate == .divisionByZero)
            #expect(error?.queryIndex == 1)
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 0)
            #expect(connection.isUsable)
        }
    }

    @Test("options are what the server has")
    func options() async throws {
        try await withTable { connection, _ in
            let options = TransactionOptions(isolation: .serializable, isReadOnly: true)
            let error = await postgresError {
                try await connection.transaction(options, deadline: soon()) { transaction in
                    let results = try await transaction.execute([
                        Query("SELECT current_setting('transaction_isolation')"),
                        Query("SELECT current_setting('transaction_read_only')"),
                    ])
                    #expect(try results[0].single().text(0) == "serializable")
                    #expect(try results[1].single().text(0) == "on")
                    _ = try await transaction.execute(Self.insert)
                }
            }
            #expect(error?.sqlstate == .readOnlyTransaction)
        }
    }

    @Test("a transaction that does nothing sends nothing")
    func empty() async throws {
        try await withTable { connection, _ in
            try await connection.transaction(deadline: soon()) { _ in }
            #expect(connection.isUsable)
        }
    }

    @Test("the connection itself is closed to others while a transaction is open")
    func exclusive() async throws {
        try await withTable { connection, _ in
            try await connection.transaction(deadline: soon()) { transaction in
                let error = await postgresError {
                    _ = try await connection.execute(Self.insert, deadline: soon())
                }
                guard case .misuse? = error?.kind else {
                    Issue.record("\(String(describing: error))")
                    return
                }
                _ = try await transaction.execute(Self.insert)
            }
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 1)
        }
    }

    @Test("a write conflict is retryable, a lock that is not free is told apart")
    func conflicts() async throws {
        try await withTable { one, fixture in
            let two = try await fixture.connect { $0.lockTimeout = .milliseconds(50) }
            defer { two.close() }
            _ = try await one.execute(Self.insert, deadline: soon())
            let update = Query("UPDATE t SET n = n + 1")
            let conflict = await postgresError {
                try await one.transaction(
                    TransactionOptions(isolation: .repeatableRead), deadline: soon()
                ) { transaction in
                    _ = try await transaction.execute(Self.count)
                    _ = try await two.execute(update, deadline: soon())
                    _ = try await transaction.execute(update)
                }
            }
            #expect(conflict?.sqlstate == .serializationFailure)
            #expect(conflict?.isRetryable == true)
            try await one.transaction(deadline: soon()) { transaction in
                _ = try await transaction.execute(update)
                let locked = await postgresError {
                    _ = try await two.execute(update, deadline: soon())
                }
                #expect(locked?.sqlstate == .lockNotAvailable)
                #expect(locked?.isRetryable == false)
            }
        }
    }

    @Test("a deadlock is retryable, and only one of the two has to")
    func deadlock() async throws {
        try await withTable { one, fixture in
            let two = try await fixture.connect { $0.settings = ["deadlock_timeout": "10ms"] }
            defer { two.close() }
            try await one.executeScript("INSERT INTO t VALUES (1), (2)", deadline: soon())
            let lock = { (number: Int64) in
                Query("SELECT n FROM t WHERE n = $1 FOR UPDATE", [.int8(number)])
            }
            let bothHoldOne = [Waiter<Void>(), Waiter<Void>()]
            let outcomes = [Waiter<PostgresError?>(), Waiter<PostgresError?>()]
            for (index, connection) in [one, two].enumerated() {
                Loop.shared.spawn {
                    outcomes[index].succeed(
                        await postgresError {
                            try await connection.transaction(deadline: soon()) { transaction in
                                _ = try await transaction.execute(lock(index == 0 ? 1 : 2))
                                bothHoldOne[index].succeed(())
                                try await bothHoldOne[1 - index].wait(until: soon())
                                _ = try await transaction.execute(lock(index == 0 ? 2 : 1))
                            }
                        })
                }
            }
            var errors: [PostgresError] = []
            for outcome in outcomes {
                if let error = try await outcome.wait(until: soon()) { errors.append(error) }
            }
            #expect(errors.count == 1)
            #expect(errors.first?.sqlstate == .deadlockDetected)
            #expect(errors.first?.isRetryable == true)
        }
    }

    @Test("a cancelled task cancels on the server and rolls back")
    func cancellation() async throws {
        try await withTable { connection, _ in
            let isIn = Waiter<Void>()
            let outcome = Waiter<PostgresError?>()
            let task = Loop.shared.spawn {
                outcome.succeed(
                    await postgresError {
                        try await connection.transaction(deadline: soon()) { transaction in
                            _ = try await transaction.execute(Self.insert)
                            isIn.succeed(())
                            _ = try await transaction.execute(Query("SELECT pg_sleep(60)"))
                        }
                    })
            }
            try await isIn.wait(until: soon())
            task.cancel()
            let error = try await outcome.wait(until: soon())
            guard case .cancelled? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            let rowsNow = try await rows(connection)
            #expect(rowsNow == 0)
        }
    }
}

@Suite("sessions on a real server", .onLoop) @LoopActor
struct SessionTests {
    @Test("a session has the settings that it should have")
    func settings() async throws {
        let change: (inout PostgresConfiguration) -> Void = {
            $0.lockTimeout = .seconds(2)
            $0.searchPath = "pg_catalog, public"
            $0.settings = ["jit": "off"]
        }
        try await PostgresFixture.withConnection(change) { connection, _ in
            let expected: [(String, String)] = [
                ("application_name", "hc-test"), ("client_encoding", "UTF8"), ("TimeZone", "UTC"),
                ("statement_timeout", "1min"), ("lock_timeout", "2s"), ("jit", "off"),
                ("idle_in_transaction_session_timeout", "1min"),
                ("search_path", "pg_catalog, public"),
            ]
            for (name, value) in expected {
                let result = try await connection.execute(
                    Query("SELECT current_setting($1)", [.text(name)]), deadline: soon())
                #expect(try result.single().text(0) == value, "\(name)")
            }
            #expect(connection.serverVersion >= 150_000)
        }
    }

    @Test("a second call while one is under way is refused, and does not harm it")
    func busy() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let outcomes = [Waiter<PostgresError?>(), Waiter<PostgresError?>()]
            for outcome in outcomes {
                Loop.shared.spawn {
                    outcome.succeed(
                        await postgresError {
                            _ = try await connection.execute(
                                Query("SELECT pg_sleep(0.05)"), deadline: soon())
                        })
                }
            }
            var errors: [PostgresError] = []
            for outcome in outcomes {
                if let error = try await outcome.wait(until: soon()) { errors.append(error) }
            }
            #expect(errors.count == 1)
            if case .misuse? = errors.first?.kind {} else { Issue.record("\(errors)") }
            #expect(connection.isUsable)
        }
    }

    @Test("a session that was left in a transaction, or in a COPY, is closed")
    func abuse() async throws {
        for text in ["BEGIN", "COPY (SELECT 1) TO STDOUT"] {
            try await PostgresFixture.withConnection { connection, _ in
                let error = await postgresError {
                    _ = try await connection.execute(.unsafeSQL(text), deadline: soon())
                }
                guard case .misuse? = error?.kind else {
                    Issue.record("\(text): \(String(describing: error))")
                    return
                }
                #expect(connection.isClosed)
            }
        }
    }

    @Test("the server's own time limit is a server's error, not our deadline")
    func statementTimeout() async throws {
        let change: (inout PostgresConfiguration) -> Void = {
            $0.statementTimeout = .milliseconds(50)
        }
        try await PostgresFixture.withConnection(change) {
            connection, _ in
            let error = await postgresError {
                _ = try await connection.execute(Query("SELECT pg_sleep(60)"), deadline: soon())
            }
            #expect(error?.sqlstate == .queryCancelled)
            #expect(connection.isUsable)
        }
    }

    @Test("a deadline that has passed sends nothing")
    func expired() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                _ = try await connection.execute(Query("SELECT 1"), deadline: after(.zero))
            }
            guard case .deadlineExceeded? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(connection.isUsable)
        }
    }

    @Test("a batch whose answers do not fit any buffer is answered while it is being sent")
    func largeBothWays() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let block = [UInt8](repeating: 9, count: 1 << 20)
            let queries = (0..<24).map { _ in Query("SELECT $1", [.bytes(block)]) }
            let results = try await connection.execute(queries, deadline: soon())
            #expect(try results.allSatisfy { try $0.single().bytes(0) == block })
        }
    }

    @Test("a large result makes the session one to replace")
    func retirement() async throws {
        let change: (inout PostgresConfiguration) -> Void = { $0.resultBytesRetire = 1 << 20 }
        try await PostgresFixture.withConnection(change) {
            connection, _ in
            #expect(connection.isUsable)
            _ = try await connection.execute(
                Query("SELECT repeat('x', 2000000)"), deadline: soon())
            #expect(!connection.isUsable)
        }
    }

    @Test("notices are logged by their code and without their text")
    func notices() async throws {
        let lines = LogLines()
        let change: (inout PostgresConfiguration) -> Void = { $0.logger = lines.logger }
        try await PostgresFixture.withConnection(change) { connection, _ in
            _ = try await connection.execute(
                .unsafeSQL("DO $$ BEGIN RAISE WARNING 'Ada Lovelace'; END $$"), deadline: soon())
        }
        #expect(lines.all.contains { $0.contains("01000") })
        #expect(!lines.all.contains { $0.contains("Ada") })
    }

    @Test("errors of the shard's own codes come through")
    func tenantCodes() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            for state: SQLState in [
                .tenantMoved, .tenantDraining, .tenantSuspended, .tenantReadOnly,
            ] {
                let error = await postgresError {
                    _ = try await connection.execute(
                        .unsafeSQL(
                            "DO $$ BEGIN RAISE SQLSTATE '\(state.code)' USING HINT = 's2'; END $$"),
                        deadline: soon())
                }
                #expect(error?.sqlstate == state)
                #expect(error?.server?.hint == "s2")
            }
        }
    }
}

@Suite("scripts", .onLoop) @LoopActor
struct ScriptTests {
    @Test("a script that fails has done nothing")
    func failure() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                try await connection.executeScript(
                    "CREATE TABLE t (n int8); SELECT 1 / 0; CREATE TABLE u (n int8)",
                    deadline: soon())
            }
            #expect(error?.sqlstate == .divisionByZero)
            let found = try await connection.execute(
                Query("SELECT to_regclass('t')::text"), deadline: soon())
            #expect(try found.single().isNull(0))
        }
    }

    @Test("a script and its ledger row are one transaction")
    func inTransaction() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            try await connection.executeScript("CREATE TABLE ledger (v int8)", deadline: soon())
            let error = await postgresError {
                try await connection.transaction(deadline: soon()) { transaction in
                    try await transaction.executeScript(
                        "CREATE TABLE t (n int8); CREATE TABLE u ()")
                    _ = try await transaction.execute(Query("INSERT INTO ledger VALUES (1)"))
                    _ = try await transaction.execute(
                        Query("INSERT INTO ledger VALUES ('x'::int8)"))
                }
            }
            #expect(error?.sqlstate == .invalidText)
            let found = try await connection.execute(
                Query("SELECT to_regclass('t') IS NULL, count(*) FROM ledger"), deadline: soon())
            #expect(try found.single().bool(0))
            #expect(try found.single().int(1) == 0)
        }
    }

    @Test("a script that ends the transaction it runs in is refused")
    func commitInside() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                try await connection.transaction(deadline: soon()) { transaction in
                    try await transaction.executeScript("CREATE TABLE t (); COMMIT")
                }
            }
            guard case .misuse? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(connection.isClosed)
        }
    }

    @Test("a script past its deadline is cancelled")
    func deadline() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                try await connection.executeScript(
                    "CREATE TABLE t (); SELECT pg_sleep(60)", deadline: after(.milliseconds(50)))
            }
            guard case .deadlineExceeded? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(connection.isUsable)
            _ = try await connection.execute(Query("SELECT 1"), deadline: soon())
        }
    }
}

/// Keeps what is logged.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    var logger: Logger {
        Logger(level: .trace, clocks: Clocks(now: { .epoch }, monotonic: { .zero })) { line in
            let text = String(decoding: line, as: UTF8.self)
            self.lines.withLock { $0.append(text) }
        }
    }
}
