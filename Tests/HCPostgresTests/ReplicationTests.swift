import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("a logical slot is followed", .onLoop)
@LoopActor
struct ReplicationTests {
    /// A table with a publication of its keys, rows of one `owner` only, and a slot; the two sessions.
    private func withSlot(
        _ body: (
            _ writer: PostgresConnection, _ follower: PostgresConnection, _ name: String,
            _ heard: Heard
        ) async throws -> Void
    ) async throws {
        let fixture = try await PostgresFixture.make()
        let name = "follow_\(UInt32.random(in: .min ... .max))"
        let writer = try await fixture.connect()
        try await writer.executeScript(
            """
            CREATE TABLE \(name) (owner int, id int, note text, PRIMARY KEY (owner, id));
            CREATE PUBLICATION \(name) FOR TABLE \(name) (owner, id) WHERE (owner = 1)
                WITH (publish = 'insert, update, delete');
            """, deadline: soon())
        let follower = try await fixture.connect { $0.isReplication = true }
        try await follower.executeScript(
            "SELECT pg_create_logical_replication_slot('\(name)', 'pgoutput', true)",
            deadline: soon())
        let heard = Heard()
        let task = Loop.shared.makeTask {
            await heard.listen(to: follower, slot: name, publication: name)
        }
        do {
            try await body(writer, follower, name, heard)
        } catch {
            follower.close()
            await task.value
            throw error
        }
        follower.close()
        await task.value
        try await writer.executeScript(
            "DROP PUBLICATION \(name); DROP TABLE \(name)", deadline: soon())
        writer.close()
    }

    @LoopActor
    private final class Heard {
        private(set) var messages: [LogicalMessage] = []
        private(set) var end: PostgresError?
        private var waiter: Waiter<Void>?

        func listen(to connection: PostgresConnection, slot: String, publication: String) async {
            do throws(PostgresError) {
                try await connection.follow(slot: slot, publication: publication) {
                    messages.append($0)
                    waiter?.succeed(())
                }
            } catch {
                end = error
                waiter?.succeed(())
            }
        }

        /// - Returns: everything up to the commit of so many transactions.
        func transactions(_ count: Int) async throws -> [LogicalMessage] {
            while messages.count(where: { $0 == .commit }) < count, end == nil {
                let waiter = Waiter<Void>()
                self.waiter = waiter
                try await waiter.wait(until: soon())
            }
            return messages
        }

        func awaitEnd() async throws -> PostgresError? {
            while end == nil {
                let waiter = Waiter<Void>()
                self.waiter = waiter
                try await waiter.wait(until: soon())
            }
            return end
        }
    }

    @Test("every change of a published row is told by its key, and nothing else is")
    func changes() async throws {
        try await withSlot { writer, _, name, heard in
            for sql in [
                "INSERT INTO \(name) VALUES (1, 1, 'a'), (2, 1, 'of another')",
                "BEGIN; INSERT INTO \(name) VALUES (1, 9, 'taken back'); ROLLBACK",
                "UPDATE \(name) SET note = 'b' WHERE id = 1",
                "UPDATE \(name) SET id = 5 WHERE owner = 1",
                "DELETE FROM \(name)",
            ] {
                try await writer.executeScript(sql, deadline: soon())
            }
            let messages = try await heard.transactions(4)
            var relation: UInt32 = 0
            var seen: [LogicalMessage] = []
            for message in messages {
                switch message {
                case .relation(let told):
                    relation = told.id
                    #expect(told.name == name)
                    #expect(told.columns == ["owner", "id"])
                case .begin, .commit, .other: break
                default: seen.append(message)
                }
            }
            #expect(
                seen == [
                    .insert(relation: relation, new: ["1", "1"]),
                    .update(relation: relation, old: nil, new: ["1", "1"]),
                    .update(relation: relation, old: ["1", "1"], new: ["1", "5"]),
                    .delete(relation: relation, old: ["1", "5"]),
                ])
        }
    }

    @Test("a transaction is told by the id that snapshots know it by")
    func transactionIDs() async throws {
        try await withSlot { writer, _, name, heard in
            let id = try await writer.execute(
                [
                    .unsafeSQL("INSERT INTO \(name) VALUES (1, 1, 'a')"),
                    Query("SELECT (pg_current_xact_id()::text::bigint % 4294967296)::bigint"),
                ], deadline: soon())[1].single().int(0)
            let messages = try await heard.transactions(1)
            #expect(messages.contains(.begin(transaction: UInt32(id))))
        }
    }

    @Test("what was received is confirmed, so that the server keeps no log for it")
    func confirmation() async throws {
        try await withSlot { writer, _, name, heard in
            try await writer.executeScript(
                "INSERT INTO \(name) VALUES (1, 1, 'a')", deadline: soon())
            _ = try await heard.transactions(1)
            let position = try await writer.execute(
                Query("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"), deadline: soon()
            ).single().int(0)
            try await until {
                try await writer.execute(
                    Query(
                        """
                        SELECT (confirmed_flush_lsn - '0/0')::bigint >= $2
                        FROM pg_replication_slots WHERE slot_name = $1
                        """, [.text(name), .int8(Int64(position))]), deadline: soon()
                ).single().bool(0)
            }
        }
    }

    @Test("it ends with the session, and a temporary slot with it")
    func end() async throws {
        try await withSlot { writer, _, name, heard in
            try await until {
                try await writer.execute(
                    Query(
                        """
                        SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                        WHERE slot_name = $1 AND active_pid IN (SELECT pid FROM pg_stat_replication)
                        """, [.text(name)]), deadline: soon()
                ).rows.count == 1
            }
            let error = try #require(try await heard.awaitEnd())
            guard case .connectionLost = error.kind else {
                Issue.record("it ended otherwise: \(error)")
                return
            }
            try await until {
                try await writer.execute(
                    Query(
                        "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)",
                        [.text(name)]), deadline: soon()
                ).single().bool(0)
            }
        }
    }

    @Test("a slot that is not there is the server's refusal, and the session goes on")
    func noSlot() async throws {
        let fixture = try await PostgresFixture.make()
        let follower = try await fixture.connect { $0.isReplication = true }
        let error = await #expect(throws: PostgresError.self) {
            try await follower.follow(slot: "no_such_slot", publication: "none") { _ in }
        }
        #expect(error?.sqlstate == SQLState("42704"))
        try await follower.executeScript("SELECT 1", deadline: soon())
        follower.close()
    }

    @Test("an ordinary session follows nothing")
    func ordinarySession() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await #expect(throws: PostgresError.self) {
                try await connection.follow(slot: "a", publication: "b") { _ in }
            }
            guard case .misuse? = error?.kind else {
                Issue.record("it ended otherwise: \(String(describing: error))")
                return
            }
        }
    }

    private func until(_ isSo: () async throws -> Bool) async throws {
        let limit = soon()
        while try await !isSo() {
            guard !limit.isExpired(at: Loop.now) else { throw DeadlineExceeded() }
            try await Loop.shared.sleep(for: .milliseconds(5))
        }
    }
}

@Suite("changes from hostile bytes")
struct LogicalMessageTests {
    @Test("random bytes are read or refused", arguments: 1...4 as ClosedRange<UInt64>)
    func random(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        let kinds = Array("BCRIUDTYOMxN".utf8)
        for _ in 0..<20_000 {
            let count = Int.random(in: 0...60, using: &generator)
            var bytes = (0..<count).map { _ in
                Bool.random(using: &generator)
                    ? UInt8.random(in: 0...3, using: &generator)
                    : Array("NKOntu".utf8).randomElement(using: &generator) ?? 0
            }
            bytes.insert(kinds.randomElement(using: &generator) ?? 0, at: 0)
            bytes.withUnsafeBytes { raw in
                var reader = BinaryReader(raw)
                _ = try? LogicalMessage(&reader)
            }
        }
    }

    @Test("a row that lies about its length is malformed, not a crash")
    func lyingRow() {
        let bytes: [UInt8] =
            Array("I".utf8) + [0, 0, 0, 1] + Array("N".utf8) + [0, 1] + Array("t".utf8)
            + [0x7F, 0xFF, 0xFF, 0xFF, 65]
        bytes.withUnsafeBytes { raw in
            var reader = BinaryReader(raw)
            #expect(throws: BinaryReader.Failure.malformed) { try LogicalMessage(&reader) }
        }
    }
}
