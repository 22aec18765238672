internal import CLinux

/// The program that this process runs, and its replacement by another while the process lives on.
package enum ProcessImage {
    /// Runs another program in this process (man execveat): the process id, the children, the blocked and the
    /// waiting signals and the working directory stay; memory, threads and all other descriptors go.
    ///
    /// - Parameters:
    ///   - arguments: all of them, the program's name as the first.
    ///   - environment: `NAME=value` each.
    ///   - descriptors: stay open, under their numbers.
    /// - Throws: SystemError (ENOEXEC, ENOENT, ENOMEM, …) and nothing has changed.
    @LoopActor package static func replace(
        by program: ProgramFile, arguments: [String], environment: [String],
        keeping descriptors: [Int32]
    ) throws(SystemError) -> Never {
        var opened: [Int32] = []
        do throws(SystemError) {
            for descriptor in descriptors {
                try SystemCall.make("fcntl(F_SETFD)") { hc_fcntl(descriptor, F_SETFD, 0) }
                opened.append(descriptor)
            }
            try Spawn.withCStrings(arguments) { arguments throws(SystemError) in
                try Spawn.withCStrings(environment) { environment throws(SystemError) in
                    _ = try SystemCall.make("execveat") {
                        hc_execute(program.descriptor, arguments, environment)
                    }
                }
            }
        } catch {
            // The children that are started from now on must not inherit them.
            for descriptor in opened {
                try SystemCall.make("fcntl(F_SETFD)") {
                    hc_fcntl(descriptor, F_SETFD, FD_CLOEXEC)
                }
            }
            throw error
        }
        preconditionFailure("execveat returns only with an error")
    }

    /// What `ps` and `top` call this process. The kernel's own choice after `replace`, or for a program started as
    /// `/proc/self/exe`, says nothing to anybody.
    package static func setName(_ name: String) { hc_set_process_name(name) }

    /// The absolute path by which this program was started, links in it not followed: what a later release will be
    /// found at. Where that cannot be said, the path of its file.
    package static func startPath() throws(SystemError) -> String {
        if let given = hc_execution_path().map({ String(cString: $0) }), !given.isEmpty,
            !given.hasPrefix("/proc/self/"), !given.hasPrefix("/dev/fd/")
        {
            if given.hasPrefix("/") { return given }
            var buffer = [CChar](repeating: 0, count: 4096)
            guard getcwd(&buffer, buffer.count) != nil else { throw .last("getcwd") }
            let directory = String(
                decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return directory + "/" + given
        }
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = try SystemCall.make("readlink(/proc/self/exe)") {
            buffer.withUnsafeMutableBytes { bytes in
                bytes.withMemoryRebound(to: CChar.self) { text in
                    text.baseAddress.map { readlink("/proc/self/exe", $0, text.count) } ?? 0
                }
            }
        }
        return String(decoding: buffer[..<count], as: UTF8.self)
    }
}

/// A program's file, held open: what was looked at is what is run, whatever is put at its path in between.
@LoopActor package final class ProgramFile {
    /// Which file it is, as long as it is open.
    package struct Identity: Hashable, Sendable, CustomStringConvertible {
        package var device: UInt64
        package var inode: UInt64

        package var description: String { "\(device):\(inode)" }
    }

    package let path: String
    package let identity: Identity
    private let owned: OwnedDescriptor

    /// Close-on-exec. `ProcessImage.replace(keeping:)` takes it along.
    package var descriptor: Int32 { owned.rawValue }

    /// Opens what is at `path` now (man open, O_PATH).
    ///
    /// - Throws: SystemError, ENOENT and EACCES among them.
    package convenience init(path: String) throws(SystemError) {
        try self.init(path: path, opening: path)
    }

    /// - Parameter descriptor: an open one, which is closed with this object.
    package init(path: String, descriptor: consuming OwnedDescriptor) throws(SystemError) {
        try descriptor.setCloseOnExec()
        let fd = descriptor.rawValue
        var status = stat()
        try SystemCall.make("fstat") { fstat(fd, &status) }
        identity = Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        self.path = path
        owned = descriptor
    }

    /// The program that this process runs, also when its path leads to another by now (man proc_pid_exe).
    package static func current(path: String) throws(SystemError) -> ProgramFile {
        try ProgramFile(path: path, opening: "/proc/self/exe")
    }

    private convenience init(path: String, opening place: String) throws(SystemError) {
        try self.init(
            path: path,
            descriptor: OwnedDescriptor(
                try SystemCall.make("open") { hc_open(place, 0o10000000 | O_CLOEXEC, 0) }))
    }
}
