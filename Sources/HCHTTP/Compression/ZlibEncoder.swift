import CZlib
import HCCore

/// gzip and deflate by zlib's `deflate`. One state is used again for any number of contents.
///
/// Owns the `z_stream`, which lies at one address all its life: zlib's state points back at it.
final class ZlibEncoder: ContentEncoder {
    /// What one state takes: a window and its hash chains for 15 bits, and buffers for memory level 8 (zconf.h).
    static let stateBytes = (1 << (windowBits + 2)) + (1 << (memoryLevel + 9))

    private static let windowBits = 15
    private static let memoryLevel = 8
    private static let outputBytes = 16 << 10

    let coding: ContentCoding
    private let stream: UnsafeMutablePointer<z_stream>

    /// - Throws: if there is no memory for the state.
    /// - Precondition: `coding` is gzip or deflate.
    init(_ coding: ContentCoding, level: Int) throws(ContentEncoderError) {
        precondition(coding != .brotli, "zlib does not speak brotli")
        self.coding = coding
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        // 16 more bits ask for a gzip header and trailer instead of zlib's (zlib.h, deflateInit2).
        let windowBits = ZlibEncoder.windowBits + (coding == .gzip ? 16 : 0)
        guard
            hc_deflate_init(
                stream, Int32(level), Int32(windowBits), Int32(ZlibEncoder.memoryLevel)) == Z_OK
        else {
            stream.deallocate()
            throw ContentEncoderError(coding: coding)
        }
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
    }

    /// Makes the state ready for another content.
    func reset() {
        deflateReset(stream)
    }

    func encode(
        _ bytes: UnsafeRawBufferPointer, _ operation: EncoderOperation,
        into output: inout ByteBuffer
    ) throws(ContentEncoderError) {
        let flush =
            switch operation {
            case .proceed: Z_NO_FLUSH
            case .flush: Z_SYNC_FLUSH
            case .finish: Z_FINISH
            }
        var rest = bytes
        repeat {
            // zlib counts in 32 bits.
            let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30))
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(piece.count))
            stream.pointee.next_in = UnsafeMutablePointer(
                mutating: piece.bindMemory(to: UInt8.self).baseAddress)
            stream.pointee.avail_in = UInt32(piece.count)
            try put(rest.isEmpty ? flush : Z_NO_FLUSH, into: &output)
        } while !rest.isEmpty
        // The caller's memory is not looked at after this call.
        stream.pointee.next_in = nil
    }

    /// Calls `deflate` until it has nothing more to say: it has then left room in the output.
    private func put(_ flush: Int32, into output: inout ByteBuffer) throws(ContentEncoderError) {
        let stream = stream
        var status = Z_OK
        var hasRoom = false
        while !hasRoom, status != Z_STREAM_END {
            _ = output.appendInPlace(space: ZlibEncoder.outputBytes) { space in
                stream.pointee.next_out = space.bindMemory(to: UInt8.self).baseAddress
                stream.pointee.avail_out = UInt32(space.count)
                status = deflate(stream, flush)
                hasRoom = stream.pointee.avail_out > 0
                return space.count - Int(stream.pointee.avail_out)
            }
            // Z_BUF_ERROR: there was nothing to do, which is no error (zlib.h).
            guard status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR else {
                throw ContentEncoderError(coding: coding)
            }
        }
        stream.pointee.next_out = nil
        guard flush != Z_FINISH || status == Z_STREAM_END else {
            throw ContentEncoderError(coding: coding)
        }
    }
}
