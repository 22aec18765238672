import HCCore
import HCCrypto
import HCIO

/// One numbered SQL file.
package struct Migration: Sendable, Equatable {
    /// The number at the head of the file name, from 1 without gaps.
    package let version: Int
    package let name: String
    /// SHA-256 of the file, hex: an applied migration whose file changed is an error, never applied again.
    package let checksum: String
    package let sql: String
}

/// The migrations of a directory: `control/NNNN_name.sql` and `shard/NNNN_name.sql`.
package struct MigrationCatalog: Sendable {
    package let control: [Migration]
    package let shard: [Migration]

    /// A file above this size is no migration that anyone has read.
    private static let fileBytesMax = 4 << 20

    /// - Throws: `ControlError` (`bad-migrations`) for a directory that cannot be read, a file that is not named
    ///   `NNNN_name.sql`, a gap or a double number.
    package static func load(directory: String) throws(ControlError) -> MigrationCatalog {
        MigrationCatalog(
            control: try load(directory: "\(directory)/control"),
            shard: try load(directory: "\(directory)/shard"))
    }

    private static func load(directory: String) throws(ControlError) -> [Migration] {
        var migrations: [Migration] = []
        do {
            for file in try Files.list(directory) where file.hasSuffix(".sql") {
                guard let (version, name) = parse(file) else {
                    throw refuse("\(directory)/\(file) is not named NNNN_name.sql")
                }
                guard version == migrations.count + 1 else {
                    throw refuse(
                        "\(directory)/\(file) has number \(version) where \(migrations.count + 1) is due"
                    )
                }
                let bytes = try Files.read("\(directory)/\(file)", bytesMax: fileBytesMax)
                guard let sql = String(validating: bytes, as: UTF8.self) else {
                    throw refuse("\(directory)/\(file) is not UTF-8")
                }
                migrations.append(
                    Migration(
                        version: version, name: name, checksum: try SHA256.hash(bytes).hex, sql: sql
                    ))
            }
        } catch let error as Files.FileError {
            throw refuse("the migrations cannot be read", cause: error)
        } catch let error as ControlError {
            throw error
        } catch {
            throw refuse("the migrations cannot be read", cause: error)
        }
        guard !migrations.isEmpty else { throw refuse("\(directory) has no migration") }
        return migrations
    }

    /// `0001_directory.sql` is version 1, named `directory`.
    static func parse(_ file: String) -> (version: Int, name: String)? {
        let stem = file.dropLast(".sql".count)
        guard let underscore = stem.firstIndex(of: "_") else { return nil }
        let (digits, name) = (stem[..<underscore], stem[stem.index(after: underscore)...])
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

    private static func refuse(_ message: String, cause: (any Error)? = nil) -> ControlError {
        ControlError(
            .invalid, code: "bad-migrations", message,
            remedy: "Name the directory with --migrations DIR; it holds control/ and shard/.",
            cause: cause)
    }
}
