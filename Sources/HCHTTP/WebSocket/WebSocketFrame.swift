/// Which side of a connection somebody is: a client masks what it sends, a server does not (RFC 6455 5.1).
package enum WebSocketRole: Sendable {
    case client
    case server
}

package enum WebSocketOpcode: UInt8, Sendable {
    case continuation = 0
    case text = 1
    case binary = 2
    case close = 8
    case ping = 9
    case pong = 10

    var isControl: Bool { rawValue >= 8 }
}

/// The head of a frame (RFC 6455 5.2), checked for what can be wrong in it alone.
struct WebSocketFrameHeader: Equatable {
    /// Of a control frame's content.
    static let controlBytesMax = 125

    let opcode: WebSocketOpcode
    let isFinal: Bool
    /// RSV1: the beginning of a compressed message (RFC 7692 6).
    let isCompressed: Bool
    /// Of the content that follows.
    let count: Int
    /// The masking key as a little-endian number: its first byte is the lowest. 0 without a mask.
    let mask: UInt32
    /// Of the head itself: 2 to 14.
    let headerCount: Int

    /// Reads the head that `bytes` begins with.
    ///
    /// - Parameters:
    ///   - sender: who has sent it.
    ///   - allowsCompression: whether RSV1 has a meaning on a frame that begins a message.
    /// - Returns: nil when more bytes are needed.
    static func read(
        _ bytes: UnsafeRawBufferPointer, from sender: WebSocketRole, allowsCompression: Bool
    ) throws(WebSocketError) -> WebSocketFrameHeader? {
        guard bytes.count >= 1 else { return nil }
        let first = bytes[0]
        guard first & 0x30 == 0 else { throw .reservedBits }
        guard let opcode = WebSocketOpcode(rawValue: first & 0x0F) else { throw .reservedOpcode }
        let isFinal = first & 0x80 != 0
        let isCompressed = first & 0x40 != 0
        if isCompressed {
            guard allowsCompression, opcode == .text || opcode == .binary else {
                throw .reservedBits
            }
        }
        if opcode.isControl, !isFinal { throw .fragmentedControl }

        guard bytes.count >= 2 else { return nil }
        let second = bytes[1]
        let isMasked = second & 0x80 != 0
        switch sender {
        case .client: if !isMasked { throw .unmasked }
        case .server: if isMasked { throw .masked }
        }
        var count = Int(second & 0x7F)
        var position = 2
        if opcode.isControl, count > controlBytesMax { throw .controlTooLong }
        if count == 126 {
            guard bytes.count >= 4 else { return nil }
            count = Int(bytes[2]) << 8 | Int(bytes[3])
            guard count > 125 else { throw .lengthNotMinimal }
            position = 4
        } else if count == 127 {
            guard bytes.count >= 10 else { return nil }
            let long = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self))
            guard long >> 63 == 0 else { throw .lengthOutOfRange }
            guard long > 0xFFFF else { throw .lengthNotMinimal }
            count = Int(long)
            position = 10
        }
        var mask: UInt32 = 0
        if isMasked {
            guard bytes.count >= position + 4 else { return nil }
            mask = UInt32(
                littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
            position += 4
        }
        return WebSocketFrameHeader(
            opcode: opcode, isFinal: isFinal, isCompressed: isCompressed, count: count, mask: mask,
            headerCount: position)
    }

    /// Writes a head; the length in as few bytes as it needs.
    ///
    /// - Parameter mask: nil for a server's frame, which has none.
    static func write(
        _ opcode: WebSocketOpcode, isFinal: Bool = true, isCompressed: Bool = false, count: Int,
        mask: UInt32? = nil, into output: inout [UInt8]
    ) {
        output.append((isFinal ? 0x80 : 0) | (isCompressed ? 0x40 : 0) | opcode.rawValue)
        let maskBit: UInt8 = mask == nil ? 0 : 0x80
        if count < 126 {
            output.append(maskBit | UInt8(count))
        } else if count <= 0xFFFF {
            output.append(maskBit | 126)
            output.append(UInt8(count >> 8))
            output.append(UInt8(count & 0xFF))
        } else {
            output.append(maskBit | 127)
            withUnsafeBytes(of: UInt64(count).bigEndian) { output.append(contentsOf: $0) }
        }
        if let mask { withUnsafeBytes(of: mask.littleEndian) { output.append(contentsOf: $0) } }
    }
}

/// The masking of RFC 6455 5.3, eight bytes at a time. Doing it twice undoes it.
enum WebSocketMask {
    /// - Parameters:
    ///   - mask: the key as a little-endian number.
    ///   - phase: how many bytes of the same frame came before these.
    static func apply(
        _ mask: UInt32, phase: Int, to bytes: UnsafeMutableRawBufferPointer
    ) {
        guard mask != 0, let base = bytes.baseAddress else { return }
        let turned = rotated(mask, by: phase)
        let wide = (UInt64(turned) << 32 | UInt64(turned)).littleEndian
        var index = 0
        let words = bytes.count & ~7
        while index < words {
            let word = base.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            base.storeBytes(of: word ^ wide, toByteOffset: index, as: UInt64.self)
            index += 8
        }
        var rest = turned
        while index < bytes.count {
            bytes[index] ^= UInt8(truncatingIfNeeded: rest)
            rest = rest >> 8 | rest << 24
            index += 1
        }
    }

    /// The key as it is for the byte after `phase` others.
    static func rotated(_ mask: UInt32, by phase: Int) -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: phase & 3) * 8
        return bits == 0 ? mask : mask >> bits | mask << (32 - bits)
    }
}
