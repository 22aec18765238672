import CBrotli
import CZlib

@testable import HCHTTP

/// The other side of content codings, as a client has it: straight from the libraries.
enum Codings {
    static func decode(_ bytes: [UInt8], _ coding: String?) -> [UInt8]? {
        switch coding {
        case nil: bytes
        case "br": brotliDecode(bytes)
        case "gzip": inflateAll(bytes, windowBits: 15 + 16)
        case "deflate": inflateAll(bytes, windowBits: 15)
        default: nil
        }
    }

    /// One gzip member.
    static func gzip(_ bytes: [UInt8], level: Int32 = 6) -> [UInt8] {
        var stream = z_stream()
        precondition(hc_deflate_init(&stream, level, 15 + 16, 8) == Z_OK)
        defer { deflateEnd(&stream) }
        var input = bytes
        let room = Int(deflateBound(&stream, UInt(bytes.count))) + 64
        return [UInt8](unsafeUninitializedCapacity: room) { output, count in
            input.withUnsafeMutableBufferPointer { input in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(room)
                precondition(deflate(&stream, Z_FINISH) == Z_STREAM_END)
                count = room - Int(stream.avail_out)
            }
        }
    }

    /// The whole, or what can be had of a stream that has not ended.
    static func inflateAll(_ bytes: [UInt8], windowBits: Int32, isPartial: Bool = false) -> [UInt8]?
    {
        var stream = z_stream()
        precondition(hc_inflate_init(&stream, windowBits) == Z_OK)
        defer { inflateEnd(&stream) }
        var input = bytes
        var whole: [UInt8] = []
        var status = Z_OK
        input.withUnsafeMutableBufferPointer { input in
            stream.next_in = input.baseAddress
            stream.avail_in = UInt32(input.count)
            while status == Z_OK {
                whole += [UInt8](unsafeUninitializedCapacity: 65536) { output, count in
                    stream.next_out = output.baseAddress
                    stream.avail_out = 65536
                    status = inflate(&stream, Z_NO_FLUSH)
                    count = 65536 - Int(stream.avail_out)
                }
            }
        }
        if isPartial, status == Z_BUF_ERROR { return whole }
        return status == Z_STREAM_END && stream.avail_in == 0 ? whole : nil
    }

    static func brotliDecode(_ bytes: [UInt8], isPartial: Bool = false) -> [UInt8]? {
        guard let state = BrotliDecoderCreateInstance(nil, nil, nil) else { return nil }
        defer { BrotliDecoderDestroyInstance(state) }
        var whole: [UInt8] = []
        var status = BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT
        var left = bytes.count
        bytes.withUnsafeBufferPointer { input in
            var next = input.baseAddress
            while status == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT {
                whole += [UInt8](unsafeUninitializedCapacity: 65536) { output, count in
                    var room = 65536
                    var place = output.baseAddress
                    status = BrotliDecoderDecompressStream(
                        state, &left, &next, &room, &place, nil)
                    count = 65536 - room
                }
            }
        }
        if isPartial, status == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT { return whole }
        return status == BROTLI_DECODER_RESULT_SUCCESS && left == 0 ? whole : nil
    }
}
