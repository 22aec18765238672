import CZlib

/// Compresses messages (RFC 7692 7.2.1). The owner of one zlib stream: about
/// 2^(windowBits + 2) + 2^(memoryLevel + 9) bytes.
final class WebSocketDeflater {
    // On the heap: zlib's state points back to it.
    private let stream: UnsafeMutablePointer<z_stream>

    /// - Parameter windowBits: 9 to 15.
    init(windowBits: Int, level: Int, memoryLevel: Int) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let result = hc_deflate_init(
            stream, Int32(level), Int32(-windowBits), Int32(memoryLevel))
        precondition(result == Z_OK, "deflateInit2: \(result)")
    }

    deinit {
        deflateEnd(stream)
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Appends the compressed form of one message.
    ///
    /// - Parameter forgets: whether nothing of earlier messages may be referred to.
    func compress(_ message: UnsafeRawBufferPointer, forgets: Bool, into output: inout [UInt8]) {
        guard !message.isEmpty else {
            // An empty block without the marker that is cut off (RFC 7692 7.2.3.6).
            output.append(0)
            return
        }
        if forgets { deflateReset(stream) }
        // zlib does not write to its input.
        stream.pointee.next_in = UnsafeMutablePointer(
            mutating: message.bindMemory(to: UInt8.self).baseAddress)
        stream.pointee.avail_in = UInt32(message.count)
        let start = output.count
        withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 16) { piece in
            let room = piece.bindMemory(to: UInt8.self)
            repeat {
                stream.pointee.next_out = room.baseAddress
                stream.pointee.avail_out = UInt32(room.count)
                let result = deflate(stream, Z_SYNC_FLUSH)
                // Z_BUF_ERROR: the piece before ended exactly with the flush.
                precondition(result == Z_OK || result == Z_BUF_ERROR, "deflate: \(result)")
                let count = room.count - Int(stream.pointee.avail_out)
                output.append(contentsOf: UnsafeRawBufferPointer(rebasing: piece[..<count]))
            } while stream.pointee.avail_out == 0
        }
        stream.pointee.next_in = nil
        precondition(
            output.count - start >= 4 && output.suffix(4).elementsEqual([0x00, 0x00, 0xFF, 0xFF]),
            "a flush ends with an empty block")
        output.removeLast(4)
    }
}

/// Inflates messages (RFC 7692 7.2.2), piece by piece. The owner of one zlib stream: about 7 KiB, and the window
/// once something was inflated.
final class WebSocketInflater {
    /// An empty block without compression, 00 00 FF FF: what a sender cut off.
    static let tail: UInt32 = 0xFFFF_0000

    /// The largest, whatever the sender keeps to: with a smaller one zlib would refuse a sender that goes beyond its
    /// own, or not, by how its message was cut.
    static let windowBits = 15

    private let stream: UnsafeMutablePointer<z_stream>

    init() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let result = hc_inflate_init(stream, Int32(-WebSocketInflater.windowBits))
        precondition(result == Z_OK, "inflateInit2: \(result)")
    }

    deinit {
        inflateEnd(stream)
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Forgets all that was inflated.
    func reset() {
        inflateReset(stream)
    }

    /// Inflates a piece onto `output`.
    ///
    /// - Throws: `.messageTooLarge` when `output` would have more than `countMax` bytes, and it has that many.
    func inflate(
        _ input: UnsafeRawBufferPointer, onto output: inout [UInt8], countMax: Int
    ) throws(WebSocketError) {
        guard !input.isEmpty else { return }
        // zlib does not write to its input.
        stream.pointee.next_in = UnsafeMutablePointer(
            mutating: input.bindMemory(to: UInt8.self).baseAddress)
        stream.pointee.avail_in = UInt32(input.count)
        var problem: WebSocketError?
        withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 16) { piece in
            let room = piece.bindMemory(to: UInt8.self)
            repeat {
                stream.pointee.next_out = room.baseAddress
                stream.pointee.avail_out = UInt32(room.count)
                let result = CZlib.inflate(stream, Z_SYNC_FLUSH)
                let count = room.count - Int(stream.pointee.avail_out)
                let taken = min(count, countMax - output.count)
                output.append(contentsOf: UnsafeRawBufferPointer(rebasing: piece[..<taken]))
                guard taken == count else {
                    problem = .messageTooLarge
                    return
                }
                switch result {
                case Z_OK: break
                // Nothing left to do: all input is used and all output is given.
                case Z_BUF_ERROR: return
                // A final block inside a message: what follows is a new stream with the old window
                // (RFC 7692 7.2.3.4).
                case Z_STREAM_END: inflateResetKeep(stream)
                default:
                    problem = .invalidDeflate
                    return
                }
            } while stream.pointee.avail_in > 0 || stream.pointee.avail_out == 0
        }
        stream.pointee.next_in = nil
        stream.pointee.avail_in = 0
        if let problem { throw problem }
    }

    /// Gives what the sender cut off and checks that the message is whole.
    func finish(onto output: inout [UInt8], countMax: Int) throws(WebSocketError) {
        let tail = WebSocketInflater.tail.littleEndian
        try withUnsafeBytes(of: tail) { (bytes) throws(WebSocketError) in
            try inflate(bytes, onto: &output, countMax: countMax)
        }
        // Bit 7: directly behind a block. Bits 0 to 5: bits of the last byte that no block has used (zlib.h, inflate).
        guard stream.pointee.data_type & 128 != 0, stream.pointee.data_type & 63 == 0 else {
            throw .invalidDeflate
        }
    }
}

/// Compressors and decompressors that are shared by the sockets of one loop, because most sockets use theirs only
/// while a message is on its way.
package final class WebSocketDeflatePool {
    /// Decompressors that are kept while nobody needs them: about 40 KiB each.
    static let spareMax = 8

    let configuration: WebSocketDeflateConfiguration
    /// By window.
    private var deflaters: [Int: WebSocketDeflater] = [:]
    private var spare: [WebSocketInflater] = []
    var spareCount: Int { spare.count }

    package init(_ configuration: WebSocketDeflateConfiguration) {
        self.configuration = configuration
    }

    func makeDeflater(windowBits: Int) -> WebSocketDeflater {
        WebSocketDeflater(
            windowBits: windowBits, level: configuration.level,
            memoryLevel: configuration.memoryLevel)
    }

    /// For one message, which it is to forget: at most 7 of these are ever made.
    func deflater(windowBits: Int) -> WebSocketDeflater {
        if let known = deflaters[windowBits] { return known }
        let made = makeDeflater(windowBits: windowBits)
        deflaters[windowBits] = made
        return made
    }

    /// One that remembers nothing.
    func takeInflater() -> WebSocketInflater {
        spare.popLast() ?? WebSocketInflater()
    }

    func giveBack(_ inflater: WebSocketInflater) {
        guard spare.count < WebSocketDeflatePool.spareMax else { return }
        inflater.reset()
        spare.append(inflater)
    }
}
