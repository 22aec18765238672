import HCCore

/// The Date field (RFC 9110 6.6.1, IMF-fixdate), made once per second.
///
/// Its bytes lie in it: who hands it on counts nothing.
struct DateLine: Sendable {
    /// "Date: …" with its CRLF: the text is always as long.
    private var line = InlineArray<37, UInt8>(repeating: 0)
    private var second: Int64

    init(_ now: Timestamp) {
        second = now.seconds
        write(now)
    }

    mutating func update(_ now: Timestamp) {
        guard now.seconds != second else { return }
        second = now.seconds
        write(now)
    }

    private mutating func write(_ now: Timestamp) {
        for (place, byte) in "Date: \(DateLine.text(now))\r\n".utf8.enumerated() {
            line[place] = byte
        }
    }

    /// Gives the whole line.
    @inline(__always)
    func withLine<Answer>(_ body: (UnsafeRawBufferPointer) -> Answer) -> Answer {
        line.span.withUnsafeBytes { body($0) }
    }

    /// Gives what the field says.
    func withText<Answer>(_ body: (UnsafeRawBufferPointer) -> Answer) -> Answer {
        withLine { body($0.slice("Date: ".utf8.count..<$0.count - "\r\n".utf8.count)) }
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
