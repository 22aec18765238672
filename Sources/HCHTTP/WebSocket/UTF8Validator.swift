/// Checks UTF-8 that comes in pieces (RFC 3629): says no at the first byte that cannot be right any more.
package struct UTF8Validator: Sendable, Equatable {
    /// Continuation bytes that are still to come of the character in progress.
    private var missing: UInt8 = 0
    /// What the next of them may be: narrower after E0, ED, F0 and F4.
    private var low: UInt8 = 0x80
    private var high: UInt8 = 0xBF

    package init() {}

    /// Whether no character is cut off here.
    package var isComplete: Bool { missing == 0 }

    /// - Returns: false if the text is not UTF-8, whatever comes after it.
    package mutating func accept(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        let count = bytes.count
        while index < count {
            if missing == 0 {
                // Nearly all text is ASCII for long stretches.
                while index + 8 <= count,
                    bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
                        & 0x8080_8080_8080_8080 == 0
                {
                    index += 8
                }
                guard index < count else { return true }
                guard begin(bytes[index]) else { return false }
            } else {
                let byte = bytes[index]
                guard byte >= low, byte <= high else { return false }
                missing -= 1
                low = 0x80
                high = 0xBF
            }
            index += 1
        }
        return true
    }

    private mutating func begin(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x00...0x7F: return true
        case 0xC2...0xDF: missing = 1
        case 0xE0:
            missing = 2
            low = 0xA0
        case 0xED:
            missing = 2
            high = 0x9F
        case 0xE1...0xEF: missing = 2
        case 0xF0:
            missing = 3
            low = 0x90
        case 0xF4:
            missing = 3
            high = 0x8F
        case 0xF1...0xF3: missing = 3
        default: return false
        }
        return true
    }
}
