/// Entity tags of coded content (RFC 9110 8.8.3).
///
/// A strong tag names exact bytes, so content and its coded forms must not share one: `"v5"` in gzip is
/// `"v5-gzip"`. A client sends back the tag that it holds, in `If-Match` as in `If-None-Match`; whoever compares
/// takes the ending off first and sees `"v5"`, for the coded form has the version of what was coded. So a change
/// may be asked for with the tag of a compressed answer. A weak tag says "equivalent" only, which is true of coded
/// forms too: it is left as it is.
package enum EntityTags {
    /// The tag of the coded form; weak and unreadable tags as they are.
    package static func coded(_ tag: String, _ coding: ContentCoding) -> String {
        guard tag.utf8.count >= 2, tag.hasPrefix("\""), tag.hasSuffix("\"") else { return tag }
        return tag.dropLast() + coding.tagSuffix + "\""
    }

    /// `If-Match` or `If-None-Match` without the endings that `coded` gives. Whatever is no list of tags stays as it
    /// is.
    package static func uncoded(_ field: String) -> String {
        guard field.utf8.contains(0x2D) else { return field }
        var result: [UInt8] = []
        result.reserveCapacity(field.utf8.count)
        var tagStart: Int?
        for byte in field.utf8 {
            if byte == 0x22 {
                if let start = tagStart {
                    if !isWeak(result, tagStart: start) { removeSuffix(&result, from: start + 1) }
                    tagStart = nil
                } else {
                    tagStart = result.count
                }
            }
            result.append(byte)
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// Whether one of the tags of `If-None-Match` is `tag`, by weak comparison (RFC 9110 8.8.3.2, 13.1.2).
    package static func isListed(_ tag: String, in field: String) -> Bool {
        let wanted = opaque(tag[...])
        return isAnyListed(field) { opaque($0) == wanted }
    }

    /// Whether one of the tags of `If-Match` is `tag`, by strong comparison (RFC 9110 8.8.3.2, 13.1.1): a weak tag
    /// is like none.
    static func isListedStrongly(_ tag: String, in field: String) -> Bool {
        isAnyListed(field) { $0 == tag && $0.first == "\"" }
    }

    /// Whether the field is "*" or has a tag that is `wanted`.
    private static func isAnyListed(_ field: String, _ wanted: (Substring) -> Bool) -> Bool {
        var rest = Substring(field).drop { $0 == " " || $0 == "\t" }
        if rest.first == "*", rest.dropFirst().allSatisfy({ $0 == " " || $0 == "\t" }) {
            return true
        }
        while !rest.isEmpty {
            rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "," }
            let start = rest.startIndex
            rest = opaque(rest)
            guard rest.first == "\"" else { return false }
            guard let end = rest.dropFirst().firstIndex(of: "\"") else { return false }
            let next = rest.index(after: end)
            if wanted(field[start..<next]) { return true }
            rest = rest[next...].drop { $0 == " " || $0 == "\t" }
            // A tag ends its element: what is glued to it makes the field unreadable.
            guard rest.isEmpty || rest.first == "," else { return false }
        }
        return false
    }

    private static func opaque(_ tag: Substring) -> Substring {
        tag.hasPrefix("W/") ? tag.dropFirst(2) : tag
    }

    private static func isWeak(_ bytes: [UInt8], tagStart: Int) -> Bool {
        tagStart >= 2 && bytes[tagStart - 1] == 0x2F && bytes[tagStart - 2] == 0x57
    }

    private static func removeSuffix(_ bytes: inout [UInt8], from start: Int) {
        for coding in ContentCoding.allCases {
            let suffix = coding.tagSuffix.utf8
            if bytes.count - start >= suffix.count, bytes.suffix(suffix.count).elementsEqual(suffix)
            {
                bytes.removeLast(suffix.count)
                return
            }
        }
    }
}
