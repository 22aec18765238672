/// A line of the log that is being written. What it takes is as closed a list as `LogValue`.
///
/// It stands on the stack: nearly every line has room there, and costs no memory and no counted reference. What has no
/// room, or needs escapes, goes into a buffer with all that stands before it.
package struct LogLine: ~Copyable {
    /// A line of the access log has some 350 bytes.
    private static let bytesMax = 1024

    private var text: FixedText
    /// What stands before `text`.
    private var earlier: ByteBuffer?

    private init(_ text: FixedText) {
        self.text = text
    }

    /// Lends `sink` the line that `build` writes.
    static func with(_ build: (inout LogLine) -> Void, sink: Logger.Sink) {
        withUnsafeTemporaryAllocation(byteCount: bytesMax, alignment: 8) { space in
            var line = LogLine(FixedText(space: space))
            build(&line)
            if line.earlier == nil {
                line.text.withBytes(sink)
            } else {
                line.moveText()
                line.earlier?.withUnsafeReadableBytes(sink)
            }
        }
    }

    // MARK: The parts of every line

    mutating func begin(_ level: Logger.Level, _ message: StaticString, at time: Timestamp) {
        text.append("{\"time\":\"")
        text.append(time)
        text.append(UInt8(ascii: "\""))
        add("level", text: level.name)
        add("message", text: message)
    }

    /// - Parameter rendered: members as they stand in a line: `,"name":value…`.
    mutating func append(_ rendered: ByteBuffer) {
        rendered.withUnsafeReadableBytes { bytes in
            if bytes.count <= text.room {
                text.append(bytes)
            } else {
                spill { $0.append(bytes) }
            }
        }
    }

    mutating func end() {
        if text.room < 2 { moveText() }
        text.append("}\n")
    }

    // MARK: Members

    package mutating func add(_ name: StaticString, _ value: LogValue) {
        switch value {
        case .string(let value): add(name, value)
        case .integer(let value): add(name, value)
        case .uuid(let value): add(name, value)
        default: spillMember { $0.member(name, value) }
        }
    }

    package mutating func add(_ name: StaticString, _ value: String) {
        value.withBytes { add(name, utf8: $0) }
    }

    package mutating func add(_ name: StaticString, text value: StaticString) {
        value.withUTF8Buffer { add(name, utf8: $0) }
    }

    package mutating func add(_ name: StaticString, _ value: Int) {
        add(name, Int64(value))
    }

    package mutating func add<Kind>(_ name: StaticString, _ value: Identifier<Kind>) {
        add(name, value.uuid)
    }

    package mutating func add(_ name: StaticString, _ value: RequestID) {
        add(name, atMost: RequestID.receivedBytesMax) { value.write(to: $0) }
    }

    /// - Parameter write: writes a text of at most `bytesMax` bytes, none of which needs an escape, to the beginning of the
    ///   memory that it is lent, and returns how many bytes it has.
    package mutating func add(
        _ name: StaticString, atMost bytesMax: Int,
        _ write: (UnsafeMutableRawBufferPointer) -> Int
    ) {
        key(name, room: bytesMax + 2)
        text.append(UInt8(ascii: "\""))
        text.append(upTo: bytesMax, write)
        text.append(UInt8(ascii: "\""))
    }

    private mutating func add(_ name: StaticString, _ value: Int64) {
        // The sign and 19 digits.
        key(name, room: 20)
        text.append(decimal: value)
    }

    private mutating func add(_ name: StaticString, _ value: UUID) {
        key(name, room: UUID.textCount + 2)
        text.append(UInt8(ascii: "\""))
        text.append(value)
        text.append(UInt8(ascii: "\""))
    }

    private mutating func add(_ name: StaticString, utf8 bytes: UnsafeBufferPointer<UInt8>) {
        guard bytes.count <= LogLine.bytesMax / 2, !JSONWriter.needsEscape(bytes) else {
            return spillMember { writer in
                writer.member(name, String(decoding: bytes, as: UTF8.self))
            }
        }
        key(name, room: bytes.count + 2)
        text.append(UInt8(ascii: "\""))
        text.append(UnsafeRawBufferPointer(bytes))
        text.append(UInt8(ascii: "\""))
    }

    // MARK: Room

    /// A name of the program's own, which needs no escape and is short.
    ///
    /// - Parameter room: for what follows it.
    @inline(__always)
    private mutating func key(_ name: StaticString, room: Int) {
        if text.room < name.utf8CodeUnitCount + 4 + room { moveText() }
        text.append(",\"")
        text.append(name)
        text.append("\":")
    }

    @inline(never)
    private mutating func spillMember(_ write: (inout JSONWriter) -> Void) {
        spill { buffer in
            buffer.append(UInt8(ascii: ","))
            var writer = JSONWriter(appendingTo: consume buffer)
            write(&writer)
            buffer = writer.finish()
        }
    }

    @inline(never)
    private mutating func spill(_ write: (inout ByteBuffer) -> Void) {
        moveText()
        guard var buffer = earlier.take() else { return }
        write(&buffer)
        earlier = consume buffer
    }

    @inline(never)
    private mutating func moveText() {
        var buffer = earlier.take() ?? ByteBuffer()
        text.withBytes { buffer.append($0) }
        text.removeAll()
        earlier = consume buffer
    }
}
