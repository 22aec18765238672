package import HCIO

/// A range of addresses by its common prefix: `10.0.0.0/8`, `2001:db8::/32`; a single address is a range of one.
package struct AddressBlock: Sendable, Hashable, CustomStringConvertible {
    private enum Network: Hashable {
        case ipv4(UInt32, mask: UInt32)
        case ipv6(high: UInt64, low: UInt64, highMask: UInt64, lowMask: UInt64)
    }

    private let network: Network
    package let description: String

    /// - Returns: nil for what is no address, a prefix longer than the address, and an address with bits beyond its
    ///   prefix: `10.1.2.3/8` is more likely a mistake than a wish.
    package init?(_ text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = SocketAddress(host: String(parts[0]), port: 0) else { return nil }
        var length: Int?
        if parts.count == 2 {
            guard (1...3).contains(parts[1].utf8.count),
                parts[1].utf8.allSatisfy({ ByteClass.isDigit($0) }), let number = Int(parts[1])
            else { return nil }
            length = number
        }
        switch address {
        case .ipv4(let address, _):
            let length = length ?? 32
            guard length <= 32 else { return nil }
            // A shift by the whole width gives 0 in Swift.
            let mask = UInt32.max << UInt32(32 - length)
            guard address & ~mask == 0 else { return nil }
            network = .ipv4(address, mask: mask)
        case .ipv6(let high, let low, _, _):
            let length = length ?? 128
            guard length <= 128 else { return nil }
            let highMask = UInt64.max << UInt64(64 - min(64, length))
            let lowMask = UInt64.max << UInt64(64 - max(0, length - 64))
            guard high & ~highMask == 0, low & ~lowMask == 0 else { return nil }
            network = .ipv6(high: high, low: low, highMask: highMask, lowMask: lowMask)
        case .unix: return nil
        }
        description = text
    }

    package func contains(_ address: SocketAddress) -> Bool {
        switch (network, address) {
        case (.ipv4(let base, let mask), .ipv4(let address, _)): address & mask == base
        case (
            .ipv6(let baseHigh, let baseLow, let highMask, let lowMask),
            .ipv6(let high, let low, _, _)
        ):
            high & highMask == baseHigh && low & lowMask == baseLow
        default: false
        }
    }
}

/// Who is trusted to speak for others: the addresses of our own proxies. Empty: nobody is.
package struct TrustedProxies: Sendable, ExpressibleByArrayLiteral {
    /// A configuration with more is refused: each connection walks through them.
    package static let blocksMax = 256

    package let blocks: [AddressBlock]

    package init(_ blocks: [AddressBlock]) {
        self.blocks = blocks
    }

    package init(arrayLiteral blocks: AddressBlock...) {
        self.init(blocks)
    }

    package var isEmpty: Bool { blocks.isEmpty }

    /// An IPv4 address that an IPv6 socket shows in its mapped form is the IPv4 address.
    package func contains(_ address: SocketAddress) -> Bool {
        guard !blocks.isEmpty else { return false }
        let address = address.unmapped
        return blocks.contains { $0.contains(address) }
    }
}
