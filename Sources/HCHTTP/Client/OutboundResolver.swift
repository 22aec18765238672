package import HCCore
package import HCIO

/// How a name becomes addresses.
package struct NameLookup: Sendable {
    package let find: @LoopActor @Sendable (String, Deadline) async throws -> [SocketAddress]

    package init(
        _ find: @escaping @LoopActor @Sendable (String, Deadline) async throws -> [SocketAddress]
    ) {
        self.find = find
    }

    /// getaddrinfo(3) in a pool's threads. A resolver that is slow with one name holds up the others: a pool of its
    /// own keeps that out of everything else.
    package static func system(_ pool: BlockingPool) -> NameLookup {
        NameLookup { name, deadline in
            try await SocketAddress.resolve(host: name, port: 0, deadline: deadline, on: pool)
        }
    }

    package static var system: NameLookup {
        system(BlockingPool(limits: .init(threadsMax: 4, queuedMax: 128)))
    }

    /// These, whatever the name: to reach a server under the names of all its clinics.
    package static func fixed(_ addresses: [SocketAddress]) -> NameLookup {
        NameLookup { _, _ in addresses }
    }
}

/// Addresses of names, remembered for a short while; who asks for a name that is being looked up waits for the same
/// answer.
@LoopActor
final class OutboundResolver {
    private struct Entry {
        let addresses: [SocketAddress]
        let until: MonotonicTime
    }

    /// As many as a socket is worth trying.
    static let addressesMax = 8

    private let lookup: NameLookup
    private let lifetime: Duration
    private let timeout: Duration
    private var cache: LRUCache<String, Entry>
    private var waiting: [String: [Waiter<[SocketAddress]>]] = [:]

    init(_ lookup: NameLookup, _ configuration: HTTPClientConfiguration) {
        self.lookup = lookup
        lifetime = configuration.resolveLifetime
        timeout = configuration.resolveTimeout
        cache = LRUCache(capacityMax: configuration.resolvedNamesMax)
    }

    func addresses(
        of name: String, until deadline: Deadline
    ) async throws(HTTPClientError) -> [SocketAddress] {
        if let entry = cache.find(name), Loop.now < entry.until { return entry.addresses }
        let waiter = Waiter<[SocketAddress]>()
        let isFirst = waiting[name] == nil
        waiting[name, default: []].append(waiter)
        if isFirst { Loop.shared.spawn { await self.look(up: name) } }
        do {
            return try await waiter.wait(until: deadline)
        } catch is DeadlineExceeded {
            throw .timeout(.resolving)
        } catch is CancellationError {
            throw .cancelled
        } catch {
            throw .resolve
        }
    }

    /// No connection came about: the next request asks anew.
    func forget(_ name: String) {
        cache.remove(name)
    }

    private func look(up name: String) async {
        let result: Result<[SocketAddress], any Error>
        do {
            let found = try await lookup.find(name, .after(timeout, from: Loop.now))
            result = found.isEmpty ? .failure(HTTPClientError.resolve) : .success(found)
        } catch {
            // Our own limit, not the deadline of anybody who waits.
            result = .failure(HTTPClientError.resolve)
        }
        let waiters = waiting.removeValue(forKey: name) ?? []
        switch result {
        case .success(let found):
            let addresses = Array(found.prefix(Self.addressesMax))
            cache.insert(
                Entry(addresses: addresses, until: Loop.now + lifetime), for: name)
            for waiter in waiters { waiter.succeed(addresses) }
        case .failure(let error):
            for waiter in waiters { waiter.fail(error) }
        }
    }
}
