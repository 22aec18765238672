/// Bytes that are appended at the back and consumed at the front: what parsers read and writers fill.
///
/// A value type over one array. Cleared and refilled it does not allocate, so long as it is not shared:
/// a copy that lives on makes the next append copy the bytes. Not for more than one task at a time.
@usableFromInline package struct ByteBuffer: Sendable {
    @usableFromInline var storage: [UInt8]
    @usableFromInline var readIndex: Int

    package init() {
        storage = []
        readIndex = 0
    }

    package init(reserving capacity: Int) {
        self.init()
        storage.reserveCapacity(capacity)
    }

    package init(_ bytes: consuming [UInt8]) {
        storage = bytes
        readIndex = 0
    }

    package init(string: String) {
        storage = Array(string.utf8)
        readIndex = 0
    }

    @inlinable package var readableCount: Int { storage.count - readIndex }
    package var isEmpty: Bool { storage.count == readIndex }
    package var capacity: Int { storage.capacity }

    /// The readable byte at `offset` from the front, `0..<readableCount`.
    package subscript(offset: Int) -> UInt8 {
        precondition(offset >= 0, "a buffer is read forward")
        return storage[readIndex + offset]
    }

    // MARK: Reading

    /// A copy of the readable bytes; free of cost if nothing has been consumed.
    package var bytes: [UInt8] {
        readIndex == 0 ? storage : Array(storage[readIndex...])
    }

    /// The readable bytes without a copy; holding the slice makes the next append copy.
    package var slice: ArraySlice<UInt8> { storage[readIndex...] }

    /// The readable bytes as text; bytes that are no UTF-8 become U+FFFD. For what we wrote ourselves.
    package var string: String { String(decoding: slice, as: UTF8.self) }

    /// The readable bytes as text, or nil if they are no UTF-8 (RFC 3629).
    package var validatedString: String? { String(validating: slice, as: UTF8.self) }

    /// Lends the readable bytes; the pointer is good only until `body` returns.
    @inlinable package func withUnsafeReadableBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try storage.withUnsafeBufferPointer { (whole) throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: whole[readIndex...])))
        }
    }

    /// Drops `count` readable bytes from the front. Space is reused once everything has been consumed,
    /// or when an append finds more consumed than readable bytes.
    package mutating func consume(_ count: Int) {
        precondition(count >= 0 && count <= readableCount, "consumed more than there is")
        readIndex += count
        if readIndex == storage.count {
            storage.removeAll(keepingCapacity: true)
            readIndex = 0
        }
    }

    /// Takes `count` bytes from the front as an array.
    package mutating func read(_ count: Int) -> [UInt8] {
        precondition(count >= 0 && count <= readableCount, "read more than there is")
        let taken = Array(storage[readIndex..<readIndex + count])
        consume(count)
        return taken
    }

    /// Cuts the readable bytes after the first `count`: takes back what was appended too much.
    package mutating func truncate(to count: Int) {
        precondition(count >= 0 && count <= readableCount, "truncated to more than there is")
        storage.removeLast(readableCount - count)
    }

    // MARK: Space

    /// Makes room for `count` more bytes.
    package mutating func reserve(_ count: Int) {
        compact()
        let needed = storage.count + count
        if storage.capacity < needed { storage.reserveCapacity(max(needed, storage.capacity * 2)) }
    }

    /// Forgets all bytes. Keeps the memory for the next round unless it grew above `limit` bytes: one
    /// large answer should not stay with a connection for ever.
    package mutating func clear(keepingCapacityUpTo limit: Int = .max) {
        if storage.capacity > limit {
            storage = []
        } else {
            storage.removeAll(keepingCapacity: true)
        }
        readIndex = 0
    }

    private mutating func compact() {
        guard readIndex > 0, readIndex >= readableCount else { return }
        storage.removeFirst(readIndex)
        readIndex = 0
    }

    // MARK: Writing

    package mutating func append(_ byte: UInt8) {
        storage.append(byte)
    }

    package mutating func append(_ bytes: [UInt8]) {
        // Not as an array, which would be given to keep and counted for that.
        bytes.withUnsafeBytes { append($0) }
    }

    package mutating func append(_ bytes: ArraySlice<UInt8>) {
        if readIndex > 0 { compact() }
        storage.append(contentsOf: bytes)
    }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if readIndex > 0 { compact() }
        storage.append(contentsOf: bytes)
    }

    package mutating func append(_ other: ByteBuffer) {
        append(other.slice)
    }

    /// The UTF-8 of `string`.
    package mutating func append(utf8 string: String) {
        if readIndex > 0 { compact() }
        string.withBytes { storage.append(contentsOf: $0) }
    }

    package mutating func append(utf8 string: Substring) {
        if readIndex > 0 { compact() }
        var string = string
        string.withUTF8 { storage.append(contentsOf: $0) }
    }

    /// The UTF-8 of text that is in the program.
    package mutating func append(_ text: StaticString) {
        if readIndex > 0 { compact() }
        text.withUTF8Buffer { storage.append(contentsOf: $0) }
    }

    /// Appends a text of at most `bytesMax` bytes, written where it stays.
    @inline(__always)
    package mutating func appendFixedText(
        atMost bytesMax: Int = FixedText.bytesMax, _ build: (inout FixedText) -> Void
    ) {
        if readIndex > 0 { compact() }
        storage.append(addingCapacity: bytesMax) { span in
            span.withUnsafeMutableBufferPointer { space, count in
                let free = UnsafeMutableBufferPointer(rebasing: space[count...])
                var text = FixedText(space: UnsafeMutableRawBufferPointer(free))
                build(&text)
                count += text.count
            }
        }
    }

    /// Base ten, without a String in between.
    package mutating func append(decimal value: Int) {
        append(decimal: Int64(value))
    }

    package mutating func append(decimal value: Int64) {
        appendFixedText { $0.append(decimal: value) }
    }

    package mutating func append(decimal value: UInt64) {
        appendFixedText { $0.append(decimal: value) }
    }

    /// Lower case, no leading zeros: an HTTP/1.1 chunk size.
    package mutating func append(hex value: UInt64) {
        let digits = max(1, (67 - value.leadingZeroBitCount) / 4)
        for position in stride(from: (digits - 1) * 4, through: 0, by: -4) {
            append(ByteBuffer.hexDigit(UInt8(truncatingIfNeeded: value >> UInt64(position)) & 15))
        }
    }

    /// Two lower case digits per byte.
    package mutating func append(hex bytes: [UInt8]) {
        for byte in bytes {
            append(ByteBuffer.hexDigit(byte >> 4))
            append(ByteBuffer.hexDigit(byte & 15))
        }
    }

    /// Lends `space` bytes behind the end to a writer (`read(2)`, `RAND_bytes`), which returns how many
    /// it filled, `0...space`; the rest is given back. The bytes are zero before.
    package mutating func appendInPlace<Failure: Error>(
        space: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Int
    ) throws(Failure) -> Int {
        if readIndex > 0 { compact() }
        let end = storage.count
        storage.append(contentsOf: repeatElement(0, count: space))
        var filled = 0
        defer { storage.removeLast(space - filled) }
        filled = try storage.withUnsafeMutableBufferPointer { (whole) throws(Failure) -> Int in
            try body(
                UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: whole[end...])))
        }
        precondition(filled >= 0 && filled <= space, "the writer overran its space")
        return filled
    }

    static func hexDigit(_ value: UInt8) -> UInt8 {
        value < 10 ? 0x30 + value : 0x57 + value
    }
}

extension ByteBuffer: Equatable {
    /// Equal readable bytes; what was consumed does not count.
    @usableFromInline package static func == (left: ByteBuffer, right: ByteBuffer) -> Bool {
        left.slice == right.slice
    }
}
