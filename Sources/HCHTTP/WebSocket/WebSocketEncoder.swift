/// Writes the frames of one direction: a message is one frame.
package struct WebSocketEncoder: ~Copyable {
    private let deflate: WebSocketDeflateAgreement?
    private let pool: WebSocketDeflatePool?
    /// Of a socket whose compressor remembers; made with its first message.
    private var deflater: WebSocketDeflater?

    package init(
        deflate: WebSocketDeflateAgreement? = nil, pool: WebSocketDeflatePool? = nil
    ) {
        self.deflate = deflate
        self.pool = pool
    }

    /// The frame of a message, compressed where that was agreed on and is worth it.
    package mutating func message(_ message: WebSocketMessage) -> [UInt8] {
        let opcode: WebSocketOpcode = message.kind == .text ? .text : .binary
        guard let deflate, let pool, message.count >= pool.configuration.messageBytesMin,
            message.count <= pool.configuration.messageBytesMax
        else { return WebSocketEncoder.frame(opcode, message.bytes) }

        let compressor: WebSocketDeflater
        if deflate.serverForgets {
            compressor = pool.deflater(windowBits: deflate.serverWindowBits)
        } else if let deflater {
            compressor = deflater
        } else {
            compressor = pool.makeDeflater(windowBits: deflate.serverWindowBits)
            deflater = compressor
        }
        var compressed: [UInt8] = []
        message.bytes.withUnsafeBytes {
            compressor.compress($0, forgets: deflate.serverForgets, into: &compressed)
        }
        // What was put through a compressor that remembers must be sent: the next message may refer to it.
        if deflate.serverForgets, compressed.count >= message.count {
            return WebSocketEncoder.frame(opcode, message.bytes)
        }
        return WebSocketEncoder.frame(opcode, compressed, isCompressed: true)
    }

    static func frame(
        _ opcode: WebSocketOpcode, _ content: [UInt8], isFinal: Bool = true,
        isCompressed: Bool = false, mask: UInt32? = nil
    ) -> [UInt8] {
        var frame: [UInt8] = []
        frame.reserveCapacity(content.count + 14)
        WebSocketFrameHeader.write(
            opcode, isFinal: isFinal, isCompressed: isCompressed, count: content.count, mask: mask,
            into: &frame)
        let start = frame.count
        frame.append(contentsOf: content)
        if let mask {
            frame.withUnsafeMutableBytes { bytes in
                WebSocketMask.apply(
                    mask, phase: 0, to: UnsafeMutableRawBufferPointer(rebasing: bytes[start...]))
            }
        }
        return frame
    }

    /// A Close frame. A reason that does not fit in 123 bytes is cut between two characters.
    static func close(_ code: WebSocketCloseCode?, reason: String) -> [UInt8] {
        guard let code else { return frame(.close, []) }
        var content = [UInt8(code.number >> 8), UInt8(code.number & 0xFF)]
        for scalar in reason.unicodeScalars {
            let bytes = Array(String(scalar).utf8)
            guard content.count + bytes.count <= WebSocketFrameHeader.controlBytesMax else { break }
            content.append(contentsOf: bytes)
        }
        return frame(.close, content)
    }
}
