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

        package init(path: String, operation: StaticString, reason: Reason) {
            self.path = path
            self.operation = operation
            self.reason = reason
        }

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
        var rest: [UInt8]? = bytes
        try replace(path, mode: mode) { () throws(FileError) in rest.take() }
    }

    /// The same for a file that is too large to be held at once.
    ///
    /// - Parameter next: gives a piece after the other, and nil at the end.
    package static func replace(
        _ path: String, mode: UInt32 = 0o600, _ next: () throws(FileError) -> [UInt8]?
    ) throws(FileError) {
        let temporary = "\(path).\(getpid()).tmp"
        let descriptor = hc_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure(temporary, "create") }
        do throws(FileError) {
            defer { close(descriptor) }
            guard fchmod(descriptor, mode) == 0 else {
                throw failure(temporary, "change the mode of")
            }
            var offset = 0
            while let piece = try next() {
                try write(piece, to: descriptor, at: offset, temporary)
                offset += piece.count
            }
            guard fsync(descriptor) == 0 else { throw failure(temporary, "flush") }
            guard rename(temporary, path) == 0 else { throw failure(path, "replace") }
        } catch {
            unlink(temporary)
            throw error
        }
        try flushDirectory(of: path)
    }

    /// Writes at `offset`, where the file then ends, and flushes (man 2 fdatasync). Not atomic: after a crash a part
    /// of the bytes may be there.
    package static func append(
        _ bytes: [UInt8], to path: String, at offset: Int
    ) throws(FileError) {
        let descriptor = hc_open(path, O_WRONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw failure(path, "open") }
        defer { close(descriptor) }
        guard ftruncate(descriptor, off_t(offset)) == 0 else { throw failure(path, "cut") }
        try write(bytes, to: descriptor, at: offset, path)
        guard fdatasync(descriptor) == 0 else { throw failure(path, "flush") }
    }

    private static func write(
        _ bytes: [UInt8], to descriptor: Int32, at offset: Int, _ path: String
    ) throws(FileError) {
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(
                    descriptor, $0.baseAddress?.advanced(by: written), $0.count - written,
                    off_t(offset + written))
            }
            if count < 0 {
                if hc_errno() == EINTR { continue }
                throw failure(path, "write")
            }
            written += count
        }
    }

    /// Removes a file; one that is not there, or cannot be removed, is left to whoever looks.
    package static func remove(_ path: String) { unlink(path) }

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

    /// Whether this process may run it (man 2 access).
    package static func isExecutable(_ path: String) -> Bool { access(path, X_OK) == 0 }

    private static func flushDirectory(of path: String) throws(FileError) {
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let descriptor = hc_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw failure(directory, "open") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure(directory, "flush") }
    }

    fileprivate static func failure(_ path: String, _ operation: StaticString) -> FileError {
        FileError(path: path, operation: operation, reason: .system(errno: hc_errno()))
    }
}

/// A file that is read in pieces, wherever they are. Owns its descriptor.
package struct FileReader: ~Copyable {
    private let descriptor: Int32
    private let path: String

    package init(_ path: String) throws(Files.FileError) {
        descriptor = hc_open(path, O_RDONLY | O_CLOEXEC, 0)
        self.path = path
        guard descriptor >= 0 else { throw Files.failure(path, "open") }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// - Returns: `count` bytes, fewer where the file ends.
    package func read(_ count: Int, at offset: Int) throws(Files.FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes.withUnsafeMutableBytes {
                pread(
                    descriptor, $0.baseAddress?.advanced(by: filled), count - filled,
                    off_t(offset + filled))
            }
            if got < 0 {
                if hc_errno() == EINTR { continue }
                throw Files.failure(path, "read")
            }
            if got == 0 { break }
            filled += got
        }
        bytes.removeLast(count - filled)
        return bytes
    }
}

/// Held by one process at a time, and let go of by the kernel when that process ends (man 2 flock).
package struct FileLock: ~Copyable {
    private let descriptor: Int32

    /// - Returns: nil if another process holds it: this one does not wait.
    package init?(_ path: String) throws(Files.FileError) {
        descriptor = hc_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Files.failure(path, "open") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) != 0 else { return }
        let reason = hc_errno()
        if reason == EWOULDBLOCK { return nil }
        throw Files.FileError(path: path, operation: "lock", reason: .system(errno: reason))
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }
}
