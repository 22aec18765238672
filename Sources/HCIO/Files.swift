import CLinux

/// Whole small files: configuration, keys, the last good directory. Blocking; for start-up and the command line,
/// or inside the `BlockingPool`.
package enum Files {
    package struct FileError: Error, Sendable, CustomStringConvertible {
        package enum Reason: Sendable, Equatable {
            case system(errno: Int32)
            /// Larger than the caller's bound.
            case tooLarge(bytesMax: Int)
        }

        package let path: String
        package let operation: StaticString
        package let reason: Reason

        package var isMissing: Bool { reason == .system(errno: ENOENT) }

        package var description: String {
            switch reason {
            case .system(let errno):
                "cannot \(operation) \(path): \(String(cString: strerror(errno)))"
            case .tooLarge(let bytesMax): "\(path) is larger than \(bytesMax) bytes"
            }
        }
    }

    /// - Throws: `FileError`, also when the file has more than `bytesMax` bytes.
    package static func read(_ path: String, bytesMax: Int = 16 << 20) throws(FileError) -> [UInt8]
    {
        let descriptor = hc_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw failure(path, "open") }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = CLinux.read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if hc_errno() == EINTR { continue }
                throw failure(path, "read")
            }
            if count == 0 { return bytes }
            guard bytes.count + count <= bytesMax else {
                throw FileError(
                    path: path, operation: "read", reason: .tooLarge(bytesMax: bytesMax))
            }
            bytes += chunk[..<count]
        }
    }

    /// Replaces a file so that after a crash either the old or the new content is there, whole: written beside
    /// it, flushed (fsync), renamed over it, and the directory flushed (man 2 rename, man 2 fsync).
    package static func replace(
        _ path: String, with bytes: [UInt8], mode: UInt32 = 0o600
    ) throws(FileError) {
        let temporary = "\(path).\(getpid()).tmp"
        let descriptor = hc_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure(temporary, "create") }
        do throws(FileError) {
            defer { close(descriptor) }
            guard fchmod(descriptor, mode) == 0 else {
                throw failure(temporary, "change the mode of")
            }
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
                if count < 0 {
                    if hc_errno() == EINTR { continue }
                    throw failure(temporary, "write")
                }
                rest = rest.dropFirst(count)
            }
            guard fsync(descriptor) == 0 else { throw failure(temporary, "flush") }
            guard rename(temporary, path) == 0 else { throw failure(path, "replace") }
        } catch {
            unlink(temporary)
            throw error
        }
        try flushDirectory(of: path)
    }

    /// The names in a directory, sorted, without `.` and `..`.
    package static func list(_ directory: String) throws(FileError) -> [String] {
        guard let handle = opendir(directory) else {
            throw failure(directory, "read the directory")
        }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    private static func flushDirectory(of path: String) throws(FileError) {
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let descriptor = hc_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw failure(directory, "open") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure(directory, "flush") }
    }

    private static func failure(_ path: String, _ operation: StaticString) -> FileError {
        FileError(path: path, operation: operation, reason: .system(errno: hc_errno()))
    }
}
