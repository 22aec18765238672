import COpenSSL
import Synchronization

/// The operating system's randomness by way of OpenSSL's generator (RAND_bytes, seeded by
/// getrandom), for nonces, identifiers and jitter. Keys come from `SecretBytes(randomCount:)`.
///
/// A call of RAND_bytes costs about 0.6 µs whatever its length, so blocks of 512 bytes are drawn
/// and handed out in pieces; what was handed out is erased. All copies share the block, under a
/// lock that costs about 20 ns when nobody else holds it: a copied generator never repeats itself.
package struct SystemRandom: RandomNumberGenerator, Sendable {
    private static let block = Mutex(RandomBlock())

    package init() {}

    package func next() -> UInt64 {
        Self.block.withLock { $0.takeWord() }
    }

    /// - Parameter count: at most 512 come from the block; more are drawn directly.
    package static func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, initialised in
            fill(UnsafeMutableRawBufferPointer(buffer))
            initialised = count
        }
    }

    package static func fill(_ target: UnsafeMutableRawBufferPointer) {
        guard target.count > 0 else { return }
        if target.count > RandomBlock.size {
            RandomBlock.draw(into: target)
        } else {
            block.withLock { $0.take(into: target) }
        }
    }
}

private struct RandomBlock {
    static let size = 512
    private var bytes = [UInt8](repeating: 0, count: size)
    private var used = size

    mutating func takeWord() -> UInt64 {
        var word: UInt64 = 0
        withUnsafeMutableBytes(of: &word) { take(into: $0) }
        return word
    }

    /// - Parameter target: no longer than a block.
    mutating func take(into target: UnsafeMutableRawBufferPointer) {
        var used = self.used
        bytes.withUnsafeMutableBytes { block in
            if block.count - used < target.count {
                Self.draw(into: block)
                used = 0
            }
            let piece = UnsafeMutableRawBufferPointer(rebasing: block[used..<used + target.count])
            target.copyMemory(from: UnsafeRawBufferPointer(piece))
            piece.initializeMemory(as: UInt8.self, repeating: 0)
            used += target.count
        }
        self.used = used
    }

    /// A process whose generator fails cannot make identifiers or nonces: it stops.
    static func draw(into target: UnsafeMutableRawBufferPointer) {
        ERR_clear_error()
        let bytes = target.assumingMemoryBound(to: UInt8.self).baseAddress
        guard RAND_bytes(bytes, Int32(target.count)) == 1 else {
            fatalError("RAND_bytes failed: the system has no randomness to give")
        }
    }
}
