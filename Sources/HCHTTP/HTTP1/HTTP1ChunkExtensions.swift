/// What may stand behind a chunk's size (RFC 9112 7.1.1): `*( BWS ";" BWS name [ BWS "=" BWS value ] )`.
///
/// None of them means anything here. What has another form is refused: whoever stands in front of us may take it for
/// something else, and the chunk for another.
struct HTTP1ChunkExtensions {
    private let text: UnsafeRawBufferPointer
    private var index = 0

    init(_ text: UnsafeRawBufferPointer) {
        self.text = text
    }

    mutating func areWellFormed() -> Bool {
        while index < text.count {
            skipBlanks()
            guard take(0x3B) else { return false }
            skipBlanks()
            guard skipToken() else { return false }
            let end = index
            skipBlanks()
            guard take(0x3D) else {
                // Blanks may be here only in front of the next extension.
                index = end
                continue
            }
            skipBlanks()
            guard take(0x22) ? skipQuoted() : skipToken() else { return false }
        }
        return true
    }

    private mutating func skipBlanks() {
        while index < text.count, ByteClass.isBlank(text[index]) { index += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard index < text.count, text[index] == byte else { return false }
        index += 1
        return true
    }

    private mutating func skipToken() -> Bool {
        let start = index
        while index < text.count, ByteClass.isToken(text[index]) { index += 1 }
        return index > start
    }

    /// The rest of a quoted-string (RFC 9110 5.6.4), with its last quote.
    private mutating func skipQuoted() -> Bool {
        while index < text.count, ByteClass.isFieldValue(text[index]) {
            if take(0x22) { return true }
            if take(0x5C) {
                guard index < text.count, ByteClass.isFieldValue(text[index]) else { return false }
            }
            index += 1
        }
        return false
    }
}
