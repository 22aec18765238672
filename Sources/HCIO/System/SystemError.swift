internal import CLinux

/// What the kernel said no to: the error number, and the call that got it.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package let errno: Int32
    package let call: StaticString

    package init(errno: Int32, call: StaticString) {
        self.errno = errno
        self.call = call
    }

    /// The error that the last system call of this thread left behind.
    package static func last(_ call: StaticString) -> SystemError {
        SystemError(errno: hc_errno(), call: call)
    }

    /// The kernel's words, `Connection refused`.
    package var reason: String { String(cString: strerror(errno)) }

    package var isAddressInUse: Bool { errno == EADDRINUSE }
    package var isAccessDenied: Bool { errno == EACCES }

    package var description: String { "\(call): \(reason) (errno \(errno))" }

    package static func == (left: SystemError, right: SystemError) -> Bool {
        left.errno == right.errno && left.call.description == right.call.description
    }
}
