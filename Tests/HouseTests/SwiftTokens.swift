/// The words and marks of a Swift source without comments and without what is inside strings: enough to
/// find forbidden forms, no more than that.
struct SwiftTokens {
    struct Token: Equatable {
        let text: String
        let line: Int
    }

    private(set) var tokens: [Token] = []
    private let source: [UInt8]
    private var offset = 0
    private var line = 1

    init(_ text: String) {
        source = Array(text.utf8)
        while offset < source.count { next() }
    }

    private mutating func next() {
        let byte = source[offset]
        if isComment(at: offset) { return skipComment() }
        if let hashes = stringHashes(at: offset) {
            tokens.append(Token(text: "\"", line: line))
            return skipString(hashes: hashes)
        }
        if SwiftTokens.isWord(byte) {
            let start = offset
            while offset < source.count, SwiftTokens.isWord(source[offset]) { offset += 1 }
            let word = String(decoding: source[start..<offset], as: UTF8.self)
            return tokens.append(Token(text: word, line: line))
        }
        if byte > 0x20 {
            tokens.append(Token(text: String(decoding: [byte], as: UTF8.self), line: line))
        }
        advance()
    }

    private mutating func advance(_ count: Int = 1) {
        for _ in 0..<count where offset < source.count {
            if source[offset] == 0x0a { line += 1 }
            offset += 1
        }
    }

    private func has(_ text: StaticString, at start: Int) -> Bool {
        guard start + text.utf8CodeUnitCount <= source.count else { return false }
        for index in 0..<text.utf8CodeUnitCount
        where source[start + index] != text.utf8Start[index] {
            return false
        }
        return true
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x80...0xff: true
        case UInt8(ascii: "_"), UInt8(ascii: "@"): true
        default: false
        }
    }

    // MARK: Comments

    private func isComment(at start: Int) -> Bool { has("//", at: start) || has("/*", at: start) }

    private mutating func skipComment() {
        if has("//", at: offset) {
            while offset < source.count, source[offset] != 0x0a { advance() }
            return
        }
        var depth = 0
        repeat {
            if has("/*", at: offset) {
                depth += 1
                advance(2)
            } else if has("*/", at: offset) {
                depth -= 1
                advance(2)
            } else {
                advance()
            }
        } while depth > 0 && offset < source.count
    }

    // MARK: Strings

    /// How many hashes a string literal begins with, nil if there is none at `start`.
    private func stringHashes(at start: Int) -> Int? {
        var index = start
        while index < source.count, source[index] == UInt8(ascii: "#") { index += 1 }
        return index < source.count && source[index] == UInt8(ascii: "\"") ? index - start : nil
    }

    private mutating func skipString(hashes: Int) {
        advance(hashes)
        let quotes = has("\"\"\"", at: offset) ? 3 : 1
        advance(quotes)
        let hashText = String(repeating: "#", count: hashes)
        let end = Array((String(repeating: "\"", count: quotes) + hashText).utf8)
        let escape = Array(("\\" + hashText).utf8)
        while offset < source.count {
            // Most bytes of a string are neither its end nor an escape.
            guard source[offset] == end[0] || source[offset] == escape[0] else {
                advance()
                continue
            }
            if source[offset...].starts(with: end) { return advance(end.count) }
            guard source[offset...].starts(with: escape) else {
                advance()
                continue
            }
            advance(escape.count)
            if has("(", at: offset) { skipInterpolation() } else { advance() }
        }
    }

    private mutating func skipInterpolation() {
        var depth = 0
        while offset < source.count {
            if let hashes = stringHashes(at: offset) {
                skipString(hashes: hashes)
                continue
            }
            if has("(", at: offset) { depth += 1 }
            if has(")", at: offset) { depth -= 1 }
            advance()
            if depth == 0 { return }
        }
    }
}

extension SwiftTokens {
    /// The text at a position, empty beyond the ends.
    subscript(index: Int) -> String {
        tokens.indices.contains(index) ? tokens[index].text : ""
    }

    func line(of index: Int) -> Int { tokens[index].line }

    /// The positions of a word.
    func positions(of text: String) -> [Int] {
        tokens.indices.filter { tokens[$0].text == text }
    }

    /// The modules that are imported, with their lines.
    var imports: [(module: String, line: Int)] {
        let kinds: Set = [
            "struct", "class", "enum", "protocol", "typealias", "func", "let", "var",
        ]
        return positions(of: "import").compactMap { index in
            let module = kinds.contains(self[index + 1]) ? self[index + 2] : self[index + 1]
            return module.isEmpty ? nil : (module, line(of: index))
        }
    }
}
