import HCCore
import HCCrypto

/// What text may be: the questions behind `FieldRule`.
enum TextRules {
    static let firstInstant = instant(year: 1900)
    static let lastInstant = instant(year: 2200)

    private static func instant(year: Int) -> Timestamp {
        let day = CalendarDate(year: year, month: 1, day: 1) ?? .first
        return Timestamp(seconds: Int64(day.daysSinceEpoch) * 86_400)
    }

    /// - Returns: the text without white space at its ends.
    static func check(
        _ text: String, length: ClosedRange<Int>, allowsLines: Bool
    ) throws(FieldRule<String>.Refusal) -> String {
        // Bounded before anything walks over it.
        guard text.utf8.count <= length.upperBound * 4 else {
            throw FieldRule<String>.Refusal(
                .tooLong, "must have at most \(length.upperBound) characters")
        }
        guard
            text.unicodeScalars.allSatisfy({ isAcceptable($0, allowsLines: allowsLines) })
        else {
            throw FieldRule<String>.Refusal(
                .invalidCharacters, "must not have control characters")
        }
        let trimmed = trim(text)
        let count = trimmed.unicodeScalars.count
        if count == 0, length.lowerBound > 0 {
            throw FieldRule<String>.Refusal(.blank, "must not be blank")
        }
        if count < length.lowerBound {
            throw FieldRule<String>.Refusal(
                .tooShort, "must have at least \(length.lowerBound) characters")
        }
        if count > length.upperBound {
            throw FieldRule<String>.Refusal(
                .tooLong, "must have at most \(length.upperBound) characters")
        }
        return trimmed
    }

    /// NUL and the other controls cannot be stored or shown; directional overrides and isolates make
    /// a line read as another one (Unicode TR 36); noncharacters are for internal use.
    private static func isAcceptable(_ scalar: Unicode.Scalar, allowsLines: Bool) -> Bool {
        switch scalar.value {
        case 0x09, 0x0A, 0x0D: allowsLines
        case 0x00...0x1F, 0x7F...0x9F: false
        case 0x2028, 0x2029: allowsLines
        case 0x202A...0x202E, 0x2066...0x2069: false
        case 0xFDD0...0xFDEF, 0xFFF9...0xFFFB: false
        default: scalar.value & 0xFFFE != 0xFFFE
        }
    }

    static func trim(_ text: String) -> String {
        var scalars = text.unicodeScalars[...]
        while let first = scalars.first, first.properties.isWhitespace { scalars.removeFirst() }
        while let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
        return String(String.UnicodeScalarView(scalars))
    }

    /// Not whether it exists, only whether it can be one: no quoted local parts, no address literals.
    static func isEmail(_ text: String) -> Bool {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return false }
        let local = parts[0].utf8
        let labels = parts[1].split(separator: ".", omittingEmptySubsequences: false)
        guard (1...64).contains(local.count), local.first != UInt8(ascii: "."),
            local.last != UInt8(ascii: "."), !parts[0].contains(".."),
            local.allSatisfy(isEmailAtom), labels.count >= 2
        else { return false }
        return labels.allSatisfy { label in
            (1...63).contains(label.utf8.count) && label.utf8.allSatisfy(isHostByte)
                && label.utf8.first != UInt8(ascii: "-") && label.utf8.last != UInt8(ascii: "-")
        }
    }

    /// RFC 5322 atext and the dot; bytes above ASCII are UTF-8 (RFC 6532).
    private static func isEmailAtom(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || byte >= 0x80 || "!#$%&'*+-/=?^_`{|}~.".utf8.contains(byte)
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || byte >= 0x80 || byte == UInt8(ascii: "-")
    }

    static func isPhone(_ text: String) -> Bool {
        guard let normalised = SearchText.phone(text) else { return false }
        return normalised.utf8.count { isDigit($0) } >= 5
    }

    /// `language[-subtag…]` (RFC 5646 2.1): a language of 2 or 3 letters, subtags of 2 to 8.
    static func isLanguageTag(_ text: String) -> Bool {
        guard (2...35).contains(text.utf8.count) else { return false }
        let subtags = text.split(separator: "-", omittingEmptySubsequences: false)
        guard let language = subtags.first, (2...3).contains(language.utf8.count),
            language.utf8.allSatisfy({ isAlphanumeric($0) && !isDigit($0) })
        else { return false }
        return subtags.dropFirst().allSatisfy {
            (2...8).contains($0.utf8.count) && $0.utf8.allSatisfy(isAlphanumeric)
        }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        isDigit(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }

    static func isDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte)
    }
}
