internal import CLinux
internal import HCCore

/// How our TCP sockets are set. Accepted sockets inherit these from the listening one.
package struct SocketOptions: Sendable {
    /// Small writes go out at once: we write whole answers.
    package var noDelay: Bool
    /// Silence after which the kernel asks whether the peer is still there; nil: never. Whole seconds.
    package var keepAliveAfter: Duration?
    /// Unanswered questions, as far apart as the first is late, after which the connection is dead.
    package var keepAliveProbes: Int

    package init(
        noDelay: Bool = true, keepAliveAfter: Duration? = .seconds(10), keepAliveProbes: Int = 6
    ) {
        self.noDelay = noDelay
        self.keepAliveAfter = keepAliveAfter
        self.keepAliveProbes = keepAliveProbes
    }

    func apply(to fd: Int32) throws(SystemError) {
        if noDelay { try Socket.set(fd, IPPROTO_TCP, TCP_NODELAY, 1) }
        guard let keepAliveAfter else { return }
        let seconds = Int32(clamping: max(1, keepAliveAfter.inSecondsRoundedUp))
        try Socket.set(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        try Socket.set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds)
        try Socket.set(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds)
        try Socket.set(fd, IPPROTO_TCP, TCP_KEEPCNT, Int32(clamping: keepAliveProbes))
    }
}

/// The calls on sockets that more than one type of this room makes.
enum Socket {
    /// A stream socket, close-on-exec and non-blocking.
    static func make(family: Int32) throws(SystemError) -> OwnedDescriptor {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        return OwnedDescriptor(try SystemCall.make("socket") { socket(family, kind, 0) })
    }

    static func set(
        _ fd: Int32, _ level: some BinaryInteger, _ option: Int32, _ value: Int32
    ) throws(SystemError) {
        var value = value
        try SystemCall.make("setsockopt") {
            setsockopt(fd, Int32(level), option, &value, socklen_t(MemoryLayout<Int32>.size))
        }
    }

    /// The error that the kernel keeps for the socket, which is forgotten by asking (SO_ERROR).
    static func takeError(_ fd: Int32, _ call: StaticString) -> SystemError? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        do {
            try SystemCall.make("getsockopt(SO_ERROR)") {
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length)
            }
        } catch {
            return error
        }
        return code == 0 ? nil : SystemError(errno: code, call: call)
    }
}
