/// Why bytes are no time zone file for us.
package enum TimeZoneRulesError: Error, Equatable, Sendable {
    case tooLarge
    case notTZif
    /// Version 1 has no 64-bit times and no footer.
    case unsupportedVersion
    case truncated
    case malformed(String)
}

/// Reads a TZif file front to back (RFC 8536 3).
struct TZifReader {
    struct Contents {
        var transitions: [Int64] = []
        var offsets: [Int] = []
        var offsetBeforeAll = 0
        var footer: PosixTimeZone?
    }

    private struct Header {
        var utcIndicators: Int
        var standardIndicators: Int
        var leapSeconds: Int
        var transitions: Int
        var types: Int
        var designationBytes: Int

        /// The length of the data block that follows, with times of `timeBytes` bytes.
        func blockBytes(timeBytes: Int) -> Int {
            transitions * timeBytes + transitions + types * 6 + designationBytes
                + leapSeconds * (timeBytes + 4) + standardIndicators + utcIndicators
        }
    }

    private static let bytesMax = 256 * 1024
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) throws(TimeZoneRulesError) {
        guard bytes.count <= TZifReader.bytesMax else { throw .tooLarge }
        rest = bytes[...]
    }

    mutating func parse() throws(TimeZoneRulesError) -> Contents {
        let first = try header()
        _ = try take(first.blockBytes(timeBytes: 4))
        let header = try header()
        guard header.leapSeconds == 0 else { throw .malformed("it counts leap seconds") }
        guard header.types >= 1, header.types <= 256 else {
            throw .malformed("no local time type, or too many")
        }
        guard header.utcIndicators == 0 || header.utcIndicators == header.types,
            header.standardIndicators == 0 || header.standardIndicators == header.types,
            header.designationBytes >= 1
        else { throw .malformed("counts that disagree") }
        return try contents(header)
    }

    private mutating func contents(_ header: Header) throws(TimeZoneRulesError) -> Contents {
        var contents = Contents()
        for _ in 0..<header.transitions {
            let time = Int64(bitPattern: try integer(8))
            if let last = contents.transitions.last, time <= last {
                throw .malformed("transition times that do not ascend")
            }
            contents.transitions.append(time)
        }
        let indices = try take(header.transitions)
        var typeOffsets: [Int] = []
        for _ in 0..<header.types {
            let offset = Int(Int32(truncatingIfNeeded: try integer(4)))
            guard (-93_599...93_599).contains(offset) else {
                throw .malformed("an offset beyond a day")
            }
            guard try integer(1) <= 1, try integer(1) < UInt64(header.designationBytes) else {
                throw .malformed("a local time type out of range")
            }
            typeOffsets.append(offset)
        }
        _ = try take(
            header.designationBytes + header.standardIndicators + header.utcIndicators)
        for index in indices {
            guard index < typeOffsets.count else { throw .malformed("an unknown local time type") }
            contents.offsets.append(typeOffsets[Int(index)])
        }
        contents.offsetBeforeAll = typeOffsets[0]
        contents.footer = try footer()
        return contents
    }

    /// A line feed, the TZ string, a line feed (RFC 8536 3.3). An empty string is no rule.
    private mutating func footer() throws(TimeZoneRulesError) -> PosixTimeZone? {
        guard try integer(1) == 0x0a, let end = rest.firstIndex(of: 0x0a) else {
            throw .malformed("no footer")
        }
        let text = rest[..<end]
        if text.isEmpty { return nil }
        guard let zone = PosixTimeZone(text) else { throw .malformed("a footer of unknown form") }
        return zone
    }

    private mutating func header() throws(TimeZoneRulesError) -> Header {
        guard rest.count >= 4, rest.prefix(4).elementsEqual("TZif".utf8) else { throw .notTZif }
        let start = try take(20)
        let version = start[start.startIndex + 4]
        guard version >= UInt8(ascii: "2") else { throw .unsupportedVersion }
        return Header(
            utcIndicators: Int(try integer(4)), standardIndicators: Int(try integer(4)),
            leapSeconds: Int(try integer(4)), transitions: Int(try integer(4)),
            types: Int(try integer(4)), designationBytes: Int(try integer(4)))
    }

    private mutating func take(_ count: Int) throws(TimeZoneRulesError) -> ArraySlice<UInt8> {
        guard count <= rest.count else { throw .truncated }
        let taken = rest.prefix(count)
        rest = rest.dropFirst(count)
        return taken
    }

    /// Network byte order.
    private mutating func integer(_ width: Int) throws(TimeZoneRulesError) -> UInt64 {
        var value: UInt64 = 0
        for byte in try take(width) { value = value << 8 | UInt64(byte) }
        return value
    }
}
