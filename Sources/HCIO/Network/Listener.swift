internal import CLinux
internal import HCCore

/// A listening socket: takes the connections that the kernel has accepted and hands them on.
@LoopActor package final class Listener: EventSource {
    package enum Limits {
        /// Connections taken before others get their turn; the rest waits for the next tick.
        package static let acceptsPerWake = 32
        /// How long accepting rests when the process has no descriptor left. The connections wait in the
        /// kernel's queue.
        package static let restWithoutDescriptors: Duration = .milliseconds(100)
        package static let backlog: Int32 = 4096
    }

    package typealias Accept = @LoopActor (PlainStream, SocketAddress) -> Void

    private var descriptor: OwnedDescriptor?
    private var registration: Registration?
    private var accept: Accept?
    private var rest: Timer?
    private var isPaused = false

    /// Connections handed on since the start.
    package private(set) var acceptedCount = 0
    /// Times that accepting had to rest because descriptors or memory ran out.
    package private(set) var exhaustedCount = 0

    /// The system call that takes a connection: a test brings errors that it cannot cause for itself alone, for
    /// the limit of descriptors is the whole process's.
    typealias AcceptCall =
        @LoopActor (Int32, inout sockaddr_storage) throws(SystemError) -> Int32?
    private let acceptCall: AcceptCall

    /// Takes over a listening socket, inherited or from `Listener.bind`.
    ///
    /// - Throws: SystemError if it is no socket or the options cannot be set.
    package convenience init(
        _ descriptor: consuming OwnedDescriptor, options: SocketOptions = SocketOptions()
    ) throws(SystemError) {
        try self.init(descriptor, options: options) { fd, storage throws(SystemError) in
            let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
            return try SystemCall.makeNonBlocking("accept4") { hc_accept4(fd, &storage, flags) }
        }
    }

    init(
        _ descriptor: consuming OwnedDescriptor, options: SocketOptions,
        acceptCall: @escaping AcceptCall
    ) throws(SystemError) {
        self.acceptCall = acceptCall
        try descriptor.setNonBlocking()
        try descriptor.setCloseOnExec()
        if case .unix = try SocketAddress.local(of: descriptor.rawValue) {
            // Neither delays nor keep-alive on a Unix socket.
        } else {
            try options.apply(to: descriptor.rawValue)
        }
        self.descriptor = consume descriptor
    }

    /// Opens a listening socket, close-on-exec and non-blocking.
    ///
    /// - Parameter sharesPort: SO_REUSEPORT, so that each worker slot can have a socket of its own.
    /// - Throws: SystemError, EADDRINUSE and EACCES among them.
    package nonisolated static func bind(
        _ address: SocketAddress, sharesPort: Bool = false, backlog: Int32 = Limits.backlog
    ) throws(SystemError) -> OwnedDescriptor {
        let socket = try Socket.make(family: address.family)
        let fd = socket.rawValue
        if case .unix = address {
            // A path that is left over from an earlier process has to be removed by the caller, who
            // knows whether it is.
        } else {
            try Socket.set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
            if sharesPort { try Socket.set(fd, SOL_SOCKET, SO_REUSEPORT, 1) }
        }
        if case .ipv6 = address { try Socket.set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) }
        try SystemCall.make("bind") { address.withStorage { hc_bind(fd, $0, $1) } }
        try SystemCall.make("listen") { listen(fd, backlog) }
        return socket
    }

    /// Whether an inherited descriptor is a listening socket; any other, or none, may have its number.
    package nonisolated static func isListening(_ fd: Int32) -> Bool {
        var answer: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &answer, &length) == 0 && answer == 1
    }

    /// Where it listens: the port that the kernel chose, if it was bound to port 0.
    package var localAddress: SocketAddress? {
        guard let fd = descriptor?.rawValue else { return nil }
        // getsockname on an open socket has no failure that belongs to the world.
        do { return try SocketAddress.local(of: fd) } catch { return nil }
    }

    /// Begins to accept. To be called once. `accept` gets a stream that is not started yet, and its peer.
    package func start(_ accept: @escaping Accept) throws(SystemError) {
        precondition(registration == nil, "a listener is started once")
        guard let fd = descriptor?.rawValue else { preconditionFailure("the listener is closed") }
        registration = try Loop.shared.register(
            fd, events: isPaused ? [] : .readable, source: self)
        self.accept = accept
    }

    /// New connections wait in the kernel's queue until `resume`.
    package func pause() {
        isPaused = true
        update()
    }

    package func resume() {
        isPaused = false
        update()
    }

    /// Lets no further connection into a listening socket's queue, in whatever processes the socket is open, for good.
    ///
    /// For a socket that is about to end: a connection that the kernel completes between the last accept and the
    /// close is reset, with the request that its client has sent. This way there is none: what comes is not answered,
    /// and its client tries again a second later, when it is refused by the kernel or served by our next start.
    package nonisolated static func stopQueueing(_ descriptor: Int32) throws(SystemError) {
        try SystemCall.make("setsockopt(SO_ATTACH_FILTER)") { hc_drop_incoming(descriptor) }
    }

    /// As above, for this one.
    package func stopQueueing() throws(SystemError) {
        guard let fd = descriptor?.rawValue else { return }
        try Listener.stopQueueing(fd)
    }

    /// Stops accepting and closes this process' descriptor. The socket itself lives on, with its queue, as
    /// long as another process (the supervisor) has it open.
    package func close() {
        rest?.cancel()
        rest = nil
        registration?.deregister()
        registration = nil
        descriptor = nil
        accept = nil
    }

    private func update() {
        registration?.setEvents(isPaused || rest != nil ? [] : .readable)
    }

    package func handle(_ events: IOEvents) {
        for _ in 0..<Limits.acceptsPerWake {
            // Each callback may pause or close the listener.
            guard let fd = descriptor?.rawValue, let accept, !isPaused, rest == nil else { return }
            var storage = sockaddr_storage()
            do {
                guard let answer = try acceptCall(fd, &storage) else { return }
                let stream = PlainStream(OwnedDescriptor(answer))
                acceptedCount += 1
                accept(stream, SocketAddress(&storage) ?? .unix(path: ""))
            } catch {
                if Listener.concernsOneConnection(error) { continue }
                restForAWhile()
                return
            }
        }
    }

    /// Errors that the connection had before it was accepted: it is gone, and the next may be taken (man
    /// accept: "Error handling"). With any other, as when descriptors have run out, it stays in the
    /// queue and would be told for ever.
    private static func concernsOneConnection(_ error: SystemError) -> Bool {
        switch error.errno {
        case ECONNABORTED, EPERM, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH,
            EOPNOTSUPP, ENETUNREACH, ETIMEDOUT:
            true
        default: false
        }
    }

    private func restForAWhile() {
        exhaustedCount += 1
        rest = Loop.shared.schedule(after: Limits.restWithoutDescriptors) {
            self.rest = nil
            self.update()
        }
        update()
    }
}
