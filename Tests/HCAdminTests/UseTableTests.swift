import HCCore
import Testing

@testable import HCAdmin

@Suite("tenant top shows what came between two looks")
struct UseTableTests {
    private func look(_ at: Double, _ tenants: String) throws -> UseLook {
        try #require(UseLook(Array(#"{"at":\#(at),"tenants":[\#(tenants)]}"#.utf8)))
    }

    private func entry(
        _ tenant: String, shard: String = "s1", transactions: Int, waits: Int = 0,
        waitSeconds: Double = 0.5, used: Double, rejected: Int = 0
    ) -> String {
        """
        {"shard":"\(shard)","tenant":"\(tenant)","waiting":3,"active":2,"transactions":\(transactions),
        "waits":\(waits),"waitSeconds":\(waitSeconds),"connectionSeconds":\(used),"rejected":\(rejected)}
        """
    }

    @Test("by the second, who uses most first")
    func rates() throws {
        let before = try look(
            10.5,
            entry("small", transactions: 10, used: 1.5) + ","
                + entry("large", transactions: 100, waits: 10, waitSeconds: 1.5, used: 5.5))
        let after = try look(
            12.5,
            entry("small", transactions: 30, used: 1.75) + ","
                + entry(
                    "large", transactions: 300, waits: 20, waitSeconds: 3.5, used: 13.5, rejected: 4
                ))
        let table = UseTable(from: [before], to: [after], shard: nil)
        #expect(table.lines.map(\.tenant) == ["large", "small"])
        #expect(table.lines[0].connections == 4)
        #expect(table.lines[0].transactionsPerSecond == 100)
        #expect(table.lines[0].meanWaitSeconds == 0.2)
        #expect(table.lines[0].rejectedPerSecond == 2)
        #expect(table.lines[1].transactionsPerSecond == 10)
        #expect(table.text(lines: 1).contains("large") && !table.text(lines: 1).contains("small"))
        #expect(UseTable(from: [before], to: [after], shard: "s2").lines.isEmpty)
    }

    @Test("several servers are added up; one that began anew counts from zero")
    func servers() throws {
        let before = try look(1.5, entry("a", transactions: 1000, used: 100.5))
        let after = try look(2.5, entry("a", transactions: 20, used: 0.5))
        let other = try look(7.5, "")
        let later = try look(8.5, entry("a", transactions: 30, used: 1.5))
        let table = UseTable(from: [before, other], to: [after, later], shard: "s1")
        #expect(table.lines.count == 1)
        #expect(table.lines[0].transactionsPerSecond == 50)
        #expect(table.lines[0].connections == 2)
        #expect(table.lines[0].waiting == 6)
    }

    @Test(
        "what is no such page is refused",
        arguments: ["", "{}", "[]", #"{"at":1.5,"tenants":[{}]}"#])
    func garbage(text: String) {
        #expect(UseLook(Array(text.utf8)) == nil)
    }

    @Test(
        "an interval is a time with a unit, within bounds",
        arguments: ["", "0s", "1", "100ms", "61s", "-1s", "1.5s", "s", "9999999999s"])
    func interval(text: String) {
        #expect(throws: UsageError.self) { try TenantTop.interval(text) }
    }

    @Test("numbers have two digits after the point")
    func decimal() {
        #expect(UseTable.decimal(0) == "0.00")
        #expect(UseTable.decimal(1.005) == "1.00" || UseTable.decimal(1.005) == "1.01")
        #expect(UseTable.decimal(12.345) == "12.35" || UseTable.decimal(12.345) == "12.34")
    }
}
