import COpenSSL

/// 32 bytes of SHA-256 or HMAC-SHA256. Equality takes constant time.
package struct Digest256: Sendable, Hashable, CustomStringConvertible {
    package static let byteCount = 32
    /// Big-endian words.
    private let words: InlineWords

    private struct InlineWords: Sendable, Hashable {
        var first: UInt64
        var second: UInt64
        var third: UInt64
        var fourth: UInt64
    }

    /// - Parameter bytes: exactly 32.
    package init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        func word(_ offset: Int) -> UInt64 {
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        words = InlineWords(first: word(0), second: word(8), third: word(16), fourth: word(24))
    }

    /// Nil unless there are exactly 32 bytes.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self = bytes.withUnsafeBytes { Digest256($0) }
    }

    /// The first eight bytes as a big-endian number.
    package var leadingWord: UInt64 { words.first }

    package var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(Self.byteCount)
        for word in [words.first, words.second, words.third, words.fourth] {
            withUnsafeBytes(of: word.bigEndian) { result.append(contentsOf: $0) }
        }
        return result
    }

    package var hex: String { Hex.encode(bytes) }
    package var description: String { hex }

    package static func == (left: Digest256, right: Digest256) -> Bool {
        let difference =
            (left.words.first ^ right.words.first) | (left.words.second ^ right.words.second)
            | (left.words.third ^ right.words.third) | (left.words.fourth ^ right.words.fourth)
        return difference == 0
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(words.first)
    }
}

/// SHA-256 (FIPS 180-4), of one piece or of many.
package struct SHA256: ~Copyable {
    private let context: DigestContext

    package init() throws(CryptoError) {
        context = try Self.makeContext()
    }

    private static func makeContext() throws(CryptoError) -> DigestContext {
        ERR_clear_error()
        let context = try DigestContext()
        try require(
            EVP_DigestInit_ex2(context.pointer, Algorithms.sha256.pointer, nil),
            "EVP_DigestInit_ex2")
        return context
    }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) throws(CryptoError) {
        try require(
            EVP_DigestUpdate(context.pointer, bytes.baseAddress, bytes.count), "EVP_DigestUpdate")
    }

    package mutating func update(_ bytes: [UInt8]) throws(CryptoError) {
        try bytes.withRawBytes { (bytes) throws(CryptoError) in try update(bytes) }
    }

    package consuming func finish() throws(CryptoError) -> Digest256 {
        let pointer = context.pointer
        var storage = DigestStorage()
        return try storage.filled(by: "EVP_DigestFinal_ex") {
            EVP_DigestFinal_ex(pointer, $0, nil)
        }
    }

    package static func hash(_ bytes: UnsafeRawBufferPointer) throws(CryptoError) -> Digest256 {
        ERR_clear_error()
        var storage = DigestStorage()
        return try storage.filled(by: "EVP_Digest") {
            EVP_Digest(bytes.baseAddress, bytes.count, $0, nil, Algorithms.sha256.pointer, nil)
        }
    }

    package static func hash(_ bytes: [UInt8]) throws(CryptoError) -> Digest256 {
        try bytes.withRawBytes { (bytes) throws(CryptoError) in try hash(bytes) }
    }

    package static func hash(_ text: String) throws(CryptoError) -> Digest256 {
        try hash(Array(text.utf8))
    }
}

/// 32 bytes on the stack for OpenSSL to write a digest into.
struct DigestStorage {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    /// - Parameter fill: the OpenSSL call, whose result is checked.
    @inline(__always)
    mutating func filled(
        by call: StaticReason, _ fill: (UnsafeMutablePointer<UInt8>?) -> Int32
    ) throws(CryptoError) -> Digest256 {
        let result = withUnsafeMutableBytes(of: &words) { raw in
            fill(raw.assumingMemoryBound(to: UInt8.self).baseAddress)
        }
        try require(result, call)
        return withUnsafeBytes(of: &words) { Digest256($0) }
    }
}
