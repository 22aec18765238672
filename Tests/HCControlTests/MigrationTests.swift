import CLinux
import HCCore
import HCIO
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
        "a migration's folder is named NNNN-name",
        arguments: [
            "1-a", "0000-a", "00001-a", "0001", "0001-", "a-0001", "0001_a", "０００１-a", "0001-a'b",
            "0001-A", "0001-a b", "0001-a.sql",
        ])
    func names(folder: String) {
        #expect(MigrationCatalog.parse(folder) == nil)
    }

    @Test("a folder says what it holds, and what it is allowed")
    func folders() throws {
        let directory = try MigrationDirectory()
        try directory.write("control/0001-a/up.sql", "SELECT 1")
        try directory.write("shard/0001-b-c_d/up.sql", "SELECT 1;\nSELECT 2")
        try directory.write("shard/0001-b-c_d/down.sql", "SELECT 3")
        try directory.write("shard/0002-e/up.sql", "VACUUM patient")
        try directory.write(
            "shard/0002-e/migration.json",
            #"""
            {"transaction": false, "lockTimeoutMilliseconds": 50, "lockTotalSeconds": 7, "timeoutSeconds": 3600,
             "servesFrom": 2}
            """#)
        try directory.write("shard/schema.sql", "")
        try directory.write("shard/.hidden", "")
        let catalog = try MigrationCatalog.load(directory: directory.path)
        #expect(catalog.shard.map(\.folder) == ["0001-b-c_d", "0002-e"])
        #expect(catalog.shard.map(\.down) == ["SELECT 3", nil])
        #expect(catalog.shard[0].terms == MigrationTerms())
        let terms = catalog.shard[1].terms
        #expect(!terms.isTransactional && terms.lockTimeout == .milliseconds(50))
        #expect(terms.lockTotal == .seconds(7) && terms.timeout == .seconds(3600))
        #expect(terms.servesFrom == 2)
    }

    @Test(
        "what does not belong there, or is not known, is refused with its name",
        arguments: [
            ("shard/0002_old.sql", "SELECT 1", "0002_old.sql is not named NNNN-name"),
            ("shard/0003-b/up.sql", "SELECT 1", "has number 3 where 2 is due"),
            ("shard/0001-b/down.sql", "SELECT 1", "0001-b has number 1 where 2 is due"),
            ("shard/0001-a/rollback.sql", "SELECT 1", "rollback.sql is no part of a migration"),
            ("shard/0002-b/down.sql", "SELECT 1", "has no up.sql"),
            ("shard/0002-b/up.sql", "-- nothing", "has no statement"),
            ("shard/0001-a/migration.json", "{", "is no JSON"),
            ("shard/0001-a/migration.json", "[]", "is no JSON object"),
            ("shard/0001-a/migration.json", #"{"locks": 1}"#, "locks is not known"),
            ("shard/0001-a/migration.json", #"{"transaction": 1}"#, "transaction is true or false"),
            (
                "shard/0001-a/migration.json", #"{"lockTimeoutMilliseconds": 5000}"#,
                "lockTimeoutMilliseconds is a whole number from 10 to 1000"
            ),
            ("shard/0001-a/migration.json", #"{"transaction": false}"#, "up.sql has 2 statements"),
        ])
    func refused(file: String, text: String, message: String) throws {
        let directory = try MigrationDirectory()
        try directory.write("control/0001-a/up.sql", "SELECT 1")
        try directory.write("shard/0001-a/up.sql", "SELECT 1; SELECT 2")
        _ = try MigrationCatalog.load(directory: directory.path)
        try directory.write(file, text)
        let error = #expect(throws: ControlError.self) {
            try MigrationCatalog.load(directory: directory.path)
        }
        #expect(error?.code == "bad-migrations")
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    /// What ledgers have had since before there were folders: that of `up.sql`, and nothing else.
    @Test("what was applied as a single file keeps its checksum")
    func checksums() throws {
        let catalog = try MigrationCatalog.load(directory: Repository.path("migrations"))
        #expect(
            catalog.shard.first?.checksum
                == "1514d9aff351ee1e23745eb8559e54f316ac008ec554968be5087db5f9d8b89f")
        #expect(
            catalog.control.prefix(7).last?.checksum
                == "5d1da1998711c5fc353af192f4b596f35829931aa01bd2dfd8942f29fc34e34a")
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

/// A directory of migrations of a test's own, removed with the last reference.
final class MigrationDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/hc-migrations-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FixtureError("mkdtemp failed") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func write(_ file: String, _ text: String) throws {
        var made = path
        for part in file.split(separator: "/").dropLast() {
            made += "/\(part)"
            mkdir(made, 0o700)
        }
        try Files.replace("\(path)/\(file)", with: Array(text.utf8))
    }

    deinit {
        // What is left lies in /tmp and is nobody's.
        _ = try? Subprocess.run("/bin/rm", ["-rf", path])
    }
}
