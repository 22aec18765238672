import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("the position of a commit", .onLoop) @LoopActor
struct CommitPositionTests {
    private static let insert = Query("INSERT INTO t SELECT 1 RETURNING pg_current_xact_id()::text")

    private func withTable(
        _ body: (PostgresConnection) async throws -> Void
    ) async throws {
        try await PostgresFixture.withConnection { connection, fixture in
            try await connection.executeScript(
                """
                CREATE TABLE t (n int8);
                CREATE TABLE late (n int8 UNIQUE DEFERRABLE INITIALLY DEFERRED);
                CREATE EXTENSION IF NOT EXISTS pg_walinspect WITH SCHEMA pg_catalog;
                """, deadline: soon())
            try await body(connection)
        }
    }

    /// Where the commit record of a transaction ends, by the log itself.
    private func end(
        of transaction: String, after start: Int, _ connection: PostgresConnection
    ) async throws -> Int {
        let rows = try await connection.execute(
            Query(
                """
                SELECT (end_lsn - '0/0')::bigint
                FROM pg_get_wal_records_info('0/0'::pg_lsn + $1::bigint, pg_current_wal_flush_lsn())
                WHERE resource_manager = 'Transaction' AND record_type LIKE 'COMMIT%' AND xid::text = $2
                """, [.int8(Int64(start)), .text(transaction)]), deadline: soon())
        return try rows.single().int(0)
    }

    private func present(_ connection: PostgresConnection) async throws -> Int {
        let row = try await connection.execute(
            Query("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"), deadline: soon()
        ).single()
        return try row.int(0)
    }

    @Test("it is behind the commit record, for a batch and for a transaction")
    func behindTheCommit() async throws {
        try await withTable { connection in
            let start = try await present(connection)
            let batch = try await connection.execute(
                [Self.insert], reportsPosition: true, deadline: soon())
            let first = try #require(connection.commitPosition)
            let options = TransactionOptions(reportsPosition: true)
            let second = try await connection.transaction(options, deadline: soon()) {
                try await $0.execute(Self.insert).single().text(0)
            }
            let secondPosition = try #require(connection.commitPosition)
            let third = try await connection.transaction(options, deadline: soon()) {
                try await $0.execute(final: [Self.insert])[0].single().text(0)
            }
            let thirdPosition = try #require(connection.commitPosition)
            for (transaction, position) in [
                (try batch[0].single().text(0), first), (second, secondPosition),
                (third, thirdPosition),
            ] {
                let end = try await end(of: transaction, after: start, connection)
                #expect(UInt64(end) <= position)
                #expect(position < UInt64(end) + (1 << 20), "and not far behind")
            }
            #expect(first < secondPosition && secondPosition < thirdPosition)
            #expect(connection.isUsable)
        }
    }

    @Test("who does not ask gets none, not even an old one")
    func notAsked() async throws {
        try await withTable { connection in
            _ = try await connection.execute([Self.insert], reportsPosition: true, deadline: soon())
            _ = try await connection.execute([Self.insert], deadline: soon())
            #expect(connection.commitPosition == nil)
        }
    }

    @Test(
        "a batch that fails, at a step or at its commit, fails as ever and leaves the session good")
    func failures() async throws {
        try await withTable { connection in
            let division = await postgresError {
                _ = try await connection.execute(
                    [Self.insert, Query("SELECT 1 / 0")], reportsPosition: true, deadline: soon())
            }
            #expect(division?.sqlstate == .divisionByZero)
            #expect(division?.queryIndex == 1)
            let deferred = await postgresError {
                _ = try await connection.execute(
                    [Query("INSERT INTO late VALUES (1), (1)")], reportsPosition: true,
                    deadline: soon())
            }
            #expect(deferred?.sqlstate == .uniqueViolation)
            #expect(connection.isUsable)
            let count = try await connection.execute(
                [Query("SELECT count(*) FROM t")], reportsPosition: true, deadline: soon())
            #expect(try count[0].single().int(0) == 0)
            #expect(connection.commitPosition != nil)
        }
    }
}
