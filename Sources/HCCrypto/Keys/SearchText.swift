// The canonical decomposition of the standard library; Foundation itself stands on this interface.
@_spi(_Unicode) import Swift

/// One form for all spellings of a value, so that a search finds what was meant.
///
/// A change here changes tokens: stored ones must then be made again. It depends on the Unicode
/// tables of the standard library, in which decompositions and lower-case forms are stable.
package enum SearchText {
    /// A name as it is searched: lower case; accents of Latin, Greek and Cyrillic letters dropped
    /// (marks of other scripts are vowels, and stay); ligatures and crossed letters spelled out;
    /// apostrophes and dots dropped; hyphens and runs of blanks one blank; none at the ends.
    ///
    /// `Łukasz  O’Brien-Nuñez` becomes `lukasz obrien nunez`. May be empty.
    package static func name(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        var blankPending = false
        var dropsMarks = false
        for scalar in text.lowercased()._nfd {
            let properties = scalar.properties
            switch properties.generalCategory {
            case .nonspacingMark, .enclosingMark:
                if !dropsMarks { result.append(scalar) }
                continue
            case .dashPunctuation, .spaceSeparator, .lineSeparator, .paragraphSeparator, .control:
                blankPending = !result.isEmpty
                continue
            case .connectorPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation,
                .finalPunctuation, .otherPunctuation, .modifierSymbol, .format:
                continue
            case .modifierLetter where scalar.value == 0x02BC:
                continue
            default:
                if blankPending { result.append(" ") }
                blankPending = false
                dropsMarks = isAccented(scalar)
                if let spelled = spelledOut(scalar) {
                    result.append(contentsOf: spelled.unicodeScalars)
                } else {
                    result.append(scalar)
                }
            }
        }
        return String(result)
    }

    /// A phone number: its digits, with a leading `+` where it was written internationally
    /// (`+` or `00`). `+44 (0)20 7946-0958` keeps its `(0)` digit out: `+442079460958`.
    ///
    /// - Returns: nil unless 3 to 15 digits are left (E.164 allows 15) or for other characters than
    ///   digits, blanks and `+ - . / ( )`.
    package static func phone(_ text: String) -> String? {
        var digits: [UInt8] = []
        var international = false
        var started = false
        let bytes = Array(text.utf8)
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            switch byte {
            case UInt8(ascii: "+"):
                guard !started else { return nil }
                international = true
                started = true
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                digits.append(byte)
                started = true
            case UInt8(ascii: "("):
                let isTrunkZero =
                    international && bytes[index...].starts(with: Array("(0)".utf8))
                if isTrunkZero { index += 2 }
            case UInt8(ascii: " "), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "/"),
                UInt8(ascii: ")"):
                break
            default:
                return nil
            }
            index += 1
        }
        if !international && digits.starts(with: [0x30, 0x30]) {
            digits.removeFirst(2)
            international = true
        }
        guard (3...15).contains(digits.count) else { return nil }
        return (international ? "+" : "") + String(decoding: digits, as: UTF8.self)
    }

    /// An email address: trimmed and in lower case. Whether it is one is the caller's question.
    package static func email(_ text: String) -> String {
        trimmed(text).lowercased()
    }

    /// A record number, card number or the like: letters and digits only, in lower case.
    package static func identifier(_ text: String) -> String {
        String(text.lowercased().filter { $0.isLetter || $0.isNumber })
    }

    private static func trimmed(_ text: String) -> Substring {
        var rest = Substring(text)
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return rest
    }

    /// Whether marks on this letter are accents: Latin, Greek and Cyrillic blocks.
    private static func isAccented(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x0041...0x024F, 0x0370...0x03FF, 0x0400...0x052F, 0x1E00...0x1FFF: true
        default: false
        }
    }

    /// Letters that no decomposition takes apart but that people also type without.
    private static func spelledOut(_ scalar: Unicode.Scalar) -> String? {
        switch scalar {
        case "ß": "ss"
        case "æ": "ae"
        case "œ": "oe"
        case "ø": "o"
        case "ł": "l"
        case "đ", "ð": "d"
        case "þ": "th"
        case "ħ": "h"
        case "ı": "i"
        case "ŋ": "n"
        case "ŧ": "t"
        case "ς": "σ"
        default: nil
        }
    }
}
