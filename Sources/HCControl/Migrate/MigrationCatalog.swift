import HCCore
import HCCrypto
import HCIO

/// The migrations of a directory: the folders `control/NNNN-name/` and `shard/NNNN-name/`.
package struct MigrationCatalog: Sendable {
    package let control: [Migration]
    package let shard: [Migration]

    /// A file above this size is no migration that anyone has read.
    private static let fileBytesMax = 4 << 20
    private static let up = "up.sql"
    private static let expand = "expand.sql"
    private static let backfill = "backfill.sql"
    private static let contract = "contract.sql"
    private static let verify = "verify.sql"
    private static let down = "down.sql"
    private static let terms = "migration.json"
    /// What a folder of migrations may hold beside them: what comes of all of them (`MigrationSchema`).
    static let schema = "schema.sql"

    /// - Throws: `ControlError` (`bad-migrations`) for a directory that cannot be read, a folder that is not named
    ///   `NNNN-name`, a gap or a double number, a file that is not known.
    package static func load(directory: String) throws(ControlError) -> MigrationCatalog {
        MigrationCatalog(
            control: try load(directory: "\(directory)/control", hasPhases: false),
            shard: try load(directory: "\(directory)/shard", hasPhases: true))
    }

    private static func load(
        directory: String, hasPhases: Bool
    ) throws(ControlError) -> [Migration] {
        var migrations: [Migration] = []
        for folder in try list(directory) where folder != schema {
            let path = "\(directory)/\(folder)"
            guard let (version, name) = parse(folder) else {
                throw refuse("\(path) is not named NNNN-name")
            }
            guard version == migrations.count + 1 else {
                throw refuse("\(path) has number \(version) where \(migrations.count + 1) is due")
            }
            let migration = try load(path, version: version, name: name)
            guard hasPhases || !migration.isPhased else {
                throw refuse("\(path) has phases, which only migrations of shards have")
            }
            migrations.append(migration)
        }
        guard !migrations.isEmpty else { throw refuse("\(directory) has no migration") }
        return migrations
    }

    private static func load(
        _ path: String, version: Int, name: String
    ) throws(ControlError) -> Migration {
        let files = Set(try list(path))
        let known = [up, expand, backfill, contract, verify, down, terms]
        for file in files.sorted() where !known.contains(file) {
            throw refuse("\(path)/\(file) is no part of a migration")
        }
        let phases = files.intersection([expand, backfill, contract])
        guard files.contains(up) != files.contains(expand) else {
            throw refuse("\(path) has no \(up), or \(expand) beside it: it has one of them")
        }
        guard phases.isEmpty || phases.contains(expand) && phases.count > 1 else {
            throw refuse(
                "\(path) has phases: they are \(expand) and after it \(backfill), \(contract) or both"
            )
        }
        let terms =
            files.contains(terms)
            ? try MigrationTerms(
                read("\(path)/\(terms)"), file: "\(path)/\(terms)", version: version)
            : MigrationTerms()
        guard terms.isTransactional || phases.isEmpty else {
            throw refuse("\(path) has phases: they run in transactions")
        }
        func script(_ file: String, isOne: Bool = false) throws(ControlError) -> String? {
            guard files.contains(file) else { return nil }
            return try self.script("\(path)/\(file)", isOne: isOne)
        }
        guard
            let sql = try phases.isEmpty
                ? script(up, isOne: !terms.isTransactional) : script(expand)
        else { throw refuse("\(path) has no \(up)") }
        let migration = Migration(
            version: version, name: name, checksum: "", sql: sql,
            backfill: try script(backfill, isOne: true), contract: try script(contract),
            verify: try script(verify, isOne: true), down: try script(down), terms: terms)
        return try migration.with(checksum: checksum(of: migration))
    }

    /// Of `up.sql`, its bytes; of phases, the bytes of all, each with its length before it.
    private static func checksum(of migration: Migration) throws(ControlError) -> String {
        var bytes = Array(migration.sql.utf8)
        if migration.isPhased {
            bytes = [migration.sql, migration.backfill ?? "", migration.contract ?? ""].flatMap {
                Array("\($0.utf8.count)\n\($0)".utf8)
            }
        }
        do {
            return try SHA256.hash(bytes).hex
        } catch {
            throw refuse("the migrations cannot be read", cause: error)
        }
    }

    /// - Parameter isOne: it has one statement.
    private static func script(_ path: String, isOne: Bool) throws(ControlError) -> String {
        guard let sql = String(validating: try read(path), as: UTF8.self) else {
            throw refuse("\(path) is not UTF-8")
        }
        let count = SQLScript.statements(of: sql).count
        guard count > 0 else { throw refuse("\(path) has no statement") }
        guard !isOne || count == 1 else {
            throw refuse("\(path) has \(count) statements where it has to be one")
        }
        return sql
    }

    /// `0001-directory` is version 1, named `directory`.
    static func parse(_ folder: String) -> (version: Int, name: String)? {
        guard let hyphen = folder.firstIndex(of: "-") else { return nil }
        let (digits, name) = (folder[..<hyphen], folder[folder.index(after: hyphen)...])
        guard digits.utf8.count == 4, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let version = Int(digits), version > 0, !name.isEmpty, name.utf8.allSatisfy(isPlain)
        else { return nil }
        return (version, String(name))
    }

    /// The name goes into the ledger's SQL as it is: a-z, 0-9, '_' and '-' only.
    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    // MARK: Files

    /// Without those that editors and the like hide.
    private static func list(_ directory: String) throws(ControlError) -> [String] {
        do {
            return try Files.list(directory).filter { !$0.hasPrefix(".") }
        } catch {
            throw refuse("the migrations cannot be read", cause: error)
        }
    }

    private static func read(_ path: String) throws(ControlError) -> [UInt8] {
        do {
            return try Files.read(path, bytesMax: fileBytesMax)
        } catch {
            throw refuse("the migrations cannot be read", cause: error)
        }
    }

    static func refuse(_ message: String, cause: (any Error)? = nil) -> ControlError {
        ControlError(
            .invalid, code: "bad-migrations", message,
            remedy:
                "Name the directory with --migrations DIR; it holds control/ and shard/, and in them"
                + " NNNN-name/ with up.sql.",
            cause: cause)
    }
}

extension Migration {
    fileprivate func with(checksum: String) -> Migration {
        Migration(
            version: version, name: name, checksum: checksum, sql: sql, backfill: backfill,
            contract: contract, verify: verify, down: down, terms: terms)
    }
}
