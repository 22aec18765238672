import HCCore
import HCIO
import HCTenancy

/// The sockets that clients and operators connect to: opened once, owned by the supervisor for its whole life, and
/// handed from worker to worker and from program to program, so that the kernel's queues are never lost.
@LoopActor
struct ListeningSockets {
    enum Role: String, CaseIterable, Sendable {
        /// Clients: one per worker slot, all on one port. The kernel spreads connections over them (SO_REUSEPORT).
        case http
        /// The same with TLS, if there is any.
        case https
        /// Operators: one, served by the supervisor.
        case operations
    }

    struct Socket: Equatable, Sendable {
        var role: Role
        var slot: Int
        var address: String
        var descriptor: Int32
    }

    /// A socket that cannot be had, and what to do about it.
    struct Refusal: Error, Sendable, CustomStringConvertible {
        let description: String
    }

    private struct Wanted {
        var role: Role
        var slots: Int
        var address: SocketAddress
        var setting: StaticString
    }

    private(set) var sockets: [Socket]

    var slotCount: Int { sockets.count { $0.role == .http } }

    func descriptor(_ role: Role, slot: Int = 0) -> Int32 {
        guard let descriptor = find(role, slot: slot) else {
            preconditionFailure("there is a socket for every role and slot")
        }
        return descriptor
    }

    func find(_ role: Role, slot: Int) -> Int32? {
        sockets.first { $0.role == role && $0.slot == slot }?.descriptor
    }

    /// Another descriptor of the same socket, for a listener of this process that may be closed.
    func duplicate(_ role: Role) throws(SystemError) -> OwnedDescriptor {
        let socket = OwnedDescriptor(descriptor(role))
        let copy: OwnedDescriptor
        do throws(SystemError) {
            copy = try socket.duplicate()
        } catch {
            _ = socket.take()
            throw error
        }
        _ = socket.take()
        return copy
    }

    /// Opens what the configuration asks for.
    ///
    /// - Parameter inherited: from the program that ran in this process before. They stay what they are, and only
    ///   what is missing of them is opened: a changed port or number of workers needs a new start.
    init(_ configuration: AppConfiguration, inherited: [Socket] = []) throws(Refusal) {
        sockets = inherited
        for wanted in try ListeningSockets.missing(configuration, inherited) {
            try ListeningSockets.refuseForeignPort(wanted)
            for slot in 0..<wanted.slots {
                do throws(SystemError) {
                    let socket = try Listener.bind(
                        wanted.address, sharesPort: wanted.role != .operations)
                    sockets.append(
                        Socket(
                            role: wanted.role, slot: slot, address: "\(wanted.address)",
                            descriptor: socket.take()))
                } catch {
                    throw ListeningSockets.refusal(error, wanted)
                }
            }
        }
    }

    /// Finds out whether `init` would succeed, and opens nothing for good.
    static func check(_ configuration: AppConfiguration, inherited: [Socket]) throws(Refusal) {
        for wanted in try missing(configuration, inherited) { try refuseForeignPort(wanted) }
    }

    /// Before the workers drain for the last time: nobody is let into the clients' queues any more, and each queue
    /// ends with the worker that empties it.
    mutating func closeClients() throws(SystemError) {
        let clients = sockets.filter { $0.role != .operations }
        sockets.removeAll { $0.role != .operations }
        var problem: SystemError?
        for socket in clients {
            let owned = OwnedDescriptor(socket.descriptor)
            do throws(SystemError) {
                try Listener.stopQueueing(owned.rawValue)
            } catch {
                problem = error
            }
        }
        if let problem { throw problem }
    }

    /// Settings that the open sockets do not follow any more.
    func stale(_ configuration: AppConfiguration) throws(Refusal) -> [String] {
        try ListeningSockets.wanted(configuration, slots: configuration.workerCount).compactMap {
            wanted in
            let open = sockets.filter { $0.role == wanted.role }
            if open.isEmpty || open.contains(where: { $0.address != "\(wanted.address)" }) {
                return "\(wanted.setting)"
            }
            return open.count == wanted.slots ? nil : "server.workers"
        }
    }

    private static func missing(
        _ configuration: AppConfiguration, _ inherited: [Socket]
    ) throws(Refusal) -> [Wanted] {
        let slots = inherited.count { $0.role == .http }
        return try wanted(configuration, slots: slots > 0 ? slots : configuration.workerCount)
            .filter { wanted in !inherited.contains { $0.role == wanted.role } }
    }

    private static func wanted(
        _ configuration: AppConfiguration, slots: Int
    ) throws(Refusal) -> [Wanted] {
        let server = configuration.platform.server
        var all = [
            Wanted(
                role: .http, slots: slots, address: try address(server.bindAddress, server.port),
                setting: "server.port (HC_PORT)"),
            Wanted(
                role: .operations, slots: 1,
                address: try address(server.bindAddress, server.opsPort),
                setting: "server.opsPort (HC_OPS_PORT)"),
        ]
        if configuration.platform.tls != nil {
            all.append(
                Wanted(
                    role: .https, slots: slots,
                    address: try address(server.bindAddress, server.tlsPort),
                    setting: "server.tlsPort (HC_TLS_PORT)"))
        }
        return all
    }

    private static func address(_ host: String, _ port: Int) throws(Refusal) -> SocketAddress {
        guard let port = UInt16(exactly: port), let address = SocketAddress(host: host, port: port)
        else {
            throw Refusal(
                description:
                    "server.bindAddress: '\(host)' is no address: write one such as 127.0.0.1")
        }
        return address
    }

    /// SO_REUSEPORT would let us share the port with another server of the same user, and each would get half of
    /// the connections: a plain socket finds out first.
    private static func refuseForeignPort(_ wanted: Wanted) throws(Refusal) {
        do throws(SystemError) {
            _ = try Listener.bind(wanted.address)
        } catch {
            throw refusal(error, wanted)
        }
    }

    private static func refusal(_ error: SystemError, _ wanted: Wanted) -> Refusal {
        let advice =
            if error.isAddressInUse {
                "stop the program that has the port, or choose another with \(wanted.setting)"
            } else if error.isAccessDenied {
                "ports below 1024 need a privilege: choose another with \(wanted.setting)"
            } else {
                "check the address, or choose another with \(wanted.setting)"
            }
        return Refusal(description: "cannot listen on \(wanted.address): \(error): \(advice)")
    }
}
