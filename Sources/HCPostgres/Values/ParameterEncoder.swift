import HCCore

/// The parameters of a batch of queries in the binary format, in one contiguous buffer that is used again for
/// the next batch.
///
/// Formats are those of the types' `…_recv` functions in the server (`src/backend/utils/adt`): big-endian
/// integers, UTF-8 text, microseconds and days since 2000-01-01.
struct ParameterEncoder {
    /// PostgreSQL counts parameters in 16 bits (libpq's `PQ_QUERY_PARAM_MAX_LIMIT`).
    static let parametersMax = 65535
    /// A message has a 32-bit length and the server refuses values of 1 GiB.
    static let valueBytesMax = 1 << 29
    /// What a buffer may keep between batches.
    private static let keptBytesMax = 64 * 1024

    private var types: [UInt32] = []
    private var bytes: [UInt8] = []
    /// Where each value begins in `bytes`; -1 for a null.
    private var offsets: [Int] = []
    private var lengths: [Int32] = []
    private var formats: [Int32] = []
    private var pointers: [UnsafePointer<CChar>?] = []

    mutating func removeAll() {
        types.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: bytes.capacity <= Self.keptBytesMax)
        offsets.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
    }

    /// Adds one query's values behind those already there.
    mutating func encode(_ values: [PostgresValue]) throws(PostgresError) {
        guard values.count <= Self.parametersMax else {
            throw PostgresError(.encode(.tooManyParameters(values.count)))
        }
        for (index, value) in values.enumerated() {
            types.append(value.type.oid)
            if case .null = value {
                offsets.append(-1)
                lengths.append(0)
                continue
            }
            let start = bytes.count
            do throws(Refusal) {
                try append(value)
            } catch {
                throw PostgresError(.encode(error.problem(parameter: index + 1)))
            }
            guard bytes.count - start <= Self.valueBytesMax else {
                throw PostgresError(.encode(.tooLarge(parameter: index + 1)))
            }
            offsets.append(start)
            lengths.append(Int32(bytes.count - start))
        }
    }

    /// The parameters of all queries one after the other, as libpq asks for them. Binary, all of them.
    struct Parameters {
        fileprivate let allTypes: UnsafeBufferPointer<UInt32>
        fileprivate let allValues: UnsafeBufferPointer<UnsafePointer<CChar>?>
        fileprivate let allLengths: UnsafeBufferPointer<Int32>
        fileprivate let allFormats: UnsafeBufferPointer<Int32>

        /// The parameters of one query: `count` of them from `first`.
        subscript(first: Int, count: Int) -> Parameters {
            let range = first..<(first + count)
            return Parameters(
                allTypes: .init(rebasing: allTypes[range]),
                allValues: .init(rebasing: allValues[range]),
                allLengths: .init(rebasing: allLengths[range]),
                allFormats: .init(rebasing: allFormats[range]))
        }

        var count: Int32 { Int32(allTypes.count) }
        var oids: UnsafeBufferPointer<UInt32> { allTypes }
        var types: UnsafePointer<UInt32>? { allTypes.baseAddress }
        var values: UnsafePointer<UnsafePointer<CChar>?>? { allValues.baseAddress }
        var lengths: UnsafePointer<Int32>? { allLengths.baseAddress }
        var formats: UnsafePointer<Int32>? { allFormats.baseAddress }
    }

    /// The pointers are valid within `body` only; libpq copies what it is given.
    mutating func withParameters<Result>(_ body: (Parameters) -> Result) -> Result {
        // A value of no bytes still needs an address: a nil pointer would make it a null.
        if bytes.isEmpty { bytes.append(0) }
        while formats.count < offsets.count { formats.append(1) }
        pointers.removeAll(keepingCapacity: true)
        return bytes.withUnsafeBytes { raw in
            for offset in offsets {
                pointers.append(
                    offset < 0
                        ? nil
                        : raw.baseAddress?.advanced(by: offset).assumingMemoryBound(to: CChar.self))
            }
            return types.withUnsafeBufferPointer { types in
                lengths.withUnsafeBufferPointer { lengths in
                    formats.withUnsafeBufferPointer { formats in
                        pointers.withUnsafeBufferPointer { pointers in
                            body(
                                Parameters(
                                    allTypes: types, allValues: pointers, allLengths: lengths,
                                    allFormats: formats))
                        }
                    }
                }
            }
        }
    }
}

extension ParameterEncoder {
    private enum Refusal: Error {
        case nul
        case range

        func problem(parameter: Int) -> PostgresError.EncodeProblem {
            switch self {
            case .nul: .nulInText(parameter: parameter)
            case .range: .outOfRange(parameter: parameter)
            }
        }
    }

    private mutating func append(_ value: PostgresValue) throws(Refusal) {
        switch value {
        case .null: break
        case .bool(let value): bytes.append(value ? 1 : 0)
        case .int2(let value): append(integer: value)
        case .int4(let value): append(integer: value)
        case .int8(let value): append(integer: value)
        case .double(let value): append(integer: value.bitPattern)
        case .text(let value): try append(text: value)
        case .bytes(let value): bytes.append(contentsOf: value)
        case .uuid(let value): append(value)
        case .timestamp(let value): try append(value)
        case .date(let value):
            append(integer: Int32(value.daysSinceEpoch - PostgresEpoch.days))
        case .json(let value):
            bytes.append(1)  // the version of jsonb's binary form
            bytes.append(contentsOf: value)
        case .timestampRange(let value): try append(value)
        case .uuids(let values):
            beginArray(of: .uuid, count: values.count)
            for value in values {
                append(integer: Int32(16))
                append(value)
            }
        case .texts(let values):
            beginArray(of: .text, count: values.count)
            for value in values {
                let length = reserveLength()
                try append(text: value)
                fillLength(at: length)
            }
        case .int8s(let values):
            beginArray(of: .int8, count: values.count)
            for value in values {
                append(integer: Int32(8))
                append(integer: value)
            }
        case .byteas(let values):
            beginArray(of: .bytea, count: values.count)
            for value in values {
                append(integer: Int32(truncatingIfNeeded: value.count))
                bytes.append(contentsOf: value)
            }
        case .timestamps(let values):
            beginArray(of: .timestamptz, count: values.count)
            for value in values {
                append(integer: Int32(8))
                try append(value)
            }
        }
    }

    private mutating func append(integer: some FixedWidthInteger) {
        withUnsafeBytes(of: integer.bigEndian) { bytes.append(contentsOf: $0) }
    }

    private mutating func append(text: String) throws(Refusal) {
        let start = bytes.count
        bytes.append(contentsOf: text.utf8)
        guard !bytes[start...].contains(0) else { throw .nul }
    }

    private mutating func append(_ uuid: UUID) {
        append(integer: uuid.high)
        append(integer: uuid.low)
    }

    private mutating func append(_ timestamp: Timestamp) throws(Refusal) {
        let (microseconds, overflow) = timestamp.microseconds.subtractingReportingOverflow(
            PostgresEpoch.microseconds)
        // The two ends of the range mean plus and minus infinity.
        guard !overflow, microseconds != .min, microseconds != .max else { throw .range }
        append(integer: microseconds)
    }

    /// `range_recv`: flags, then each bound that there is, with its length.
    private mutating func append(_ range: TimestampRange) throws(Refusal) {
        if let lower = range.lower, let upper = range.upper {
            guard lower <= upper else { throw .range }
            guard lower < upper else {
                bytes.append(RangeFlags.empty)
                return
            }
        }
        var flags: UInt8 = 0
        flags |= range.lower == nil ? RangeFlags.lowerInfinite : RangeFlags.lowerInclusive
        if range.upper == nil { flags |= RangeFlags.upperInfinite }
        bytes.append(flags)
        if let lower = range.lower {
            append(integer: Int32(8))
            try append(lower)
        }
        if let upper = range.upper {
            append(integer: Int32(8))
            try append(upper)
        }
    }

    /// `array_recv`: dimensions, "has nulls", element type, then per dimension its length and lower bound.
    private mutating func beginArray(of element: PostgresType, count: Int) {
        append(integer: Int32(count == 0 ? 0 : 1))
        append(integer: Int32(0))
        append(integer: element.oid)
        guard count > 0 else { return }
        append(integer: Int32(truncatingIfNeeded: count))
        append(integer: Int32(1))
    }

    private mutating func reserveLength() -> Int {
        append(integer: Int32(0))
        return bytes.count
    }

    private mutating func fillLength(at start: Int) {
        let length = UInt32(truncatingIfNeeded: bytes.count - start)
        for index in 0..<4 {
            bytes[start - 4 + index] = UInt8(truncatingIfNeeded: length >> UInt32(24 - 8 * index))
        }
    }
}

/// PostgreSQL counts from 2000-01-01.
enum PostgresEpoch {
    static let days = 10957
    static let microseconds: Int64 = 946_684_800_000_000
}

/// `RANGE_EMPTY` and its siblings (`src/include/utils/rangetypes.h`).
enum RangeFlags {
    static let empty: UInt8 = 0x01
    static let lowerInclusive: UInt8 = 0x02
    static let upperInclusive: UInt8 = 0x04
    static let lowerInfinite: UInt8 = 0x08
    static let upperInfinite: UInt8 = 0x10
}
