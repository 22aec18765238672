/// Writes JSON text (RFC 8259) at the end of a buffer, value by value, without a tree in between.
///
/// The caller keeps the grammar: every `beginObject` has its `endObject`, every member a `key` first.
/// Commas are the writer's. To fill an existing buffer without a copy, hand it over with `consume` and
/// take it back from `buffer`.
package struct JSONWriter: Sendable {
    package var buffer: ByteBuffer
    private var needsComma = false

    package init() {
        buffer = ByteBuffer()
    }

    package init(appendingTo buffer: consuming ByteBuffer) {
        self.buffer = buffer
    }

    /// The text so far; ends the writer.
    package consuming func finish() -> ByteBuffer { buffer }

    // MARK: Structure

    package mutating func beginObject() { begin(UInt8(ascii: "{")) }
    package mutating func endObject() { end(UInt8(ascii: "}")) }
    package mutating func beginArray() { begin(UInt8(ascii: "[")) }
    package mutating func endArray() { end(UInt8(ascii: "]")) }

    private mutating func begin(_ mark: UInt8) {
        separate()
        buffer.append(mark)
        needsComma = false
    }

    private mutating func end(_ mark: UInt8) {
        buffer.append(mark)
        needsComma = true
    }

    /// A name that is in the program: it must need no escape.
    package mutating func key(_ name: StaticString) {
        precondition(name.utf8CodeUnitCount <= JSONWriter.shortMax, "a name of our own is short")
        appendText { text in
            text.append(UInt8(ascii: "\""))
            text.append(name)
            text.append(UInt8(ascii: "\""))
            text.append(UInt8(ascii: ":"))
        }
        needsComma = false
    }

    package mutating func key(_ name: String) {
        separate()
        append(quoted: name)
        buffer.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// A string of so many bytes is put together beside the buffer and appended in one piece.
    private static let shortMax = FixedText.bytesMax - 4

    /// A comma if there must be one, and a text.
    @inline(__always)
    private mutating func appendText(_ build: (inout FixedText) -> Void) {
        let isFollowing = needsComma
        buffer.appendFixedText { text in
            if isFollowing { text.append(UInt8(ascii: ",")) }
            build(&text)
        }
        needsComma = true
    }

    /// A member whose value has at most `FixedText.bytesMax - nameMax` bytes, in one piece.
    @inline(__always)
    private mutating func appendMember(
        _ name: StaticString, _ build: (inout FixedText) -> Void
    ) {
        precondition(name.utf8CodeUnitCount <= JSONWriter.nameMax, "a name of our own is short")
        appendText { text in
            text.append(UInt8(ascii: "\""))
            text.append(name)
            text.append(UInt8(ascii: "\""))
            text.append(UInt8(ascii: ":"))
            build(&text)
        }
    }

    /// With the comma, the quotes and the colon 56 bytes: a UUID, a time and a number need less.
    private static let nameMax = 52

    @inline(__always)
    private mutating func appendQuoted(_ build: (inout FixedText) -> Void) {
        appendText { text in
            text.append(UInt8(ascii: "\""))
            build(&text)
            text.append(UInt8(ascii: "\""))
        }
    }

    private mutating func separate() {
        if needsComma { buffer.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    // MARK: Values

    package mutating func null() {
        separate()
        buffer.append("null")
    }

    package mutating func bool(_ value: Bool) {
        separate()
        buffer.append(value ? "true" : "false")
    }

    package mutating func integer(_ value: Int64) {
        appendText { $0.append(decimal: value) }
    }

    package mutating func integer(_ value: Int) {
        integer(Int64(value))
    }

    package mutating func integer(_ value: UInt64) {
        appendText { $0.append(decimal: value) }
    }

    /// The shortest text that reads back as the same Double; JSON has no infinity and no NaN, so these
    /// become null.
    package mutating func double(_ value: Double) {
        guard value.isFinite else { return null() }
        separate()
        buffer.append(utf8: value.description)
    }

    package mutating func string(_ value: String) {
        value.withBytes { string(utf8: $0) }
    }

    package mutating func string(_ value: StaticString) {
        value.withUTF8Buffer { string(utf8: $0) }
    }

    /// Most strings are short and need no escape.
    private mutating func string(utf8 bytes: UnsafeBufferPointer<UInt8>) {
        if bytes.count <= JSONWriter.shortMax, !JSONWriter.needsEscape(bytes) {
            appendQuoted { $0.append(UnsafeRawBufferPointer(bytes)) }
        } else {
            separate()
            append(quoted: bytes)
        }
    }

    @inline(__always)
    static func needsEscape(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        for byte in bytes where byte < 0x20 || byte == 0x22 || byte == 0x5c { return true }
        return false
    }

    package mutating func uuid(_ value: UUID) {
        appendQuoted { $0.append(value) }
    }

    package mutating func identifier<Kind>(_ value: Identifier<Kind>) {
        uuid(value.uuid)
    }

    /// RFC 3339, in UTC.
    package mutating func timestamp(_ value: Timestamp) {
        appendQuoted { $0.append(value) }
    }

    package mutating func date(_ value: CalendarDate) {
        appendQuoted { $0.append(value) }
    }

    /// JSON text made before, which is trusted to be one value.
    package mutating func raw(_ json: [UInt8]) {
        separate()
        buffer.append(json)
    }

    /// JSON text that the caller puts together in one piece, which is trusted to be one value or some members: for what is
    /// written so often that a piece for each part costs too much.
    package mutating func raw(atMost bytesMax: Int, _ build: (inout FixedText) -> Void) {
        let isFollowing = needsComma
        buffer.appendFixedText(atMost: bytesMax + 1) { text in
            if isFollowing { text.append(UInt8(ascii: ",")) }
            build(&text)
        }
        needsComma = true
    }

    package mutating func value(_ value: JSONValue) {
        switch value {
        case .null: null()
        case .bool(let value): bool(value)
        case .integer(let value): integer(value)
        case .double(let value): double(value)
        case .string(let value): string(value)
        case .array(let values):
            beginArray()
            for value in values { self.value(value) }
            endArray()
        case .object(let object):
            beginObject()
            for member in object.members {
                key(member.name)
                self.value(member.value)
            }
            endObject()
        }
    }

    // MARK: Members: a key and its value

    package mutating func member(_ name: StaticString, _ value: String) {
        value.withBytes { member(name, utf8: $0) }
    }

    package mutating func member(_ name: StaticString, text value: StaticString) {
        value.withUTF8Buffer { member(name, utf8: $0) }
    }

    private mutating func member(_ name: StaticString, utf8 bytes: UnsafeBufferPointer<UInt8>) {
        guard bytes.count <= JSONWriter.shortMax - JSONWriter.nameMax - 4,
            !JSONWriter.needsEscape(bytes)
        else {
            key(name)
            return string(utf8: bytes)
        }
        appendMember(name) { text in
            text.append(UInt8(ascii: "\""))
            text.append(UnsafeRawBufferPointer(bytes))
            text.append(UInt8(ascii: "\""))
        }
    }

    /// nil is written as null.
    package mutating func member(_ name: StaticString, _ value: String?) {
        key(name)
        if let value { string(value) } else { null() }
    }

    package mutating func member(_ name: StaticString, _ value: Int) {
        member(name, Int64(value))
    }

    package mutating func member(_ name: StaticString, _ value: Int64) {
        appendMember(name) { $0.append(decimal: value) }
    }

    package mutating func member(_ name: StaticString, _ value: Bool) {
        key(name)
        bool(value)
    }

    package mutating func member(_ name: StaticString, _ value: UUID) {
        appendMember(name) { text in
            text.append(UInt8(ascii: "\""))
            text.append(value)
            text.append(UInt8(ascii: "\""))
        }
    }

    package mutating func member<Kind>(_ name: StaticString, _ value: Identifier<Kind>) {
        member(name, value.uuid)
    }

    package mutating func member(_ name: StaticString, _ value: Timestamp) {
        appendMember(name) { text in
            text.append(UInt8(ascii: "\""))
            text.append(value)
            text.append(UInt8(ascii: "\""))
        }
    }

    /// nil is written as null.
    package mutating func member(_ name: StaticString, _ value: Timestamp?) {
        key(name)
        if let value { timestamp(value) } else { null() }
    }

    package mutating func member(_ name: StaticString, _ value: CalendarDate) {
        key(name)
        date(value)
    }

    package mutating func member(_ name: StaticString, _ value: [String]) {
        key(name)
        beginArray()
        for value in value { string(value) }
        endArray()
    }

    package mutating func member(_ name: StaticString, _ value: JSONValue) {
        key(name)
        self.value(value)
    }

    // MARK: Escapes

    /// Copies runs of bytes that need no escape; most strings are one run.
    private mutating func append(quoted text: String) {
        text.withBytes { append(quoted: $0) }
    }

    private mutating func append(quoted bytes: UnsafeBufferPointer<UInt8>) {
        buffer.append(UInt8(ascii: "\""))
        var runStart = 0
        for index in bytes.indices {
            let byte = bytes[index]
            if byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") { continue }
            buffer.append(
                UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[runStart..<index]))
            append(escapeOf: byte)
            runStart = index + 1
        }
        buffer.append(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[runStart...]))
        buffer.append(UInt8(ascii: "\""))
    }

    private mutating func append(escapeOf byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): buffer.append("\\\"")
        case UInt8(ascii: "\\"): buffer.append("\\\\")
        case 0x0a: buffer.append("\\n")
        case 0x0d: buffer.append("\\r")
        case 0x09: buffer.append("\\t")
        default:
            buffer.append("\\u00")
            buffer.append(hex: [byte])
        }
    }
}
