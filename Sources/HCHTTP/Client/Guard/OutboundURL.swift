package import HCIO

/// An absolute http or https URL that can be read in one way only.
///
/// Other parsers are lenient, and each in its own way: what one takes for a name is an address to the next.
/// Here whatever is not plainly a URL of RFC 3986 is refused, and everybody else gets `text`, which is made anew
/// from the parts: libcurl never sees what a tenant wrote.
package struct OutboundURL: Sendable, Hashable {
    package enum Scheme: String, Sendable {
        case http
        case https

        package var defaultPort: UInt16 { self == .http ? 80 : 443 }
    }

    package enum Host: Sendable, Hashable {
        /// Lower case labels of letters, digits, hyphens and underscores; punycode is as good as any.
        case name(String)
        /// `port` is the URL's.
        case address(SocketAddress)
    }

    package enum Refusal: String, Error, Sendable, CaseIterable {
        case tooLong = "too-long"
        case notAbsolute = "not-absolute"
        case scheme
        case userInfo = "user-info"
        case host
        /// A number that is no address in its one canonical form: `127.1`, `0x7f000001`, `010.0.0.1`.
        case oddAddress = "odd-address"
        case port
        case path
        case query
        case fragment
    }

    package static let bytesMax = 8192
    /// RFC 1035 2.3.4.
    static let hostBytesMax = 253
    static let labelBytesMax = 63

    package let scheme: Scheme
    package let host: Host
    package let port: UInt16
    /// Begins with "/"; percent-encoded as it was written.
    package let path: String
    /// Without the "?"; nil if there was none.
    package let query: String?

    /// - Parameter text: ASCII. No fragment: it would never be sent, so whoever wrote it meant something else.
    package init(_ text: String) throws(Refusal) {
        var rest = Array(text.utf8)[...]
        guard rest.count <= OutboundURL.bytesMax else { throw .tooLong }
        guard let colon = rest.firstIndex(of: 0x3A), colon > 0 else { throw .notAbsolute }
        let name = String(decoding: rest[..<colon].map(ByteClass.lower), as: UTF8.self)
        guard let scheme = Scheme(rawValue: name) else { throw .scheme }
        rest = rest[(colon + 1)...]
        guard rest.starts(with: [0x2F, 0x2F]) else { throw .notAbsolute }
        rest = rest.dropFirst(2)
        let end = rest.firstIndex { $0 == 0x2F || $0 == 0x3F || $0 == 0x23 } ?? rest.endIndex
        let authority = rest[..<end]
        rest = rest[end...]
        guard !authority.contains(0x40) else { throw .userInfo }
        let (host, port) = try OutboundURL.authority(authority, scheme)
        guard !rest.contains(0x23) else { throw .fragment }
        let mark = rest.firstIndex(of: 0x3F) ?? rest.endIndex
        let path = rest[..<mark]
        guard OutboundURL.isEncoded(path, where: ByteClass.isPath) else { throw .path }
        let query = mark == rest.endIndex ? nil : rest[(mark + 1)...]
        if let query {
            guard OutboundURL.isEncoded(query, where: ByteClass.isQuery) else { throw .query }
        }
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path.isEmpty ? "/" : String(decoding: path, as: UTF8.self)
        self.query = query.map { String(decoding: $0, as: UTF8.self) }
    }

    /// The URL in its one spelling: the default port is left out.
    package var text: String { origin + target }

    /// Path and query, as the request line has them.
    package var target: String { query.map { "\(path)?\($0)" } ?? path }

    /// "https://host:port", the default port left out: what may share a connection and credentials.
    package var origin: String { "\(scheme.rawValue)://\(authority)" }

    /// The value of the Host field.
    package var authority: String {
        port == scheme.defaultPort ? hostText : "\(hostText):\(port)"
    }

    /// With brackets around an IPv6 address.
    package var hostText: String {
        switch host {
        case .name(let name): name
        case .address(.ipv6(let high, let low, let scope, let port)):
            "[\(SocketAddress.ipv6(high: high, low: low, scope: scope, port: port).host)]"
        case .address(let address): address.host
        }
    }

    // MARK: Parsing

    private static func authority(
        _ text: ArraySlice<UInt8>, _ scheme: Scheme
    ) throws(Refusal) -> (Host, UInt16) {
        var hostEnd = text.endIndex
        if text.first == 0x5B {
            guard let close = text.firstIndex(of: 0x5D) else { throw .host }
            hostEnd = close + 1
        } else if let colon = text.firstIndex(of: 0x3A) {
            hostEnd = colon
        }
        let port = try port(text[hostEnd...], scheme)
        return (try host(text[..<hostEnd], port), port)
    }

    private static func port(
        _ text: ArraySlice<UInt8>, _ scheme: Scheme
    ) throws(Refusal) -> UInt16 {
        guard let colon = text.first else { return scheme.defaultPort }
        let digits = text.dropFirst()
        guard colon == 0x3A, (1...5).contains(digits.count), digits.allSatisfy(ByteClass.isDigit),
            digits.first != 0x30, let port = UInt16(String(decoding: digits, as: UTF8.self))
        else { throw .port }
        return port
    }

    private static func host(_ text: ArraySlice<UInt8>, _ port: UInt16) throws(Refusal) -> Host {
        guard !text.isEmpty else { throw .host }
        if text.first == 0x5B {
            let inner = text.dropFirst().dropLast()
            // No zone: an interface of ours is nobody else's business (RFC 6874).
            guard inner.allSatisfy({ ByteClass.hexValue($0) != nil || $0 == 0x3A || $0 == 0x2E }),
                let address = SocketAddress(
                    host: String(decoding: inner, as: UTF8.self), port: port),
                case .ipv6 = address
            else { throw .oddAddress }
            return .address(address)
        }
        guard text.count <= hostBytesMax else { throw .host }
        let name = String(decoding: text.map(ByteClass.lower), as: UTF8.self)
        let labels = name.utf8.split(separator: 0x2E, omittingEmptySubsequences: false)
        for label in labels {
            guard (1...labelBytesMax).contains(label.count), label.first != 0x2D,
                label.last != 0x2D, label.allSatisfy(isLabel)
            else { throw .host }
        }
        guard let last = labels.last, isNumber(last) else { return .name(name) }
        // Whoever reads numbers leniently would read this as an address.
        guard let address = canonicalIPv4(labels) else { throw .oddAddress }
        return .address(.ipv4(address: address, port: port))
    }

    private static func isLabel(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x61...0x7A, 0x30...0x39, 0x2D, 0x5F: true
        default: false
        }
    }

    /// Decimal digits, or "0x" with hexadecimal digits or with nothing: what inet_aton takes for a part of an
    /// address. No top-level domain is one.
    private static func isNumber(_ label: Substring.UTF8View) -> Bool {
        if label.allSatisfy(ByteClass.isDigit) { return true }
        return label.starts(with: [0x30, 0x78])
            && label.dropFirst(2).allSatisfy { ByteClass.hexValue($0) != nil }
    }

    /// Four decimal numbers up to 255, without leading zeros.
    private static func canonicalIPv4(_ labels: [Substring.UTF8View]) -> UInt32? {
        guard labels.count == 4 else { return nil }
        var address: UInt32 = 0
        for label in labels {
            guard label.count <= 3, label.allSatisfy(ByteClass.isDigit),
                label.count == 1 || label.first != 0x30,
                let octet = UInt8(String(decoding: label, as: UTF8.self))
            else { return nil }
            address = address << 8 | UInt32(octet)
        }
        return address
    }

    /// Whether every byte is allowed, and every "%" stands before two hexadecimal digits.
    private static func isEncoded(
        _ text: ArraySlice<UInt8>, where isAllowed: (UInt8) -> Bool
    ) -> Bool {
        var index = text.startIndex
        while index < text.endIndex {
            if text[index] == 0x25 {
                guard index + 2 < text.endIndex, ByteClass.hexValue(text[index + 1]) != nil,
                    ByteClass.hexValue(text[index + 2]) != nil
                else { return false }
                index += 3
            } else {
                guard isAllowed(text[index]) else { return false }
                index += 1
            }
        }
        return true
    }
}

extension OutboundURL {
    /// The target of a redirect (RFC 9110 10.2.2, RFC 3986 5.2), without its fragment.
    package func resolving(location: String) throws(Refusal) -> OutboundURL {
        let reference = location.prefix { $0 != "#" }
        if reference.hasPrefix("//") { return try OutboundURL("\(scheme.rawValue):\(reference)") }
        if reference.hasPrefix("/") { return try OutboundURL("\(origin)\(reference)") }
        if reference.isEmpty || reference.hasPrefix("?") {
            return try OutboundURL("\(origin)\(path)\(reference)")
        }
        // A colon before any other delimiter ends a scheme.
        if let mark = reference.first(where: { ":/?".contains($0) }), mark == ":" {
            return try OutboundURL(String(reference))
        }
        let folder = path[...(path.lastIndex(of: "/") ?? path.startIndex)]
        return try OutboundURL("\(origin)\(folder)\(reference)")
    }
}
