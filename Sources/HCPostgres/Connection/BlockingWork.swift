import CLibPQ
import Glibc
import HCCore
import HCIO

/// What libpq and glibc can only do by blocking: cancel requests and name resolution.
///
/// Threads of its own, so that a cancel request does not wait behind password hashing.
private let blockingPool = BlockingPool(
    limits: BlockingPool.Limits(threadsMax: 2, queuedMax: 64))

extension CancelRequest {
    /// - Returns: whether the request reached the server before the deadline.
    @LoopActor
    func deliver(deadline: Deadline) async -> Bool {
        do {
            return try await blockingPool.run(deadline: deadline) { self.send() }
        } catch {
            // Too late, or too many: the caller closes the session, which ends the work as well.
            return false
        }
    }
}

/// libpq would resolve names in the middle of `PQconnectPoll`, blocking the loop. Giving it `hostaddr` beside `host`
/// keeps the name for TLS and `.pgpass` and spares it the resolver (libpq 34.1.2).
enum HostResolution {
    /// Addresses tried for one connection.
    private static let addressesMax = 16

    @LoopActor
    static func resolve(
        _ parameters: inout [String: String], deadline: Deadline
    ) async throws(PostgresError) {
        guard parameters["hostaddr"] == nil, let hosts = parameters["host"], !hosts.isEmpty else {
            return
        }
        let names = hosts.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard names.contains(where: isName) else { return }
        // A socket directory has no address; libpq takes an empty element for it.
        let ports = (parameters["port"] ?? "")
            .split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        var expanded: (hosts: [String], addresses: [String], ports: [String]) = ([], [], [])
        for (index, name) in names.enumerated() {
            let port = ports.count > 1 ? ports[min(index, ports.count - 1)] : ports.first ?? ""
            for address in isName(name) ? try await addresses(of: name, deadline: deadline) : [""] {
                guard expanded.hosts.count < addressesMax else { break }
                expanded.hosts.append(name)
                expanded.addresses.append(address)
                expanded.ports.append(port)
            }
        }
        guard !expanded.hosts.isEmpty else { throw PostgresError(.connectFailed(.unreachable)) }
        parameters["host"] = expanded.hosts.joined(separator: ",")
        parameters["hostaddr"] = expanded.addresses.joined(separator: ",")
        parameters["port"] = expanded.ports.joined(separator: ",")
    }

    private static func isName(_ host: String) -> Bool {
        if host.isEmpty || host.hasPrefix("/") || host.hasPrefix("@") { return false }
        var address = in6_addr()
        return inet_pton(AF_INET, host, &address) != 1 && inet_pton(AF_INET6, host, &address) != 1
    }

    /// None when the name is unknown: another host of the list may do.
    @LoopActor
    private static func addresses(
        of name: String, deadline: Deadline
    ) async throws(PostgresError) -> [String] {
        do {
            return try await blockingPool.run(deadline: deadline) { lookUp(name) }
        } catch is DeadlineExceeded {
            throw .deadlineExceeded
        } catch is CancellationError {
            throw .cancelled
        } catch {
            throw PostgresError(.connectFailed(.unreachable))
        }
    }

    private static func lookUp(_ name: String) -> [String] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var first: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, nil, &hints, &first) == 0 else { return [] }
        defer { freeaddrinfo(first) }
        var found: [String] = []
        var entry = first
        while let current = entry {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let length = socklen_t(text.count)
            let flags = NI_NUMERICHOST
            if getnameinfo(
                current.pointee.ai_addr, current.pointee.ai_addrlen, &text, length, nil, 0, flags)
                == 0
            {
                found.append(
                    String(
                        decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
                        as: UTF8.self))
            }
            entry = current.pointee.ai_next
        }
        return found
    }
}
