import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("COPY", .onLoop) @LoopActor
struct CopyTests {
    private static let copyIn = Query("COPY t FROM STDIN")
    private static let copyOut = Query("COPY (SELECT n, s FROM t ORDER BY n) TO STDOUT")

    private func withTable(
        _ body: (PostgresConnection) async throws -> Void
    ) async throws {
        try await PostgresFixture.withConnection { connection, _ in
            try await connection.executeScript(
                "CREATE TABLE t (n int8 PRIMARY KEY, s text)", deadline: soon())
            try await body(connection)
        }
    }

    private func count(_ connection: PostgresConnection) async throws -> Int {
        try await connection.execute(Query("SELECT count(*) FROM t"), deadline: soon())
            .single().int(0)
    }

    @Test("a hundred thousand rows go in and come out, byte by byte the same")
    func bothWays() async throws {
        try await withTable { connection in
            var sent: [UInt8] = []
            var next = 0
            let copied = try await connection.copyIn(Self.copyIn, deadline: soon()) {
                guard next < 100_000 else { return nil }
                var chunk: [UInt8] = []
                for number in next..<(next + 1000) {
                    chunk.append(contentsOf: "\(number)\trow number \(number)\n".utf8)
                }
                next += 1000
                sent.append(contentsOf: chunk)
                return chunk
            }
            #expect(copied == 100_000)
            var received: [UInt8] = []
            var chunks = 0
            let rows = try await connection.copyOut(Self.copyOut, deadline: soon()) { chunk in
                chunks += 1
                received.append(contentsOf: chunk)
            }
            #expect(rows == 100_000)
            #expect(received == sent)
            #expect(chunks < 10_000)
            let rowsNow = try await count(connection)
            #expect(rowsNow == 100_000)
        }
    }

    private struct Refusal: Error {}

    @Test("a source that throws copies nothing, and the session goes on")
    func sourceFails() async throws {
        try await withTable { connection in
            var calls = 0
            await #expect(throws: Refusal.self) {
                try await connection.copyIn(Self.copyIn, deadline: soon()) {
                    calls += 1
                    guard calls < 3 else { throw Refusal() }
                    return Array("\(calls)\tx\n".utf8)
                }
            }
            let rowsNow = try await count(connection)
            #expect(rowsNow == 0)
            #expect(connection.isUsable)
        }
    }

    @Test("a consumer that throws ends the COPY, and the session goes on")
    func consumerFails() async throws {
        try await withTable { connection in
            await #expect(throws: Refusal.self) {
                try await connection.copyOut(
                    Query("COPY (SELECT generate_series(1, 10000000)) TO STDOUT"), deadline: soon()
                ) { _ in throw Refusal() }
            }
            #expect(connection.isUsable)
            let rowsNow = try await count(connection)
            #expect(rowsNow == 0)
        }
    }

    @Test("rows that the server refuses are its error")
    func serverRefuses() async throws {
        try await withTable { connection in
            var isSent = false
            let error = await postgresError {
                try await connection.copyIn(Self.copyIn, deadline: soon()) {
                    guard !isSent else { return nil }
                    isSent = true
                    return Array("1\ta\n1\tb\n".utf8)
                }
            }
            #expect(error?.sqlstate == .uniqueViolation)
            let unknown = await postgresError {
                try await connection.copyOut(Query("COPY nowhere TO STDOUT"), deadline: soon()) {
                    _ in
                }
            }
            #expect(unknown?.sqlstate == .undefinedTable)
            let rowsNow = try await count(connection)
            #expect(rowsNow == 0)
        }
    }

    @Test("what is no COPY, or one the other way, is refused")
    func wrongWay() async throws {
        try await withTable { connection in
            let none = await postgresError {
                try await connection.copyIn(Query("SELECT 1"), deadline: soon()) { nil }
            }
            if case .misuse? = none?.kind {} else { Issue.record("\(String(describing: none))") }
            #expect(connection.isUsable)
            let other = await postgresError {
                try await connection.copyIn(Self.copyOut, deadline: soon()) { nil }
            }
            if case .misuse? = other?.kind {} else { Issue.record("\(String(describing: other))") }
            #expect(connection.isClosed)
        }
    }

    @Test("in a transaction it is as good as the transaction")
    func inTransaction() async throws {
        try await withTable { connection in
            let copy = { (transaction: PostgresTransaction) in
                var isSent = false
                try await transaction.copyIn(Self.copyIn) {
                    defer { isSent = true }
                    return isSent ? nil : Array("1\ta\n2\tb\n".utf8)
                }
            }
            await #expect(throws: Refusal.self) {
                try await connection.transaction(deadline: soon()) { transaction in
                    try await copy(transaction)
                    throw Refusal()
                }
            }
            let rowsNow = try await count(connection)
            #expect(rowsNow == 0)
            try await connection.transaction(deadline: soon()) { transaction in
                try await copy(transaction)
                var text: [UInt8] = []
                try await transaction.copyOut(Self.copyOut) { text += $0 }
                #expect(text == Array("1\ta\n2\tb\n".utf8))
            }
            let rowsLater = try await count(connection)
            #expect(rowsLater == 2)
        }
    }

    @Test("the deadline ends a COPY out of a query that takes too long")
    func outDeadline() async throws {
        try await withTable { connection in
            let error = await postgresError {
                try await connection.copyOut(
                    Query("COPY (SELECT pg_sleep(60)) TO STDOUT"),
                    deadline: after(.milliseconds(50))
                ) { _ in }
            }
            if case .deadlineExceeded? = error?.kind {
            } else {
                Issue.record("\(String(describing: error))")
            }
            #expect(connection.isUsable)
        }
    }

    @Test("the deadline ends a COPY in whose source takes too long")
    func inDeadline() async throws {
        try await withTable { connection in
            let deadline = after(.milliseconds(50))
            let error = await postgresError {
                try await connection.copyIn(Self.copyIn, deadline: deadline) {
                    try await Loop.shared.sleep(until: after(.milliseconds(80)))
                    return Array("1\ta\n".utf8)
                }
            }
            if case .deadlineExceeded? = error?.kind {
            } else {
                Issue.record("\(String(describing: error))")
            }
            let rowsNow = try await count(connection)
            #expect(rowsNow == 0)
        }
    }
}
