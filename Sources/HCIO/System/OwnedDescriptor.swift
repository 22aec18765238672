internal import CLinux

/// A file descriptor that has exactly one owner and is closed when that owner goes.
///
/// Closing twice would close whatever got the number in between, so the type cannot be copied.
package struct OwnedDescriptor: ~Copyable {
    package let rawValue: Int32

    /// Takes over `rawValue`, which must be open and nobody else's to close.
    package init(_ rawValue: Int32) {
        precondition(rawValue >= 0, "no descriptor has a negative number")
        self.rawValue = rawValue
    }

    deinit {
        // close(2): the number is free even if the call was interrupted, so it is never tried again.
        let answer = CLinux.close(rawValue)
        precondition(answer == 0 || hc_errno() != EBADF, "a descriptor was closed behind its owner")
    }

    /// Gives the number away: from now on the caller has to close it.
    package consuming func take() -> Int32 {
        let number = rawValue
        discard self
        return number
    }

    package consuming func close() {}

    /// A second descriptor for the same open file, close-on-exec, with a number of at least `minimum`.
    package func duplicate(minimum: Int32 = 3) throws(SystemError) -> OwnedDescriptor {
        let fd = rawValue
        return OwnedDescriptor(
            try SystemCall.make("fcntl(F_DUPFD_CLOEXEC)") {
                hc_fcntl(fd, F_DUPFD_CLOEXEC, minimum)
            })
    }

    package func setNonBlocking() throws(SystemError) {
        let fd = rawValue
        let flags = try SystemCall.make("fcntl(F_GETFL)") { hc_fcntl(fd, F_GETFL, 0) }
        guard flags & O_NONBLOCK == 0 else { return }
        try SystemCall.make("fcntl(F_SETFL)") { hc_fcntl(fd, F_SETFL, flags | O_NONBLOCK) }
    }

    package func setCloseOnExec() throws(SystemError) {
        let fd = rawValue
        try SystemCall.make("fcntl(F_SETFD)") { hc_fcntl(fd, F_SETFD, FD_CLOEXEC) }
    }
}

extension OwnedDescriptor {
    /// A pipe, close-on-exec and non-blocking at both ends.
    package static func pipe() throws(SystemError) -> Pipe {
        var numbers: (Int32, Int32) = (-1, -1)
        try SystemCall.make("pipe2") {
            withUnsafeMutableBytes(of: &numbers) { bytes in
                pipe2(bytes.bindMemory(to: Int32.self).baseAddress, O_CLOEXEC | O_NONBLOCK)
            }
        }
        return Pipe(readEnd: OwnedDescriptor(numbers.0), writeEnd: OwnedDescriptor(numbers.1))
    }

    /// Two connected stream sockets, close-on-exec and non-blocking.
    package static func socketPair() throws(SystemError) -> SocketPair {
        var numbers: (Int32, Int32) = (-1, -1)
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        try SystemCall.make("socketpair") {
            withUnsafeMutableBytes(of: &numbers) { bytes in
                socketpair(AF_UNIX, kind, 0, bytes.bindMemory(to: Int32.self).baseAddress)
            }
        }
        return SocketPair(first: OwnedDescriptor(numbers.0), second: OwnedDescriptor(numbers.1))
    }

    package struct Pipe: ~Copyable {
        package let readEnd: OwnedDescriptor
        package let writeEnd: OwnedDescriptor

        /// Gives the read end away and closes the other, or the other way round.
        package consuming func releaseReadEnd() -> Int32 { readEnd.take() }
        package consuming func releaseWriteEnd() -> Int32 { writeEnd.take() }
    }

    package struct SocketPair: ~Copyable {
        package let first: OwnedDescriptor
        package let second: OwnedDescriptor

        /// Gives the first away and closes the second, whose number the child has by now.
        package consuming func releaseFirst() -> Int32 { first.take() }

        /// Gives both away.
        package consuming func releaseBoth() -> (first: Int32, second: Int32) {
            (first.take(), second.take())
        }
    }
}
