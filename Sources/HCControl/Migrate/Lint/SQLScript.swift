/// One statement of a script.
struct SQLStatement: Sendable, Equatable {
    let text: String
    /// Of its first word in the script, from 1.
    let line: Int
}

/// Where the statements of a script begin and end.
///
/// What a statement means is PostgreSQL's to say: this knows quotes, comments and dollar quotes (PostgreSQL manual, 4.1),
/// parentheses, and the bodies of functions that are written in SQL itself (`BEGIN ATOMIC … END`), and no more.
struct SQLScript {
    private let bytes: [UInt8]
    private var position = 0
    private var line = 1
    /// Of what is being read: nil before its first word.
    private var start: (position: Int, line: Int)?
    private var parentheses = 0
    /// `BEGIN ATOMIC` and `CASE` that are open.
    private var blocks = 0
    private var lastWord = ""
    private var found: [SQLStatement] = []

    static func statements(of sql: String) -> [SQLStatement] {
        var script = SQLScript(sql)
        return script.read()
    }

    private init(_ sql: String) {
        bytes = Array(sql.utf8)
    }

    private mutating func read() -> [SQLStatement] {
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"),
                0x0C:
                advance()
            case UInt8(ascii: "-") where peek(1) == UInt8(ascii: "-"):
                while let next = peek(), next != UInt8(ascii: "\n") { advance() }
            case UInt8(ascii: "/") where peek(1) == UInt8(ascii: "*"): skipComment()
            case UInt8(ascii: ";") where parentheses == 0 && blocks == 0:
                endStatement()
                advance()
            default:
                if start == nil { start = (position, line) }
                readToken(byte)
            }
        }
        endStatement()
        return found
    }

    private mutating func readToken(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "'"): skipQuoted(byte, escapes: false)
        case UInt8(ascii: "\""): skipQuoted(byte, escapes: false)
        case UInt8(ascii: "$"): skipDollar()
        case UInt8(ascii: "("):
            parentheses += 1
            advance()
        case UInt8(ascii: ")"):
            parentheses = max(0, parentheses - 1)
            advance()
        default:
            if SQLScript.isWord(byte) { readWord() } else { advance() }
        }
    }

    private mutating func readWord() {
        let first = position
        while let byte = peek(), SQLScript.isWord(byte) || byte == UInt8(ascii: "$") { advance() }
        let word = String(decoding: bytes[first..<position], as: UTF8.self).lowercased()
        if word == "e", peek() == UInt8(ascii: "'") {
            skipQuoted(UInt8(ascii: "'"), escapes: true)
        }
        switch word {
        case "atomic" where lastWord == "begin": blocks += 1
        case "case" where blocks > 0: blocks += 1
        case "end" where blocks > 0: blocks -= 1
        default: break
        }
        lastWord = word
    }

    /// A doubled quote is one that ends and another that begins.
    private mutating func skipQuoted(_ quote: UInt8, escapes: Bool) {
        advance()
        while let byte = peek() {
            advance()
            if byte == quote { return }
            if escapes, byte == UInt8(ascii: "\\"), peek() != nil { advance() }
        }
    }

    /// `$tag$ … $tag$`; `$1` is a parameter.
    private mutating func skipDollar() {
        var end = position + 1
        while end < bytes.count, SQLScript.isWord(bytes[end]) { end += 1 }
        guard end < bytes.count, bytes[end] == UInt8(ascii: "$"),
            end == position + 1 || !(0x30...0x39).contains(bytes[position + 1])
        else { return advance() }
        let tag = bytes[position...end]
        for _ in tag { advance() }
        while position < bytes.count {
            if bytes[position...].starts(with: tag) {
                for _ in tag { advance() }
                return
            }
            advance()
        }
    }

    /// Comments in C's form nest (PostgreSQL manual, 4.1.5).
    private mutating func skipComment() {
        var depth = 0
        while let byte = peek() {
            if byte == UInt8(ascii: "/"), peek(1) == UInt8(ascii: "*") {
                depth += 1
                advance()
            } else if byte == UInt8(ascii: "*"), peek(1) == UInt8(ascii: "/") {
                depth -= 1
                advance()
            }
            advance()
            if depth == 0 { return }
        }
    }

    private mutating func endStatement() {
        if let start {
            let text = String(decoding: bytes[start.position..<position], as: UTF8.self)
            found.append(SQLStatement(text: text, line: start.line))
        }
        (start, parentheses, blocks, lastWord) = (nil, 0, 0, "")
    }

    private func peek(_ distance: Int = 0) -> UInt8? {
        position + distance < bytes.count ? bytes[position + distance] : nil
    }

    private mutating func advance() {
        if bytes[position] == UInt8(ascii: "\n") { line += 1 }
        position += 1
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), 0x80...:
            true
        default: false
        }
    }
}
