import CLinux
import Glibc
import HCCore
import HCCrypto
import HCIO

/// The files of the repository that tests read.
package enum Repository {
    /// The top of the repository: this file is three levels below it.
    package static let root: String = {
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(3)
        return parts.joined(separator: "/")
    }()

    package static func path(_ relative: String) -> String { "\(root)/\(relative)" }

    /// One folder of migrations, as the tests need it.
    package struct MigrationFolder {
        package var version: Int
        package var name: String
        /// `up.sql`; of one in phases, what makes its schema.
        package var sql: String
        /// As `MigrationCatalog` counts it.
        package var checksum: String
        package var isTransactional: Bool
    }

    /// The migrations of a directory in the order of their numbers.
    package static func migrations(in directory: String) throws -> [MigrationFolder] {
        var found: [MigrationFolder] = []
        for folder in try Files.list(path(directory)) {
            guard let version = Int(folder.prefix(4)) else { continue }
            let place = path("\(directory)/\(folder)")
            let files = Set(try Files.list(place))
            func text(_ file: String) throws -> String {
                files.contains(file) ? try contents(of: "\(place)/\(file)") : ""
            }
            let isPhased = files.contains("expand.sql")
            let phases = try ["expand.sql", "backfill.sql", "contract.sql"].map(text)
            let up = try text("up.sql")
            let counted = isPhased ? phases.map { "\($0.utf8.count)\n\($0)" }.joined() : up
            let terms =
                files.contains("migration.json")
                ? try JSONReader.parse(Files.read("\(place)/migration.json")) : [:]
            found.append(
                MigrationFolder(
                    version: version, name: String(folder.dropFirst(5)),
                    sql: isPhased ? "\(phases[0])\n;\(phases[2])" : up,
                    checksum: try SHA256.hash(Array(counted.utf8)).hex,
                    isTransactional: terms["transaction"]?.asBool ?? true))
        }
        return found
    }

    /// The text of a file, at most 16 MiB.
    package static func contents(of path: String) throws -> String {
        let descriptor = hc_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else {
            throw FixtureError("cannot open \(path): \(String(cString: strerror(hc_errno())))")
        }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= 16 << 20 {
            let count = read(descriptor, &chunk, chunk.count)
            guard count >= 0 else { throw FixtureError("cannot read \(path)") }
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(contentsOf: chunk[..<count])
        }
        throw FixtureError("\(path) is too long")
    }

    /// The first line of a file.
    package static func line(of path: String) throws -> String {
        try String(contents(of: path).prefix { $0 != "\n" })
    }
}

/// A variable of the environment, nil if it is unset or empty.
package func environmentVariable(_ name: String) -> String? {
    guard let value = getenv(name) else { return nil }
    let text = String(cString: value)
    return text.isEmpty ? nil : text
}
