package import HCIO

/// The binary header of the PROXY protocol (version 2; HAProxy, "The PROXY protocol", 2.2): who really connected,
/// said by a proxy before the first byte of what it carries. Bytes in, a header out; no I/O.
///
/// Version 1, the text form, is not spoken: a receiver must not guess which of two it is given.
package struct ProxyHeader: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        /// The proxy itself: a health check. Also what came by a family that has no address for us.
        case proxy
        case client(SocketAddress)
    }

    package let source: Source
    /// The client came to the proxy by TLS (2.2.6, PP2_CLIENT_SSL).
    package let isSecure: Bool
    /// Bytes that were its; what follows is the connection's own.
    package let byteCount: Int

    package enum Limits {
        /// The whole header: the fixed part, two addresses and what a proxy adds about TLS are some hundred bytes.
        package static let bytesMax = 4096
        static let fixedBytes = 16
    }

    package enum Failure: String, Error, Sendable, CaseIterable {
        case signature
        case version
        case command
        /// UDP, or a family that there is not.
        case family
        /// More than `Limits.bytesMax`.
        case tooLong
        /// Less than the family's addresses need.
        case addresses
        /// A TLV that reaches beyond the header, or is not of its kind's form.
        case extensions
        case checksum
    }

    static let signature: [UInt8] = [
        0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
    ]

    /// Reads the header at the beginning of `input`.
    ///
    /// - Returns: nil when it is not complete: ask again with more behind. Never asks for more than `bytesMax`.
    /// - Throws: as soon as the bytes that are there cannot become a header that is accepted.
    package init?(_ input: UnsafeRawBufferPointer) throws(Failure) {
        for (given, wanted) in zip(input, ProxyHeader.signature) where given != wanted {
            throw .signature
        }
        guard input.count > 12 else { return nil }
        guard input[12] >> 4 == 2 else { throw .version }
        guard input[12] & 0x0F <= 1 else { throw .command }
        let isLocal = input[12] & 0x0F == 0
        guard input.count >= Limits.fixedBytes else { return nil }
        let count = Limits.fixedBytes + (Int(input[14]) << 8 | Int(input[15]))
        guard count <= Limits.bytesMax else { throw .tooLong }
        guard input.count >= count else { return nil }
        let header = UnsafeRawBufferPointer(rebasing: input[..<count])
        let addressBytes: Int
        // A LOCAL connection's family and addresses say nothing (2.2), not even how long they are.
        switch (input[13], isLocal) {
        case (_, true), (0x00, _): addressBytes = 0
        case (0x11, _): addressBytes = 12
        case (0x21, _): addressBytes = 36
        case (0x31, _): addressBytes = 216
        default: throw .family
        }
        guard count - Limits.fixedBytes >= addressBytes else { throw .addresses }
        byteCount = count
        guard !isLocal else {
            source = .proxy
            isSecure = false
            return
        }
        switch input[13] {
        case 0x11: source = .client(.ipv4(address: header.integer(16), port: header.integer(24)))
        case 0x21:
            let address = SocketAddress.ipv6(
                high: header.integer(16), low: header.integer(24), scope: 0,
                port: header.integer(48))
            source = .client(address.unmapped)
        default: source = .proxy
        }
        // Without a known family what follows need not be TLVs.
        isSecure =
            input[13] == 0x00
            ? false : try ProxyHeader.readExtensions(header, from: Limits.fixedBytes + addressBytes)
    }

    // MARK: Extensions (2.2.1 to 2.2.7)

    private enum Kind {
        static let checksum: UInt8 = 0x03
        static let tls: UInt8 = 0x20
    }

    /// Walks over the TLVs: the checksum is checked, TLS is noted, the others are skipped.
    private static func readExtensions(_ header: UnsafeRawBufferPointer, from start: Int)
        throws(Failure) -> Bool
    {
        var isSecure = false
        var checksum: (value: UInt32, at: Int)?
        var position = start
        while position < header.count {
            guard header.count - position >= 3 else { throw .extensions }
            let count = Int(header.integer(position + 1) as UInt16)
            let value = position + 3
            guard count <= header.count - value else { throw .extensions }
            switch header[position] {
            case Kind.checksum:
                guard count == 4, checksum == nil else { throw .extensions }
                checksum = (header.integer(value), value)
            case Kind.tls:
                // The client's flags and what the verification said; then TLVs of its own.
                guard count >= 5 else { throw .extensions }
                if header[value] & 1 != 0 { isSecure = true }
            default: break
            }
            position = value + count
        }
        guard let checksum else { return isSecure }
        // Over the whole header, the checksum's own place taken as zero (2.2.3).
        var sum = CRC32C()
        sum.add(header.slice(0..<checksum.at))
        sum.add(zeroBytes: 4)
        sum.add(header.slice(checksum.at + 4..<header.count))
        guard sum.value == checksum.value else { throw .checksum }
        return isSecure
    }
}

extension UnsafeRawBufferPointer {
    /// The big-endian integer at `offset`.
    fileprivate func integer<Integer: FixedWidthInteger>(_ offset: Int) -> Integer {
        Integer(bigEndian: loadUnaligned(fromByteOffset: offset, as: Integer.self))
    }
}

/// The CRC of RFC 3720 12.1 (Castagnoli's polynomial, reflected).
struct CRC32C {
    private var register: UInt32 = .max

    var value: UInt32 { ~register }

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes { add(byte) }
    }

    mutating func add(zeroBytes count: Int) {
        for _ in 0..<count { add(0) }
    }

    /// Bit by bit: a header has some hundred bytes, once per connection.
    private mutating func add(_ byte: UInt8) {
        register ^= UInt32(byte)
        for _ in 0..<8 {
            register = register & 1 != 0 ? register >> 1 ^ 0x82F6_3B78 : register >> 1
        }
    }
}
