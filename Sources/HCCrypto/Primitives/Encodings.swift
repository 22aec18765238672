/// Lowercase hexadecimal.
package enum Hex {
    private static let digits = Array("0123456789abcdef".utf8)

    package static func encode(_ bytes: some Collection<UInt8>) -> String {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count * 2)
        for byte in bytes {
            result.append(digits[Int(byte >> 4)])
            result.append(digits[Int(byte & 15)])
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// Nil for an odd count or anything but 0-9, a-f, A-F.
    package static func decode(_ text: some StringProtocol) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var result: [UInt8] = []
        result.reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[index]), let low = value(digits[index + 1]) else {
                return nil
            }
            result.append(high << 4 | low)
        }
        return result
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

/// Base64 without padding (RFC 4648 sections 4 and 5), decoded strictly: one text per value.
package struct Base64: Sendable {
    /// `+` and `/`.
    package static let standard = Base64("+", "/")
    /// `-` and `_`: for tokens, cursors and file names.
    package static let url = Base64("-", "_")

    private let encoding: [UInt8]
    /// 0xFF where a byte is no digit.
    private let decoding: [UInt8]

    private init(_ sixtyTwo: Unicode.Scalar, _ sixtyThree: Unicode.Scalar) {
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        encoding = Array(letters.utf8) + [UInt8(ascii: sixtyTwo), UInt8(ascii: sixtyThree)]
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, digit) in encoding.enumerated() { values[Int(digit)] = UInt8(value) }
        decoding = values
    }

    package func encode(_ bytes: [UInt8]) -> String {
        String(decoding: bytes.withUnsafeBytes { encodedBytes($0) }, as: UTF8.self)
    }

    package func encodedBytes(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        let count = (bytes.count * 4 + 2) / 3
        return [UInt8](unsafeUninitializedCapacity: count) { output, initialised in
            var pending: UInt32 = 0
            var bits: UInt32 = 0
            var written = 0
            for byte in bytes {
                pending = pending << 8 | UInt32(byte)
                bits += 8
                while bits >= 6 {
                    bits -= 6
                    output[written] = encoding[Int(pending >> bits & 63)]
                    written += 1
                }
            }
            if bits > 0 {
                output[written] = encoding[Int(pending << (6 - bits) & 63)]
                written += 1
            }
            initialised = written
        }
    }

    /// Nil for padding, white space, foreign characters, an impossible length, or left-over bits
    /// that are not zero (a second text for the same bytes would be a second token).
    package func decode(_ digits: UnsafeRawBufferPointer) -> [UInt8]? {
        guard digits.count % 4 != 1 else { return nil }
        var result: [UInt8] = []
        result.reserveCapacity(digits.count * 3 / 4)
        var pending: UInt32 = 0
        var bits: UInt32 = 0
        for digit in digits {
            let value = decoding[Int(digit)]
            guard value != 0xFF else { return nil }
            pending = pending << 6 | UInt32(value)
            bits += 6
            if bits >= 8 {
                bits -= 8
                result.append(UInt8(truncatingIfNeeded: pending >> bits))
            }
        }
        guard pending & (1 << bits - 1) == 0 else { return nil }
        return result
    }

    package func decode(_ text: some StringProtocol) -> [UInt8]? {
        Array(text.utf8).withUnsafeBytes { decode($0) }
    }
}
