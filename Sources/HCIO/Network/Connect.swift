internal import CLinux
package import HCCore

extension PlainStream {
    /// Connects to an address.
    ///
    /// - Throws: SystemError (ECONNREFUSED, ENOENT, EHOSTUNREACH, …), DeadlineExceeded, CancellationError.
    package static func connect(
        to address: SocketAddress, deadline: Deadline, options: SocketOptions = SocketOptions()
    ) async throws -> PlainStream {
        let socket = try Socket.make(family: address.family)
        let fd = socket.rawValue
        if case .unix = address {} else { try options.apply(to: fd) }
        while true {
            let code = address.withStorage { hc_connect(fd, $0, $1) == 0 ? 0 : hc_errno() }
            switch code {
            case 0, EISCONN:
                return PlainStream(socket)
            case EINPROGRESS, EINTR, EALREADY:
                try await ConnectAttempt(fd).wait(until: deadline)
                return PlainStream(socket)
            case EAGAIN where address.family == AF_UNIX:
                // The listener's queue is full, and nothing tells when it is not (man connect).
                try await pauseBeforeRetry(deadline)
            default:
                throw SystemError(errno: code, call: "connect")
            }
        }
    }

    private static func pauseBeforeRetry(_ deadline: Deadline) async throws {
        let retry = Deadline.after(.milliseconds(2), from: Loop.now)
        guard retry < deadline else {
            try await Loop.shared.sleep(until: deadline)
            throw DeadlineExceeded()
        }
        try await Loop.shared.sleep(until: retry)
    }

    /// Connects to the first address of a name that answers.
    ///
    /// - Throws: NameResolutionError, or what the last address said; see `connect(to:deadline:)`.
    package static func connect(
        host: String, port: UInt16, deadline: Deadline, options: SocketOptions = SocketOptions(),
        resolver: BlockingPool
    ) async throws -> PlainStream {
        let addresses = try await SocketAddress.resolve(
            host: host, port: port, deadline: deadline, on: resolver)
        var failure: (any Error)?
        for address in addresses {
            do {
                return try await connect(to: address, deadline: deadline, options: options)
            } catch let error as SystemError {
                failure = error
            }
        }
        throw failure ?? NameResolutionError(host: host, reason: "no address")
    }
}

/// A connection being made: writable means decided.
@LoopActor private final class ConnectAttempt: EventSource {
    private let fd: Int32
    private let decided = Waiter<Void>()

    init(_ fd: Int32) {
        self.fd = fd
    }

    func wait(until deadline: Deadline) async throws {
        let registration = try Loop.shared.register(fd, events: .writable, source: self)
        defer { registration.deregister() }
        try await decided.wait(until: deadline)
        if let error = Socket.takeError(fd, "connect") { throw error }
    }

    func handle(_ events: IOEvents) {
        decided.succeed(())
    }
}

/// A name for which there is no address.
package struct NameResolutionError: Error, Equatable, CustomStringConvertible {
    package let host: String
    package let reason: String
    package var description: String { "\(host): \(reason)" }
}

extension SocketAddress {
    /// The addresses of a name, in the resolver's order of preference (RFC 6724). A numeric address costs
    /// nothing; a name costs a turn in the blocking pool.
    ///
    /// - Throws: NameResolutionError, BlockingPoolError, DeadlineExceeded, CancellationError.
    @LoopActor package static func resolve(
        host: String, port: UInt16, deadline: Deadline, on pool: BlockingPool
    ) async throws -> [SocketAddress] {
        if let address = SocketAddress(host: host, port: port) { return [address] }
        return try await pool.run(deadline: deadline) { try lookUp(host: host, port: port) }
    }

    /// getaddrinfo(3). Blocks for as long as the resolver likes.
    private static func lookUp(
        host: String, port: UInt16
    ) throws(NameResolutionError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, String(port), &hints, &list)
        guard code == 0 else {
            throw NameResolutionError(host: host, reason: String(cString: gai_strerror(code)))
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            var storage = sockaddr_storage()
            if hc_address_copy(&storage, entry) > 0, let address = SocketAddress(&storage) {
                addresses.append(address)
            }
            next = entry.pointee.ai_next
        }
        guard !addresses.isEmpty else {
            throw NameResolutionError(host: host, reason: "no address")
        }
        return addresses
    }
}
