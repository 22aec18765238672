package import HCCore

/// The value of `Retry-After` (RFC 9110 10.2.3).
package enum RetryAfter {
    /// Seconds, or an instant in the form of RFC 9110 5.6.7 (IMF-fixdate; the obsolete forms are as good as
    /// nothing). Nil for anything else; an instant that has passed is zero.
    package static func parse(_ text: String, now: Timestamp) -> Duration? {
        let bytes = Array(text.utf8)
        if !bytes.isEmpty, bytes.count <= 9, bytes.allSatisfy(ByteClass.isDigit) {
            return Int64(text).map { .seconds($0) }
        }
        return instant(bytes).map { max(.zero, $0 - now) }
    }

    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// "Sun, 06 Nov 1994 08:49:37 GMT": every character has its place.
    private static func instant(_ text: [UInt8]) -> Timestamp? {
        guard text.count == 29, text[25...].elementsEqual(" GMT".utf8), text[3] == 0x2C,
            [4, 7, 11, 16].allSatisfy({ text[$0] == 0x20 }), text[19] == 0x3A, text[22] == 0x3A,
            let day = number(text[5..<7]), let year = number(text[12..<16]),
            let month = months.firstIndex(of: String(decoding: text[8..<11], as: UTF8.self)),
            let date = CalendarDate(year: year, month: month + 1, day: day),
            let hour = number(text[17..<19]), hour < 24,
            let minute = number(text[20..<22]), minute < 60,
            let second = number(text[23..<25]), second <= 60
        else { return nil }
        let seconds = date.daysSinceEpoch * 86_400 + hour * 3600 + minute * 60 + second
        return Timestamp(seconds: Int64(seconds))
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> Int? {
        guard digits.allSatisfy(ByteClass.isDigit) else { return nil }
        return Int(String(decoding: digits, as: UTF8.self))
    }
}
