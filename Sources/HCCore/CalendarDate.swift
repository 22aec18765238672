/// A day of the proleptic Gregorian calendar, years 0001 to 9999, without a time zone: a date of birth.
package struct CalendarDate: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let year: Int
    package let month: Int
    package let day: Int

    /// - Returns: nil unless the day exists in the calendar.
    package init?(year: Int, month: Int, day: Int) {
        guard (1...9999).contains(year), (1...12).contains(month), day >= 1,
            day <= CalendarDate.days(inMonth: month, year: year)
        else { return nil }
        self.init(uncheckedYear: year, month: month, day: day)
    }

    init(uncheckedYear year: Int, month: Int, day: Int) {
        self.year = year
        self.month = month
        self.day = day
    }

    /// Exactly `YYYY-MM-DD` (RFC 3339 `full-date`; the only form of ISO 8601 that HC takes).
    package init?(iso8601 text: some StringProtocol) {
        let bytes = Array(text.utf8.prefix(11))
        guard bytes.count == 10, bytes[4] == UInt8(ascii: "-"), bytes[7] == UInt8(ascii: "-"),
            let year = Decimal.value(of: bytes[0..<4]), let month = Decimal.value(of: bytes[5..<7]),
            let day = Decimal.value(of: bytes[8..<10])
        else { return nil }
        self.init(year: year, month: month, day: day)
    }

    package var iso8601: String {
        var buffer = ByteBuffer()
        buffer.append(self)
        return buffer.string
    }

    package var description: String { iso8601 }

    package static func < (left: CalendarDate, right: CalendarDate) -> Bool {
        (left.year, left.month, left.day) < (right.year, right.month, right.day)
    }
}

extension CalendarDate {
    /// The first and the last day this type can name.
    package static let first = CalendarDate(uncheckedYear: 1, month: 1, day: 1)
    package static let last = CalendarDate(uncheckedYear: 9999, month: 12, day: 31)

    /// Days since 1970-01-01; negative before it.
    ///
    /// Counts in eras of 400 years (146,097 days) that begin on 1 March, which puts the leap day last:
    /// the "days from civil" algorithm.
    package var daysSinceEpoch: Int {
        let shifted = month <= 2 ? year - 1 : year
        let era = CalendarDate.floorDivide(shifted, 400)
        let yearOfEra = shifted - era * 400
        let monthFromMarch = (month + 9) % 12
        let dayOfYear = (153 * monthFromMarch + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }

    /// - Returns: nil for a day before `first` or after `last`.
    package init?(daysSinceEpoch days: Int) {
        guard days >= CalendarDate.first.daysSinceEpoch, days <= CalendarDate.last.daysSinceEpoch
        else { return nil }
        self.init(uncheckedDaysSinceEpoch: days)
    }

    /// The inverse of `daysSinceEpoch`, for any year: the caller knows that the day is one it can show.
    init(uncheckedDaysSinceEpoch days: Int) {
        let shifted = days + 719_468
        let era = CalendarDate.floorDivide(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        self.init(
            uncheckedYear: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
            month: month,
            day: dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        )
    }

    /// 1 is Monday, 7 is Sunday (ISO 8601).
    package var isoWeekday: Int {
        // 1970-01-01 was a Thursday.
        CalendarDate.floorRemainder(daysSinceEpoch + 3, 7) + 1
    }

    /// - Returns: nil past the ends of the calendar.
    package func adding(days: Int) -> CalendarDate? {
        let (sum, overflow) = daysSinceEpoch.addingReportingOverflow(days)
        return overflow ? nil : CalendarDate(daysSinceEpoch: sum)
    }

    package static func isLeap(year: Int) -> Bool {
        (year.isMultiple(of: 4) && !year.isMultiple(of: 100)) || year.isMultiple(of: 400)
    }

    package static func days(inMonth month: Int, year: Int) -> Int {
        switch month {
        case 2: isLeap(year: year) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    static func floorDivide(_ value: Int, _ divisor: Int) -> Int {
        value >= 0 ? value / divisor : (value + 1) / divisor - 1
    }

    static func floorRemainder(_ value: Int, _ divisor: Int) -> Int {
        value - floorDivide(value, divisor) * divisor
    }
}

/// Fixed-width decimal fields, as dates have them.
enum Decimal {
    /// - Returns: nil if a byte is no ASCII digit. The caller bounds the width (at most 18 digits).
    static func value(of digits: ArraySlice<UInt8>) -> Int? {
        var value = 0
        for byte in digits {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            value = value * 10 + Int(byte - 0x30)
        }
        return value
    }
}
