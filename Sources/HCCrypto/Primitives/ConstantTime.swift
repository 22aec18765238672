import COpenSSL

/// Compares in a time that depends on the lengths only. Lengths are not secret.
package func constantTimeEquals(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    left.withUnsafeBytes { left in
        right.withUnsafeBytes { constantTimeEquals(left, $0) }
    }
}

/// Folds the differences of all words into one, without a branch, and has CRYPTO_memcmp look at what came of it: that
/// takes eight bytes one by one, and a token that is compared for each request has hundreds.
package func constantTimeEquals(
    _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer
) -> Bool {
    guard left.count == right.count else { return false }
    guard let first = left.baseAddress, let second = right.baseAddress else { return true }
    let count = left.count
    var difference: UInt64 = 0
    var index = 0
    while count - index >= 8 {
        difference |=
            first.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            ^ second.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        index += 8
    }
    while index < count {
        difference |= UInt64(
            first.load(fromByteOffset: index, as: UInt8.self)
                ^ second.load(fromByteOffset: index, as: UInt8.self))
        index += 1
    }
    var none: UInt64 = 0
    return CRYPTO_memcmp(&difference, &none, MemoryLayout<UInt64>.size) == 0
}
