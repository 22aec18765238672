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

    @Test("of a migration in phases the rest is pending, and nothing comes after it before")
    func phases() throws {
        let phased = Migration(
            version: 3, name: "m3", checksum: "c3", sql: "SELECT 1", backfill: "SELECT 2",
            contract: "SELECT 3")
        let files =
            catalog.prefix(2) + [phased]
            + [Migration(version: 4, name: "m4", checksum: "c4", sql: "SELECT 4")]
        func pending(_ phase: MigrationPlan.Phase?) throws -> [String] {
            try MigrationPlan(
                database: "s1", catalog: Array(files),
                applied: applied([(1, "c1"), (2, "c2")]) + [
                    .init(version: 3, name: "m3", checksum: "c3", phase: phase)
                ]
            ).pending.map(\.name)
        }
        #expect(try pending(.expanded) == ["m3 (backfill)", "m3 (contract)", "m4"])
        #expect(try pending(.backfilled) == ["m3 (contract)", "m4"])
        #expect(try pending(nil) == ["m4"])
        let error = #expect(throws: ControlError.self) {
            try MigrationPlan(
                database: "s1", catalog: Array(files),
                applied: [.init(version: 1, name: "m1", checksum: "c1", phase: .expanded)]
                    + applied([(2, "c2")]))
        }
        #expect(error?.code == "migration-unknown")
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

    @Test("phases are steps in their order, and the checksum is of all of them")
    func phases() throws {
        let directory = try MigrationDirectory()
        try directory.write("control/0001-a/up.sql", "SELECT 1")
        try directory.write("shard/0001-b/expand.sql", "SELECT 1")
        try directory.write("shard/0001-b/backfill.sql", "SELECT 2")
        try directory.write("shard/0001-b/contract.sql", "SELECT 3; SELECT 4")
        try directory.write("shard/0001-b/verify.sql", "SELECT 5")
        try directory.write(
            "shard/0001-b/migration.json",
            #"{"batchRows": 7, "busyPercent": 50, "replicaLagMegabytesMax": 2}"#)
        let migration = try #require(MigrationCatalog.load(directory: directory.path).shard.first)
        #expect(
            migration.steps.map(\.title) == ["1 b (expand)", "1 b (backfill)", "1 b (contract)"])
        #expect(migration.steps.map(\.servesFrom) == [nil, nil, 1])
        #expect(migration.steps.map(\.isLast) == [false, false, true])
        #expect(migration.steps[2].file == "0001-b/contract.sql" && migration.verify == "SELECT 5")
        #expect(migration.terms.batchRows == 7 && migration.terms.busyPercent == 50)
        #expect(migration.terms.replicaLagBytesMax == 2 << 20)
        try directory.write("shard/0001-b/contract.sql", "SELECT 3; SELECT 5")
        let other = try #require(MigrationCatalog.load(directory: directory.path).shard.first)
        #expect(other.checksum != migration.checksum)
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
            ("shard/0001-a/expand.sql", "SELECT 1", "expand.sql beside it"),
            (
                "shard/0001-a/contract.sql", "SELECT 1",
                "has phases: they are expand.sql and after it"
            ),
            ("shard/0002-b/expand.sql", "SELECT 1", "has phases: they are expand.sql and after it"),
            ("shard/0001-a/verify.sql", "SELECT 1; SELECT 2", "has 2 statements where"),
            ("shard/0001-a/migration.json", #"{"servesFrom": 2}"#, "servesFrom is a whole number"),
            (
                "shard/0001-a/migration.json", #"{"busyPercent": 0}"#,
                "busyPercent is a whole number"
            ),
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
