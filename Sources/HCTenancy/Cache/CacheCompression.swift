import CZlib

/// zlib in one step, for copies that leave the process' memory. What comes back from Redis is not believed to be
/// what was put there: its size is bounded before anything is written.
enum CacheCompression {
    /// Copies are written once and read often by machines that have other things to do: the fastest level.
    private static let level: Int32 = 1

    /// - Returns: nil if it would not become smaller.
    static func compress(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.count < Int(Int32.max) else { return nil }
        var isSmaller = false
        let output = [UInt8](unsafeUninitializedCapacity: bytes.count) { output, count in
            var written = uLongf(output.count)
            // RFC 1950; Z_BUF_ERROR when the room, which is the size of the input, does not do.
            let status = compress2(
                output.baseAddress, &written, bytes, uLong(bytes.count), level)
            isSmaller = status == Z_OK && Int(written) < bytes.count
            count = isSmaller ? Int(written) : 0
        }
        return isSmaller ? output : nil
    }

    /// - Parameter count: of the bytes that must come out, exactly.
    /// - Returns: nil for anything else than what `compress` makes of so many bytes.
    static func expand(_ bytes: ArraySlice<UInt8>, count: Int) -> [UInt8]? {
        var isWhole = false
        let output = [UInt8](unsafeUninitializedCapacity: count) { output, initialized in
            var written = uLongf(count)
            let status = bytes.withUnsafeBufferPointer {
                uncompress(output.baseAddress, &written, $0.baseAddress, uLong($0.count))
            }
            isWhole = status == Z_OK && Int(written) == count
            initialized = isWhole ? count : 0
        }
        return isWhole ? output : nil
    }
}
