package import HCIO

/// What an address is for, by the registries of special-purpose addresses (RFC 6890, iana-ipv4-special-registry,
/// iana-ipv6-special-registry). Only `global` is somebody else's host on the internet.
package enum AddressKind: String, Sendable, Hashable, CaseIterable {
    case global
    case unspecified
    case loopback
    case `private`
    case uniqueLocal = "unique-local"
    case linkLocal = "link-local"
    case siteLocal = "site-local"
    /// Between a provider and its customers (RFC 6598).
    case shared
    case multicast
    case broadcast
    case documentation
    case benchmarking
    case reserved
    /// A cloud's own services, where they have an address that is global to others.
    case cloudService = "cloud-service"
    /// An IPv4 address in an IPv6 one (RFC 4291 2.5.5): said so, it would be judged; hidden so, it is refused.
    case embedded
    /// 6to4 and Teredo: relays to any IPv4 address, given up by everybody else.
    case tunnel
    /// No address of the internet: a path.
    case local

    package init(_ address: SocketAddress) {
        switch address {
        case .ipv4(let address, _): self = AddressKind.ofIPv4(address)
        case .ipv6(let high, let low, let scope, _):
            // Without a scope a link-local address means nothing; with one, no other does.
            self = scope == 0 ? AddressKind.ofIPv6(high, low) : .linkLocal
        case .unix: self = .local
        }
    }

    // MARK: IPv4

    private static let blocks4: [(UInt32, Int, AddressKind)] = [
        (0x0000_0000, 8, .unspecified),  // 0.0.0.0/8, RFC 791: Linux connects 0.0.0.0 to itself
        (0x0A00_0000, 8, .private),  // 10.0.0.0/8, RFC 1918
        (0x6440_0000, 10, .shared),  // 100.64.0.0/10, RFC 6598; Alibaba's metadata in it
        (0x7F00_0000, 8, .loopback),  // 127.0.0.0/8, RFC 1122
        (0xA83F_8110, 32, .cloudService),  // 168.63.129.16, Azure's in each network
        (0xA9FE_0000, 16, .linkLocal),  // 169.254.0.0/16, RFC 3927; metadata of most clouds in it
        (0xAC10_0000, 12, .private),  // 172.16.0.0/12, RFC 1918
        (0xC000_0000, 24, .reserved),  // 192.0.0.0/24, RFC 6890; Oracle's metadata in it
        (0xC000_0200, 24, .documentation),  // 192.0.2.0/24, RFC 5737
        (0xC01F_C400, 24, .reserved),  // 192.31.196.0/24, AS112, RFC 7535
        (0xC034_C100, 24, .reserved),  // 192.52.193.0/24, AMT, RFC 7450
        (0xC058_6300, 24, .tunnel),  // 192.88.99.0/24, 6to4 relays, RFC 7526
        (0xC0A8_0000, 16, .private),  // 192.168.0.0/16, RFC 1918
        (0xC0AF_3000, 24, .reserved),  // 192.175.48.0/24, AS112, RFC 7534
        (0xC612_0000, 15, .benchmarking),  // 198.18.0.0/15, RFC 2544
        (0xC633_6400, 24, .documentation),  // 198.51.100.0/24, RFC 5737
        (0xCB00_7100, 24, .documentation),  // 203.0.113.0/24, RFC 5737
        (0xE9FC_0000, 24, .documentation),  // 233.252.0.0/24, RFC 6676
        (0xE000_0000, 4, .multicast),  // 224.0.0.0/4, RFC 1112
        (0xFFFF_FFFF, 32, .broadcast),  // RFC 919
        (0xF000_0000, 4, .reserved),  // 240.0.0.0/4, RFC 1112
    ]

    private static func ofIPv4(_ address: UInt32) -> AddressKind {
        for (block, bits, kind) in blocks4 where (address ^ block) >> UInt32(32 - bits) == 0 {
            return kind
        }
        return .global
    }

    // MARK: IPv6

    /// The first 64 bits decide in all of these.
    private static let blocks6: [(UInt64, Int, AddressKind)] = [
        (0x0064_FF9B_0001_0000, 48, .private),  // 64:ff9b:1::/48, NAT64 of one's own, RFC 8215
        (0x0100_0000_0000_0000, 64, .reserved),  // 100::/64, discarded, RFC 6666
        (0x0100_0000_0000_0001, 64, .reserved),  // 100:0:0:1::/64, dummy, RFC 9780
        (0x2001_0000_0000_0000, 32, .tunnel),  // 2001::/32, Teredo, RFC 4380
        (0x2001_0002_0000_0000, 48, .benchmarking),  // 2001:2::/48, RFC 5180
        (0x2001_0000_0000_0000, 23, .reserved),  // 2001::/23, protocols of the IETF, RFC 2928
        (0x2001_0DB8_0000_0000, 32, .documentation),  // 2001:db8::/32, RFC 3849
        (0x2002_0000_0000_0000, 16, .tunnel),  // 2002::/16, 6to4, RFC 3056
        (0x2620_004F_8000_0000, 48, .reserved),  // 2620:4f:8000::/48, AS112, RFC 7534
        (0x3FFE_0000_0000_0000, 16, .reserved),  // 3ffe::/16, the 6bone, given back, RFC 3701
        (0x3FFF_0000_0000_0000, 20, .documentation),  // 3fff::/20, RFC 9637
        (0x5F00_0000_0000_0000, 16, .reserved),  // 5f00::/16, segment routing, RFC 9602
        (0xFC00_0000_0000_0000, 7, .uniqueLocal),  // fc00::/7, RFC 4193; Amazon's metadata in it
        (0xFE80_0000_0000_0000, 10, .linkLocal),  // fe80::/10, RFC 4291
        (0xFEC0_0000_0000_0000, 10, .siteLocal),  // fec0::/10, RFC 3879
        (0xFF00_0000_0000_0000, 8, .multicast),  // ff00::/8, RFC 4291
    ]

    private static func ofIPv6(_ high: UInt64, _ low: UInt64) -> AddressKind {
        if high == 0 {
            switch low {
            case 0: return .unspecified
            case 1: return .loopback
            // ::/96 compatible, ::ffff:0:0/96 mapped, ::ffff:0:0:0/96 translated (RFC 2765).
            case _ where low >> 32 == 0 || low >> 32 == 0xFFFF || low >> 32 == 0xFFFF_0000:
                return .embedded
            default: return .reserved
            }
        }
        // 64:ff9b::/96, RFC 6052: how a network without IPv4 reaches the hosts that have nothing else. It
        // must not be used for addresses that are not global; here it is not.
        if high == 0x0064_FF9B_0000_0000, low >> 32 == 0 {
            return ofIPv4(UInt32(truncatingIfNeeded: low))
        }
        for (block, bits, kind) in blocks6 where (high ^ block) >> UInt64(64 - bits) == 0 {
            return kind
        }
        // 2000::/3 is all that was ever given out (RFC 4291 2.4).
        guard high >> 61 == 1 else { return .reserved }
        // ISATAP (RFC 5214 6.1): a tunnel to the IPv4 address in the last 32 bits.
        if low >> 32 & 0xFDFF_FFFF == 0x0000_5EFE {
            return ofIPv4(UInt32(truncatingIfNeeded: low)) == .global ? .global : .tunnel
        }
        return .global
    }
}
