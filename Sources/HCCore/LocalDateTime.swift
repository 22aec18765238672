/// A date and a time of day on a wall clock somewhere: what a receptionist types. Which instant it is
/// depends on the time zone (`TimeZoneRules.instant(of:)`).
package struct LocalDateTime: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let date: CalendarDate
    /// 0 to 86,399.
    package let secondOfDay: Int

    /// - Returns: nil unless hour is 0-23, minute 0-59 and second 0-59.
    package init?(date: CalendarDate, hour: Int, minute: Int, second: Int = 0) {
        guard (0...23).contains(hour), (0...59).contains(minute), (0...59).contains(second) else {
            return nil
        }
        self.init(date: date, secondOfDay: hour * 3600 + minute * 60 + second)
    }

    /// - Parameter secondOfDay: 0 to 86,399; anything else is our bug.
    package init(date: CalendarDate, secondOfDay: Int) {
        precondition((0..<86_400).contains(secondOfDay), "a day has 86,400 seconds")
        self.date = date
        self.secondOfDay = secondOfDay
    }

    package static func midnight(of date: CalendarDate) -> LocalDateTime {
        LocalDateTime(date: date, secondOfDay: 0)
    }

    package var hour: Int { secondOfDay / 3600 }
    package var minute: Int { secondOfDay / 60 % 60 }
    package var second: Int { secondOfDay % 60 }

    /// `2026-03-08T02:30:00`, which names no instant.
    package var description: String {
        var buffer = ByteBuffer()
        buffer.append(self)
        return buffer.string
    }

    package static func < (left: LocalDateTime, right: LocalDateTime) -> Bool {
        (left.date, left.secondOfDay) < (right.date, right.secondOfDay)
    }

    /// Seconds from 1970-01-01T00:00:00 on the same wall clock.
    var clockSeconds: Int64 {
        Int64(date.daysSinceEpoch) * 86_400 + Int64(secondOfDay)
    }
}
