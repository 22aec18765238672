import HCCore
import HCTesting
import Testing

@testable import HCControl

@Suite struct MigrationPlanTests {
    private let catalog = (1...3).map {
        Migration(version: $0, name: "m\($0)", checksum: "c\($0)", sql: "SELECT \($0)")
    }

    private func applied(_ lines: [(Int, String)]) -> [MigrationPlan.Applied] {
        lines.map { .init(version: $0.0, name: "m\($0.0)", checksum: $0.1) }
    }

    @Test("what the ledger does not have is pending, in order")
    func pending() throws {
        let plan = try MigrationPlan(
            database: "s1", catalog: catalog, applied: applied([(1, "c1")]))
        #expect(plan.pending.map(\.version) == [2, 3])
        let nothing = try MigrationPlan(
            database: "s1", catalog: catalog, applied: applied([(1, "c1"), (2, "c2"), (3, "c3")]))
        #expect(nothing.pending.isEmpty)
    }

    @Test("a file that was changed after it was applied stops everything")
    func changed() {
        let error = #expect(throws: ControlError.self) {
            try MigrationPlan(database: "s1", catalog: catalog, applied: applied([(1, "other")]))
        }
        #expect(error?.code == "migration-changed")
        #expect(error?.kind == .refused)
    }

    @Test("a database that is ahead of the files, or has a gap, is not touched")
    func unknown() {
        for lines in [[(1, "c1"), (2, "c2"), (3, "c3"), (4, "c4")], [(2, "c2")]] {
            let error = #expect(throws: ControlError.self) {
                try MigrationPlan(database: "s1", catalog: catalog, applied: applied(lines))
            }
            #expect(error?.code == "migration-unknown")
        }
    }
}

@Suite struct MigrationCatalogTests {
    @Test(
        "a migration's file is named NNNN_name.sql",
        arguments: [
            "1_a.sql", "0000_a.sql", "00001_a.sql", "0001.sql", "0001_.sql", "a_0001.sql",
            "０００１_a.sql",
            "0001_a'b.sql", "0001_A.sql", "0001_a b.sql",
        ])
    func names(file: String) {
        #expect(MigrationCatalog.parse(file) == nil)
    }

    @Test("the repository's migrations make a catalog")
    func load() throws {
        let catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
        #expect(catalog.control.map(\.version) == Array(1...catalog.control.count))
        #expect(catalog.shard.map(\.version) == Array(1...catalog.shard.count))
        #expect(catalog.shard.allSatisfy { $0.checksum.count == 64 })
    }

    @Test("a directory that is none is refused with its name")
    func missing() {
        let error = #expect(throws: ControlError.self) {
            try MigrationCatalog.load(directory: "/nowhere")
        }
        #expect(error?.code == "bad-migrations")
    }
}
