internal import CLinux

/// Every system call of this room goes through here: a call that a signal interrupted is made again, and
/// what can only be our own bug ends the process, for a wrong descriptor number may be another client's.
enum SystemCall {
    /// Makes a call that answers -1 on failure.
    ///
    /// - Returns: the call's answer, never negative.
    @discardableResult
    static func make<Answer: FixedWidthInteger>(
        _ name: StaticString, _ body: () -> Answer
    ) throws(SystemError) -> Answer {
        while true {
            let answer = body()
            if answer >= 0 { return answer }
            let code = hc_errno()
            if code == EINTR { continue }
            refuseOwnBugs(code, name)
            throw SystemError(errno: code, call: name)
        }
    }

    /// Makes a call on a non-blocking descriptor.
    ///
    /// - Returns: nil when the call would have to wait.
    static func makeNonBlocking<Answer: FixedWidthInteger>(
        _ name: StaticString, _ body: () -> Answer
    ) throws(SystemError) -> Answer? {
        while true {
            let answer = body()
            if answer >= 0 { return answer }
            let code = hc_errno()
            if code == EINTR { continue }
            if code == EAGAIN { return nil }
            refuseOwnBugs(code, name)
            throw SystemError(errno: code, call: name)
        }
    }

    /// Makes a call of the pthread and posix_spawn kind: the answer is the error number, or 0.
    static func makeReturningErrno(
        _ name: StaticString, _ body: () -> Int32
    ) throws(SystemError) {
        let code = body()
        guard code != 0 else { return }
        refuseOwnBugs(code, name)
        throw SystemError(errno: code, call: name)
    }

    private static func refuseOwnBugs(_ code: Int32, _ name: StaticString) {
        precondition(
            code != EBADF, "\(name): the descriptor is not open: closed twice, or too early")
        precondition(code != EFAULT, "\(name): a bad address was passed to the kernel")
    }
}
