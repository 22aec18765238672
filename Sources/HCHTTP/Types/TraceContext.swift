/// A trace that the request belongs to (W3C Trace Context, level 1, `traceparent` version 00 or later).
package struct TraceContext: Sendable, Hashable {
    /// 32 lower case hex digits, not all zero.
    package let traceID: String
    /// 16 lower case hex digits, not all zero: the caller's span.
    package let parentID: String
    package let isSampled: Bool

    package init?(traceparent text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].utf8.count == 2, TraceContext.isHex(parts[0]),
            parts[0] != "ff",
            parts[0] != "00" || parts.count == 4,
            parts[1].utf8.count == 32, TraceContext.isHex(parts[1]),
            parts[1].contains(where: { $0 != "0" }),
            parts[2].utf8.count == 16, TraceContext.isHex(parts[2]),
            parts[2].contains(where: { $0 != "0" }),
            parts[3].utf8.count == 2, TraceContext.isHex(parts[3]),
            let flags = UInt8(parts[3], radix: 16)
        else { return nil }
        traceID = String(parts[1])
        parentID = String(parts[2])
        isSampled = flags & 1 == 1
    }

    private static func isHex(_ text: Substring) -> Bool {
        text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }
}
