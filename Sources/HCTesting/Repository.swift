import CLinux
import Glibc

/// The files of the repository that tests read.
package enum Repository {
    /// The top of the repository: this file is three levels below it.
    package static let root: String = {
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(3)
        return parts.joined(separator: "/")
    }()

    package static func path(_ relative: String) -> String { "\(root)/\(relative)" }

    /// The migrations of a directory in the order of their numbers.
    package static func migrations(
        in directory: String
    ) throws -> [(version: Int, name: String, path: String)] {
        guard let stream = opendir(path(directory)) else {
            throw FixtureError("cannot open \(path(directory))")
        }
        defer { closedir(stream) }
        var found: [(version: Int, name: String, path: String)] = []
        while let entry = readdir(stream) {
            let file = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard file.hasSuffix(".sql"), let version = Int(file.prefix(4)) else { continue }
            found.append(
                (version, String(file.dropFirst(5).dropLast(4)), path("\(directory)/\(file)")))
        }
        return found.sorted { $0.version < $1.version }
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
