/// The footer of a TZif file: a POSIX `TZ` string (IEEE Std 1003.1 8.3, RFC 8536 3.3 and 3.3.1), the rule
/// for all years after the last transition in the table.
struct PosixTimeZone: Equatable, Sendable {
    /// The day and time at which the clock is changed.
    struct Change: Equatable, Sendable {
        enum Day: Equatable, Sendable {
            /// `Jn`, 1 to 365: 29 February is never counted.
            case julianWithoutLeapDay(Int)
            /// `n`, 0 to 365: 29 February is counted.
            case zeroBased(Int)
            /// `Mm.w.d`: week 5 is the last; Sunday is 0.
            case weekday(month: Int, week: Int, day: Int)
        }

        var day: Day
        /// On the clock before the change, -167 to 167 hours from midnight.
        var seconds: Int
    }

    struct Daylight: Equatable, Sendable {
        var offset: Int
        var start: Change
        var end: Change
    }

    /// Seconds ahead of UTC.
    var standardOffset: Int
    var daylight: Daylight?

    /// - Returns: nil for anything but the standard's form; daylight time needs its rules.
    init?(_ text: ArraySlice<UInt8>) {
        var scanner = Scanner(rest: text)
        guard scanner.skipName(), let standard = scanner.time(hoursMax: 24) else { return nil }
        standardOffset = -standard
        if scanner.rest.isEmpty { return }
        guard scanner.skipName() else { return nil }
        var offset = standardOffset + 3600
        if scanner.rest.first != UInt8(ascii: ",") {
            guard let written = scanner.time(hoursMax: 24) else { return nil }
            offset = -written
        }
        guard scanner.skip(","), let start = scanner.change(), scanner.skip(","),
            let end = scanner.change(), scanner.rest.isEmpty
        else { return nil }
        daylight = Daylight(offset: offset, start: start, end: end)
    }

    func offset(at second: Int64) -> Int {
        guard daylight != nil else { return standardOffset }
        let day = CalendarDate.floorDivide(Int(second), 86_400)
        let year = CalendarDate(uncheckedDaysSinceEpoch: day).year
        let past = changes(years: (year - 1)...(year + 1)).last { $0.second <= second }
        return past?.offset ?? standardOffset
    }

    /// The changes of some years in order; where daylight time ends in the moment it begins again (all
    /// year long, RFC 8536 3.3.1), the beginning comes last and holds.
    func changes(years: ClosedRange<Int>) -> [(second: Int64, offset: Int)] {
        guard let daylight else { return [] }
        var changes: [(second: Int64, offset: Int, begins: Int)] = []
        for year in years {
            let start = daylight.start.second(in: year) - Int64(standardOffset)
            let end = daylight.end.second(in: year) - Int64(daylight.offset)
            changes.append((start, daylight.offset, 1))
            changes.append((end, standardOffset, 0))
        }
        changes.sort { ($0.second, $0.begins) < ($1.second, $1.begins) }
        return changes.map { ($0.second, $0.offset) }
    }
}

extension PosixTimeZone.Change {
    /// Seconds on the clock before the change, from 1970-01-01T00:00:00 on that clock.
    fileprivate func second(in year: Int) -> Int64 {
        let newYear = CalendarDate(uncheckedYear: year, month: 1, day: 1).daysSinceEpoch
        let days: Int
        switch day {
        case .julianWithoutLeapDay(let number):
            days = newYear + number - 1 + (CalendarDate.isLeap(year: year) && number >= 60 ? 1 : 0)
        case .zeroBased(let number):
            days = newYear + number
        case .weekday(let month, let week, let weekday):
            let first = CalendarDate(uncheckedYear: year, month: month, day: 1)
            let ahead = CalendarDate.floorRemainder(weekday - first.isoWeekday, 7)
            let length = CalendarDate.days(inMonth: month, year: year)
            var dayOfMonth = ahead + 1 + (week - 1) * 7
            if dayOfMonth > length { dayOfMonth -= 7 }
            days = first.daysSinceEpoch + dayOfMonth - 1
        }
        return Int64(days) * 86_400 + Int64(seconds)
    }
}

private struct Scanner {
    var rest: ArraySlice<UInt8>

    mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest = rest.dropFirst()
        return true
    }

    /// Three or more letters, or anything of letters, digits and signs in angle brackets.
    mutating func skipName() -> Bool {
        if skip("<") {
            let name = rest.prefix {
                Scanner.isLetter($0) || Scanner.isDigit($0) || $0 == 0x2b || $0 == 0x2d
            }
            rest = rest[name.endIndex...]
            return name.count >= 3 && skip(">")
        }
        let name = rest.prefix(while: Scanner.isLetter)
        rest = rest[name.endIndex...]
        return name.count >= 3
    }

    mutating func number(max: Int) -> Int? {
        let digits = rest.prefix(while: Scanner.isDigit)
        guard (1...3).contains(digits.count), let value = Decimal.value(of: digits), value <= max
        else { return nil }
        rest = rest[digits.endIndex...]
        return value
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    mutating func time(hoursMax: Int) -> Int? {
        let sign = skip("-") ? -1 : 1
        if sign == 1 { _ = skip("+") }
        guard var seconds = number(max: hoursMax).map({ $0 * 3600 }) else { return nil }
        if skip(":") {
            guard let minutes = number(max: 59) else { return nil }
            seconds += minutes * 60
            if skip(":") {
                guard let rest = number(max: 59) else { return nil }
                seconds += rest
            }
        }
        return sign * seconds
    }

    mutating func change() -> PosixTimeZone.Change? {
        guard let day = day() else { return nil }
        var seconds = 7200
        if skip("/") {
            guard let written = time(hoursMax: 167) else { return nil }
            seconds = written
        }
        return PosixTimeZone.Change(day: day, seconds: seconds)
    }

    private mutating func day() -> PosixTimeZone.Change.Day? {
        if skip("J") {
            guard let number = number(max: 365), number >= 1 else { return nil }
            return .julianWithoutLeapDay(number)
        }
        if skip("M") {
            guard let month = number(max: 12), month >= 1, skip("."),
                let week = number(max: 5), week >= 1, skip("."), let day = number(max: 6)
            else { return nil }
            return .weekday(month: month, week: week, day: day)
        }
        return number(max: 365).map { .zeroBased($0) }
    }

    private static func isLetter(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte)
    }
}
