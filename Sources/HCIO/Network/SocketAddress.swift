internal import CLinux
package import HCCore

/// Where a socket is: an IPv4 or IPv6 address with a port, or a path.
package enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// `address` has the first octet in its highest byte: 127.0.0.1 is 0x7f000001.
    case ipv4(address: UInt32, port: UInt16)
    /// `high` and `low` are the address' first and last eight octets. `scope` is the interface of a
    /// link-local address, else 0.
    case ipv6(high: UInt64, low: UInt64, scope: UInt32, port: UInt16)
    case unix(path: String)

    package static func loopback(port: UInt16) -> SocketAddress {
        .ipv4(address: 0x7f00_0001, port: port)
    }

    /// Parses `127.0.0.1:8080`, `[::1]:8080`, `/run/x.sock` and `unix:x.sock`. Names are not resolved.
    package init?(_ text: String) {
        if text.hasPrefix("unix:") {
            self.init(path: String(text.dropFirst(5)))
            return
        }
        if text.hasPrefix("/") {
            self.init(path: text)
            return
        }
        guard let colon = text.lastIndex(of: ":"),
            let port = SocketAddress.parsePort(text[text.index(after: colon)...])
        else { return nil }
        var host = text[..<colon]
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if isBracketed { host = host.dropFirst().dropLast() }
        // Without brackets the last group of an IPv6 address would be taken for a port.
        guard isBracketed == host.contains(":") else { return nil }
        self.init(host: String(host), port: port)
    }

    /// An address from its numeric text, without brackets.
    package init?(host: String, port: UInt16) {
        var ipv4 = in_addr()
        if inet_pton(AF_INET, host, &ipv4) == 1 {
            self = .ipv4(address: UInt32(bigEndian: ipv4.s_addr), port: port)
            return
        }
        var octets = [UInt8](repeating: 0, count: 16)
        guard inet_pton(AF_INET6, host, &octets) == 1 else { return nil }
        self.init(octets: octets, scope: 0, port: port)
    }

    private init?(path: String) {
        // man 7 unix: sun_path has 108 bytes, the last is NUL.
        guard (1...107).contains(path.utf8.count), !path.utf8.contains(0) else { return nil }
        self = .unix(path: path)
    }

    private init(octets: [UInt8], scope: UInt32, port: UInt16) {
        let high = octets.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let low = octets.suffix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        self = .ipv6(high: high, low: low, scope: scope, port: port)
    }

    private static func parsePort(_ text: Substring) -> UInt16? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        return UInt16(text)
    }

    /// 0 for a path.
    package var port: UInt16 {
        switch self {
        case .ipv4(_, let port), .ipv6(_, _, _, let port): port
        case .unix: 0
        }
    }

    /// The numeric address without port and brackets, or the path.
    package var host: String {
        switch self {
        case .ipv4(let address, _):
            SocketAddress.ipv4Text(address)
        case .ipv6(let high, let low, _, _):
            SocketAddress.ipv6Text(high: high, low: low)
        case .unix(let path):
            path
        }
    }

    package var description: String {
        switch self {
        case .ipv4(_, let port): "\(host):\(port)"
        case .ipv6(_, _, _, let port): "[\(host)]:\(port)"
        case .unix(let path): path.hasPrefix("/") ? path : "unix:\(path)"
        }
    }

    /// ::ffff:192.0.2.1 as 192.0.2.1: what an IPv4 client of an IPv6 socket is to limits and logs.
    package var unmapped: SocketAddress {
        if case .ipv6(0, let low, _, let port) = self, low >> 32 == 0xffff {
            return .ipv4(address: UInt32(truncatingIfNeeded: low), port: port)
        }
        return self
    }

    private static func octets(high: UInt64, low: UInt64) -> [UInt8] {
        (0..<16).map { index in
            UInt8(truncatingIfNeeded: (index < 8 ? high : low) >> UInt64(56 - index % 8 * 8))
        }
    }

    private static func ipv4Text(_ address: UInt32) -> String {
        String(unsafeUninitializedCapacity: ipv4BytesMax) {
            write(ipv4: address, to: UnsafeMutableRawBufferPointer($0))
        }
    }

    fileprivate static let ipv4BytesMax = 15

    /// Dotted decimal.
    /// - Returns: how many bytes, at most `ipv4BytesMax`.
    fileprivate static func write(
        ipv4 address: UInt32, to text: UnsafeMutableRawBufferPointer
    ) -> Int {
        var count = 0
        func append(_ byte: UInt8) {
            text[count] = byte
            count += 1
        }
        for place in 0..<4 {
            if place > 0 { append(UInt8(ascii: ".")) }
            let number = UInt8(truncatingIfNeeded: address >> (24 - 8 * UInt32(place)))
            if number >= 100 { append(UInt8(ascii: "0") + number / 100) }
            if number >= 10 { append(UInt8(ascii: "0") + number / 10 % 10) }
            append(UInt8(ascii: "0") + number % 10)
        }
        return count
    }

    private static func ipv6Text(high: UInt64, low: UInt64) -> String {
        let octets = octets(high: high, low: low)
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(AF_INET6, octets, &text, socklen_t(text.count)) != nil else {
            preconditionFailure("an address of 16 octets has a text")
        }
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

extension LogLine {
    /// The address' `host`. It stands in each line of the access log.
    package mutating func add(_ name: StaticString, hostOf address: SocketAddress) {
        switch address {
        case .ipv4(let address, _):
            add(name, atMost: SocketAddress.ipv4BytesMax) {
                SocketAddress.write(ipv4: address, to: $0)
            }
        case .ipv6, .unix: add(name, address.host)
        }
    }
}

// MARK: sockaddr

extension SocketAddress {
    var family: Int32 {
        switch self {
        case .ipv4: AF_INET
        case .ipv6: AF_INET6
        case .unix: AF_UNIX
        }
    }

    /// Calls `body` with the address as the kernel wants it.
    func withStorage<Answer>(
        _ body: (UnsafePointer<sockaddr_storage>, socklen_t) -> Answer
    ) -> Answer {
        var storage = sockaddr_storage()
        let length: socklen_t
        switch self {
        case .ipv4(let address, let port):
            length = hc_address_set_in(&storage, address, port)
        case .ipv6(let high, let low, let scope, let port):
            let octets = SocketAddress.octets(high: high, low: low)
            length = hc_address_set_in6(&storage, octets, scope, port)
        case .unix(let path):
            length = hc_address_set_un(&storage, path)
            precondition(length > 0, "a socket path of more than 107 bytes")
        }
        return withUnsafePointer(to: &storage) { body($0, length) }
    }

    /// Nil for a family that is none of ours.
    init?(_ storage: UnsafePointer<sockaddr_storage>) {
        switch hc_address_family(storage) {
        case AF_INET:
            self = .ipv4(address: hc_address_in_host(storage), port: hc_address_port(storage))
        case AF_INET6:
            var octets = [UInt8](repeating: 0, count: 16)
            hc_address_in6_host(storage, &octets)
            self.init(
                octets: octets, scope: hc_address_in6_scope(storage), port: hc_address_port(storage)
            )
        case AF_UNIX:
            self = .unix(path: String(cString: hc_address_un_path(storage)))
        default:
            return nil
        }
    }

    static func local(of fd: Int32) throws(SystemError) -> SocketAddress? {
        var storage = sockaddr_storage()
        try SystemCall.make("getsockname") { hc_getsockname(fd, &storage) }
        return SocketAddress(&storage)
    }

    static func peer(of fd: Int32) throws(SystemError) -> SocketAddress? {
        var storage = sockaddr_storage()
        try SystemCall.make("getpeername") { hc_getpeername(fd, &storage) }
        return SocketAddress(&storage)
    }
}
