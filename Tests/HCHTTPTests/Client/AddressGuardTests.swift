import HCIO
import Testing

@testable import HCHTTP

@Suite("The guard lets tenants reach hosts of the internet and nothing else")
struct AddressGuardTests {
    /// The first and last address of each block and its neighbours on both sides.
    static let blocks: [(first: String, last: String, kind: AddressKind)] = [
        ("0.0.0.0", "0.255.255.255", .unspecified),
        ("10.0.0.0", "10.255.255.255", .private),
        ("100.64.0.0", "100.127.255.255", .shared),
        ("127.0.0.0", "127.255.255.255", .loopback),
        ("168.63.129.16", "168.63.129.16", .cloudService),
        ("169.254.0.0", "169.254.255.255", .linkLocal),
        ("172.16.0.0", "172.31.255.255", .private),
        ("192.0.0.0", "192.0.0.255", .reserved),
        ("192.0.2.0", "192.0.2.255", .documentation),
        ("192.31.196.0", "192.31.196.255", .reserved),
        ("192.52.193.0", "192.52.193.255", .reserved),
        ("192.88.99.0", "192.88.99.255", .tunnel),
        ("192.168.0.0", "192.168.255.255", .private),
        ("192.175.48.0", "192.175.48.255", .reserved),
        ("198.18.0.0", "198.19.255.255", .benchmarking),
        ("198.51.100.0", "198.51.100.255", .documentation),
        ("203.0.113.0", "203.0.113.255", .documentation),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", .private),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", .documentation),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", .tunnel),
        ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", .reserved),
    ]

    static func address(_ text: String) throws -> SocketAddress {
        try #require(SocketAddress(host: text, port: 443), "no address: \(text)")
    }

    private static func neighbour(_ address: SocketAddress, _ step: Int) -> SocketAddress? {
        switch address {
        case .ipv4(let number, let port):
            let next =
                step > 0
                ? number.addingReportingOverflow(1) : number.subtractingReportingOverflow(1)
            return next.overflow ? nil : .ipv4(address: next.partialValue, port: port)
        case .ipv6(let high, let low, let scope, let port):
            let sum =
                step > 0 ? low.addingReportingOverflow(1) : low.subtractingReportingOverflow(1)
            let next = sum.overflow ? high &+ UInt64(bitPattern: Int64(step)) : high
            return .ipv6(high: next, low: sum.partialValue, scope: scope, port: port)
        case .unix: return nil
        }
    }

    @Test("a block is refused from its first address to its last", arguments: blocks)
    func bounds(_ block: (first: String, last: String, kind: AddressKind)) throws {
        let first = try Self.address(block.first)
        let last = try Self.address(block.last)
        #expect(AddressKind(first) == block.kind)
        #expect(AddressKind(last) == block.kind)
        if let before = Self.neighbour(first, -1) {
            #expect(AddressKind(before) != block.kind, "\(before)")
        }
        if let after = Self.neighbour(last, 1) {
            #expect(AddressKind(after) != block.kind, "\(after)")
        }
    }

    static let kinds: [(String, AddressKind)] = [
        ("1.0.0.0", .global), ("8.8.8.8", .global), ("9.255.255.255", .global),
        ("11.0.0.0", .global), ("100.63.255.255", .global), ("100.128.0.0", .global),
        ("126.255.255.255", .global), ("128.0.0.0", .global), ("168.63.129.15", .global),
        ("168.63.129.17", .global), ("169.253.255.255", .global), ("169.255.0.0", .global),
        ("172.15.255.255", .global), ("172.32.0.0", .global), ("191.255.255.255", .global),
        ("192.0.1.255", .global), ("192.0.3.0", .global), ("192.167.255.255", .global),
        ("192.169.0.0", .global), ("198.17.255.255", .global), ("198.20.0.0", .global),
        ("198.51.99.255", .global), ("203.0.114.0", .global), ("223.255.255.255", .global),
        ("224.0.0.0", .multicast), ("239.255.255.255", .multicast), ("233.252.0.1", .documentation),
        ("240.0.0.0", .reserved), ("255.255.255.254", .reserved), ("255.255.255.255", .broadcast),
        // Metadata services.
        ("169.254.169.254", .linkLocal), ("169.254.170.2", .linkLocal),
        ("100.100.100.200", .shared), ("192.0.0.192", .reserved), ("fd00:ec2::254", .uniqueLocal),
        ("fd20:ce::254", .uniqueLocal),
        // IPv6.
        ("::", .unspecified), ("::1", .loopback), ("::2", .embedded), ("::7f00:1", .embedded),
        ("::ffff:0:0", .embedded), ("::ffff:8.8.8.8", .embedded), ("::ffff:127.0.0.1", .embedded),
        ("::ffff:0:127.0.0.1", .embedded), ("::1:0:0:1", .reserved), ("0:0:0:1::", .reserved),
        ("64:ff9b::8.8.8.8", .global), ("64:ff9b::127.0.0.1", .loopback),
        ("64:ff9b::10.0.0.1", .private), ("64:ff9b::169.254.169.254", .linkLocal),
        ("64:ff9b::1:0:0", .reserved), ("64:ff9b:2::1", .reserved),
        ("100::1", .reserved), ("100:0:0:1::1", .reserved), ("1fff::1", .reserved),
        ("2000::", .global), ("2001::1", .tunnel), ("2001:0:ffff::1", .tunnel),
        ("2001:1::1", .reserved), ("2001:2::1", .benchmarking), ("2001:2:1::1", .reserved),
        ("2001:10::1", .reserved), ("2001:20::1", .reserved), ("2001:1ff:ffff::1", .reserved),
        ("2001:200::1", .global), ("2001:db7:ffff::1", .global), ("2001:db9::1", .global),
        ("2003::1", .global), ("2606:4700::1111", .global), ("2a00:1450::1", .global),
        ("3ffd:ffff::1", .global), ("3ffe::1", .reserved), ("3fff::1", .documentation),
        ("3fff:fff:ffff::1", .documentation), ("3fff:1000::1", .global), ("4000::1", .reserved),
        ("5f00::1", .reserved), ("fbff::1", .reserved), ("fc00::", .uniqueLocal),
        ("fdff:ffff::1", .uniqueLocal), ("fe00::1", .reserved), ("fe7f::1", .reserved),
        ("fe80::1", .linkLocal), ("febf:ffff::1", .linkLocal), ("fec0::1", .siteLocal),
        ("feff::1", .siteLocal), ("ff00::", .multicast), ("ff02::1", .multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", .multicast),
        // ISATAP.
        ("2a00:1450::5efe:10.0.0.1", .tunnel), ("2a00:1450::200:5efe:10.0.0.1", .tunnel),
        ("2a00:1450::5efe:8.8.8.8", .global),
    ]

    @Test("each address is what the registries say", arguments: kinds)
    func registries(_ text: String, _ kind: AddressKind) throws {
        #expect(AddressKind(try Self.address(text)) == kind)
    }

    @Test("an address of one interface, or a path, is never global")
    func scopes() {
        let scoped = SocketAddress.ipv6(
            high: 0x2A00_1450_0000_0000, low: 1, scope: 2, port: 443)
        #expect(AddressKind(scoped) == .linkLocal)
        #expect(AddressKind(.unix(path: "/run/docker.sock")) == .local)
    }

    static let urls: [(String, GuardRules.Refusal?)] = [
        ("https://a.example/", nil), ("https://8.8.8.8/", nil), ("https://[2a00:1450::1]/", nil),
        ("http://a.example/", .plainHTTP), ("https://a.example:8443/", .port(8443)),
        ("https://a.example:22/", .port(22)), ("https://localhost/", .localName),
        ("https://metadata/", .localName), ("https://a.localhost/", .localName),
        ("https://metadata.google.internal/", .localName), ("https://db.local/", .localName),
        ("https://router.home.arpa/", .localName), ("https://10.0.0.1/", .address(.private)),
        ("https://127.0.0.1/", .address(.loopback)), ("https://[::1]/", .address(.loopback)),
        ("https://[::ffff:169.254.169.254]/", .address(.embedded)),
        ("https://169.254.169.254/latest/meta-data/", .address(.linkLocal)),
    ]

    @Test("a URL is judged before anybody is asked", arguments: urls)
    func judges(_ text: String, _ refusal: GuardRules.Refusal?) throws {
        let url = try OutboundURL(text)
        if let refusal {
            #expect(throws: refusal) { try GuardRules().check(url) }
        } else {
            #expect(throws: Never.self) { try GuardRules().check(url) }
        }
    }

    @Test("plain http and other ports are the operator's to open, and ranges too")
    func exceptions() throws {
        let rules = GuardRules(
            ports: [80, 443, 9443], allowsPlainHTTP: true,
            exceptions: [try #require(AddressBlock("10.20.0.0/16"))])
        for text in ["http://a.example/", "https://a.example:9443/", "https://10.20.255.255/"] {
            #expect(throws: Never.self) { try rules.check(OutboundURL(text)) }
        }
        #expect(throws: GuardRules.Refusal.address(.private)) {
            try rules.check(OutboundURL("https://10.21.0.0/"))
        }
        #expect(throws: GuardRules.Refusal.address(.embedded)) {
            try rules.check(OutboundURL("https://[::ffff:10.20.0.1]/"))
        }
    }

    @Test("one bad address among good ones refuses the name")
    func mixed() throws {
        let addresses = [try Self.address("8.8.8.8"), try Self.address("10.0.0.1")]
        #expect(throws: GuardRules.Refusal.address(.private)) {
            try GuardRules().check(addresses)
        }
        #expect(throws: Never.self) { try GuardRules().check([addresses[0]]) }
    }
}
