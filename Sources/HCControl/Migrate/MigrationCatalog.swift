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
    private static let down = "down.sql"
    private static let terms = "migration.json"
    /// What a folder of migrations may hold beside them: what comes of all of them (`MigrationSchema`).
    static let schema = "schema.sql"

    /// - Throws: `ControlError` (`bad-migrations`) for a directory that cannot be read, a folder that is not named
    ///   `NNNN-name`, a gap or a double number, a file that is not known.
    package static func load(directory: String) throws(ControlError) -> MigrationCatalog {
        MigrationCatalog(
            control: try load(directory: "\(directory)/control"),
            shard: try load(directory: "\(directory)/shard"))
    }

    private static func load(directory: String) throws(ControlError) -> [Migration] {
        var migrations: [Migration] = []
        for folder in try list(directory) where folder != schema {
            let path = "\(directory)/\(folder)"
            guard let (version, name) = parse(folder) else {
                throw refuse("\(path) is not named NNNN-name")
            }
            guard version == migrations.count + 1 else {
                throw refuse("\(path) has number \(version) where \(migrations.count + 1) is due")
            }
            migrations.append(try load(path, version: version, name: name))
        }
        guard !migrations.isEmpty else { throw refuse("\(directory) has no migration") }
        return migrations
    }

    private static func load(
        _ path: String, version: Int, name: String
    ) throws(ControlError) -> Migration {
        let files = Set(try list(path))
        for file in files.sorted() where ![up, down, terms].contains(file) {
            throw refuse("\(path)/\(file) is no part of a migration")
        }
        guard files.contains(up) else { throw refuse("\(path) has no \(up)") }
        let bytes = try read("\(path)/\(up)")
        let terms =
            files.contains(terms)
            ? try MigrationTerms(
                read("\(path)/\(terms)"), file: "\(path)/\(terms)", version: version)
            : MigrationTerms()
        let sql = try text(of: bytes, "\(path)/\(up)")
        let statements = SQLScript.statements(of: sql).count
        guard statements > 0 else { throw refuse("\(path)/\(up) has no statement") }
        guard terms.isTransactional || statements == 1 else {
            throw refuse(
                "\(path)/\(up) has \(statements) statements: outside a transaction each needs a migration of its own"
            )
        }
        let checksum: String
        do {
            checksum = try SHA256.hash(bytes).hex
        } catch {
            throw refuse("the migrations cannot be read", cause: error)
        }
        return Migration(
            version: version, name: name, checksum: checksum, sql: sql,
            down: files.contains(down)
                ? try text(of: read("\(path)/\(down)"), "\(path)/\(down)") : nil,
            terms: terms)
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

    private static func text(of bytes: [UInt8], _ path: String) throws(ControlError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw refuse("\(path) is not UTF-8")
        }
        return text
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
