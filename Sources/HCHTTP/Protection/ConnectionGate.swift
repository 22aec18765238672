package import HCIO

/// Which of the server's doors a connection came by.
package enum HTTPListenerName: String, Sendable, CaseIterable {
    case plain
    case tls
}

/// Counts open connections, in all and by address, and says whether one more may come in. No I/O and no time: who
/// has to leave so that another may come is the server's decision, for it knows what its connections do.
///
/// An address is an IPv4 address or the /64 of an IPv6 address, which is what one subscriber has. The table holds
/// an address only while one of its connections is open, so it is as bounded as they are.
@LoopActor
package final class ConnectionGate {
    package enum Refusal: String, Sendable, CaseIterable {
        /// This address has as many connections as one may have.
        case address
        /// There is no room, and nobody who could be asked to leave.
        case total
        /// Only a trusted proxy may come by this door (PROXY protocol).
        case notProxy = "not-proxy"
        /// What came is no PROXY protocol header.
        case proxyHeader = "proxy-header"
        /// The PROXY protocol header did not come in time.
        case proxyTimeout = "proxy-timeout"
    }

    enum Verdict {
        case admitted(ConnectionPass)
        /// One must leave first; then ask again.
        case full
        case refused(Refusal)
    }

    /// What connections are counted by.
    struct Subscriber: Hashable {
        private let isIPv6: Bool
        private let prefix: UInt64

        /// Nil for what has no address.
        init?(_ address: SocketAddress) {
            switch address.unmapped {
            case .ipv4(let address, _):
                isIPv6 = false
                prefix = UInt64(address)
            case .ipv6(let high, _, _, _):
                isIPv6 = true
                prefix = high
            case .unix: return nil
            }
        }
    }

    private let connectionsMax: Int
    private let perAddressMax: Int
    private let trusted: TrustedProxies
    private var counts: [Subscriber: Int] = [:]
    private(set) var openCount = 0

    init(connectionsMax: Int, perAddressMax: Int, trusted: TrustedProxies) {
        self.connectionsMax = connectionsMax
        self.perAddressMax = perAddressMax
        self.trusted = trusted
    }

    /// Addresses that have a connection now.
    var subscriberCount: Int { counts.count }

    func count(of address: SocketAddress) -> Int {
        Subscriber(address).flatMap { counts[$0] } ?? 0
    }

    /// The address's own limit is looked at first: who is at it makes nobody leave.
    func admit(_ address: SocketAddress, by listener: HTTPListenerName) -> Verdict {
        let counted = limited(address)
        if let counted, counts[counted, default: 0] >= perAddressMax { return .refused(.address) }
        guard openCount < connectionsMax else { return .full }
        if let counted { counts[counted, default: 0] += 1 }
        openCount += 1
        return .admitted(ConnectionPass(address, by: listener, counted: counted, gate: self))
    }

    /// A trusted proxy carries the connections of many: its own address has no limit. Whom it names has.
    private func limited(_ address: SocketAddress) -> Subscriber? {
        trusted.contains(address) ? nil : Subscriber(address)
    }

    fileprivate func leave(_ counted: Subscriber?) {
        openCount -= 1
        release(counted)
    }

    /// The connection of a proxy turns out to be that of `address`.
    /// - Returns: false if that address has as many as it may have; then nothing is changed.
    fileprivate func exchange(
        _ old: Subscriber?, for address: SocketAddress, _ new: inout Subscriber?
    )
        -> Bool
    {
        let wanted = limited(address)
        if wanted == old {
            new = wanted
            return true
        }
        if let wanted {
            guard counts[wanted, default: 0] < perAddressMax else { return false }
            counts[wanted, default: 0] += 1
        }
        release(old)
        new = wanted
        return true
    }

    private func release(_ counted: Subscriber?) {
        guard let counted, let count = counts[counted] else { return }
        counts[counted] = count > 1 ? count - 1 : nil
    }
}

/// One admitted connection, from its accept to its end, whatever it becomes on the way.
@LoopActor
package final class ConnectionPass {
    /// Whom the connection is from: its peer, or whom a trusted proxy named in a PROXY protocol header.
    package private(set) var address: SocketAddress
    package let listener: HTTPListenerName
    /// Whether a trusted proxy said that its client came by TLS.
    package private(set) var isSecureAtProxy = false
    private var counted: ConnectionGate.Subscriber?
    private var gate: ConnectionGate?
    var wireProtocol: HTTPServerMetrics.WireProtocol?

    fileprivate init(
        _ address: SocketAddress, by listener: HTTPListenerName,
        counted: ConnectionGate.Subscriber?, gate: ConnectionGate
    ) {
        self.address = address
        self.listener = listener
        self.counted = counted
        self.gate = gate
    }

    /// - Returns: false if that address has too many connections.
    func proxied(for address: SocketAddress, isSecure: Bool) -> Bool {
        guard let gate, gate.exchange(counted, for: address, &counted) else { return false }
        self.address = address
        isSecureAtProxy = isSecure
        return true
    }

    /// The connection is no more. May be called again.
    func end() {
        gate?.leave(counted)
        gate = nil
        counted = nil
    }
}
