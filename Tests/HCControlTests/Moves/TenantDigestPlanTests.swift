import HCTenancy
import Testing

@testable import HCControl

@Suite("What of a clinic is digested")
struct TenantDigestPlanTests {
    /// Tables of one key, with as many rows as are given, cut after each ten.
    private static func plan(_ rows: KeyValuePairs<String, Int>) -> TenantDigestPlan {
        TenantDigestPlan(
            tables: rows.map { name, count in
                TenantDigestPlan.Table(
                    name: name,
                    columns: [.init(name: "id", type: "bigint", isBuiltIn: true)],
                    key: [.init(name: "id", type: "bigint", isCollated: false)],
                    cuts: stride(from: 10, to: count, by: 10).map { ["\($0)"] }, rows: count)
            }, rowsPerChunk: 10)
    }

    private static func digest(_ rows: Int, _ word: UInt64) -> RowDigest {
        RowDigest(rows: rows, first: word, second: ~word)
    }

    @Test("the chunks of a table are all of it: from without a bound to without a bound")
    func ranges() {
        let plan = Self.plan(["a": 0, "b": 10, "c": 11, "d": 30])
        #expect(
            plan.chunks.map { "\($0) \(plan.range(of: $0)?.description ?? "-")" } == [
                "a[0] [, )", "b[0] [, )", "c[0] [, 10)", "c[1] [10, )", "d[0] [, 10)",
                "d[1] [10, 20)", "d[2] [20, )",
            ])
        #expect(plan.chunks.map { plan.rows(of: $0) } == [0, 10, 10, 1, 10, 10, 10])
        #expect(plan.rows == 51)
        #expect(plan.range(of: TenantChunk(table: "d", index: 3)) == nil)
        #expect(plan.range(of: TenantChunk(table: "e", index: 0)) == nil)
    }

    @Test("a batch holds no more than its rows and chunks, and a large chunk is one of its own")
    func batches() {
        let plan = Self.plan(["a": 0, "b": 0, "c": 0, "d": 35, "e": 5])
        func counts(_ rowsMax: Int, _ chunksMax: Int) -> [Int] {
            plan.batches(of: plan.chunks, rowsMax: rowsMax, chunksMax: chunksMax).map(\.count)
        }
        #expect(counts(100, 100) == [8])
        #expect(counts(20, 100) == [5, 3])
        #expect(counts(100, 3) == [3, 3, 2])
        #expect(counts(1, 100) == [3, 1, 1, 1, 1, 1])
        #expect(plan.batches(of: [], rowsMax: 1, chunksMax: 1).isEmpty)
    }

    @Test("a difference is of one chunk, and what was not read on both sides is one")
    func differences() {
        let plan = Self.plan(["a": 25, "b": 0])
        let chunks = plan.chunks
        let here = TenantDigests(
            position: LogPosition(7),
            chunks: [
                chunks[0]: Self.digest(10, 1), chunks[1]: Self.digest(10, 2),
                chunks[2]: Self.digest(5, 3), chunks[3]: .zero,
            ])
        #expect(plan.differences(source: here, target: here).isEmpty)
        let there = TenantDigests(
            position: LogPosition(9),
            chunks: [
                chunks[0]: Self.digest(10, 1), chunks[1]: Self.digest(9, 2),
                chunks[2]: Self.digest(5, 4),
            ])
        let differences = plan.differences(source: here, target: there)
        #expect(differences.map(\.chunk) == [chunks[1], chunks[2], chunks[3]])
        #expect(
            differences.map(\.description)[0]
                == "a[1] [10, 20): source 10 rows 0000000000000002fffffffffffffffd,"
                + " target 9 rows 0000000000000002fffffffffffffffd")
        #expect(differences[2].target == nil)
        // Neither side read it: that is no proof that it is equal.
        let empty = TenantDigests(position: LogPosition(1), chunks: [:])
        #expect(plan.differences(source: empty, target: empty).count == 4)
        #expect(
            plan.differences(source: here, target: there, chunks: [chunks[0]]).isEmpty)
        // Read again, the two are equal.
        let again = there.updated(by: here)
        #expect(plan.differences(source: here, target: again).isEmpty)
        #expect(again.position == LogPosition(7))
        #expect(again.rows == 25)
    }

    @Test("the sum over a table is the same however it is cut")
    func sums() {
        let chunks = Self.plan(["a": 25]).chunks
        let cut = TenantDigests(
            position: LogPosition(1),
            chunks: [
                chunks[0]: Self.digest(10, .max), chunks[1]: Self.digest(10, 3),
                chunks[2]: Self.digest(5, 7),
            ])
        #expect(cut.tables.map(\.name) == ["a"])
        #expect(cut.tables.first?.digest.rows == 25)
        #expect(cut.tables.first?.digest.first == 9)
        #expect(RowDigest.zero.hex == String(repeating: "0", count: 32))
    }
}
