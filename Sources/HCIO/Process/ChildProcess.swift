internal import CLinux
package import HCCore

/// A program that this process started. It is reaped as soon as it ends, whether somebody asks or not.
@LoopActor package final class ChildProcess: EventSource {
    package enum ExitStatus: Hashable, Sendable, CustomStringConvertible {
        case exited(code: Int32)
        case signalled(Int32)

        package var isSuccess: Bool { self == .exited(code: 0) }

        package var description: String {
            switch self {
            case .exited(let code): "exit code \(code)"
            case .signalled(let signal): "signal \(signal)"
            }
        }
    }

    package let processIdentifier: Int32
    /// Nil while it runs.
    package private(set) var exitStatus: ExitStatus?
    private var descriptor: OwnedDescriptor?
    private var registration: Registration?
    private let end = Gate()

    /// Starts a program (man posix_spawn). It gets the given environment and nothing of ours but the
    /// standard three descriptors and those listed: all others are closed. No signal is blocked
    /// or ignored in it.
    ///
    /// - Parameters:
    ///   - arguments: all of them, the program's name as the first.
    ///   - environment: `NAME=value` each.
    ///   - descriptors: ours, and the number under which the child finds it. `from` may equal `to`, and
    ///     a `to` may be the `from` of another.
    ///   - ownGroup: the child leads a process group of its own, which the terminal's Ctrl-C does not reach.
    /// - Throws: SystemError (ENOENT, EACCES, EAGAIN, …) and nothing was started.
    package static func spawn(
        path: String, arguments: [String], environment: [String],
        descriptors: [(from: Int32, to: Int32)] = [], ownGroup: Bool = false
    ) throws(SystemError) -> ChildProcess {
        let pid = try Spawn.run(
            path: path, arguments: arguments, environment: environment, descriptors: descriptors,
            ownGroup: ownGroup)
        do {
            // The number cannot be somebody else's: only we reap the child, and not yet.
            let descriptor = OwnedDescriptor(
                try SystemCall.make("pidfd_open") { hc_pidfd_open(pid) })
            return try ChildProcess(pid, descriptor)
        } catch {
            // A child that nobody can watch would never be replaced.
            _ = kill(pid, SIGKILL)
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0, hc_errno() == EINTR {}
            throw error
        }
    }

    /// Takes over a child that the program which this process ran before has started (`ProcessImage.replace`).
    ///
    /// It may have ended in the meantime: nobody has reaped it, so its number is still its own, and
    /// its end is told as any other's.
    ///
    /// - Throws: SystemError, ESRCH for what is no child of ours among them.
    package static func adopt(_ processIdentifier: Int32) throws(SystemError) -> ChildProcess {
        // WNOWAIT leaves the child as it is: the call only finds out whether it is ours (man waitid).
        var information = siginfo_t()
        try SystemCall.make("waitid") {
            waitid(
                P_PID, id_t(processIdentifier), &information, WEXITED | WNOHANG | WNOWAIT)
        }
        return try ChildProcess(
            processIdentifier,
            OwnedDescriptor(try SystemCall.make("pidfd_open") { hc_pidfd_open(processIdentifier) }))
    }

    private init(_ pid: Int32, _ descriptor: consuming OwnedDescriptor) throws(SystemError) {
        let fd = descriptor.rawValue
        processIdentifier = pid
        self.descriptor = consume descriptor
        registration = try Loop.shared.register(fd, events: .readable, source: self)
    }

    /// Sends a signal; nothing, once it has ended.
    package func signal(_ number: Int32) {
        guard exitStatus == nil else { return }
        // Not reaped yet, so the number is still its own. ESRCH cannot be, and EPERM only for a program
        // that changed its user, which ours do not.
        _ = kill(processIdentifier, number)
    }

    /// Waits for the end, in a task that was cancelled too.
    package func exit() async -> ExitStatus {
        await end.wait()
        guard let exitStatus else { preconditionFailure("the gate opens after the end") }
        return exitStatus
    }

    /// Waits for the end.
    ///
    /// - Throws: DeadlineExceeded or CancellationError; the child runs on.
    package func exit(deadline: Deadline) async throws -> ExitStatus {
        try await end.wait(until: deadline)
        guard let exitStatus else { preconditionFailure("the gate opens after the end") }
        return exitStatus
    }

    package func handle(_ events: IOEvents) {
        var status: Int32 = 0
        let pid = processIdentifier
        do {
            let answer = try SystemCall.make("waitpid") { waitpid(pid, &status, WNOHANG) }
            guard answer == pid else { return }
        } catch {
            preconditionFailure("somebody else reaped our child \(pid): \(error)")
        }
        exitStatus =
            hc_wait_signaled(status) != 0
            ? .signalled(hc_wait_signal(status)) : .exited(code: hc_wait_exit_code(status))
        registration?.deregister()
        registration = nil
        descriptor = nil
        end.open()
    }
}
