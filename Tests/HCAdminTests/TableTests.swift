import Testing

@testable import HCAdmin

@Suite struct TableTests {
    @Test("columns are aligned, and a cell of two lines does not break its row")
    func rows() {
        let table = Table(
            header: ["CHECK", "DETAIL"],
            rows: [["redis", ""], ["shard s1", "no such file\nCheck that its server runs."]])
        #expect(
            table.render() == """
                CHECK     DETAIL
                redis     \("")
                shard s1  no such file; Check that its server runs.
                """)
    }
}
