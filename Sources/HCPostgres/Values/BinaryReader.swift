import HCCore

/// Reads one value in the binary format. Lives within one call of ``PostgresRow``.
struct BinaryReader {
    private var bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    enum Failure: Error {
        case malformed
        case unrepresentable

        var reason: PostgresError.DecodeProblem.Reason {
            switch self {
            case .malformed: .malformed
            case .unrepresentable: .unrepresentable
            }
        }
    }

    var isAtEnd: Bool { position == bytes.count }

    mutating func integer<Integer: FixedWidthInteger>(
        _ type: Integer.Type
    ) throws(Failure) -> Integer {
        let size = MemoryLayout<Integer>.size
        guard bytes.count - position >= size else { throw .malformed }
        let value = bytes.loadUnaligned(fromByteOffset: position, as: Integer.self)
        position += size
        return Integer(bigEndian: value)
    }

    mutating func slice(_ count: Int) throws(Failure) -> UnsafeRawBufferPointer {
        guard count >= 0, bytes.count - position >= count else { throw .malformed }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<(position + count)])
    }

    mutating func rest() -> UnsafeRawBufferPointer {
        defer { position = bytes.count }
        return UnsafeRawBufferPointer(rebasing: bytes[position...])
    }

    /// Up to a NUL, which is taken too.
    mutating func cString() throws(Failure) -> String {
        guard let end = bytes[position...].firstIndex(of: 0) else { throw .malformed }
        let text = String(decoding: try slice(end - position), as: UTF8.self)
        position += 1
        return text
    }

    mutating func text() -> String { String(decoding: rest(), as: UTF8.self) }

    mutating func uuid() throws(Failure) -> UUID {
        let high = try integer(UInt64.self)
        return UUID(high: high, low: try integer(UInt64.self))
    }

    mutating func timestamp() throws(Failure) -> Timestamp {
        let microseconds = try integer(Int64.self)
        let (sum, overflow) = microseconds.addingReportingOverflow(PostgresEpoch.microseconds)
        guard !overflow, microseconds != .min, microseconds != .max else { throw .unrepresentable }
        return Timestamp(microseconds: sum)
    }

    mutating func date() throws(Failure) -> CalendarDate {
        let days = Int(try integer(Int32.self)) + PostgresEpoch.days
        guard let date = CalendarDate(daysSinceEpoch: days) else { throw .unrepresentable }
        return date
    }

    mutating func timestampRange() throws(Failure) -> TimestampRange? {
        let flags = try integer(UInt8.self)
        if flags & RangeFlags.empty != 0 { return nil }
        var range = TimestampRange(lower: nil, upper: nil)
        if flags & RangeFlags.lowerInfinite == 0 {
            guard flags & RangeFlags.lowerInclusive != 0 else { throw .unrepresentable }
            range.lower = try bound()
        }
        if flags & RangeFlags.upperInfinite == 0 {
            guard flags & RangeFlags.upperInclusive == 0 else { throw .unrepresentable }
            range.upper = try bound()
        }
        return range
    }

    private mutating func bound() throws(Failure) -> Timestamp {
        guard try integer(Int32.self) == 8 else { throw .malformed }
        return try timestamp()
    }

    /// A one-dimensional array without nulls; each element is read by `element` out of its own bytes.
    mutating func array<Element>(
        of type: PostgresType,
        _ element: (inout BinaryReader) throws(Failure) -> Element
    ) throws(Failure) -> [Element] {
        let dimensions = try integer(Int32.self)
        _ = try integer(Int32.self)
        guard try integer(UInt32.self) == type.oid else { throw .malformed }
        if dimensions == 0 { return [] }
        guard dimensions == 1 else { throw .unrepresentable }
        let count = Int(try integer(Int32.self))
        _ = try integer(Int32.self)
        // Every element has a length of 4 bytes, so a count above this is a lie.
        guard count >= 0, count <= (bytes.count - position) / 4 else { throw .malformed }
        var elements: [Element] = []
        elements.reserveCapacity(count)
        for _ in 0..<count {
            let length = Int(try integer(Int32.self))
            guard length >= 0 else { throw .unrepresentable }
            var reader = BinaryReader(try slice(length))
            elements.append(try element(&reader))
            guard reader.isAtEnd else { throw .malformed }
        }
        return elements
    }
}
