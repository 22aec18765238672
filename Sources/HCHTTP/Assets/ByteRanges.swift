/// Which bytes of a content a `Range` field asks for (RFC 9110 14.1.2, 14.2). Pure.
package enum ByteRanges {
    package enum Choice: Equatable {
        /// The field is not one that is acted upon: the whole content, 200.
        case whole
        /// In the order in which they were asked for; never empty, and no two touch: 206.
        case parts([Range<Int>])
        /// Nothing of the content was asked for: 416.
        case unsatisfiable
    }

    /// More ranges than that are not sorted out: the field is ignored (RFC 9110 14.2).
    package static let rangesMax = 16
    /// Two ranges that are nearer to each other are given as one, for the head of a part has about as many bytes
    /// (RFC 9110 15.3.7.2).
    package static let gapBytesMax = 80

    private enum Bound {
        case from(Int, through: Int)
        case last(Int)
    }

    /// - Parameters:
    ///   - field: the field's value. What is not understood is ignored, never guessed at.
    ///   - count: bytes of the content in the form that was chosen.
    package static func choose(_ field: String, of count: Int) -> Choice {
        var field = field
        return field.withUTF8 { text in
            guard let bounds = read(UnsafeRawBufferPointer(text)) else { return .whole }
            // No byte of an empty content can be named, and all of it is nothing.
            guard count > 0 else { return .whole }
            var parts: [Range<Int>] = []
            for bound in bounds {
                if let range = place(bound, count) { add(range, to: &parts) }
            }
            return parts.isEmpty ? .unsatisfiable : .parts(parts)
        }
    }

    /// ranges-specifier = "bytes" "=" 1#( first "-" [ last ] / "-" suffix ), nil for anything else.
    private static func read(_ text: UnsafeRawBufferPointer) -> [Bound]? {
        guard text.count > 6, text.slice(0..<6).isEqualIgnoringCase(to: "bytes=") else {
            return nil
        }
        var bounds: [Bound] = []
        var isValid = true
        text.slice(6..<text.count).forEachListElement { element in
            guard isValid, !element.isEmpty else { return }
            guard bounds.count < rangesMax, let bound = readBound(element) else {
                isValid = false
                return
            }
            bounds.append(bound)
        }
        return isValid && !bounds.isEmpty ? bounds : nil
    }

    private static func readBound(_ text: UnsafeRawBufferPointer) -> Bound? {
        guard let dash = text.firstIndex(of: 0x2D) else { return nil }
        let after = text.slice(dash + 1..<text.count)
        if dash == 0 { return number(after).map { .last($0) } }
        guard let first = number(text.slice(0..<dash)) else { return nil }
        guard !after.isEmpty else { return .from(first, through: .max) }
        guard let last = number(after), last >= first else { return nil }
        return .from(first, through: last)
    }

    /// 1*DIGIT; what is more than can be counted is as many as can.
    private static func number(_ text: UnsafeRawBufferPointer) -> Int? {
        guard !text.isEmpty else { return nil }
        var value = 0
        for byte in text {
            guard ByteClass.isDigit(byte) else { return nil }
            let (product, isTooMuch) = value.multipliedReportingOverflow(by: 10)
            let (sum, isTooMany) = product.addingReportingOverflow(Int(byte - 0x30))
            value = isTooMuch || isTooMany ? .max : sum
        }
        return value
    }

    /// Where a bound lies in a content of `count` bytes; nil if nowhere.
    private static func place(_ bound: Bound, _ count: Int) -> Range<Int>? {
        switch bound {
        case .from(let first, let last):
            first < count ? first..<min(last, count - 1) + 1 : nil
        case .last(let suffix):
            suffix > 0 ? count - min(suffix, count)..<count : nil
        }
    }

    /// Adds a range, as one with those that it touches, in the place of the first of them: so the parts together are
    /// never more than the content.
    private static func add(_ range: Range<Int>, to parts: inout [Range<Int>]) {
        var range = range
        var place = parts.endIndex
        while let index = parts.lastIndex(where: { isNear($0, range) }) {
            let other = parts.remove(at: index)
            range =
                min(other.lowerBound, range.lowerBound)..<max(other.upperBound, range.upperBound)
            place = min(place, index)
        }
        parts.insert(range, at: place)
    }

    private static func isNear(_ one: Range<Int>, _ other: Range<Int>) -> Bool {
        one.lowerBound <= other.upperBound + gapBytesMax
            && other.lowerBound <= one.upperBound + gapBytesMax
    }
}
