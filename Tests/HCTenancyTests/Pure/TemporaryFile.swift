import Glibc
import HCIO

/// Files of a test's own.
enum TemporaryFile {
    struct Failure: Error { let call: String }

    /// A path in a new directory.
    static func path(_ name: String) throws -> String {
        var template = Array("/tmp/hc-tenancy-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(call: "mkdtemp") }
        let directory = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return "\(directory)/\(name)"
    }

    static func read(_ path: String) throws -> [UInt8] { try Files.read(path) }

    static func write(_ bytes: [UInt8], to path: String) throws {
        try Files.replace(path, with: bytes)
    }

    static func mode(of path: String) throws -> UInt32 {
        var status = stat()
        guard stat(path, &status) == 0 else { throw Failure(call: "stat") }
        return status.st_mode & 0o777
    }

    static func remove(_ path: String) {
        unlink(path)
        if let slash = path.lastIndex(of: "/") { rmdir(String(path[..<slash])) }
    }
}
