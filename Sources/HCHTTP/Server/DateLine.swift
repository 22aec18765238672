import HCCore

/// The Date field (RFC 9110 6.6.1, IMF-fixdate), made once per second.
struct DateLine: Sendable {
    private(set) var bytes: [UInt8] = []
    private var second = Int64.min

    mutating func update(_ now: Timestamp) {
        guard now.seconds != second else { return }
        second = now.seconds
        bytes = Array("Date: \(DateLine.text(now))\r\n".utf8)
    }

    /// "Sun, 06 Nov 1994 08:49:37 GMT".
    static func text(_ time: Timestamp) -> String {
        let days = time.seconds / 86_400
        let date = CalendarDate(daysSinceEpoch: Int(days)) ?? .first
        let rest = Int(time.seconds % 86_400)
        let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let clock = "\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))"
        let day = "\(two(date.day)) \(months[date.month - 1]) \(date.year)"
        return "\(weekdays[Int(days % 7)]), \(day) \(clock) GMT"
    }
}
