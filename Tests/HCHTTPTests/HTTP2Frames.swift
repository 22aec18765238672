/// Writes and reads HTTP/2 frames byte by byte: a test's own, so that it shares no mistake with the server, and can
/// write what no library would.
struct FrameBuilder {
    var bytes: [UInt8] = []

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// The preface with empty SETTINGS.
    static var opening: FrameBuilder {
        var builder = FrameBuilder(bytes: preface)
        builder.settings()
        return builder
    }

    mutating func frame(
        _ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = [],
        length: Int? = nil
    ) {
        let count = length ?? payload.count
        bytes += [
            UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255), type, flags,
        ]
        bytes += FrameBuilder.number(stream)
        bytes += payload
    }

    static func number(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> UInt32($0)) }
    }

    mutating func settings(_ values: [(UInt16, UInt32)] = [], flags: UInt8 = 0, stream: UInt32 = 0)
    {
        frame(
            4, flags: flags, stream: stream,
            values.flatMap { [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + FrameBuilder.number($0.1) })
    }

    mutating func settingsAcknowledged() { settings(flags: 1) }

    /// - Parameter ends: END_STREAM; END_HEADERS is set unless `isOpen`.
    mutating func headers(
        _ stream: UInt32, _ fields: [(String, String)] = FrameBuilder.get, ends: Bool = true,
        isOpen: Bool = false
    ) {
        frame(
            1, flags: (ends ? 1 : 0) | (isOpen ? 0 : 4), stream: stream, FrameBuilder.block(fields))
    }

    mutating func continuation(_ stream: UInt32, _ payload: [UInt8], isLast: Bool) {
        frame(9, flags: isLast ? 4 : 0, stream: stream, payload)
    }

    mutating func data(_ stream: UInt32, _ text: String, ends: Bool = false) {
        frame(0, flags: ends ? 1 : 0, stream: stream, Array(text.utf8))
    }

    mutating func reset(_ stream: UInt32, code: UInt32 = 8) {
        frame(3, stream: stream, FrameBuilder.number(code))
    }

    mutating func windowUpdate(_ stream: UInt32, _ increment: UInt32) {
        frame(8, stream: stream, FrameBuilder.number(increment))
    }

    mutating func ping(_ text: String = "pingping", flags: UInt8 = 0) {
        frame(6, flags: flags, Array(text.utf8))
    }

    mutating func priority(_ stream: UInt32, on other: UInt32) {
        frame(2, stream: stream, FrameBuilder.number(other) + [15])
    }

    mutating func goaway(_ last: UInt32 = 0, code: UInt32 = 0) {
        frame(7, FrameBuilder.number(last) + FrameBuilder.number(code))
    }

    static let get = [
        (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example"),
    ]

    static let post = [
        (":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example"),
    ]

    /// Literal fields without indexing (RFC 7541 6.2.2): no table, no Huffman code.
    static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + string($0.0) + string($0.1) }
    }

    static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
        var rest = bytes.count - 127
        var length: [UInt8] = [127]
        while rest >= 128 {
            length.append(UInt8(rest % 128 + 128))
            rest /= 128
        }
        return length + [UInt8(rest)] + bytes
    }
}

/// A frame as a client reads it.
struct Frame: Equatable, CustomStringConvertible {
    let type: UInt8
    let flags: UInt8
    let stream: UInt32
    let payload: [UInt8]

    /// Every complete frame.
    static func parse(_ bytes: [UInt8]) -> [Frame] {
        var found: [Frame] = []
        var rest = bytes[...]
        while rest.count >= 9 {
            let head = Array(rest.prefix(9))
            let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
            guard rest.count >= 9 + count else { break }
            found.append(
                Frame(
                    type: head[3], flags: head[4], stream: number(head[5...]) & 0x7FFF_FFFF,
                    payload: Array(rest.dropFirst(9).prefix(count))))
            rest = rest.dropFirst(9 + count)
        }
        return found
    }

    static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }

    var endsStream: Bool { (type == 0 || type == 1) && flags & 1 == 1 }
    var isAcknowledgement: Bool { flags & 1 == 1 }
    /// Of RST_STREAM.
    var resetCode: UInt32 { Frame.number(payload[...]) }
    /// Of GOAWAY.
    var goawayLast: UInt32 { Frame.number(payload[...]) & 0x7FFF_FFFF }
    var goawayCode: UInt32 { Frame.number(payload[4...]) }
    var text: String { String(decoding: payload, as: UTF8.self) }

    var description: String {
        let names = [
            "DATA", "HEADERS", "PRIORITY", "RST", "SETTINGS", "PUSH", "PING", "GOAWAY", "WINDOW",
            "CONTINUATION",
        ]
        let name = Int(type) < names.count ? names[Int(type)] : "\(type)"
        return "\(name)(\(stream) \(flags) \(payload.count))"
    }
}
