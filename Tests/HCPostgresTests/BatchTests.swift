import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("batches on a real server", .onLoop) @LoopActor
struct BatchTests {
    @Test("a query gives its rows, typed")
    func simple() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let result = try await connection.execute(
                Query("SELECT $1 + 1, $2", [.int8(41), .text("über")]), deadline: soon())
            #expect(try result.single().int(0) == 42)
            #expect(try result.single().text(1) == "über")
            #expect(connection.isUsable)
        }
    }

    @Test("fifty queries go in one round trip and give fifty results in order")
    func fifty() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let queries = (0..<50).map { Query("SELECT $1", [.int8(Int64($0))]) }
            let results = try await connection.execute(queries, deadline: soon())
            #expect(try results.map { try $0.single().int(0) } == Array(0..<50))
            #expect(connection.statementCount == 1)
        }
    }

    @Test("a failing query in the middle is named, and nothing is committed")
    func failure() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            try await connection.executeScript(
                "CREATE TABLE t (n int8 PRIMARY KEY)", deadline: soon())
            let insert = { (n: Int64) in Query("INSERT INTO t VALUES ($1)", [.int8(n)]) }
            let error = await postgresError {
                _ = try await connection.execute(
                    [insert(1), insert(2), insert(1), insert(3)], deadline: soon())
            }
            #expect(error?.sqlstate == .uniqueViolation)
            #expect(error?.queryIndex == 2)
            #expect(error?.constraint == "t_pkey")
            let count = try await connection.execute(
                Query("SELECT count(*) FROM t"), deadline: soon())
            #expect(try count.single().int(0) == 0)
            #expect(connection.isUsable)
        }
    }

    @Test("a deferred constraint that fails at the Sync fails the batch, without a query's number")
    func deferred() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            try await connection.executeScript(
                "CREATE TABLE t (n int8, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)",
                deadline: soon())
            let error = await postgresError {
                _ = try await connection.execute(
                    [
                        Query("INSERT INTO t VALUES (1)"), Query("INSERT INTO t VALUES (1)"),
                    ], deadline: soon())
            }
            #expect(error?.sqlstate == .uniqueViolation)
            #expect(error?.queryIndex == nil)
            let count = try await connection.execute(
                Query("SELECT count(*) FROM t"), deadline: soon())
            #expect(try count.single().int(0) == 0)
        }
    }

    @Test("a deadline cancels on the server and leaves a usable session")
    func deadline() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                _ = try await connection.execute(
                    Query("SELECT pg_sleep(60)"), deadline: after(.milliseconds(50)))
            }
            guard case .deadlineExceeded? = error?.kind else {
                Issue.record("not a deadline: \(String(describing: error))")
                return
            }
            let result = try await connection.execute(Query("SELECT 1"), deadline: soon())
            #expect(try result.single().int(0) == 1)
        }
    }
}
