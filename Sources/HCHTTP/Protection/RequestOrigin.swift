package import HCIO

/// Whose connection it is, as far as the connection itself tells: known before its first request.
package struct ConnectionOrigin: Sendable {
    /// The peer, or whom a PROXY protocol header named.
    package let address: SocketAddress
    package let isSecure: Bool
    /// Whether `address` is a trusted proxy, whose requests tell whom they are for.
    let isProxy: Bool

    @LoopActor
    init(_ pass: ConnectionPass, isSecure: Bool, trusted: TrustedProxies) {
        self.init(
            pass.address, isSecure: isSecure || pass.isSecureAtProxy, trusted: trusted)
    }

    package init(_ address: SocketAddress, isSecure: Bool, trusted: TrustedProxies) {
        self.address = address
        self.isSecure = isSecure
        isProxy = trusted.contains(address)
    }
}

/// Whose request it is: the one place that decides it, for every version of HTTP.
///
/// A trusted proxy says so in `Forwarded` (RFC 7239) or in `X-Forwarded-For`, `-Proto` and `-Host`. Of a list of hops
/// the right end is the nearest: it is walked to the left over trusted proxies, and the first address that is none
/// of them is the client's. What stands further left was written by the client and is not looked at. From anybody
/// who is not trusted the fields mean nothing at all.
package struct RequestOrigin: Sendable, Equatable {
    /// The client's address. Where a proxy does not tell it (`unknown`, `_name`), that of the last hop that is known.
    package var address: SocketAddress
    package var isSecure: Bool
    /// The host that the client asked for.
    package var host: String

    /// - Parameter host: from the request itself, valid.
    /// - Throws: `ForwardedError` when a trusted proxy's fields are ambiguous or malformed: refused with 400, for a
    ///   guess could give one client's rights to another.
    package init(
        _ headers: HTTPHeaders, host: String, on connection: ConnectionOrigin,
        trusted: TrustedProxies
    ) throws(ForwardedError) {
        address = connection.address
        isSecure = connection.isSecure
        self.host = host
        guard connection.isProxy else { return }
        let hasForwarded = headers.contains(.forwarded)
        let hasOthers =
            headers.contains(.xForwardedFor) || headers.contains(.xForwardedProto)
            || headers.contains(.xForwardedHost)
        switch (hasForwarded, hasOthers) {
        case (false, false): break
        // Only one of them was written by our proxy. Which one?
        case (true, true): throw .conflict
        case (true, false): try readForwarded(headers, trusted)
        case (false, true): try readXForwarded(headers, trusted)
        }
    }

    private mutating func readForwarded(_ headers: HTTPHeaders, _ trusted: TrustedProxies)
        throws(ForwardedError)
    {
        var hops: [ForwardedHop] = []
        try headers.forEachValue(.forwarded) { value throws(ForwardedError) in
            var reader = ForwardedReader(value)
            while let hop = try reader.next() {
                guard hops.count < ForwardedHop.hopsMax else { throw .tooLong }
                hops.append(hop)
            }
        }
        for hop in hops.reversed() {
            if let isSecure = hop.isSecure { self.isSecure = isSecure }
            if let host = hop.host { self.host = host }
            guard let address = hop.address else { return }
            self.address = address
            guard trusted.contains(address) else { return }
        }
    }

    /// What a client wrote on the left of `X-Forwarded-For` is not looked at, be it what it may.
    private mutating func readXForwarded(_ headers: HTTPHeaders, _ trusted: TrustedProxies)
        throws(ForwardedError)
    {
        let addresses = RequestOrigin.elements(headers, .xForwardedFor)
        let schemes = RequestOrigin.elements(headers, .xForwardedProto)
        let hosts = RequestOrigin.elements(headers, .xForwardedHost)
        // One for the request as a whole, or one for each hop.
        guard schemes.count <= 1 || schemes.count == addresses.count,
            hosts.count <= 1 || hosts.count == addresses.count
        else { throw .uneven }
        var client = 0
        for (index, text) in addresses.enumerated().reversed() {
            guard addresses.count - index <= ForwardedHop.hopsMax else { throw .tooLong }
            client = index
            let address = try text.withBytes { text throws(ForwardedError) in
                try ForwardedHop.node(text, isBareAllowed: true)
            }
            guard let address else { break }
            self.address = address
            guard trusted.contains(address) else { break }
        }
        if let scheme = schemes.count == 1 ? schemes[0] : schemes.isEmpty ? nil : schemes[client] {
            isSecure = try scheme.withBytes { scheme throws(ForwardedError) in
                try ForwardedHop.isSecure(scheme)
            }
        }
        if let name = hosts.count == 1 ? hosts[0] : hosts.isEmpty ? nil : hosts[client] {
            host = try name.withBytes { name throws(ForwardedError) in
                try ForwardedHop.host(name)
            }
        }
    }

    /// The elements of all fields of that name, as one list; empty ones are skipped (RFC 9110 5.6.1.2).
    private static func elements(_ headers: HTTPHeaders, _ name: HTTPFieldName) -> [[UInt8]] {
        var found: [[UInt8]] = []
        headers.forEachValue(name) { value in
            value.forEachListElement { if !$0.isEmpty { found.append(Array($0)) } }
        }
        return found
    }
}

/// Why a trusted proxy's fields are refused. The raw value is the label of the refusal's counter.
package enum ForwardedError: String, Error, Sendable, CaseIterable {
    /// `Forwarded` and `X-Forwarded-*` in one request.
    case conflict = "forwarded-conflict"
    case malformed = "forwarded-malformed"
    /// More than `ForwardedHop.hopsMax`.
    case tooLong = "forwarded-too-long"
    /// `X-Forwarded-Proto` or `-Host` has several values and not as many as `X-Forwarded-For`.
    case uneven = "forwarded-uneven"

    package var problem: Problem {
        Problem(.badRequest, code: rawValue, title: "Bad Request")
    }
}
