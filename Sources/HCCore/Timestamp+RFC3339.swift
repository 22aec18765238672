extension Timestamp {
    /// The instants that RFC 3339 can name in UTC: years 0001 to 9999.
    package static let first = Timestamp(
        seconds: Int64(CalendarDate.first.daysSinceEpoch) * 86_400)
    package static let last = Timestamp(
        microseconds: (Int64(CalendarDate.last.daysSinceEpoch) + 1) * 86_400_000_000 - 1)

    /// Reads an RFC 3339 `date-time` (section 5.6), for example `2026-03-08T14:00:00.25-05:00`.
    ///
    /// The offset is required; `T` and `Z` may be lower case; the fraction has 1 to 9 digits and is cut
    /// to microseconds. Second 60 is refused: PostgreSQL and we have no leap seconds.
    ///
    /// - Returns: nil for anything else, and for an instant before `first` or after `last`.
    package init?(rfc3339 text: some StringProtocol) {
        let bytes = Array(text.utf8.prefix(Timestamp.rfc3339BytesMax + 1))
        guard bytes.count >= 20, bytes.count <= Timestamp.rfc3339BytesMax,
            bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
            bytes[10] | 0x20 == UInt8(ascii: "t"),
            bytes[13] == UInt8(ascii: ":"), bytes[16] == UInt8(ascii: ":"),
            let year = Decimal.value(of: bytes[0..<4]),
            let month = Decimal.value(of: bytes[5..<7]),
            let day = Decimal.value(of: bytes[8..<10]),
            let hour = Decimal.value(of: bytes[11..<13]), hour <= 23,
            let minute = Decimal.value(of: bytes[14..<16]), minute <= 59,
            let second = Decimal.value(of: bytes[17..<19]), second <= 59,
            let date = CalendarDate(year: year, month: month, day: day)
        else { return nil }
        var rest = bytes[19...]
        guard let micros = Timestamp.takeFraction(from: &rest),
            let offsetSeconds = Timestamp.offset(in: rest)
        else { return nil }
        let seconds =
            date.daysSinceEpoch * 86_400 + hour * 3600 + minute * 60 + second - offsetSeconds
        self.init(microseconds: Int64(seconds) * 1_000_000 + Int64(micros))
        guard self >= .first, self <= .last else { return nil }
    }

    /// `2026-03-08T14:00:00.123456789+01:00`
    private static let rfc3339BytesMax = 35

    private static func takeFraction(from rest: inout ArraySlice<UInt8>) -> Int? {
        guard rest.first == UInt8(ascii: ".") else { return 0 }
        let digits = rest.dropFirst().prefix { $0 >= 0x30 && $0 <= 0x39 }
        guard (1...9).contains(digits.count) else { return nil }
        rest = rest[digits.endIndex...]
        var micros = 0
        for position in 0..<6 {
            let index = digits.startIndex + position
            micros = micros * 10 + (index < digits.endIndex ? Int(digits[index] - 0x30) : 0)
        }
        return micros
    }

    /// `Z`, or `+hh:mm` with hours to 23 and minutes to 59; the whole of `rest`.
    private static func offset(in rest: ArraySlice<UInt8>) -> Int? {
        let bytes = Array(rest)
        if bytes.count == 1 { return bytes[0] | 0x20 == UInt8(ascii: "z") ? 0 : nil }
        guard bytes.count == 6, bytes[3] == UInt8(ascii: ":"),
            let hours = Decimal.value(of: bytes[1..<3]), hours <= 23,
            let minutes = Decimal.value(of: bytes[4..<6]), minutes <= 59
        else { return nil }
        switch bytes[0] {
        case UInt8(ascii: "+"): return hours * 3600 + minutes * 60
        case UInt8(ascii: "-"): return -(hours * 3600 + minutes * 60)
        default: return nil
        }
    }

    /// In UTC: `2026-03-08T14:00:00Z`, with six digits of fraction only if it is not zero.
    ///
    /// An instant outside `first...last` has no such form; its year is written with more digits or a sign.
    package var rfc3339: String {
        var buffer = ByteBuffer()
        buffer.append(self)
        return buffer.string
    }

    /// The same instant on a clock `offsetSeconds` ahead of UTC: `2026-03-08T10:00:00-04:00`.
    ///
    /// Offsets have whole minutes here: the seconds of ancient local mean times are cut from the offset
    /// and from the shown time alike, so that the text still names this instant.
    package func rfc3339(offsetSeconds: Int) -> String {
        var buffer = ByteBuffer()
        buffer.append(self, offsetSeconds: offsetSeconds)
        return buffer.string
    }
}

extension ByteBuffer {
    /// `YYYY-MM-DD`.
    package mutating func append(_ date: CalendarDate) {
        appendFixedText { $0.append(date) }
    }

    /// `Timestamp.rfc3339` without the String.
    package mutating func append(_ timestamp: Timestamp) {
        appendFixedText { $0.append(timestamp) }
    }

    /// `Timestamp.rfc3339(offsetSeconds:)` without the String.
    package mutating func append(_ timestamp: Timestamp, offsetSeconds: Int) {
        let minutes = offsetSeconds / 60
        appendFixedText { text in
            text.append(localClockOf: timestamp, offsetSeconds: minutes * 60)
            text.append(minutes < 0 ? UInt8(ascii: "-") : UInt8(ascii: "+"))
            text.append(twoDigits: abs(minutes) / 60)
            text.append(UInt8(ascii: ":"))
            text.append(twoDigits: abs(minutes) % 60)
        }
    }

    /// `YYYY-MM-DDThh:mm:ss`, which names no instant.
    mutating func append(_ local: LocalDateTime) {
        appendFixedText { text in
            text.append(local.date)
            text.append(UInt8(ascii: "T"))
            text.append(timeOfDay: local.secondOfDay)
        }
    }
}
