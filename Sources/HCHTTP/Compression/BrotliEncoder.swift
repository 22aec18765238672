import CBrotli
import HCCore

/// brotli by `BrotliEncoderCompressStream`. A state serves one content: the library has no reset, so the memory of
/// states is kept instead (`BrotliMemory`).
///
/// Owns the `BrotliEncoderState`.
final class BrotliEncoder: ContentEncoder {
    /// About what one state takes at quality 4: its hash table (512 KiB), a ring buffer of two windows, and room for
    /// commands and output.
    static let stateBytes = 3 << 19

    /// The window is no larger than the content can use, and 256 KiB at most.
    private static let windowBitsRange = 16...18

    private let state: OpaquePointer
    /// The state's memory is freed into it.
    private let memory: BrotliMemory

    /// - Parameter count: of the content, if it is known.
    /// - Throws: if there is no memory for the state.
    init(quality: Int, count: Int?, memory: BrotliMemory) throws(ContentEncoderError) {
        guard
            let state = BrotliEncoderCreateInstance(
                BrotliMemory.allocate, BrotliMemory.free,
                Unmanaged.passUnretained(memory).toOpaque())
        else { throw ContentEncoderError(coding: .brotli) }
        self.state = state
        self.memory = memory
        var windowBits = BrotliEncoder.windowBitsRange.upperBound
        if let count {
            windowBits = BrotliEncoder.windowBitsRange.lowerBound
            while windowBits < BrotliEncoder.windowBitsRange.upperBound, 1 << windowBits < count {
                windowBits += 1
            }
            let hint = UInt32(clamping: min(count, 1 << 30))
            BrotliEncoderSetParameter(state, BROTLI_PARAM_SIZE_HINT, hint)
        }
        BrotliEncoderSetParameter(state, BROTLI_PARAM_QUALITY, UInt32(quality))
        BrotliEncoderSetParameter(state, BROTLI_PARAM_LGWIN, UInt32(windowBits))
        BrotliEncoderSetParameter(state, BROTLI_PARAM_MODE, BROTLI_MODE_TEXT.rawValue)
    }

    deinit {
        // `memory` is a property of ours: it is still there.
        BrotliEncoderDestroyInstance(state)
    }

    func encode(
        _ bytes: UnsafeRawBufferPointer, _ operation: EncoderOperation,
        into output: inout ByteBuffer
    ) throws(ContentEncoderError) {
        let wanted =
            switch operation {
            case .proceed: BROTLI_OPERATION_PROCESS
            case .flush: BROTLI_OPERATION_FLUSH
            case .finish: BROTLI_OPERATION_FINISH
            }
        var available = bytes.count
        var next = bytes.bindMemory(to: UInt8.self).baseAddress
        repeat {
            var none = 0
            guard
                BrotliEncoderCompressStream(state, wanted, &available, &next, &none, nil, nil)
                    == BROTLI_TRUE
            else { throw ContentEncoderError(coding: .brotli) }
            take(into: &output)
        } while available > 0 || BrotliEncoderHasMoreOutput(state) == BROTLI_TRUE
        guard operation != .finish || BrotliEncoderIsFinished(state) == BROTLI_TRUE else {
            throw ContentEncoderError(coding: .brotli)
        }
    }

    /// The library lends its output until the next call.
    private func take(into output: inout ByteBuffer) {
        while BrotliEncoderHasMoreOutput(state) == BROTLI_TRUE {
            var count = 0
            guard let piece = BrotliEncoderTakeOutput(state, &count), count > 0 else { return }
            output.append(UnsafeRawBufferPointer(start: piece, count: count))
        }
    }
}

/// The memory of brotli states. What one gave back the next gets: a new state for each content would otherwise
/// fault in half a megabyte each time.
///
/// Not thread-safe: it belongs to one loop, as the encoders do. It outlives them, for each holds it.
final class BrotliMemory {
    private struct Block {
        let address: UnsafeMutableRawPointer
        let count: Int
    }

    /// In front of each block: its size. As large as the strictest alignment.
    private static let headerBytes = 16

    let keptBytesMax: Int
    private var kept: [Block] = []
    private(set) var keptBytes = 0

    init(keptBytesMax: Int) {
        self.keptBytesMax = keptBytesMax
    }

    deinit {
        for block in kept { block.address.deallocate() }
    }

    /// As `brotli_alloc_func` wants it; `opaque` is this object.
    static let allocate: brotli_alloc_func = { opaque, count in
        guard let opaque else { return nil }
        return Unmanaged<BrotliMemory>.fromOpaque(opaque).takeUnretainedValue().take(count)
    }

    /// As `brotli_free_func` wants it.
    static let free: brotli_free_func = { opaque, address in
        guard let opaque, let address else { return }
        Unmanaged<BrotliMemory>.fromOpaque(opaque).takeUnretainedValue().giveBack(address)
    }

    private func take(_ count: Int) -> UnsafeMutableRawPointer {
        // The smallest that fits, and is no waste.
        var best: Int?
        for (index, block) in kept.enumerated()
        where block.count >= count && block.count <= count + count / 2 + 256 {
            if let chosen = best, kept[chosen].count <= block.count { continue }
            best = index
        }
        if let best {
            let block = kept.remove(at: best)
            keptBytes -= block.count
            return block.address + BrotliMemory.headerBytes
        }
        let address = UnsafeMutableRawPointer.allocate(
            byteCount: count + BrotliMemory.headerBytes, alignment: BrotliMemory.headerBytes)
        address.storeBytes(of: count, as: Int.self)
        return address + BrotliMemory.headerBytes
    }

    private func giveBack(_ address: UnsafeMutableRawPointer) {
        let address = address - BrotliMemory.headerBytes
        let count = address.load(as: Int.self)
        guard keptBytes + count <= keptBytesMax else { return address.deallocate() }
        kept.append(Block(address: address, count: count))
        keptBytes += count
    }
}
