/// A 128-bit identifier (RFC 9562). HC makes version 7 and reads any version.
@usableFromInline package struct UUID: Hashable, Comparable, Sendable, LosslessStringConvertible {
    @usableFromInline package let high: UInt64
    @usableFromInline package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// All bits zero (RFC 9562 5.9): "no one", never an id of ours.
    package static let zero = UUID(high: 0, low: 0)

    /// Version 7 (RFC 9562 5.7): 48 bits of milliseconds, 12 bits of the fraction of that millisecond
    /// (6.2, method 3, so that ids made in order sort in order), 62 bits from `generator`.
    package static func v7(
        at time: Timestamp, using generator: inout some RandomNumberGenerator
    ) -> UUID {
        let milliseconds = max(0, time.milliseconds)
        let fraction = UInt64(max(0, time.microseconds) % 1000) * 4096 / 1000
        let random = generator.next()
        return UUID(
            high: UInt64(milliseconds) << 16 | 0x7000 | fraction,
            low: random & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000
        )
    }

    /// When a version 7 id was made, in whole milliseconds; nil for other versions.
    package var madeAt: Timestamp? {
        guard high >> 12 & 15 == 7 else { return nil }
        return Timestamp(microseconds: Int64(high >> 16) * 1000)
    }

    @usableFromInline package static func < (left: UUID, right: UUID) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }

    // Written out, to be made for the tables of other rooms: several are asked for each request.

    @inlinable package static func == (left: UUID, right: UUID) -> Bool {
        left.low == right.low && left.high == right.high
    }

    @inlinable package func hash(into hasher: inout Hasher) {
        hasher.combine(high)
        hasher.combine(low)
    }
}

// MARK: - Text

extension UUID {
    /// Reads `8-4-4-4-12` hex digits of either case and nothing else (RFC 9562 4).
    @usableFromInline package init?(_ text: String) {
        self.init(text[...])
    }

    package init?(_ text: Substring) {
        guard text.utf8.count == 36 else { return nil }
        self.init(utf8: text.utf8)
    }

    /// As `init(_:)`, from bytes.
    package init?(utf8 text: some Collection<UInt8>) {
        // A concrete loop: this is read several times for each request.
        let value: UUID?? = text.withContiguousStorageIfAvailable { UUID(contiguous: $0) }
        let parsed = value ?? Array(text).withUnsafeBufferPointer { UUID(contiguous: $0) }
        guard let parsed else { return nil }
        self = parsed
    }

    private init?(contiguous text: UnsafeBufferPointer<UInt8>) {
        guard text.count == 36 else { return nil }
        var halves: (UInt64, UInt64) = (0, 0)
        for position in 0..<36 {
            let byte = text[position]
            if position == 8 || position == 13 || position == 18 || position == 23 {
                guard byte == UInt8(ascii: "-") else { return nil }
                continue
            }
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x37
            case 0x61...0x66: digit = byte - 0x57
            default: return nil
            }
            if position < 18 {
                halves.0 = halves.0 << 4 | UInt64(digit)
            } else {
                halves.1 = halves.1 << 4 | UInt64(digit)
            }
        }
        self.init(high: halves.0, low: halves.1)
    }

    /// Lower case, with hyphens (RFC 9562 4).
    @usableFromInline package var description: String {
        String(unsafeUninitializedCapacity: UUID.textCount) { space in
            write(to: UnsafeMutableRawBufferPointer(space))
            return UUID.textCount
        }
    }

    /// Bytes of the text.
    package static let textCount = 36

    /// Writes the text to the beginning of `memory`, which has room for it.
    package func write(to memory: UnsafeMutableRawBufferPointer) {
        precondition(memory.count >= UUID.textCount, "36 bytes")
        let first = UUID.digits(UInt32(truncatingIfNeeded: high >> 32))
        let second = UUID.digits(UInt32(truncatingIfNeeded: high))
        let third = UUID.digits(UInt32(truncatingIfNeeded: low >> 32))
        let fourth = UUID.digits(UInt32(truncatingIfNeeded: low))
        memory.storeBytes(of: first.littleEndian, as: UInt64.self)
        memory.storeBytes(
            of: UInt32(truncatingIfNeeded: second).littleEndian, toByteOffset: 9, as: UInt32.self)
        memory.storeBytes(
            of: UInt32(truncatingIfNeeded: second >> 32).littleEndian, toByteOffset: 14,
            as: UInt32.self)
        memory.storeBytes(
            of: UInt32(truncatingIfNeeded: third).littleEndian, toByteOffset: 19, as: UInt32.self)
        memory.storeBytes(
            of: UInt32(truncatingIfNeeded: third >> 32).littleEndian, toByteOffset: 24,
            as: UInt32.self)
        memory.storeBytes(of: fourth.littleEndian, toByteOffset: 28, as: UInt64.self)
        let hyphen = UInt8(ascii: "-")
        memory[8] = hyphen
        memory[13] = hyphen
        memory[18] = hyphen
        memory[23] = hyphen
    }

    /// The eight hex digits of a number, the first in the lowest byte: all at once, for several ids are written for
    /// each request.
    private static func digits(_ value: UInt32) -> UInt64 {
        var digits = UInt64(value.byteSwapped)
        digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff
        digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff
        digits = digits >> 4 & 0x000f_000f_000f_000f | (digits & 0x000f_000f_000f_000f) << 8
        // Of each byte: 1 for a letter.
        let letters = (digits &+ 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101
        return digits &+ 0x3030_3030_3030_3030 &+ letters &* 0x27
    }
}

// MARK: - Bytes

extension UUID {
    /// - Returns: nil unless there are exactly 16 bytes (network order, RFC 9562 4).
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        var halves: (UInt64, UInt64) = (0, 0)
        for (position, byte) in bytes.enumerated() {
            if position < 8 {
                halves.0 = halves.0 << 8 | UInt64(byte)
            } else {
                halves.1 = halves.1 << 8 | UInt64(byte)
            }
        }
        self.init(high: halves.0, low: halves.1)
    }

    /// The 16 bytes in network order: PostgreSQL's binary form.
    package var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16) { space, count in
            for position in 0..<16 {
                let half = position < 8 ? high : low
                space[position] = UInt8(
                    truncatingIfNeeded: half >> UInt64((7 - position % 8) * 8))
            }
            count = 16
        }
    }
}

extension ByteBuffer {
    /// The 36 characters of `UUID.description` without the String.
    package mutating func append(_ uuid: UUID) {
        appendFixedText { $0.append(uuid) }
    }
}
