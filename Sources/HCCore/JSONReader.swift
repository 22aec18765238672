/// What a JSON text may cost the reader.
package struct JSONLimits: Sendable {
    package var bytesMax: Int
    /// Arrays and objects inside each other; the outermost is 1.
    package var depthMax: Int
    /// Values in the whole text, members and elements alike.
    package var elementsMax: Int

    package init(
        bytesMax: Int = 50 * 1024 * 1024, depthMax: Int = 32, elementsMax: Int = 1_000_000
    ) {
        self.bytesMax = bytesMax
        self.depthMax = depthMax
        self.elementsMax = elementsMax
    }

    package static let `default` = JSONLimits()
}

/// Why a text is no JSON for us, and where.
package struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        case tooLarge = "the text is too large"
        case tooDeep = "arrays and objects are nested too deep"
        case tooManyElements = "the text has too many values"
        case unexpectedEnd = "the text ends too early"
        case unexpectedByte = "a value, name or punctuation mark was expected"
        case trailingBytes = "something follows the value"
        case duplicateName = "an object has the same name twice"
        case controlCharacter = "a control character in a string must be escaped"
        case invalidEscape = "an unknown escape"
        case loneSurrogate = "half of a surrogate pair"
        case invalidUTF8 = "bytes that are not UTF-8"
        case invalidNumber = "a malformed number"
        case numberOutOfRange = "a number out of range"
    }

    /// In bytes from the beginning of the text.
    package let offset: Int
    package let reason: Reason

    package init(offset: Int, reason: Reason) {
        self.offset = offset
        self.reason = reason
    }

    package var description: String { "\(reason.rawValue), at byte \(offset)" }
}

/// Reads a JSON text, strictly (RFC 8259), into a `JSONValue`.
package struct JSONReader {
    /// Refused beyond the grammar: duplicate names, anything above `limits`, bytes that are not UTF-8,
    /// lone surrogates, a byte order mark, numbers beyond Double. An integer that fits in Int64 is exact;
    /// others become Double. NUL in a string is read: whether a field may hold it is for its validation.
    package static func parse(
        _ bytes: [UInt8], limits: JSONLimits = .default
    ) throws(JSONError) -> JSONValue {
        try parse(bytes[...], limits: limits)
    }

    /// Offsets in errors count from the beginning of the slice.
    package static func parse(
        _ bytes: ArraySlice<UInt8>, limits: JSONLimits = .default
    ) throws(JSONError) -> JSONValue {
        guard bytes.count <= limits.bytesMax else {
            throw JSONError(offset: limits.bytesMax, reason: .tooLarge)
        }
        return try bytes.withUnsafeBufferPointer { (text) throws(JSONError) -> JSONValue in
            var parser = JSONParser(text: text, limits: limits)
            return try parser.document()
        }
    }

    package static func parse(
        _ text: String, limits: JSONLimits = .default
    ) throws(JSONError) -> JSONValue {
        try parse(Array(text.utf8), limits: limits)
    }
}

/// Lives only while the bytes are lent. Recursion is bounded by `limits.depthMax`.
private struct JSONParser {
    let text: UnsafeBufferPointer<UInt8>
    let limits: JSONLimits
    var offset = 0
    var depth = 0
    var elements = 0

    init(text: UnsafeBufferPointer<UInt8>, limits: JSONLimits) {
        self.text = text
        self.limits = limits
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let value = try value()
        skipSpace()
        guard offset == text.count else { throw error(.trailingBytes) }
        return value
    }

    func error(_ reason: JSONError.Reason) -> JSONError {
        JSONError(offset: offset, reason: reason)
    }

    var peek: UInt8? { offset < text.count ? text[offset] : nil }

    mutating func skipSpace() {
        while offset < text.count {
            switch text[offset] {
            case 0x20, 0x09, 0x0a, 0x0d: offset += 1
            default: return
            }
        }
    }

    mutating func value() throws(JSONError) -> JSONValue {
        elements += 1
        guard elements <= limits.elementsMax else { throw error(.tooManyElements) }
        guard let byte = peek else { throw error(.unexpectedEnd) }
        switch byte {
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "-"), 0x30...0x39: return try number()
        case UInt8(ascii: "t"):
            try word("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try word("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try word("null")
            return .null
        default: throw error(.unexpectedByte)
        }
    }

    mutating func word(_ word: StaticString) throws(JSONError) {
        for position in 0..<word.utf8CodeUnitCount {
            guard let byte = peek else { throw error(.unexpectedEnd) }
            guard byte == word.utf8Start[position] else { throw error(.unexpectedByte) }
            offset += 1
        }
    }

    mutating func enter() throws(JSONError) {
        depth += 1
        guard depth <= limits.depthMax else { throw error(.tooDeep) }
        offset += 1
        skipSpace()
    }

    mutating func array() throws(JSONError) -> JSONValue {
        try enter()
        var values: [JSONValue] = []
        if peek == UInt8(ascii: "]") {
            offset += 1
            depth -= 1
            return .array(values)
        }
        while true {
            values.append(try value())
            guard try hasMore(closing: UInt8(ascii: "]")) else { return .array(values) }
        }
    }

    mutating func object() throws(JSONError) -> JSONValue {
        try enter()
        var object = JSONObject()
        if peek == UInt8(ascii: "}") {
            offset += 1
            depth -= 1
            return .object(object)
        }
        while true {
            let start = offset
            guard let byte = peek else { throw error(.unexpectedEnd) }
            guard byte == UInt8(ascii: "\"") else { throw error(.unexpectedByte) }
            let name = try string()
            skipSpace()
            guard let colon = peek else { throw error(.unexpectedEnd) }
            guard colon == UInt8(ascii: ":") else { throw error(.unexpectedByte) }
            offset += 1
            skipSpace()
            guard object.insert(try value(), for: name) else {
                throw JSONError(offset: start, reason: .duplicateName)
            }
            guard try hasMore(closing: UInt8(ascii: "}")) else { return .object(object) }
        }
    }

    /// After an element: true at a comma, false at the closing mark, which it takes.
    mutating func hasMore(closing: UInt8) throws(JSONError) -> Bool {
        skipSpace()
        guard let byte = peek else { throw error(.unexpectedEnd) }
        guard byte == UInt8(ascii: ",") || byte == closing else { throw error(.unexpectedByte) }
        offset += 1
        if byte == closing {
            depth -= 1
            return false
        }
        skipSpace()
        return true
    }
}

// MARK: - Numbers

extension JSONParser {
    /// `[ minus ] int [ frac ] [ exp ]` (RFC 8259 6).
    mutating func number() throws(JSONError) -> JSONValue {
        let start = offset
        let isNegative = peek == UInt8(ascii: "-")
        if isNegative { offset += 1 }
        let digits = offset
        var magnitude: UInt64 = 0
        var fits = true
        while let byte = peek, byte >= 0x30, byte <= 0x39 {
            let (scaled, scaleOverflow) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, sumOverflow) = scaled.addingReportingOverflow(UInt64(byte - 0x30))
            if scaleOverflow || sumOverflow { fits = false } else { magnitude = sum }
            offset += 1
        }
        guard offset > digits else { throw error(peek == nil ? .unexpectedEnd : .invalidNumber) }
        if text[digits] == 0x30, offset > digits + 1 {
            throw JSONError(offset: digits, reason: .invalidNumber)
        }
        let isInteger = peek != UInt8(ascii: ".") && (peek ?? 0) | 0x20 != UInt8(ascii: "e")
        if isInteger, fits {
            if !isNegative, let value = Int64(exactly: magnitude) { return .integer(value) }
            if isNegative, magnitude <= Int64.min.magnitude {
                return .integer(Int64(truncatingIfNeeded: 0 &- magnitude))
            }
        }
        if peek == UInt8(ascii: ".") {
            offset += 1
            try requireDigits()
        }
        if (peek ?? 0) | 0x20 == UInt8(ascii: "e") {
            offset += 1
            if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { offset += 1 }
            try requireDigits()
        }
        let literal = String(decoding: text[start..<offset], as: UTF8.self)
        guard let value = Double(literal), value.isFinite else {
            throw JSONError(offset: start, reason: .numberOutOfRange)
        }
        return .double(value)
    }

    mutating func requireDigits() throws(JSONError) {
        let start = offset
        while let byte = peek, byte >= 0x30, byte <= 0x39 { offset += 1 }
        guard offset > start else { throw error(peek == nil ? .unexpectedEnd : .invalidNumber) }
    }
}

// MARK: - Strings

extension JSONParser {
    mutating func string() throws(JSONError) -> String {
        offset += 1
        let start = offset
        while offset < text.count {
            let byte = text[offset]
            if byte == UInt8(ascii: "\"") {
                let result = try decode(start..<offset)
                offset += 1
                return result
            }
            if byte == UInt8(ascii: "\\") { return try stringWithEscapes(from: start) }
            guard byte >= 0x20 else { throw error(.controlCharacter) }
            offset += 1
        }
        throw error(.unexpectedEnd)
    }

    private mutating func stringWithEscapes(from start: Int) throws(JSONError) -> String {
        var result = try decode(start..<offset)
        var runStart = offset
        while offset < text.count {
            let byte = text[offset]
            switch byte {
            case UInt8(ascii: "\""):
                result += try decode(runStart..<offset)
                offset += 1
                return result
            case UInt8(ascii: "\\"):
                result += try decode(runStart..<offset)
                result.unicodeScalars.append(try escape())
                runStart = offset
            case 0..<0x20: throw error(.controlCharacter)
            default: offset += 1
            }
        }
        throw error(.unexpectedEnd)
    }

    private func decode(_ range: Range<Int>) throws(JSONError) -> String {
        if range.isEmpty { return "" }
        let bytes = UnsafeBufferPointer(rebasing: text[range])
        if let string = String(validating: bytes, as: UTF8.self) { return string }
        throw JSONError(
            offset: range.lowerBound + UTF8Check.validPrefix(of: bytes), reason: .invalidUTF8)
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        let start = offset
        offset += 1
        guard let byte = peek else { throw error(.unexpectedEnd) }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            let first = try codeUnit()
            if let scalar = Unicode.Scalar(first) { return scalar }
            // RFC 8259 7: beyond the basic plane, a high and a low surrogate, both escaped.
            guard first < 0xdc00, peek == UInt8(ascii: "\\"), offset + 1 < text.count,
                text[offset + 1] == UInt8(ascii: "u")
            else { throw JSONError(offset: start, reason: .loneSurrogate) }
            offset += 2
            let second = try codeUnit()
            guard (0xdc00...0xdfff).contains(second),
                let scalar = Unicode.Scalar(
                    0x10000 + (UInt32(first) - 0xd800) << 10 + (UInt32(second) - 0xdc00))
            else { throw JSONError(offset: start, reason: .loneSurrogate) }
            return scalar
        default: throw JSONError(offset: start, reason: .invalidEscape)
        }
    }

    private mutating func codeUnit() throws(JSONError) -> UInt16 {
        var unit: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = peek else { throw error(.unexpectedEnd) }
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x37
            case 0x61...0x66: digit = byte - 0x57
            default: throw error(.invalidEscape)
            }
            unit = unit << 4 | UInt16(digit)
            offset += 1
        }
        return unit
    }
}

/// Finds where UTF-8 goes wrong (RFC 3629 4), after the standard library said that it does.
private enum UTF8Check {
    static func validPrefix(of bytes: UnsafeBufferPointer<UInt8>) -> Int {
        var index = 0
        while index < bytes.count {
            let length = sequenceLength(at: index, in: bytes)
            if length == 0 { return index }
            index += length
        }
        return index
    }

    private static func sequenceLength(at index: Int, in bytes: UnsafeBufferPointer<UInt8>) -> Int {
        let lead = bytes[index]
        let second: ClosedRange<UInt8>
        let length: Int
        switch lead {
        case 0...0x7f: return 1
        case 0xc2...0xdf: (second, length) = (0x80...0xbf, 2)
        case 0xe0: (second, length) = (0xa0...0xbf, 3)
        case 0xed: (second, length) = (0x80...0x9f, 3)
        case 0xe1...0xef: (second, length) = (0x80...0xbf, 3)
        case 0xf0: (second, length) = (0x90...0xbf, 4)
        case 0xf1...0xf3: (second, length) = (0x80...0xbf, 4)
        case 0xf4: (second, length) = (0x80...0x8f, 4)
        default: return 0
        }
        guard index + length <= bytes.count, second.contains(bytes[index + 1]) else { return 0 }
        for next in bytes[(index + 2)..<max(index + 2, index + length)]
        where !(0x80...0xbf).contains(next) {
            return 0
        }
        return length
    }
}
