import HCCore
import HCIO
import HCTesting
import Testing

@testable import HCPostgres

@Suite("values there and back", .onLoop) @LoopActor
struct ValueTests {
    private static let id = UUID(high: 0x0192_3456_789A_7BCD, low: 0x8EF0_1234_5678_9ABC)
    private static let instant = Timestamp(microseconds: 1_772_978_400_123_456)

    @Test("every type comes back as it went")
    func roundTrip() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let range = TimestampRange(lower: Self.instant, upper: Self.instant + .seconds(60))
            let date = try #require(CalendarDate(year: 1999, month: 12, day: 31))
            let result = try await connection.execute(
                Query(
                    """
                    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                        $18::text
                    """,
                    [
                        .bool(true), .int2(-2), .int4(-4), .int8(.min), .double(-0.25),
                        .text("naïve \u{1F642}"), .bytes([0, 255, 0]), .uuid(Self.id),
                        .timestamp(Self.instant), .date(date), .json(Array(#"{"a": 1}"#.utf8)),
                        .timestampRange(range), .uuids([Self.id, .zero]), .texts(["", "x", "ü"]),
                        .int8s([.min, 0, .max]), .byteas([[], [1, 0]]),
                        .timestamps([Self.instant, .epoch]), .null,
                    ]), deadline: soon())
            let row = try result.single()
            #expect(try row.bool(0))
            #expect(try row.int(1) == -2)
            #expect(try row.int(2) == -4)
            #expect(try row.int(3) == .min)
            #expect(try row.double(4) == -0.25)
            #expect(try row.text(5) == "naïve \u{1F642}")
            #expect(try row.bytes(6) == [0, 255, 0])
            #expect(try row.uuid(7) == Self.id)
            #expect(try row.timestamp(8) == Self.instant)
            #expect(try row.date(9) == date)
            #expect(try row.json(10) == Array(#"{"a": 1}"#.utf8))
            #expect(try row.timestampRangeIfPresent(11) == range)
            #expect(try row.uuids(12) == [Self.id, .zero])
            #expect(try row.texts(13) == ["", "x", "ü"])
            #expect(try row.int8s(14) == [.min, 0, .max])
            #expect(try row.byteas(15) == [[], [1, 0]])
            #expect(try row.timestamps(16) == [Self.instant, .epoch])
            #expect(try row.textIfPresent(17) == nil)
            #expect(try row.isNull(17))
        }
    }

    @Test("the server reads what we mean")
    func meaning() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let result = try await connection.execute(
                Query(
                    "SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::text",
                    [
                        .text(""), .null, .text("x"), .text("y"), .text("z"), .text("w"),
                    ]), deadline: soon())
            #expect(try result.single().text(0) == "")
            #expect(try result.single().isNull(1))
            let texts = try await connection.execute(
                [
                    Query("SELECT ($1 AT TIME ZONE 'UTC')::text", [.timestamp(Self.instant)]),
                    Query("SELECT $1::text", [.uuid(Self.id)]),
                    Query(
                        "SELECT $1::text",
                        [.timestampRange(TimestampRange(lower: .epoch, upper: nil))]),
                    Query(
                        "SELECT $1::text",
                        [.timestampRange(TimestampRange(lower: .epoch, upper: .epoch))]),
                    Query("SELECT $1::text", [.int8s([])]),
                    Query("SELECT octet_length($1)", [.bytes([])]),
                ], deadline: soon())
            #expect(try texts[0].single().text(0) == "2026-03-08 14:00:00.123456")
            #expect(try texts[1].single().text(0) == Self.id.description)
            #expect(try texts[2].single().text(0) == "[\"1970-01-01 00:00:00+00\",)")
            #expect(try texts[3].single().text(0) == "empty")
            #expect(try texts[4].single().text(0) == "{}")
            #expect(try texts[5].single().int(0) == 0)
        }
    }

    @Test("a NUL in text is refused before anything is sent")
    func nul() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                _ = try await connection.execute(
                    [Query("SELECT 1"), Query("SELECT $1, $2", [.int8(1), .text("a\0b")])],
                    deadline: soon())
            }
            guard case .encode(.nulInText(parameter: 2))? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(error?.queryIndex == 1)
            #expect(connection.isUsable)
            #expect(connection.statementCount == 0)
            let array = await postgresError {
                _ = try await connection.execute(
                    Query("SELECT $1", [.texts(["ok", "\0"])]), deadline: soon())
            }
            guard case .encode(.nulInText(parameter: 1))? = array?.kind else {
                Issue.record("\(String(describing: array))")
                return
            }
        }
    }

    @Test("an instant that the server cannot hold is refused")
    func outOfRange() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let error = await postgresError {
                _ = try await connection.execute(
                    Query("SELECT $1", [.timestamp(Timestamp(microseconds: .min))]),
                    deadline: soon())
            }
            guard case .encode(.outOfRange(parameter: 1))? = error?.kind else {
                Issue.record("\(String(describing: error))")
                return
            }
        }
    }

    @Test("a column of another type is an error that names it")
    func wrongType() async throws {
        try await PostgresFixture.withConnection { connection, _ in
            let result = try await connection.execute(
                Query(
                    """
                    SELECT 1::int8 AS n, NULL::text AS t, 'infinity'::timestamptz AS i,
                        ARRAY['a', NULL] AS a, '[2020-01-01,2020-01-02]'::tstzrange AS r
                    """), deadline: soon())
            let row = try result.single()
            func reason(
                _ body: () throws -> Void
            ) -> (column: String, reason: PostgresError.DecodeProblem.Reason)? {
                do {
                    try body()
                    return nil
                } catch let error as PostgresError {
                    guard case .decode(let problem) = error.kind else { return nil }
                    return (problem.column, problem.reason)
                } catch {
                    return nil
                }
            }
            let type = reason { _ = try row.text(0) }
            #expect(type?.column == "n")
            #expect(type?.reason == .wrongType(expected: "text", actual: .int8))
            #expect(reason { _ = try row.text(1) }?.reason == .unexpectedNull)
            #expect(reason { _ = try row.timestamp(2) }?.reason == .unrepresentable)
            #expect(reason { _ = try row.texts(3) }?.reason == .unrepresentable)
            #expect(reason { _ = try row.timestampRangeIfPresent(4) }?.reason == .unrepresentable)
            #expect(reason { _ = try row.int(9) }?.reason == .noSuchColumn)
        }
    }
}
