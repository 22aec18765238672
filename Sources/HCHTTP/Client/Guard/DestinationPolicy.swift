package import HCIO

/// Where a client may go.
///
/// A URL that a tenant gave may name anything, our own network too: it goes through a client with `.guarded`.
/// Endpoints that the operator configured (object storage, gateways, a key service) go through one with
/// `.trusted`. A client has one policy, so that connections are never shared across it.
package enum DestinationPolicy: Sendable {
    case trusted
    case guarded(GuardRules)
}

/// What a guarded client may reach: by default https on its own port, at global addresses.
///
/// The check is made on the URL, on every address its name resolves to, and once more on the address that a socket
/// is opened for and on the one a request is about to be sent to. A name that changes its mind in between gains nothing.
package struct GuardRules: Sendable {
    /// Besides that http may only be used where `allowsPlainHTTP`.
    package var ports: Set<UInt16>
    package var allowsPlainHTTP: Bool
    /// Ranges that the operator opens though they are not global: a hospital's own network.
    package var exceptions: [AddressBlock]

    package init(
        ports: Set<UInt16> = [443], allowsPlainHTTP: Bool = false, exceptions: [AddressBlock] = []
    ) {
        self.ports = ports
        self.allowsPlainHTTP = allowsPlainHTTP
        self.exceptions = exceptions
    }

    package enum Refusal: Error, Sendable, Hashable {
        case plainHTTP
        case port(UInt16)
        /// A name that only means something inside a network.
        case localName
        case address(AddressKind)

        package var code: String {
            switch self {
            case .plainHTTP: "plain-http"
            case .port: "port"
            case .localName: "local-name"
            case .address(let kind): kind.rawValue
            }
        }
    }

    /// What can be said without asking a resolver.
    package func check(_ url: OutboundURL) throws(Refusal) {
        guard url.scheme == .https || allowsPlainHTTP else { throw .plainHTTP }
        guard ports.contains(url.port) else { throw .port(url.port) }
        switch url.host {
        case .address(let address): try check(address)
        case .name(let name):
            guard !GuardRules.isLocal(name) else { throw .localName }
        }
    }

    package func check(_ address: SocketAddress) throws(Refusal) {
        let kind = AddressKind(address)
        guard kind != .global, !exceptions.contains(where: { $0.contains(address) }) else { return }
        throw .address(kind)
    }

    /// One address that is refused refuses the name: a name that mixes is not one to trust the rest of.
    package func check(_ addresses: [SocketAddress]) throws(Refusal) {
        for address in addresses { try check(address) }
    }

    /// Names without a dot come from search lists; the others are set aside for local use (RFC 6761, 6762,
    /// 8375, 7686, and `internal`, which the clouds use for themselves).
    private static func isLocal(_ name: String) -> Bool {
        guard let dot = name.lastIndex(of: ".") else { return true }
        switch name[name.index(after: dot)...] {
        case "localhost", "local", "internal", "intranet", "lan", "home", "corp", "onion", "test",
            "invalid", "localdomain":
            return true
        default: return name.hasSuffix(".home.arpa")
        }
    }
}
