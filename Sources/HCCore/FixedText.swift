/// A short text that is put together in memory of its length, so that a buffer takes it in one piece: each append to a
/// buffer asks whether it is shared and whether there is room, which costs more than most of what is appended.
///
/// Lives only inside `FixedText.with` and `ByteBuffer.appendFixedText`, whose memory it fills from the front.
package struct FixedText {
    package static let bytesMax = 128

    private let space: UnsafeMutableRawBufferPointer
    package private(set) var count = 0

    init(space: UnsafeMutableRawBufferPointer) {
        self.space = space
    }

    /// Bytes that it can still take.
    @inline(__always)
    var room: Int { space.count - count }

    @inline(__always)
    func withBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        body(UnsafeRawBufferPointer(rebasing: space[..<count]))
    }

    mutating func removeAll() { count = 0 }

    /// Lends a text of at most `bytesMax` bytes to `body`.
    @inline(__always)
    package static func with(
        _ build: (inout FixedText) -> Void, _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        withUnsafeTemporaryAllocation(byteCount: bytesMax, alignment: 8) { space in
            var text = FixedText(space: space)
            build(&text)
            text.withBytes(body)
        }
    }

    @inline(__always)
    package mutating func append(_ byte: UInt8) {
        precondition(count < space.count, "a text that is too long for its space")
        space[count] = byte
        count += 1
    }

    @inline(__always)
    package mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    @inline(__always)
    package mutating func append(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { append($0) }
    }

    @inline(__always)
    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count <= space.count - count, "a text that is too long for its space")
        guard let source = bytes.baseAddress, let target = space.baseAddress else { return }
        (target + count).copyMemory(from: source, byteCount: bytes.count)
        count += bytes.count
    }

    /// Appends so many bytes, which `write` fills in.
    package mutating func append(
        _ count: Int, _ write: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        precondition(count <= space.count - self.count, "a text that is too long for its space")
        write(UnsafeMutableRawBufferPointer(rebasing: space[self.count..<self.count + count]))
        self.count += count
    }

    /// Lends room for `count` bytes to `write`, which says how many it has filled.
    @inline(__always)
    mutating func append(upTo count: Int, _ write: (UnsafeMutableRawBufferPointer) -> Int) {
        precondition(count <= room, "a text that is too long for its space")
        let written = write(
            UnsafeMutableRawBufferPointer(rebasing: space[self.count..<self.count + count]))
        precondition(written <= count, "the writer overran its room")
        self.count += written
    }

    mutating func append(decimal value: UInt64) {
        // Divided by a constant: a division by a number that is not known beforehand costs several times as much.
        var digits = 1
        var rest = value
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        precondition(digits <= room, "a text that is too long for its space")
        var place = count + digits
        rest = value
        while place > count {
            place -= 1
            space[place] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        count += digits
    }

    @inline(__always)
    package mutating func append(decimal value: Int64) {
        if value < 0 { append(UInt8(ascii: "-")) }
        append(decimal: value.magnitude)
    }

    /// The 36 characters of `UUID.description`.
    @inline(__always)
    mutating func append(_ uuid: UUID) {
        precondition(room >= UUID.textCount, "a text that is too long for its space")
        uuid.write(to: UnsafeMutableRawBufferPointer(rebasing: space[count...]))
        count += UUID.textCount
    }

    @inline(__always)
    mutating func append(twoDigits value: Int) {
        append(0x30 + UInt8(truncatingIfNeeded: value / 10 % 10))
        append(0x30 + UInt8(truncatingIfNeeded: value % 10))
    }

    /// `YYYY-MM-DD`.
    mutating func append(_ date: CalendarDate) {
        if date.year < 0 { append(UInt8(ascii: "-")) }
        // Only instants beyond RFC 3339 have such years: up to 294,247.
        if abs(date.year) > 9999 { append(twoDigits: abs(date.year) / 10_000) }
        append(twoDigits: abs(date.year) / 100 % 100)
        append(twoDigits: abs(date.year) % 100)
        append(UInt8(ascii: "-"))
        append(twoDigits: date.month)
        append(UInt8(ascii: "-"))
        append(twoDigits: date.day)
    }

    mutating func append(timeOfDay second: Int) {
        append(twoDigits: second / 3600)
        append(UInt8(ascii: ":"))
        append(twoDigits: second / 60 % 60)
        append(UInt8(ascii: ":"))
        append(twoDigits: second % 60)
    }

    mutating func append(localClockOf timestamp: Timestamp, offsetSeconds: Int) {
        let second = Int(timestamp.seconds)
        // Wrapping: at the beginning of the range the product alone would not fit.
        let micros = Int(timestamp.microseconds) &- second &* 1_000_000
        let local = second + offsetSeconds
        let day = CalendarDate.floorDivide(local, 86_400)
        append(CalendarDate(uncheckedDaysSinceEpoch: day))
        append(UInt8(ascii: "T"))
        append(timeOfDay: local - day * 86_400)
        if micros != 0 {
            append(UInt8(ascii: "."))
            append(twoDigits: micros / 10_000)
            append(twoDigits: micros / 100 % 100)
            append(twoDigits: micros % 100)
        }
    }

    /// `Timestamp.rfc3339`.
    mutating func append(_ timestamp: Timestamp) {
        append(localClockOf: timestamp, offsetSeconds: 0)
        append(UInt8(ascii: "Z"))
    }
}

extension String {
    /// Lends the UTF-8, without the copy that `withUTF8` needs: a counted reference for each text that is written.
    @inlinable @inline(__always)
    package func withBytes<Answer>(_ body: (UnsafeBufferPointer<UInt8>) -> Answer) -> Answer {
        if let answer = utf8.withContiguousStorageIfAvailable(body) { return answer }
        var copy = self
        return copy.withUTF8(body)
    }
}
