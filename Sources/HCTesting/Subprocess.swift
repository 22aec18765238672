package import CLinux
import Glibc
import HCCore
import Synchronization

/// What went wrong in a fixture, for a human who reads the test's output.
package struct FixtureError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// A child process with pipes on its standard input and output, driven by blocking calls: for
/// fixtures, which run before and beside the code under test and must not depend on it.
///
/// Standard error goes to `/dev/null`, to standard output, or to a file. The child inherits no other
/// descriptor, so that it can hold neither our sockets nor the pipe that tells another child of
/// our end. It gets a session of its own, so that the terminal's signals are not for it. Who drops
/// the last reference before `wait()` kills it.
///
/// Every wait has a bound: a child that keeps a call waiting for longer than `patience` is ended with all that it has
/// started, and the error says what they were doing.
package final class Subprocess: Sendable {
    package enum ErrorOutput: Sendable {
        case discarded
        case merged
        case file(String)
    }

    package let processIdentifier: pid_t

    private let command: String
    /// Of one call: for a line, for the end of the output, for the end of the child, for room to write.
    private let patience: Duration

    /// Longer than anything that a test waits for.
    package static let usualPatience = Duration.seconds(300)

    private struct Output {
        var descriptor: Int32
        var buffer: [UInt8] = []
    }

    // Three locks, so that one thread can write while another waits for a line.
    private let input: Mutex<Int32>
    private let output: Mutex<Output>
    private let exitStatus = Mutex<Int32?>(nil)

    /// - Parameter environment: replaces variables of our own environment; nil removes one.
    package init(
        _ path: String, _ arguments: [String] = [], environment: [String: String?] = [:],
        errorOutput: ErrorOutput = .merged, patience: Duration = Subprocess.usualPatience
    ) throws {
        command = ([path] + arguments.prefix(4)).joined(separator: " ")
        self.patience = patience
        var toChild: [Int32] = [-1, -1]
        var fromChild: [Int32] = [-1, -1]
        guard pipe2(&toChild, O_CLOEXEC) == 0 else { throw Self.failure("pipe2") }
        guard pipe2(&fromChild, O_CLOEXEC) == 0 else {
            close(toChild[0])
            close(toChild[1])
            throw Self.failure("pipe2")
        }
        defer {
            close(toChild[0])
            close(fromChild[1])
        }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, toChild[0], STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], STDOUT_FILENO)
        switch errorOutput {
        case .discarded:
            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)
        case .merged:
            posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        case .file(let file):
            posix_spawn_file_actions_addopen(
                &actions, STDERR_FILENO, file, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        }
        posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1)

        // The child starts with no signal blocked or ignored, whatever the loop did to this thread.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let newSession: Int32 = 0x80  // POSIX_SPAWN_SETSID, which spawn.h shows to _GNU_SOURCE only
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | newSession))

        var identifier: pid_t = 0
        let result = Self.withCStrings([path] + arguments) { argumentVector in
            Self.withCStrings(Self.merged(environment)) { environmentVector in
                posix_spawn(
                    &identifier, path, &actions, &attributes, argumentVector, environmentVector)
            }
        }
        guard result == 0 else {
            close(toChild[1])
            close(fromChild[0])
            throw FixtureError("cannot start \(path): \(String(cString: strerror(result)))")
        }
        processIdentifier = identifier
        input = Mutex(toChild[1])
        output = Mutex(Output(descriptor: fromChild[0]))
    }

    deinit {
        closeInput()
        output.withLock { _ = close($0.descriptor) }
        exitStatus.withLock { exitStatus in
            guard exitStatus == nil else { return }
            // Not yet waited for, so the process id is still the child's.
            Glibc.kill(processIdentifier, SIGKILL)
            var status: Int32 = 0
            while waitpid(processIdentifier, &status, 0) < 0, hc_errno() == EINTR {}
        }
    }

    /// Writes to the child's standard input. Blocks while the pipe is full.
    package func write(_ text: String) throws {
        let bytes = Array(text.utf8)
        let limit = ContinuousClock.now + patience
        try input.withLock { descriptor in
            guard descriptor >= 0 else { throw FixtureError("the input of the child is closed") }
            var written = 0
            while written < bytes.count {
                try wait(for: POLLOUT, of: descriptor, until: limit, "read what it is told")
                // There is room for so much (man 7 pipe).
                let count = bytes.withUnsafeBytes {
                    Glibc.write(
                        descriptor, $0.baseAddress?.advanced(by: written),
                        min($0.count - written, Int(PIPE_BUF)))
                }
                if count < 0 {
                    if hc_errno() == EINTR { continue }
                    throw Self.failure("write")
                }
                written += count
            }
        }
    }

    package func closeInput() {
        input.withLock { descriptor in
            if descriptor >= 0 { close(descriptor) }
            descriptor = -1
        }
    }

    /// The next line of the child's output without its newline, nil at the end. Blocks until there is one.
    package func readLine() throws -> String? {
        let limit = ContinuousClock.now + patience
        return try output.withLock { output in
            while true {
                if let newline = output.buffer.firstIndex(of: UInt8(ascii: "\n")) {
                    let line = String(decoding: output.buffer[..<newline], as: UTF8.self)
                    output.buffer.removeSubrange(...newline)
                    return line
                }
                if try !fill(&output, until: limit) {
                    guard !output.buffer.isEmpty else { return nil }
                    let line = String(decoding: output.buffer, as: UTF8.self)
                    output.buffer.removeAll()
                    return line
                }
            }
        }
    }

    /// Everything up to the end of the child's output. Blocks until it ends.
    package func readToEnd() throws -> String {
        let limit = ContinuousClock.now + patience
        return try output.withLock { output in
            while try fill(&output, until: limit) {}
            let text = String(decoding: output.buffer, as: UTF8.self)
            output.buffer.removeAll()
            return text
        }
    }

    /// Waits for the child's end: its exit code, or 128 + the signal that ended it.
    @discardableResult
    package func wait() throws -> Int32 {
        let limit = ContinuousClock.now + patience
        return try exitStatus.withLock { exitStatus in
            if let exitStatus { return exitStatus }
            // By the kernel's word (man 2 pidfd_open): it is our child, and not yet waited for.
            let descriptor = hc_pidfd_open(processIdentifier)
            guard descriptor >= 0 else { throw Self.failure("pidfd_open") }
            defer { close(descriptor) }
            try wait(for: POLLIN, of: descriptor, until: limit, "end")
            var status: Int32 = 0
            while waitpid(processIdentifier, &status, 0) < 0 {
                guard hc_errno() == EINTR else { throw Self.failure("waitpid") }
            }
            let code =
                hc_wait_exited(status) != 0
                ? hc_wait_exit_code(status) : 128 + hc_wait_signal(status)
            exitStatus = code
            return code
        }
    }

    /// Runs a program to its end and returns what it printed.
    ///
    /// - Throws: `FixtureError` with that text if it does not exit with 0.
    @discardableResult
    package static func run(
        _ path: String, _ arguments: [String] = [], environment: [String: String?] = [:],
        input: String = ""
    ) throws -> String {
        let child = try Subprocess(path, arguments, environment: environment)
        try child.write(input)
        child.closeInput()
        let output = try child.readToEnd()
        let code = try child.wait()
        guard code == 0 else {
            throw FixtureError("\(path) \(arguments.first ?? "") ended with \(code): \(output)")
        }
        return output
    }

    /// - Throws: `FixtureError` when the time is over; then the child and all that it has started are killed.
    private func wait(
        for event: Int32, of descriptor: Int32, until limit: ContinuousClock.Instant, _ what: String
    ) throws {
        var entry = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        while true {
            let left = max(.zero, limit - ContinuousClock.now)
            let answer = poll(&entry, 1, Int32(clamping: left.inMilliseconds + 1))
            if answer > 0 { return }
            if answer == 0, limit <= ContinuousClock.now { break }
            guard answer == 0 || hc_errno() == EINTR else { throw Self.failure("poll") }
        }
        let hung = HungProcess(processIdentifier)
        let description = hung.description
        hung.kill()
        throw FixtureError(
            "\(command) did not \(what) for \(patience.inMilliseconds / 1000) s and was killed\n\(description)"
        )
    }

    /// Reads once from the child. False at the end.
    private func fill(
        _ output: inout Output, until limit: ContinuousClock.Instant
    ) throws -> Bool {
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            try wait(for: POLLIN, of: output.descriptor, until: limit, "end or say anything")
            let count = read(output.descriptor, &chunk, chunk.count)
            if count > 0 {
                output.buffer.append(contentsOf: chunk[..<count])
                return true
            }
            if count == 0 { return false }
            guard hc_errno() == EINTR else { throw Self.failure("read") }
        }
    }

    private static func failure(_ call: String) -> FixtureError {
        FixtureError("\(call): \(String(cString: strerror(hc_errno())))")
    }

    private static func merged(_ changes: [String: String?]) -> [String] {
        var result: [String] = []
        var entry = hc_environ()
        while let variable = entry?.pointee {
            let text = String(cString: variable)
            if changes[String(text.prefix { $0 != "=" })] == nil { result.append(text) }
            entry = entry?.advanced(by: 1)
        }
        for (name, value) in changes {
            if let value { result.append("\(name)=\(value)") }
        }
        return result
    }

    /// The strings as a C array that ends with NULL, valid during the call.
    private static func withCStrings<Result>(
        _ strings: [String],
        _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return pointers.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else {
                preconditionFailure("an array with an element has an address")
            }
            return body(base)
        }
    }
}
