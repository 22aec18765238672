import Glibc
import HCTesting

/// The files of the repository, for tests that read them.
enum SourceTree {
    struct File: Sendable {
        /// From the top of the repository: `Sources/HCCore/UUID.swift`.
        let path: String
        let text: String

        var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }

        /// `HCCore` of `Sources/HCCore/UUID.swift`.
        var room: String {
            path.split(separator: "/").dropFirst().first.map(String.init) ?? ""
        }
    }

    /// All files below a directory whose names end so, in the order of their paths.
    static func files(under directory: String, ending: String) throws -> [File] {
        try paths(under: directory).filter { $0.hasSuffix(ending) }.sorted().map { path in
            File(path: path, text: try Repository.contents(of: Repository.path(path)))
        }
    }

    /// The files that belong to the repository: git's list where there is one, else what is there.
    static func allPaths() throws -> [String] {
        guard access(Repository.path(".git"), F_OK) == 0 else { return try paths(under: "") }
        let list = try Subprocess.run(
            "/usr/bin/env",
            ["git", "-c", "safe.directory=*", "-C", Repository.root, "ls-files", "-z"])
        return list.split(separator: "\0").map(String.init)
    }

    private static func paths(under directory: String) throws -> [String] {
        guard let stream = opendir(Repository.path(directory)) else {
            throw FixtureError("cannot open \(directory)")
        }
        defer { closedir(stream) }
        var found: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            let path = directory.isEmpty ? name : "\(directory)/\(name)"
            if name.hasPrefix(".") { continue }
            if entry.pointee.d_type == UInt8(DT_DIR) {
                found += try paths(under: path)
            } else {
                found.append(path)
            }
        }
        return found
    }
}
