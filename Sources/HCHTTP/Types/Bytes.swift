import Glibc

/// Byte classes of RFC 9110 5.6.2 and RFC 3986, as two constant words each: no table to load.
enum ByteClass {
    /// tchar: what a method or a field name is made of.
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        member(byte, 0x03FF_6CFA_0000_0000, 0x57FF_FFFF_C7FF_FFFE)
    }

    /// pchar without "%" (RFC 3986 3.3), and "/".
    @inline(__always)
    static func isPath(_ byte: UInt8) -> Bool {
        member(byte, 0x2FFF_FFD2_0000_0000, 0x47FF_FFFE_87FF_FFFF)
    }

    /// pchar without "%", "/", "?" and the square brackets that form libraries do not encode.
    @inline(__always)
    static func isQuery(_ byte: UInt8) -> Bool {
        member(byte, 0xAFFF_FFD2_0000_0000, 0x47FF_FFFE_AFFF_FFFF)
    }

    /// What may stand in a field value: visible characters, space, tab, obs-text (RFC 9110 5.5).
    @inline(__always)
    static func isFieldValue(_ byte: UInt8) -> Bool {
        (byte >= 0x20 && byte != 0x7F) || byte == 0x09
    }

    @inline(__always)
    static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

    @inline(__always)
    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    @inline(__always)
    static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte &- 0x30
        case 0x41...0x46: byte &- 0x37
        case 0x61...0x66: byte &- 0x57
        default: nil
        }
    }

    @inline(__always)
    static func lower(_ byte: UInt8) -> UInt8 {
        byte &- 0x41 < 26 ? byte | 0x20 : byte
    }

    @inline(__always)
    private static func member(_ byte: UInt8, _ low: UInt64, _ high: UInt64) -> Bool {
        byte < 64
            ? low >> UInt64(byte) & 1 != 0 : byte < 128 && high >> UInt64(byte & 63) & 1 != 0
    }
}

extension UnsafeRawBufferPointer {
    /// Whether all of these bytes may stand in a field value: eight at a time, for a token has hundreds.
    func isFieldValue() -> Bool {
        guard let first = baseAddress else { return true }
        var index = 0
        while index + 8 <= count {
            let word = first.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            // The highest bit of a byte: it is below 0x20; it is 0x7F. Both may be set for a byte behind one that is so:
            // then each is looked at.
            let below = (word &- 0x2020_2020_2020_2020) & ~word
            let flipped = word ^ 0x7F7F_7F7F_7F7F_7F7F
            let isDelete = (flipped &- 0x0101_0101_0101_0101) & ~flipped
            if (below | isDelete) & 0x8080_8080_8080_8080 != 0 {
                for place in index..<index + 8 where !ByteClass.isFieldValue(self[place]) {
                    return false
                }
            }
            index += 8
        }
        while index < count {
            guard ByteClass.isFieldValue(self[index]) else { return false }
            index += 1
        }
        return true
    }

    /// Whether these bytes are exactly `text`.
    @inline(__always)
    func isEqual(to text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        let other = text.utf8Start
        for index in 0..<count where self[index] != other[index] { return false }
        return true
    }

    /// Whether both are the same.
    func isEqual(to other: UnsafeRawBufferPointer) -> Bool {
        guard count == other.count else { return false }
        guard let mine = baseAddress, let theirs = other.baseAddress else { return true }
        return memcmp(mine, theirs, count) == 0
    }

    /// Whether these bytes are `text` but for the case of ASCII letters; `text` is lower case.
    @inline(__always)
    func isEqualIgnoringCase(to text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        let other = text.utf8Start
        for index in 0..<count where ByteClass.lower(self[index]) != other[index] { return false }
        return true
    }

    /// Whether both are the same but for the case of ASCII letters.
    @inline(__always)
    func isEqualIgnoringCase(to other: UnsafeRawBufferPointer) -> Bool {
        guard count == other.count else { return false }
        for index in 0..<count where ByteClass.lower(self[index]) != ByteClass.lower(other[index]) {
            return false
        }
        return true
    }

    @inline(__always)
    func slice(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[range])
    }

    /// The elements of a comma-separated list without the blanks around them (RFC 9110 5.6.1); empty
    /// elements are given too.
    func forEachListElement(_ body: (UnsafeRawBufferPointer) -> Void) {
        var start = 0
        while start <= count {
            var end = start
            while end < count && self[end] != 0x2C { end += 1 }
            var first = start
            var last = end
            while first < last && ByteClass.isBlank(self[first]) { first += 1 }
            while last > first && ByteClass.isBlank(self[last - 1]) { last -= 1 }
            body(slice(first..<last))
            start = end + 1
        }
    }
}

extension [UInt8] {
    /// `withUnsafeBytes` for a body that throws errors of one type.
    @inline(__always)
    func withBytes<Answer, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Answer
    ) throws(Failure) -> Answer {
        try withUnsafeBufferPointer { bytes throws(Failure) in
            try body(UnsafeRawBufferPointer(bytes))
        }
    }
}

extension OutputSpan<UInt8> {
    @inline(__always)
    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        withUnsafeMutableBufferPointer { space, count in
            precondition(bytes.count <= space.count - count, "more bytes than room was made for")
            guard let source = bytes.baseAddress, let target = space.baseAddress else { return }
            UnsafeMutableRawPointer(target + count).copyMemory(
                from: source, byteCount: bytes.count)
            count += bytes.count
        }
    }

    @inline(__always)
    mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(decimal value: Int) {
        precondition(value >= 0, "a count or a status")
        if value >= 10 { append(decimal: value / 10) }
        append(0x30 + UInt8(truncatingIfNeeded: value % 10))
    }

    /// Lends room for `count` bytes to `write`, which says how many it has filled.
    @inline(__always)
    mutating func append(upTo count: Int, _ write: (UnsafeMutableRawBufferPointer) -> Int) {
        withUnsafeMutableBufferPointer { space, filled in
            let room = UnsafeMutableBufferPointer(rebasing: space[filled..<filled + count])
            let written = write(UnsafeMutableRawBufferPointer(room))
            precondition(written >= 0 && written <= count, "the writer overran its room")
            filled += written
        }
    }

    /// Appends with a space for each byte that may not stand in a field value.
    mutating func append(spacing bytes: UnsafeRawBufferPointer) {
        for byte in bytes { append(ByteClass.isFieldValue(byte) ? byte : 0x20) }
    }
}
